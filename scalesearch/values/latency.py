"""The latency of a network for one batch, its confidence interval, and the time of the post-processing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

_FASTER_THAN_CALM = 0.95
"""Two processes differ by less than this ratio: see `measurement.duet.SAME_CALM`."""
UNSETTLED: Final = "its latency did not settle within the time limit"
"""How the sentence on a latency that is not stable begins, in records of every version."""


LatencyObjective = Literal["engine", "end_to_end"]
"""What the study's second objective is: the engine's latency, or its sum with that of the post-processing."""


LATENCY_NAMES: Final[Mapping[LatencyObjective, str]] = MappingProxyType(
    {"engine": "p50_ms", "end_to_end": "end_to_end_ms"}
)
"""The name of the second objective in tables, JSON and Optuna."""


LATENCY_TITLES: Final[Mapping[LatencyObjective, str]] = MappingProxyType({"engine": "p50", "end_to_end": "end-to-end"})
"""The name of the second objective as people write it: `p50, ms`, `end-to-end latency`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """Time that the host needs to turn a network's outputs into results, as users of the exported network do.

    For a detector, that is decoding and non-maximum suppression at the exported threshold, in numpy on one thread.
    """

    p50_ms: float
    """Median time of one validation image, times the batch size of the `Latency` that holds this."""
    p50_low_ms: float
    p50_high_ms: float
    """The lowest and the highest of the medians of several rounds over the same images."""
    images: int
    """Number of images that were timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of one engine at a fixed batch size.

    `p50_ms` is the objective: the ratio of the engine's time to that of the reference engine
    (`measurement.duet.OBJECTIVE`), measured while the reference ran at its calm time, times that calm time. A busy
    minute of the machine therefore does not affect it. If `objective` is `end_to_end`, the median of the
    post-processing is added to `p50_ms` and to both ends of its interval. `raw_*` are plain clock times of the engine.
    The last fields are None in records that are older than these fields.
    """

    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    """The 95 % confidence interval of `p50_ms`, as a fresh process would measure it."""
    raw_p50_ms: float
    raw_p90_ms: float
    raw_p99_ms: float
    raw_min_ms: float
    reference_p50_ms: float
    """Raw median of the reference engine in the same session."""
    ratio: float
    runs: int
    batch: int
    stable: bool
    """Whether the machine was calm for long enough and the interval is within `latency.stable_within`."""
    enqueue_p50_ms: float | None = None
    """Median time in milliseconds that the host needed to hand a run to the GPU; None where host and device are the
    same."""
    calm_fraction: float | None = None
    """Fraction of the session in which the reference ran at its calm time. If it is large enough, `p50_ms` is taken
    from that part."""
    raw_calm_p50_ms: float | None = None
    """Median of the candidate's runs while the machine was calm; None where there were none."""
    raw_disturbed_p50_ms: float | None = None
    """Median of the candidate's other runs; None where there were none."""
    reference_lowest_ms: float | None = None
    """Level of the reference in the pairs that counted. It is far above the calm time if the machine was never calm."""
    coarse: bool = False
    """Whether timing ended early, because the candidate was surely not on the front at that moment, or because the
    network is timed only for a comparison."""
    postprocessing: Postprocessing | None = None
    """Time of the post-processing; None if the task has none that is measured."""
    objective: LatencyObjective = "engine"
    """What `p50_ms` and its interval stand for."""

    def beside(self, postprocessing: Postprocessing | None, objective: LatencyObjective) -> "Latency":
        """Return this engine latency with the post-processing, added to `p50_ms` if `objective` is `end_to_end`."""
        found = replace(self, postprocessing=postprocessing, objective=objective)
        if postprocessing is None or objective == "engine":
            return found
        return replace(
            found,
            p50_ms=self.p50_ms + postprocessing.p50_ms,
            p50_low_ms=self.p50_low_ms + postprocessing.p50_low_ms,
            p50_high_ms=self.p50_high_ms + postprocessing.p50_high_ms,
        )

    @property
    def of_engine(self) -> "Latency":
        """The latency of the engine alone, without the post-processing."""
        after = self.postprocessing
        if after is None or self.objective == "engine":
            return replace(self, postprocessing=None, objective="engine")
        return replace(
            self,
            p50_ms=self.p50_ms - after.p50_ms,
            p50_low_ms=self.p50_low_ms - after.p50_low_ms,
            p50_high_ms=self.p50_high_ms - after.p50_high_ms,
            postprocessing=None,
            objective="engine",
        )

    @property
    def end_to_end(self) -> "Latency | None":
        """This latency with the post-processing added to `p50_ms`; None if no post-processing was measured."""
        after = self.postprocessing
        return None if after is None else self.of_engine.beside(after, "end_to_end")

    @property
    def name(self) -> str:
        """The objective's name in tables and JSON: `p50_ms` or `end_to_end_ms`."""
        return LATENCY_NAMES[self.objective]

    @property
    def title(self) -> str:
        """The objective's name as people write it: `p50` or `end-to-end`."""
        return LATENCY_TITLES[self.objective]

    @property
    def unsettled(self) -> bool:
        """Whether the latency is not stable, although timing was not ended early."""
        return not (self.stable or self.coarse)

    @property
    def half_width(self) -> float:
        """Half the width of the interval, as a fraction of the latency."""
        return (self.p50_high_ms - self.p50_low_ms) / (2 * self.p50_ms)

    @property
    def why_unstable(self) -> str:
        """One sentence on why the latency is not stable, for a reader of the record; empty where it is stable."""
        if self.stable:
            return ""
        if self.coarse:
            return (
                f"it is surely off the front, so its latency was taken to within +-{100 * self.half_width:.1f} % only"
            )
        told = UNSETTLED
        if self.calm_fraction is None:
            return told
        told += f" (+-{100 * self.half_width:.1f} %, machine calm for {100 * self.calm_fraction:.0f} % of it"
        moods = {"calm": self.raw_calm_p50_ms, "disturbed": self.raw_disturbed_p50_ms}
        clock = [f"{raw_ms:.3g} ms {mood}" for mood, raw_ms in moods.items() if raw_ms is not None]
        return f"{told}; plain clock {', '.join(clock)})"

    @property
    def unit_too_slow(self) -> bool:
        """Whether the reference's calm time, the unit of all latencies, is too long.

        It is if the reference ran much faster in this session: the calm time must then have been measured while the
        machine was disturbed.
        """
        lowest_ms, calm_ms = self.reference_lowest_ms, self.of_engine.p50_ms / self.ratio
        return lowest_ms is not None and lowest_ms < _FASTER_THAN_CALM * calm_ms
