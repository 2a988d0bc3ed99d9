"""Channel pruning: remove the least important channels, together with everything that depends on them."""

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from scalesearch.compression.channels_left import by_rank, by_ratio, named_ratios, widths_before
from scalesearch.compression.importance import Evidence, Group, Judged, graph_of, groups_of, measure_importance
from scalesearch.compression.split_channels import split_layers
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShares:
    """Fractions of single layers to remove, and widths that fractions refer to, where these are not the usual ones."""

    ratios: Mapping[str, float] | None = None
    """Fraction to remove of each layer, by the names of `prunable_widths`, instead of `channel_fraction` and `scope`.
    Layers that are not named keep all channels."""
    widths: Mapping[str, int] | None = None
    """The widths that the fractions refer to, for a network that has already lost channels in earlier rounds:
    `prunable_widths` of the network before the first round. In `uniform` scope the last round then leaves the same
    shape as a single round would."""


_WEIGHTS_ALONE, _ALL_ALIKE = Evidence(), LayerShares()


def prune(
    network: Network,
    pruning: Pruning,
    *,
    channel_multiple: int,
    evidence: Evidence = _WEIGHTS_ALONE,
    layers: LayerShares = _ALL_ALIKE,
    follower: nn.Module | None = None,
) -> Network:
    """Remove about `channel_fraction` of the channels, the least important ones by `criterion`.

    `uniform` scope removes that fraction of every prunable layer. The number of channels left in a layer then depends
    only on its width, never on weights or criterion (`channels_left`), so an untrained network already shows the cost
    of the pruned one. `global` scope ranks the channels of all layers together. Layers then lose different fractions,
    and the shape depends on the weights. In this scope, `channel_multiple` channels of a layer stay or leave together,
    judged by their mean importance, because latency changes in steps of whole multiples (HALP, Shen et al., arXiv
    2110.10811).

    The outputs of the module's `output_layers` are never removed, nor channels that the module's forward takes apart
    (`split_channels`).

    Args:
        network: On any device; it is not changed.
        pruning: Only its channel fields are read; blocks and zeros inside weights have modules of their own.
        channel_multiple: The widths left are multiples of it, and of the number of groups where a GroupNorm follows.
        evidence: What the criteria `taylor` and `random` read.
        layers: Fractions and widths of single layers.
        follower: A module of the same structure, which loses the same channels, in place.

    Returns:
        A pruned copy in the same mode; the network itself if all fractions are 0.

    Raises:
        StageFailed: A fraction is not in [0, 1), the multiple is below 1, a name is not prunable, a width is missing,
            or the network or the call lacks what the criterion reads; a user's own module cannot be cut, or a layer
            did not lose what was chosen.
    """
    ratios = layers.ratios
    fractions = (pruning.channel_fraction,) if ratios is None else tuple(ratios.values())
    if not all(0 <= fraction < 1 for fraction in fractions) or channel_multiple < 1:
        reason = f"channel_fraction must be in [0, 1) and the multiple at least 1: {fractions} and {channel_multiple}"
        raise StageFailed(stage="prune", reason=reason)
    if not any(fractions):
        return network
    module = copy.deepcopy(network.module)
    with _evaluating(module), _foreign(network, module):
        graph, groups = groups_of(module, _example_images(network))
        if network.spec.origin and not groups and split_layers(graph):
            reason = (
                f"the channels of {network.spec.origin} cannot be cut: its forward splits, shuffles or reshapes those "
                "of each layer"
            )
            raise StageFailed(stage="prune", reason=reason)
        measure_importance(module, groups, pruning.criterion, evidence)
        before = widths_before(groups, layers.widths)
        if ratios is not None:
            chosen = by_ratio(groups, named_ratios(ratios, before), before, channel_multiple)
        elif pruning.scope == "global":
            chosen = by_rank(groups, pruning.channel_fraction, before, channel_multiple)
        else:
            chosen = by_ratio(groups, dict.fromkeys(before, pruning.channel_fraction), before, channel_multiple)
        _remove_least(graph, groups, chosen)
        if follower is not None:
            _follow(follower, network, graph)
    if not any(chosen):
        _log.info("nothing pruned: no layer of %s has %d channels to spare", network.spec.name, channel_multiple)
    return _finished(network, module)


def cut_to(network: Network, widths: Mapping[str, int], *, batch: Judged, follower: nn.Module | None = None) -> Network:
    """Keep the given number of channels of each layer: those that matter most by the criterion `taylor`.

    Args:
        network: On any device, in eval mode; it is not changed.
        widths: Channels to keep, by the names of `prunable_widths`. A layer that has no more than these, or is not
            named, keeps all. Other names are ignored.
        batch: Images with their targets and the task's loss.
        follower: A module of the same structure, which loses the same channels, in place.

    Returns:
        A copy in eval mode; the network itself if nothing leaves.
    """
    module = copy.deepcopy(network.module)
    graph, groups = groups_of(module, _example_images(network))
    chosen = [max(0, group.channels - widths.get(group.name, group.channels)) for group in groups]
    if not any(chosen):
        return network
    measure_importance(module, groups, "taylor", Evidence(batch=batch))
    _remove_least(graph, groups, chosen)
    if follower is not None:
        _follow(follower, network, graph)
    return _finished(network, module)


