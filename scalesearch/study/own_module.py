"""Check whether a user's own module can be searched in a space, before anything is trained."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Final

from scalesearch.compression.fold import fold_batchnorm, foldable_pairs
from scalesearch.compression.kept_entries import numbered
from scalesearch.compression.prune import prune
from scalesearch.compression.simulation import STAGE as SIMULATION
from scalesearch.compression.simulation import Simulation
from scalesearch.data import Dataset
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.networks import find_spec
from scalesearch.networks.last_layer import require_trainable
from scalesearch.networks.own_module import (
    code_reader,
    code_sha256,
    normalisation_source,
    outputs_of,
    own_module,
    replaced_layer,
    require_unit_constants,
)
from scalesearch.networks.scaling import scale_base
from scalesearch.networks.validity import require_unit_pixels
from scalesearch.spaces.axes import axis_of
from scalesearch.tasks.registry import DEFAULT
from scalesearch.values.candidate import Pruning, Quantization, Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.session import Session
from scalesearch.values.space import AUTO, Choice, SearchSpace

_CUT: Final = "pruning.channel_fraction"
_LEAST_CLASSES: Final = 2
_WAYS_OUT: Final = {
    "prune": "\nSearch it without: --set pruning.channel_fraction=0",
    SIMULATION: "\nSearch it without updates with simulated rounding: --set quantization.qat_steps=0",
}


def require_fit(
    space: SearchSpace, base: NetworkSpec, num_classes: int, *, channel_multiple: int = 1, begun: bool = False
) -> None:
    """Raise ConfigError if the base network is a module that cannot be run or trained at the space's sizes, or cut.

    The same holds for one whose rounding cannot be simulated, where the space may ask for that. Other networks are
    built to fit and are not looked at.

    Args:
        space: Its sizes and its fractions of channels are tried, and its updates with simulated rounding.
        base: The base network.
        num_classes: Number of classes of the data.
        channel_multiple: The number of channels left in a layer is a multiple of it, as the target wants.
        begun: Whether a study goes on. In one of an earlier version, only the trials whose rounding cannot be simulated
            failed, so the others may go on.
    """
    if not base.origin:
        return
    try:
        specs = dict.fromkeys(
            scale_base(space, base, Scaling(resolution=multiplier), num_classes) for multiplier in _multipliers(space)
        )
        for place, spec in enumerate(specs):
            module = own_module(spec, seed=0)
            require_trainable(module, spec)
            if not place:
                foldable_pairs(module)
                for fraction in _fractions(space):
                    pruning = Pruning(channel_fraction=fraction)
                    network, follower = Network(spec=spec, module=module), numbered(module)
                    prune(network, pruning, channel_multiple=channel_multiple, follower=follower)
                if _asks_to_simulate(space) and not begun:
                    _require_simulation(Network(spec=spec, module=module))
    except StageFailed as failure:
        raise _unfit(base, failure) from failure


def with_outputs(space: SearchSpace, base: NetworkSpec) -> NetworkSpec:
    """Return the base network with as many classes as a user's own module has outputs, while no data tell how many.

    Other networks are returned as they are.

    Raises:
        ConfigError: The module cannot be run at the space's size.
    """
    if not base.origin:
        return base
    try:
        outputs = outputs_of(scale_base(space, base, Scaling()))
    except StageFailed as failure:
        raise _unfit(base, failure) from failure
    return dataclasses.replace(base, num_classes=max(_LEAST_CLASSES, outputs))


def _unfit(base: NetworkSpec, failure: StageFailed) -> ConfigError:
    """Return the error for a module that cannot be searched, with a way out if there is one."""
    message = f"network {base.origin}: {failure.reason.removeprefix(f'{base.origin}: ')}."
    return ConfigError(message + _WAYS_OUT.get(failure.stage, ""))


def require_classification(base: NetworkSpec, task: str) -> None:
    """Raise ConfigError if a user's own module is used for another task than classification."""
    if base.origin and task != DEFAULT:
        message = (
            f"network {base.origin}: expected a base network of scalesearch for {task}, came a torch module, which "
            "gives one row of logits a picture.\nReturn a NetworkSpec from that function, or take another --network."
        )
        raise ConfigError(message)


def require_same_code(session: Session) -> None:
    """Raise ConfigError if the code of a user's own module, or its weights, is not what the study was run with.

    The code of a study that was made before its hash was stored, or by another Python or torch, is not looked at.
    """
    if not session.base.origin or not session.code_sha256:
        return
    if not session.may_have_code(code_sha256(session.base), read_by=code_reader()):
        message = (
            f"network {session.base.origin}: its code is not what the study in {session.folder} was run with: another "
            "forward, or other layers.\nPut the old code back, or search the new one in a study of its own."
        )
        raise ConfigError(message)


