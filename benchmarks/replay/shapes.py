"""The networks of the default space that the table holds: every combination of multipliers and cuts, or a sample."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from scalesearch.config import load_run
from scalesearch.spaces.axes import axis_of
from scalesearch.values.candidate import (
    CalibrationMethod,
    Candidate,
    Precision,
    Pruning,
    Quantization,
    Recipe,
    Scaling,
    StageScaling,
)
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

SPACE: Final = "resnet_small"
ALIKE: Final = "training.steps=480"
"""A table has one length; which of several a search may choose, `replay.lengths` adds by itself."""
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "int8")
CALIBRATION: Final[CalibrationMethod] = "minmax"
AXES: Final = {
    "resolution": "scaling.resolution",
    "depth": "scaling.depth",
    "width": "scaling.width",
    "kernel": "scaling.kernel",
    "cut": "pruning.channel_fraction",
}
"""Fields of `Shape` with the axes of the space that they stand for."""

SECONDS_AT_240: Final = (11.1, 2.11)
"""CPU seconds of a training of 240 updates: a constant, and what each million MACs adds. Fitted to the sixteen dense
networks of `benchmarks/results/rank_fidelity_wsd_grocery42.jsonl`, trained at batch 64 on a busy machine."""
BRANCH_SHARE: Final = Recipe().branch_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One network of the space, by its multipliers and the fraction of the channels that is cut."""

    resolution: float
    depth: float
    width: float
    kernel: float
    cut: float = 0.0
    stages: tuple[tuple[float, float, float], ...] = ()
    """Width, depth and kernel of each stage, on top of the others; empty in a space that scales all stages alike."""

    @property
    def name(self) -> str:
        """Short and unique."""
        cut = f" -{100 * self.cut:.0f}%" if self.cut else ""
        widths, depths, kernels = (
            "/".join(f"{each:g}" for each in own)
            for own in zip((self.width, self.depth, self.kernel), *self.stages, strict=True)
        )
        return f"r{self.resolution:g} w{widths} d{depths} k{kernels}{cut}"

    @property
    def trunk(self) -> "Shape":
        """The network whose trunk it is cut from; a dense network is its own."""
        return replace(self, cut=0.0)

    def candidate(self, *, steps: int, precision: Precision = "fp32") -> Candidate:
        """Return the network as a candidate of the space."""
        return Candidate(
            scaling=Scaling(
                resolution=self.resolution,
                depth=self.depth,
                width=self.width,
                kernel=self.kernel,
                stages=tuple(
                    StageScaling(width=width, depth=depth, kernel=kernel) for width, depth, kernel in self.stages
                ),
            ),
            pruning=Pruning(channel_fraction=self.cut),
            quantization=Quantization(precision=precision, calibration=CALIBRATION),
            recipe=Recipe(steps=steps),
        )


def shape_of(candidate: Candidate) -> Shape:
    """Return the network of a candidate."""
    scaling = candidate.scaling
    return Shape(
        resolution=scaling.resolution,
        depth=scaling.depth,
        width=scaling.width,
        kernel=scaling.kernel,
        cut=candidate.pruning.channel_fraction,
        stages=tuple((each.width, each.depth, each.kernel) for each in scaling.stages),
    )


def table_space() -> SearchSpace:
    """Return the default space with the precisions that the table has, and one calibration; all are trained alike."""
    return _with_table_precisions(load_run(space=SPACE, overrides=(ALIKE,), flags={})[1])


def _with_table_precisions(space: SearchSpace) -> SearchSpace:
    axes = tuple(named for named in space.axes if not named.name.startswith("quantization."))
    precision = NamedAxis(name="quantization.precision", axis=Choice(values=PRECISIONS))
    calibration = NamedAxis(name="quantization.calibration", axis=Choice(values=(CALIBRATION,)))
    return replace(space, axes=(*axes, precision, calibration))