def _remove_least(graph: Any, groups: Sequence[Group], chosen: Sequence[int]) -> None:
    """Remove the chosen number of channels from each group, in place: the least important ones.

    Raises:
        StageFailed: More channels left a layer than were chosen: those of two groups hang together.
    """
    for group, excess in zip(groups, chosen, strict=True):
        if excess > 0:
            least = torch.argsort(group.importance, stable=True)[:excess].tolist()
            graph.get_pruning_group(group.root, group.handler, idxs=least).prune()
    for group, excess in zip(groups, chosen, strict=True):
        left, expected = graph.get_out_channels(group.root), group.channels - excess
        if left != expected or left < 1:
            reason = (
                f"{group.name} has {left} of {group.channels} channels after the cut, expected {expected}: its forward "
                "takes them apart or joins them in a way that is not known here"
            )
            raise StageFailed(stage="prune", reason=reason)


def _finished(network: Network, module: nn.Module) -> Network:
    """Return the network with its cut copy."""
    module.zero_grad(set_to_none=True)
    return Network(spec=network.spec, module=module)


def _follow(follower: nn.Module, network: Network, graph: Any) -> None:
    """Remove from the follower, in place, what was removed from the network's copy by its dependency graph.

    The follower may hold float64, but its own graph is traced in the network's type: a user's forward may take
    no other.

    Raises:
        StageFailed: Other channels left it than left the network's copy.
    """
    held = {name: parameter.data for name, parameter in follower.named_parameters()}
    follower.to(next(network.module.parameters()).dtype)
    with _evaluating(follower):
        traced = graph_of(follower, _example_images(replace(network, module=follower)))
        for name, parameter in follower.named_parameters():
            parameter.data = held[name]
        traced.load_pruning_history(graph.pruning_history())
    for name, parameter in graph.model.named_parameters():
        came, expected = tuple(follower.get_parameter(name).shape), tuple(parameter.shape)
        if came != expected:
            reason = f"the same cut left {name} {came} in a copy of the network, expected {expected}"
            raise StageFailed(stage="prune", reason=reason)


def prunable_widths(network: Network) -> dict[str, int]:
    """Return the channels of every group of layers that are pruned together, by the name of the group's first layer."""
    return {group.name: group.channels for group in prunable_groups(network)}


def prunable_groups(network: Network) -> list[Group]:
    """Return the groups of layers of a copy of the network that are pruned together, not yet judged."""
    module = copy.deepcopy(network.module)
    with _evaluating(module), _foreign(network, module):
        return groups_of(module, _example_images(network))[1]


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put the module into eval mode inside the block, then restore each layer's own mode.

    In training mode a run would change BatchNorm's statistics and draw random numbers.
    """
    training = [layer.training for layer in module.modules()]
    module.eval()
    yield
    for layer, mode in zip(module.modules(), training, strict=True):
        layer.training = mode


@contextlib.contextmanager
def _foreign(network: Network, module: nn.Module) -> Iterator[None]:
    """Check that a user's own module still works after it was cut inside the block.

    It may contain operations that the dependency graph does not know: channels in groups, shuffles, reshapes.

    Raises:
        StageFailed: It could not be cut, no longer runs, or has lost outputs.
    """
    if not network.spec.origin:
        yield
        return
    try:
        yield
        with torch.no_grad():
            outputs = module(_example_images(network)).shape[1]
        if outputs != network.spec.num_classes:
            reason = f"{network.spec.origin} has {outputs} outputs after the cut, expected {network.spec.num_classes}"
            raise StageFailed(stage="prune", reason=reason)
    except StageFailed:
        raise
    except Exception as error:  # the graph runs the module's own forward, and knows few of the operations there are
        said = (str(error).splitlines() or [""])[0]
        reason = f"the channels of {network.spec.origin} cannot be cut: {type(error).__name__}: {said}"
        raise StageFailed(stage="prune", reason=reason) from error


def _example_images(network: Network) -> Tensor:
    """Return one image of the smallest size, which gives a 1x1 last feature map.

    The dependency graph does not depend on the size. A user's own module gets images of its own size, however, since it
    may accept no others.
    """
    spec, weight = network.spec, next(network.module.parameters())
    sides = spec.input_size.sides if spec.origin else (spec.total_stride, spec.total_stride)
    return torch.zeros(1, spec.image_channels, *sides, dtype=weight.dtype, device=weight.device)
