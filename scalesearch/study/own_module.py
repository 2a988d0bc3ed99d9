"""Whether a module of the user's can be searched in a space, found out before anything is trained."""

import dataclasses
from collections.abc import Iterator

from scalesearch.compression.fold import foldable_pairs
from scalesearch.data import Dataset
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.networks.own_module import own_module, replaced_layer
from scalesearch.study.reference import scale_base
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.space import Choice, SearchSpace


def require_fit(space: SearchSpace, base: NetworkSpec, num_classes: int) -> None:
    """Raise ConfigError if the base network is a module that cannot be run at the space's sizes, or not be traced.

    Other networks are built to fit and are not looked at.
    """
    if not base.origin:
        return
    try:
        specs = dict.fromkeys(
            scale_base(space, base, Scaling(resolution=multiplier), num_classes) for multiplier in _multipliers(space)
        )
        for place, spec in enumerate(specs):
            module = own_module(spec, seed=0)
            if not place:
                foldable_pairs(module)
    except StageFailed as failure:
        message = f"network {failure.reason}."
        raise ConfigError(message) from failure


def module_notes(space: SearchSpace, base: NetworkSpec, num_classes: int) -> Iterator[str]:
    """Yield a line on each thing that is done to a module of the user's, or taken from it, without being asked."""
    if not base.origin:
        return
    if not space.resolution_multiple:
        yield (
            f"network: {base.origin} does not tell its total stride, so resolutions are multiples of "
            f"{base.total_stride} (resolution_multiple overrides it)"
        )
    if line := replaced_layer(scale_base(space, base, Scaling(), num_classes)):
        yield line
    if base.mean:
        told = ("(" + ", ".join(f"{value:.4g}" for value in values) + ")" for values in (base.mean, base.std))
        yield "network: images are normalised as the module says, mean {}, std {}".format(*told)


def normalised(dataset: Dataset, base: NetworkSpec) -> Dataset:
    """Return the data set with the normalisation that the base network asks for, where it does."""
    return dataclasses.replace(dataset, mean=base.mean, std=base.std) if base.mean else dataset


def _multipliers(space: SearchSpace) -> tuple[float, ...]:
    """Return the multipliers of the resolution to try: all listed ones or both ends of a range, and that of 1."""
    axis = next((named.axis for named in space.axes if named.name == "scaling.resolution"), Choice(values=(1.0,)))
    asked = axis.values if isinstance(axis, Choice) else (axis.low, axis.high)
    return tuple(dict.fromkeys((*map(float, asked), 1.0)))
