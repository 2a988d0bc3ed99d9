"""All numbers of one trial, as they are stored."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from scalesearch.values.candidate import Candidate
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.postprocessing import LATENCY_NAMES, LATENCY_TITLES, LatencyObjective, Postprocessing
from scalesearch.values.quality import Quality
from scalesearch.values.target import Device

TrialState = Literal["complete", "failed", "rejected", "cached"]
_FASTER_THAN_CALM = 0.95
"""Two processes differ by less than this ratio: see `measurement.duet.SAME_CALM`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Computed cost of a network: multiply-accumulates of one image (convolutions, linear layers), and parameters."""

    macs: int
    params: int

    @property
    def fp32_size_bytes(self) -> int:
        """Size of the weights at four bytes each. The size limit is checked against it before training."""
        return 4 * self.params


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """Training loss over one training: means over equal stretches of its steps, in order."""

    steps: int
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """Result of the training: the float network's score on the validation images, times, losses and how it went."""

    float_score: float
    train_s: float
    retrain_s: float
    steps: int
    safe_recipe_used: bool
    weights_reused: bool
    final_loss: float
    loss_curves: tuple[LossCurve, ...] = ()
    """Loss curves of the dense network's training, then of each retraining after pruning."""
    new_steps: int | None = None
    """Updates that this trial made itself; the others were stored. None in records that are older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of one engine at a fixed batch size.

    `p50_ms` is the objective. It is the duet ratio to the reference engine (`measurement.duet.OBJECTIVE`), taken while
    the reference ran at its calm time, times that calm time; so a busy minute of the machine does not affect it. Where
    `objective` is `end_to_end`, it is the sum of that and of the post-processing's median, and its interval likewise.
    `raw_*` are plain clock times of the engine. The last fields are None in records that are older than these fields.
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
    """Whether timing ended early, since the candidate was surely far from the front of that moment."""
    postprocessing: Postprocessing | None = None
    """Time of the work on the answers; None where the task's answers need none that is measured."""
    objective: LatencyObjective = "engine"
    """What `p50_ms` and its interval stand for."""

    def beside(self, postprocessing: Postprocessing | None, objective: LatencyObjective) -> "Latency":
        """Return this latency of an engine with the time of the post-processing, as part of `p50_ms` if asked for."""
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
        """This latency without the post-processing: that of the engine alone."""
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
        """This latency with the post-processing in it; None where none was measured."""
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
        """Whether the latency is not stable although all the time there was for it was spent."""
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
            return f"it is far from the front, so its latency was taken to within +-{100 * self.half_width:.1f} % only"
        told = "its latency did not settle within the time limit"
        if self.calm_fraction is None:
            return told
        told += f" (+-{100 * self.half_width:.1f} %, machine calm for {100 * self.calm_fraction:.0f} % of it"
        moods = {"calm": self.raw_calm_p50_ms, "disturbed": self.raw_disturbed_p50_ms}
        clock = [f"{raw_ms:.3g} ms {mood}" for mood, raw_ms in moods.items() if raw_ms is not None]
        return f"{told}; plain clock {', '.join(clock)})"

    @property
    def unit_too_slow(self) -> bool:
        """Whether the reference's calm time, the unit of all latencies, was too slow.

        That is so where the reference ran much faster here than its calm time, which must then have been found while
        the machine was disturbed.
        """
        lowest_ms, calm_ms = self.reference_lowest_ms, self.of_engine.p50_ms / self.ratio
        return lowest_ms is not None and lowest_ms < _FASTER_THAN_CALM * calm_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCount:
    """How many convolutions (and linear layers) a compiler really runs in one precision."""

    precision: str
    kernels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What NVIDIA's compiler made of the trial's graph, on a machine that need not have the chip."""

    compiler: str
    """Name and version of the compiler."""
    onnx_sha256: str
    """Hash of the graph that was compiled: the deployed one, or the same graph in TensorRT's style of quantization."""
    build_s: float
    layers: int
    """Number of fused kernels, as the compiler lists them."""
    convolutions: tuple[KernelCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What one compression step brought, compared with the same network without it."""

    step: Literal["pruning", "precision"]
    what: str
    """The step in words: `channels 25 %`, `int8`."""
    speedup: float
    """Latency without the step divided by latency with it, both relative to the reference engine."""
    speedup_low: float
    speedup_high: float
    """The 95 % interval of the speed-up."""
    score_change: float | None
    """Score with the step minus score without it, after as many updates, as a fraction. None if the network without the
    step was not trained."""
    coarse: bool = False
    """Whether one of the two latencies was not taken exactly, since the candidate was far from the front."""

    @property
    def no_gain(self) -> bool:
        """Whether the step was of no use: it did not raise the score, and its speed-up cannot be told from none.

        A speed-up from latencies that were not taken exactly is taken as it is.
        """
        least = self.speedup if self.coarse else self.speedup_low
        return (self.score_change is None or self.score_change <= 0) and least <= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScore:
    """The score on the validation images after one step of the way from the trained network to the engine."""

    step: Literal["float", "onnx_fp32", "onnx", "engine"]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Wall time of one stage of one trial."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """Value divided by limit, minus one. Feasible values are <= 0, which is Optuna's convention."""

    limit: str
    excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """Everything about one trial. Parts that a trial never reached are None."""

    trial: int
    key: str
    """Hash of the candidate after rounding. Equal keys mean equal work."""
    state: TrialState
    candidate: Candidate
    charged: bool
    """Whether the trial's training was started. If so, it counts against the budget, by its `charge`."""
    reason: str = ""
    same_as: int | None = None
    spec: NetworkSpec | None = None
    cut_from: NetworkSpec | None = None
    """The larger network whose trunk was cut to `spec`; None where the whole training was of that spec."""
    cost: Cost | None = None
    dense_macs: int | None = None
    """MACs before channel pruning."""
    training: TrainingResult | None = None
    latency: Latency | None = None
    quality: Quality | None = None
    accuracy_path: tuple[StepScore, ...] = ()
    """The scores that show where score was lost: float network, ONNX file in fp32, deployed ONNX file, engine."""
    gains: tuple[Gain, ...] = ()
    """One entry for each compression step of the trial, in the order in which the steps are applied."""
    sibling_of: int | None = None
    """Number of the trial of the same network in another precision that came near the front, which is why this one was
    evaluated."""
    acceptance: Acceptance | None = None
    """None where the compiler check (setting `accept`) was off."""
    size_bytes: int | None = None
    onnx_sha256: str | None = None
    network_sha256: str | None = None
    """Hash over name and shape of every tensor after pruning. A network that is built again has the same hash."""
    device: Device | None = None
    limits: tuple[LimitUse, ...] = ()
    stages: tuple[StageTime, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether the trial is complete (or answered from a complete one) and within every limit."""
        if self.state not in ("complete", "cached"):
            return False
        return self.quality is not None and self.latency is not None and all(use.excess <= 0 for use in self.limits)

    @property
    def charge(self) -> float:
        """The part of a full training that counts against the budget: 1 unless the trial's trunk was there already.

        It is 1, too, where nothing is known about the updates: of a trial that failed, or of an earlier version.
        """
        if not self.charged or self.training is None or not self.training.new_steps:
            return float(self.charged)
        return min(1.0, self.training.new_steps / self.training.steps)

    @property
    def measured(self) -> "MeasuredTrial | None":
        """This trial as a `MeasuredTrial`; None where it was never measured."""
        if isinstance(self, MeasuredTrial):
            return self
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        whole = all(held[field.name] is not None for field in fields(MeasuredTrial) if field.name in _MEASURED)
        return MeasuredTrial(**held) if whole else None

    def without_measurement(self) -> "TrialRecord":
        """Return a copy without score and latency, so that a failed trial is never taken for a point of the front."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return TrialRecord(**(held | {"quality": None, "latency": None}))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTrial(TrialRecord):
    """A trial whose network was trained, deployed, timed and scored, so that none of these parts is None."""

    spec: NetworkSpec
    cost: Cost
    training: TrainingResult
    latency: Latency
    quality: Quality
    size_bytes: int
    onnx_sha256: str
    network_sha256: str
    device: Device


_MEASURED = frozenset(MeasuredTrial.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontScore:
    """Evaluation of a member of the front after the search: on unseen test images, timed in a fresh process."""

    trial: int
    test: Quality
    latency: Latency
