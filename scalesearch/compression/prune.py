"""Channel pruning: the channels of least weight leave, layer by layer, together with all that depends on them."""

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network

with warnings.catch_warnings():
    # It brings modules of torch that warn when they are imported.
    warnings.simplefilter("ignore")
    import torch_pruning as tp

_log = logging.getLogger(__name__)


def prune(network: Network, pruning: Pruning, *, channel_multiple: int) -> Network:
    """The network with about `channel_fraction` of the channels of every prunable layer removed.

    The channels left in a layer depend on its width alone, never on the weights (`channels_left`), so an untrained
    network tells the cost of the pruned one. Which channels leave depends on the weights: those with the smallest L2
    norm, averaged over all coupled layers (Fang et al., DepGraph, arXiv 2301.12900). The classifier's outputs stay.
    With `channel_fraction` 0 the network itself comes back; otherwise a copy, in the same mode.

    Raises:
        StageFailed: The fraction is not in [0, 1), or the multiple is below 1.
    """
    fraction = pruning.channel_fraction
    if not 0 <= fraction < 1 or channel_multiple < 1:
        reason = f"channel_fraction must be in [0, 1) and the multiple at least 1: {fraction} and {channel_multiple}"
        raise StageFailed(stage="prune", reason=reason)
    if fraction == 0:
        return network
    module = copy.deepcopy(network.module)
    removed = _prune_module(module, _example_images(network), fraction, channel_multiple)
    if not removed:
        _log.info("nothing pruned: no layer of %s has %d channels to spare", network.spec.name, channel_multiple)
    return Network(spec=network.spec, module=module)


def channels_left(channels: int, *, fraction: float, multiple: int) -> int:
    """Channels that a layer of `channels` keeps: the nearest multiple to (1 - fraction) of them.

    Never fewer than `multiple` and never more than there are; a tie keeps more.
    """
    nearest = int(channels * (1 - fraction) / multiple + 0.5) * multiple
    return min(channels, max(multiple, nearest))


def _prune_module(module: nn.Module, example: torch.Tensor, fraction: float, multiple: int) -> int:
    """Prunes in place; gives the number of channels removed over all groups of coupled layers."""
    training = [layer.training for layer in module.modules()]
    # The trace runs the network: in training mode it would move BatchNorm's statistics and draw random numbers.
    module.eval()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(module, example_inputs=example)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    # All norms are taken before anything is removed, so that the order of the groups does not matter.
    chosen: list[tuple[nn.Module, Callable[..., Any], list[int]]] = []
    for group in graph.get_all_groups(ignored_layers=_class_layers(module), root_module_types=[nn.Conv2d, nn.Linear]):
        root, channels = group[0].dep.target.module, len(group[0].idxs)
        excess = channels - channels_left(channels, fraction=fraction, multiple=multiple)
        if excess > 0:
            with torch.no_grad():
                order = torch.argsort(importance(group), stable=True)
            chosen.append((root, group[0].dep.handler, order[:excess].tolist()))
    for root, handler, indices in chosen:
        graph.get_pruning_group(root, handler, idxs=indices).prune()
    for layer, mode in zip(module.modules(), training, strict=True):
        layer.training = mode
    return sum(len(indices) for _, _, indices in chosen)


def _class_layers(module: nn.Module) -> list[nn.Module]:
    """The last linear layer: its outputs are the classes."""
    layers: list[nn.Module] = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return layers[-1:]


def _example_images(network: Network) -> torch.Tensor:
    """The smallest image that gives a 1x1 last feature map: the dependency graph does not depend on the size."""
    side, weight = network.spec.total_stride, next(network.module.parameters())
    return torch.zeros(1, network.spec.image_channels, side, side, dtype=weight.dtype, device=weight.device)