def fitted_module_notes(
    space: SearchSpace, base: NetworkSpec, dataset: Dataset, *, channel_multiple: int = 1, begun: bool = False
) -> tuple[str, ...]:
    """Check a user's own module as `require_fit` does, and return a line on each change made to it by default.

    Another line tells by which constants its images are normalised.

    Args:
        space: The search space.
        base: The base network.
        dataset: The data, normalised as they are in the search.
        channel_multiple: As in `require_fit`.
        begun: As in `require_fit`.

    Raises:
        ConfigError: As `require_fit`.
    """
    require_fit(space, base, len(dataset.class_names), channel_multiple=channel_multiple, begun=begun)
    return tuple(_notes(space, base, dataset)) if base.origin else ()


_SOURCES: Final = {
    "attributes": "as the module's attributes mean and std say",
    "pretrained_cfg": "as the module's pretrained_cfg says",
    "itself": "not at all: the module has buffers or parameters mean and std, with which it normalises by itself",
    "": "by the data set's constants, since the module names none",
}


def _notes(space: SearchSpace, base: NetworkSpec, dataset: Dataset) -> Iterator[str]:
    if not space.resolution_multiple:
        yield (
            f"network: {base.origin} does not tell its total stride, so resolutions are multiples of "
            f"{base.total_stride} (resolution_multiple overrides it)"
        )
    if line := replaced_layer(scale_base(space, base, Scaling(), len(dataset.class_names))):
        yield line
    source = normalisation_source(base)
    how = _SOURCES[source]
    if source == "itself" and not _left_alone(base):  # see `as_begun`
        by = "the module's mean and std" if base.mean else "the data set's constants"
        how = (
            f"by {by}, as when this study was begun, and again by the module, which has buffers or parameters mean and "
            "std (--fresh normalises once)"
        )
    told = ("(" + ", ".join(f"{value:.4g}" for value in values) + ")" for values in (dataset.mean, dataset.std))
    yield "network: images are normalised {} (mean {}, std {})".format(how, *told)


def _left_alone(base: NetworkSpec) -> bool:
    """Tell whether images are given to the network in 0..1, as they are."""
    return bool(base.mean) and set(base.mean) == {0} and set(base.std) == {1}


def base_of(network: str, stored: Session | None) -> NetworkSpec:
    """Return the base network of that name.

    Raises:
        ConfigError: There is none, it cannot be built, or it asks a new study to normalise pixels in 0..255.
    """
    base = find_spec(network)
    if stored is None:
        require_unit_pixels(base)
    return base


def as_begun(base: NetworkSpec, stored: Session | None) -> NetworkSpec:
    """Return the base network with the normalisation that the study was begun with.

    Earlier versions normalised the images of a module that normalises by itself, too, by the data set's constants or by
    the module's: such a study goes on so.

    Raises:
        ConfigError: In a new study, such a module expects pixels in 0..255 (`require_unit_constants`).
    """
    if not base.origin or not base.mean or normalisation_source(base) != "itself":
        return base
    if stored and stored.base.origin_sha256 == base.origin_sha256:
        return dataclasses.replace(base, mean=stored.base.mean, std=stored.base.std)
    require_unit_constants(base)
    return base


def normalised(dataset: Dataset, base: NetworkSpec) -> Dataset:
    """Return the data set with the base network's own normalisation, if it has one."""
    return dataclasses.replace(dataset, mean=base.mean, std=base.std) if base.mean else dataset


def _asks_to_simulate(space: SearchSpace) -> bool:
    """Tell whether a candidate may get updates with simulated rounding, which only int8 has."""
    axis = axis_of(space.axes, "quantization.precision")
    precisions = axis.values if isinstance(axis, Choice) else ()
    steps = _asked(space, "quantization.qat_steps", default=0.0)
    return max(steps) > 0 and not {"int8", *AUTO.values}.isdisjoint(precisions)


def _require_simulation(network: Network) -> None:
    """Raise StageFailed if the rounding of the folded network's int8 files cannot be simulated."""
    module = copy.deepcopy(network.module).eval()
    folded = fold_batchnorm(dataclasses.replace(network, module=module))
    Simulation(folded.module, Quantization(precision="int8"), "tensorrt")


def _fractions(space: SearchSpace) -> tuple[float, ...]:
    """Return the fractions of channels to try: all listed ones above 0, or both ends of a range."""
    return tuple(fraction for fraction in _asked(space, _CUT, default=0.0) if fraction > 0)


def _multipliers(space: SearchSpace) -> tuple[float, ...]:
    """Return the resolution multipliers to try: 1, and all listed ones or both ends of a range."""
    return tuple(dict.fromkeys((*_asked(space, "scaling.resolution", default=1.0), 1.0)))


def _asked(space: SearchSpace, name: str, *, default: float) -> tuple[float, ...]:
    """Return the values of an axis, or both ends of its range; the default where the space has no such axis."""
    axis = axis_of(space.axes, name) or Choice(values=(default,))
    return tuple(map(float, axis.values if isinstance(axis, Choice) else (axis.low, axis.high)))
