"""Track every single weight through a cut, so that the optimizer's moments of the remaining weights can be kept."""

import copy
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

Moments = Mapping[str, Mapping[str, Tensor]]
"""Optimizer moments of a parameter's shape (or single numbers), by the parameter's and then the moment's name."""
NEW: Final = -1
"""What a numbered copy holds for weights that the module did not have."""


def numbered(module: nn.Module) -> nn.Module:
    """Return a copy of the module whose parameters hold the numbers 0, 1, 2, ... instead of weights.

    The copy is cut together with the module. What is left then tells where each remaining weight was; weights that are
    new get `NEW`. float64 holds whole numbers up to 2^53 exactly.
    """
    follower = copy.deepcopy(module).double()
    with torch.no_grad():
        for place in _places(module):
            ids = torch.arange(place.start, place.start + place.parameter.numel(), dtype=torch.float64)
            follower.get_parameter(place.name).copy_(ids.view(place.parameter.shape))
    return follower


def kept_moments(moments: Moments, before: nn.Module, follower: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the moments of the weights left after a cut; those of new weights are 0.

    Parameters that are new as a whole get no moments, so the optimizer starts anew for them.

    Args:
        moments: Moments of the module before the cut; parameters without moments are skipped.
        before: The module before the cut.
        follower: `numbered(before)` after the same cut.
    """
    places = list(_places(before))
    starts = torch.tensor([place.start for place in places])
    kept: dict[str, dict[str, Tensor]] = {}
    for name, parameter in follower.named_parameters():
        ids = parameter.detach().long()
        known = ids != NEW
        if not known.any():
            continue
        place = places[int(torch.searchsorted(starts, ids[known].min(), right=True)) - 1]
        own = (ids - place.start).where(known, 0)
        kept[name] = {
            kind: moment.reshape(-1)[own].where(known, 0) if moment.ndim else moment.clone()
            for kind, moment in moments.get(place.name, {}).items()
        }
    return {name: held for name, held in kept.items() if held}


class _Place(NamedTuple):
    """A parameter, and the number of its first entry."""

    name: str
    parameter: nn.Parameter
    start: int


def _places(module: nn.Module) -> Iterator[_Place]:
    start = 0
    for name, parameter in module.named_parameters():
        yield _Place(name, parameter, start)
        start += parameter.numel()
