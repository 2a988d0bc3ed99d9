"""Make a trained network smaller, round by round: leave out blocks, channels and single weights."""

import dataclasses
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.importance import Evidence, Judged
from scalesearch.compression.prune import LayerShares, prunable_widths, prune
from scalesearch.compression.sensitivity import LayerSensitivity, channel_sensitivity, ratios_from_sensitivity
from scalesearch.compression.sparsity import masked, sparsity_masks
from scalesearch.data import Dataset, to_input
from scalesearch.host import images_at_once
from scalesearch.tasks.base import Task
from scalesearch.tasks.hooks import plain_loss, score_torch
from scalesearch.training.answers import together
from scalesearch.values.candidate import Pruning
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan

_JUDGING_IMAGES = 256
_TAYLOR_IMAGES = 128
_SENSITIVITY_FRACTIONS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
_DATA_FREE = ("l1", "l2", "bn_scale")


class Cutter:
    """Prunes one plan's network round by round. It judges on calibration images, which are never trained on."""

    def __init__(self, plan: Plan, data: Dataset, task: Task, *, channel_multiple: int) -> None:
        self._task, self._metric = task, task.make_metric(data.class_names)
        self._plain_loss = plain_loss(task, plan.candidate.recipe)
        self._plan, self._pruning, self._multiple = plan, plan.pruning, channel_multiple
        self._data, self._step = data, images_at_once(*data.size.sides)
        self._wanted = data.calibration.targets[:_JUDGING_IMAGES]
        self._targets = self._wanted.tensor()[:]  # large masks are unpacked when they are indexed
        self._widths: dict[str, int] = {}
        self._ratios: dict[str, float] | None = None
        self.masks: dict[str, torch.Tensor] = {}
        """Masks by weight name, False where further training must keep a weight at zero."""

    def cut(self, network: Network, number: int, *, follower: nn.Module | None = None) -> Network:
        """Return the network of round `number` (from 1), pruned but not yet trained on.

        `follower` is a module of the same structure, which loses the same blocks and channels, in place.
        """
        pruning = self._pruning
        if number == 1 and pruning.block_fraction > 0:
            network = drop_blocks(network, pruning.block_fraction, loss_without=self._loss, follower=follower)
        if pruning.channel_fraction > 0:
            network = self._fewer_channels(network, number, follower)
        if number == pruning.rounds and pruning.sparsity != "none":
            self.masks = sparsity_masks(network, pruning)
            network = masked(network, self.masks)
        return network

    def _fewer_channels(self, network: Network, number: int, follower: nn.Module | None) -> Network:
        pruning = self._pruning
        if number == 1:
            self._widths = dict(prunable_widths(network))
            if pruning.scope == "sensitivity":
                self._ratios = ratios_from_sensitivity(
                    self.sensitivity(network), budget_fraction=pruning.channel_fraction
                )
        share = number / pruning.rounds
        ratios = None if self._ratios is None else {name: share * each for name, each in self._ratios.items()}
        judged = None
        if pruning.criterion == "taylor":
            images, targets = self._images(0, _TAYLOR_IMAGES), self._targets[:_TAYLOR_IMAGES]
            judged = Judged(images=images, targets=targets, loss=self._plain_loss)
        return prune(
            network,
            replace(pruning, channel_fraction=share * pruning.channel_fraction),
            channel_multiple=self._multiple,
            evidence=Evidence(batch=judged, seed=seed_from("prune", self._plan.shape_key, number)),
            layers=LayerShares(ratios=ratios, widths=self._widths),
            follower=follower,
        )

    @property
    def images(self) -> int:
        """Number of calibration images on which networks are judged."""
        return len(self._targets)

    def sensitivity(self, network: Network) -> tuple[LayerSensitivity, ...]:
        """Measure, for each layer, how much the score drops when channels are removed from that layer alone."""
        return channel_sensitivity(
            network,
            fractions=_SENSITIVITY_FRACTIONS,
            score=self.score,
            channel_multiple=self._multiple,
            criterion=self._pruning.criterion if self._pruning.criterion in _DATA_FREE else "l2",
        )

    def score(self, network: Network) -> float:
        """Return the score on these calibration images, as a fraction."""
        return score_torch(self._task, self._metric, [self._answers(network)], self._wanted)

    def _loss(self, network: Network) -> float:
        return float(self._plain_loss(self._answers(network), self._targets))

    def _answers(self, network: Network) -> Any:
        module, starts = network.module.eval(), range(0, self.images, self._step)
        with torch.inference_mode():
            return together(module(self._images(start, min(start + self._step, self.images))) for start in starts)

    def _images(self, start: int, stop: int) -> torch.Tensor:
        """Return some of the calibration images, normalised, float32 (n, C, H, W)."""
        images = self._data.calibration.images[start:stop]
        return torch.from_numpy(to_input(images, mean=self._data.mean, std=self._data.std))


def cut_on_paper(dense: Network, asked: Pruning, *, channel_multiple: int) -> tuple[Network, Network]:
    """Return the network without the blocks that pruning removes, and the same also without the channels.

    Where the shape depends on the weights (`Pruning.shape_follows_weights`), both shapes are estimates: other scopes
    are replaced by uniform pruning, and the first blocks are removed instead of the least important ones.
    """
    network = dense
    if asked.block_fraction > 0:
        network = drop_blocks(dense, asked.block_fraction, loss_without=lambda _: 0.0)
    plain = dataclasses.replace(asked, criterion="l2", scope="uniform")  # the rounds end at the same widths
    return network, prune(network, plain, channel_multiple=channel_multiple)
