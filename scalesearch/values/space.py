"""What may be asked: axes of choices or ranges, limits, and the base network."""

from dataclasses import dataclass, field
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An axis with listed values; one value means that the axis is fixed and never sampled."""

    values: tuple[float | int | str | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A numeric axis from `low` to `high`, in steps of `step` (0: continuous), on a log scale where `log`."""

    low: float
    high: float
    step: float = 0.0
    log: bool = False

    @property
    def steps(self) -> int:
        """Whole steps between `low` and `high`; 0 where it is continuous."""
        return int((_as_written(self.high) - _as_written(self.low)) // _as_written(self.step)) if self.step else 0

    @property
    def last(self) -> float:
        """The highest value that is asked: `high`, or the last step below it."""
        if not self.step:
            return self.high
        return float(_as_written(self.low) + self.steps * _as_written(self.step))

    @property
    def values(self) -> tuple[float, ...]:
        """Every value of a stepped range; none of a continuous one."""
        low, step = _as_written(self.low), _as_written(self.step)
        return tuple(float(low + place * step) for place in range(self.steps + 1)) if self.step else ()


def _as_written(value: float) -> Decimal:
    """The number as a reader sees it: 0.1 + 2 * 0.1 is 0.3 and not 0.30000000000000004."""
    return Decimal(str(value))


Axis = Choice | Range


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedAxis:
    """An axis and the dotted name it has in the TOML file, in Optuna and in the dashboard: `scaling.width`."""

    name: str
    axis: Axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds; None is no bound. MACs and size reject before training, latency marks infeasible after it."""

    max_macs: int | None = None
    max_size_bytes: int | None = None
    max_latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """A whole space. `axes` hold every dotted name that a `Candidate` has a field for; missing ones keep defaults."""

    name: str
    network: str
    """A base network's name, or `package.module:function` giving a NetworkSpec."""
    resolution_px: int
    """The resolution that multiplier 1 stands for."""
    axes: tuple[NamedAxis, ...]
    limits: Limits = field(default_factory=Limits)
    resolution_multiple: int = 0
    """Resolutions are rounded to a multiple of this; 0 takes the base network's total stride."""
    summary: str = ""
