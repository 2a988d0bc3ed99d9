"""What a search may ask for: axes of choices or ranges, limits, and the base network."""

from dataclasses import dataclass, field, replace
from decimal import Decimal

from scalesearch.values.network_spec import InputSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An axis with listed values. An axis with one value is fixed and never sampled."""

    values: tuple[float | int | str | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A numeric axis from `low` to `high` in steps of `step` (0: continuous), on a log scale if `log` is true."""

    low: float
    high: float
    step: float = 0.0
    log: bool = False

    @property
    def steps(self) -> int:
        """Number of whole steps between `low` and `high`; 0 where the axis is continuous."""
        return int((_as_written(self.high) - _as_written(self.low)) // _as_written(self.step)) if self.step else 0

    @property
    def last(self) -> float:
        """The highest value that can be sampled: `high`, or the last step below it."""
        if not self.step:
            return self.high
        return float(_as_written(self.low) + self.steps * _as_written(self.step))

    @property
    def values(self) -> tuple[float, ...]:
        """All values of a stepped range; empty for a continuous one."""
        low, step = _as_written(self.low), _as_written(self.step)
        return tuple(float(low + place * step) for place in range(self.steps + 1)) if self.step else ()


def _as_written(value: float) -> Decimal:
    """Return the decimal number as a reader sees it, so that 0.1 + 2 * 0.1 is 0.3 and not 0.30000000000000004."""
    return Decimal(str(value))


Axis = Choice | Range


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAxis:
    """An axis and its dotted name in the TOML file, in Optuna and in the dashboard, for example `scaling.width`."""

    name: str
    axis: Axis


FLIP = "training.flip"
STEPS = "training.steps"
LATENCY_LIMIT = "max_latency_ms"
"""Name of the limit of latency, in settings and records."""
MOST_LENGTHS = 8
"""A range in more steps than these is no list of lengths, but an axis like any other."""
AUTO = Choice(values=("auto",))
"""The value of an axis that the program decides once per study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds; None means no bound.

    The bounds on MACs and size reject a candidate before training. So does the latency bound, if the untrained network
    is surely slower; otherwise it marks the trained one as infeasible.
    """

    max_macs: int | None = None
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A whole search space.

    `axes` may name every field of a `Candidate` by its dotted name. Fields without an axis keep their defaults.
    """

    name: str
    network: str
    """Name of a base network, or `package.module:function` that returns a NetworkSpec or a torch module."""
    resolution_px: int
    """The height in pixels at resolution multiplier 1."""
    axes: tuple[NamedAxis, ...]
    limits: Limits = field(default_factory=Limits)
    resolution_multiple: int = 0
    """Resolutions are rounded to a multiple of this; 0 means the base network's total stride."""
    summary: str = ""
    width_px: int = 0
    """The width in pixels at resolution multiplier 1; 0 means that images are square."""

    @property
    def input_size(self) -> InputSize:
        """The image size at resolution multiplier 1."""
        return InputSize(height_px=self.resolution_px, width_px=self.width_px or self.resolution_px)

    @property
    def flip_undecided(self) -> bool:
        """Whether the program has yet to decide if training mirrors images."""
        return any(named.name == FLIP and named.axis == AUTO for named in self.axes)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The numbers of updates that the space lists for a training, ascending.

        A range in a few steps lists them too; another range lists none.
        """
        axes = (named.axis for named in self.axes if named.name == STEPS)
        few = (axis for axis in axes if isinstance(axis, Choice) or len(axis.values) <= MOST_LENGTHS)
        return tuple(sorted(int(value) for axis in few for value in axis.values))

    def with_flip(self, *, flip: bool) -> "SearchSpace":
        """Return the space with its flip axis fixed to `flip`; the space itself if that was decided before."""
        if not self.flip_undecided:
            return self
        return self.with_axis(NamedAxis(name=FLIP, axis=Choice(values=(flip,))))

    def with_axis(self, axis: NamedAxis) -> "SearchSpace":
        """Return the space with `axis` in place of its axis of the same name; as its last one if it has none."""
        if all(named.name != axis.name for named in self.axes):
            return replace(self, axes=(*self.axes, axis))
        return replace(self, axes=tuple(axis if named.name == axis.name else named for named in self.axes))

    def with_fixed(self, name: str, value: str | float) -> "SearchSpace":
        """Return the space with the axis `name` fixed to the value; the space itself if it has that axis already."""
        if any(named.name == name for named in self.axes):
            return self
        return replace(self, axes=(*self.axes, NamedAxis(name=name, axis=Choice(values=(value,)))))
