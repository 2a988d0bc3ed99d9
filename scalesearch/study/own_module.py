"""Check whether a user's own module can be searched in a space, before anything is trained."""

import dataclasses
from collections.abc import Iterator
from typing import Final

from scalesearch.compression.fold import foldable_pairs
from scalesearch.compression.prune import prune
from scalesearch.data import Dataset
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.networks.own_module import own_module, replaced_layer
from scalesearch.networks.scaling import scale_base
from scalesearch.tasks.registry import DEFAULT
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.space import Choice, SearchSpace

_TRIED: Final = Pruning(channel_fraction=0.5)


def require_fit(space: SearchSpace, base: NetworkSpec, num_classes: int) -> None:
    """Raise ConfigError if the base network is a module that cannot be run at the space's sizes, traced or cut.

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
                if _cuts_channels(space):
                    prune(Network(spec=spec, module=module), _TRIED, channel_multiple=1)
    except StageFailed as failure:
        message = f"network {base.origin}: {failure.reason.removeprefix(f'{base.origin}: ')}."
        if failure.stage == "prune":
            message += "\nSearch it without: --set pruning.channel_fraction=0"
        raise ConfigError(message) from failure


def require_classification(base: NetworkSpec, task: str) -> None:
    """Raise ConfigError if a user's own module is used for another task than classification."""
    if base.origin and task != DEFAULT:
        message = (
            f"network {base.origin}: expected a base network of scalesearch for {task}, came a torch module, which "
            "gives one row of logits a picture.\nReturn a NetworkSpec from that function, or take another --network."
        )
        raise ConfigError(message)


def fitted_module_notes(space: SearchSpace, base: NetworkSpec, num_classes: int) -> tuple[str, ...]:
    """Check a user's own module as `require_fit` does, and return a line on each change made to it by default.

    Raises:
        ConfigError: As `require_fit`.
    """
    require_fit(space, base, num_classes)
    return tuple(_notes(space, base, num_classes)) if base.origin else ()


def _notes(space: SearchSpace, base: NetworkSpec, num_classes: int) -> Iterator[str]:
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
    """Return the data set with the base network's own normalisation, if it has one."""
    return dataclasses.replace(dataset, mean=base.mean, std=base.std) if base.mean else dataset


def _cuts_channels(space: SearchSpace) -> bool:
    axis = next((named.axis for named in space.axes if named.name == "pruning.channel_fraction"), None)
    return axis is not None and axis != Choice(values=(0.0,))


def _multipliers(space: SearchSpace) -> tuple[float, ...]:
    """Return the resolution multipliers to try: 1, and all listed ones or both ends of a range."""
    axis = next((named.axis for named in space.axes if named.name == "scaling.resolution"), Choice(values=(1.0,)))
    asked = axis.values if isinstance(axis, Choice) else (axis.low, axis.high)
    return tuple(dict.fromkeys((*map(float, asked), 1.0)))
