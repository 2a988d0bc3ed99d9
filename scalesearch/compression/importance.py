"""Groups of layers that lose the same channels, and how important each of those channels is."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from scalesearch.compression.split_channels import split_layers
from scalesearch.errors import StageFailed
from scalesearch.output_layers import output_layer_names
from scalesearch.values.candidate import Criterion

with warnings.catch_warnings():
    # torch_pruning imports modules of torch that warn on import.
    warnings.simplefilter("ignore")
    import torch_pruning as tp

_Importance = Callable[[Any], Tensor | None]

_TAYLOR_IMAGES = 16

# Each function judges one group of coupled layers (Fang et al., DepGraph, arXiv 2301.12900). It returns for each
# channel the mean importance over the group's layers, or None where no layer has what the criterion reads.
_IMPORTANCES: Mapping[Criterion, Callable[[torch.Generator], _Importance]] = MappingProxyType(
    {
        # Li et al., arXiv 1608.08710, section 3.1, and its L2 twin.
        "l2": lambda _: tp.importance.GroupMagnitudeImportance(p=2, normalizer=None),
        "l1": lambda _: tp.importance.GroupMagnitudeImportance(p=1, normalizer=None),
        # Network slimming, Liu et al., arXiv 1708.06519: |gamma|.
        "bn_scale": lambda _: tp.importance.BNScaleImportance(normalizer=None),
        # Molchanov et al., arXiv 1906.10771: |weight * gradient of the loss|, summed over the channel's weights.
        "taylor": lambda _: tp.importance.GroupTaylorImportance(normalizer=None),
        # Not torch-pruning's own random importance, which draws from torch's global generator.
        "random": lambda generator: lambda group: torch.rand(len(group[0].idxs), generator=generator),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Images on which channels are judged, with their targets and the loss."""

    images: Tensor
    """(N, C, H, W), normalised."""
    targets: Tensor
    """(N, ...), of the task's own kind."""
    loss: Callable[[Any, Any], Tensor]
    """Takes what the module returns and the targets, and returns the loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What channels are judged by besides their own weights."""

    batch: Judged | None = None
    """Images with their targets and the task's loss; needed by the criterion `taylor` only."""
    seed: int = 0
    """Seed of the criterion `random`."""


@dataclass(slots=True, kw_only=True)
class Group:
    """Layers that lose the same channels, and how important each channel is."""

    name: str
    root: nn.Module
    handler: Callable[..., Any]
    members: Any
    channels: int
    step: int
    """The number of channels left must be a multiple of it, for layers that normalise channels in groups."""
    importance: Tensor


def graph_of(module: nn.Module, example: Tensor) -> Any:
    """Return the dependency graph of a module in eval mode; `example` is a batch of images (N, C, H, W)."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        # Left to itself it would first try the images as separate arguments: one without the axis of images.
        return tp.DependencyGraph().build_dependency(
            module, example_inputs=example, forward_fn=lambda model, images: model(images)
        )


def groups_of(module: nn.Module, example: Tensor) -> tuple[Any, list[Group]]:
    """Return the dependency graph of a module in eval mode, and its groups in the order of its layers.

    Layers whose channels the forward takes apart (`split_layers`) are in no group: they keep all of them.

    `example` is a batch of images (N, C, H, W).
    """
    graph = graph_of(module, example)
    apart = split_layers(graph)
    names = {layer: name for name, layer in module.named_modules()}
    found = graph.get_all_groups(ignored_layers=output_layers(module), root_module_types=[nn.Conv2d, nn.Linear])
    groups = []
    for members in found:
        if any(_is_grouped(dep.target.module) for dep, _ in members):
            continue  # its groups would have to lose equally many channels
        if any(dep.target.module in apart for dep, _ in members if graph.is_out_channel_pruning_fn(dep.handler)):
            continue
        root, channels, step = members[0].dep.target.module, len(members[0].idxs), _step(members)
        if channels % step:
            continue  # the layer normalises channels of several groups together
        groups.append(
            Group(
                name=names[root],
                root=root,
                handler=members[0].dep.handler,
                members=members,
                channels=channels,
                step=step,
                importance=torch.zeros(channels),
            )
        )
    return graph, groups


def _is_grouped(layer: nn.Module) -> bool:
    """Tell whether it is a convolution in groups of several channels: neither a plain one nor a depthwise one."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups < max(layer.in_channels, layer.out_channels)


def _step(members: Any) -> int:
    """Return the number of which the channels of coupled layers must be a multiple: that of GroupNorm's groups."""
    layers = (dep.target.module for dep, _ in members)
    return math.lcm(*(layer.num_groups for layer in layers if isinstance(layer, nn.GroupNorm)))


def measure_importance(module: nn.Module, groups: Sequence[Group], criterion: Criterion, evidence: Evidence) -> None:
    """Set the importance of every group before anything is removed, so that the order of groups does not matter."""
    if criterion == "bn_scale" and not any(
        isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in module.modules()
    ):
        reason = "criterion bn_scale reads BatchNorm's scales and the network has no BatchNorm: take l1 or l2"
        raise StageFailed(stage="prune", reason=reason)
    judge = _IMPORTANCES[criterion](torch.Generator().manual_seed(evidence.seed))
    # For a group without BatchNorm in a network that has some, such as the squeeze layer of squeeze-and-excitation.
    otherwise = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
    for _ in _gradients(module, evidence.batch) if criterion == "taylor" else (None,):
        with torch.no_grad():
            for group in groups:
                importance = judge(group.members)
                group.importance += (otherwise(group.members) if importance is None else importance).cpu()
    for group in groups:
        # To compare groups, importance is taken relative to the group's mean. If all of it is zero this is 0 / 0, and
        # the whole group gets importance 0.
        group.importance = torch.nan_to_num(group.importance / group.importance.mean(), nan=0.0)


def _gradients(module: nn.Module, batch: Judged | None) -> Iterator[None]:
    """Put the gradient of the loss on the next few images into every weight, and yield after each step.

    Only a few images at a time, since importance is averaged over minibatches (arXiv 1906.10771): over all images, the
    gradient of a trained network is near zero, whatever its channels do.
    """
    if batch is None:
        reason = "criterion taylor reads gradients and needs a batch of images and targets: give one, or take l1 or l2"
        raise StageFailed(stage="prune", reason=reason)
    device = next(module.parameters()).device
    parts = (torch.split(part.to(device), _TAYLOR_IMAGES) for part in (batch.images, batch.targets))
    for images, targets in zip(*parts, strict=True):
        module.zero_grad(set_to_none=True)
        with torch.enable_grad():
            torch.autograd.backward(batch.loss(module(images), targets))
        yield


def output_layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers whose outputs are answers: those named by the module, else its last linear layer."""
    names = output_layer_names(module)
    if names:
        return [module.get_submodule(name) for name in names]
    layers: list[nn.Module] = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return layers[-1:]