def large_space() -> SearchSpace:
    """Return the space in which each of the three stages has a width, a depth and a kernel of its own.

    It has 4 resolutions, 5 ^ 3 widths, 2 ^ 3 depths, 2 ^ 3 kernels and 3 cuts: 96,000 combinations in each precision.
    """
    stages = [f"scaling.stages.{number}" for number in (1, 2, 3)]
    overrides = (
        ALIKE,
        *(f"scaling.{name}=1.0" for name in ("width", "depth", "kernel")),
        *(f"{stage}.width=[0.5, 0.75, 1.0, 1.25, 1.5]" for stage in stages),
        *(f"{stage}.depth=[1.0, 2.0]" for stage in stages),
        *(f"{stage}.kernel=[1.0, 1.67]" for stage in stages),
    )
    return _with_table_precisions(load_run(space=SPACE, overrides=overrides, flags={})[1])


def values_of(space: SearchSpace) -> dict[str, tuple[float, ...]]:
    """Return the values of every field of `Shape` that the space may ask for, ascending."""
    found = dict[str, tuple[float, ...]]()
    for field, name in AXES.items():
        axis = axis_of(space.axes, name)
        assert isinstance(axis, Choice), f"expected a list of values of {name} in the space {space.name}, got {axis}"
        found[field] = tuple(sorted(float(value) for value in axis.values))
    return found


def every_shape(space: SearchSpace) -> tuple[Shape, ...]:
    """Return every combination of multipliers and cuts, those above the limit of MACs as well."""
    values = values_of(space)
    names = ("resolution", "depth", "width", "kernel", "cut")
    return tuple(
        Shape(resolution=resolution, depth=depth, width=width, kernel=kernel, cut=cut)
        for resolution, depth, width, kernel, cut in itertools.product(*(values[name] for name in names))
    )


Place = tuple[float, ...]


def place_in(values: dict[str, tuple[float, ...]], shape: Shape, *, cut: bool = True) -> Place:
    """Return the position of a network on each axis, from 0 (lowest value) to 1 (highest), in the order of `AXES`."""
    own = asdict(shape)
    names = [name for name in values if cut or name != "cut"]
    return tuple(values[name].index(own[name]) / max(1, len(values[name]) - 1) for name in names)


def thinned(trunks: Sequence[Shape], count: int, values: dict[str, tuple[float, ...]]) -> tuple[Shape, ...]:
    """Return `count` trunks that fill the space: its corners, then always the one farthest from all that are chosen.

    A corner has the lowest or highest value on every axis. Distances are Euclidean, with every axis scaled to 0..1
    by the positions of its values. Of equally far trunks, the first in the given order is taken, so the design is the
    same on every machine. A smaller count gives the first trunks of a larger one.

    Raises:
        SystemExit: There are more corners than `count`.
    """
    places = {trunk: place_in(values, trunk, cut=False) for trunk in trunks}
    chosen = [trunk for trunk in trunks if all(part in (0, 1) for part in places[trunk])]
    if count >= len(trunks):
        return tuple(trunks)
    if count < len(chosen):
        message = f"--networks {count}: expected at least {len(chosen)}, since all corners of the space are in"
        raise SystemExit(message)
    while len(chosen) < count:
        rest = [trunk for trunk in trunks if trunk not in chosen]
        chosen.append(max(rest, key=lambda trunk: min(math.dist(places[trunk], places[other]) for other in chosen)))
    return tuple(chosen)


def expected_s(macs: dict[Shape, int], trunk_macs: dict[Shape, int], steps: Sequence[int], seeds: int) -> float:
    """Return the CPU seconds that all trainings are expected to take, by `SECONDS_AT_240`.

    A trunk is trained once, up to its longest length; each network has a branch of every length. Exports and scores
    are not counted.

    Args:
        macs: Of every network, cut or not.
        trunk_macs: Of every trunk.
        steps: The lengths of the trainings.
        seeds: Number of seeds.
    """

    def at_240(count: int) -> float:
        return SECONDS_AT_240[0] + SECONDS_AT_240[1] * count / 1e6

    trunks = sum(map(at_240, trunk_macs.values())) * max(steps) / 240 * (1 - BRANCH_SHARE)
    branches = sum(map(at_240, macs.values())) * sum(steps) / 240 * BRANCH_SHARE
    return seeds * (trunks + branches)
