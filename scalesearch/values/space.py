"""What may be asked: axes of choices or ranges, limits, and the base network."""

from dataclasses import dataclass, field


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
