"""Every number of one trial, as stored."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.candidate import Candidate
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.target import Device

TrialState = Literal["complete", "failed", "rejected", "cached"]
_ROUNDING_ERROR = 1e-9

_FASTER_THAN_CALM = 0.95
"""Processes differ by less: see `measurement.duet.SAME_CALM`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a network costs on paper: multiply-accumulates of one image (conv + linear) and parameters."""

    macs: int
    params: int

    @property
    def fp32_size_bytes(self) -> int:
        """Weights at four bytes each: the size gate before training."""
        return 4 * self.params


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """Training loss over one training: means of equal stretches of its steps, in order."""

    steps: int
    losses: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What training gave, in float, on the validation images."""

    float_top1: float
    train_s: float
    retrain_s: float
    steps: int
    safe_recipe_used: bool
    weights_reused: bool
    final_loss: float
    loss_curves: tuple[LossCurve, ...] = ()
    """Of the dense network's training, then of each retraining after pruning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Latency of one engine at a fixed batch.

    `p50_ms` is the objective: the duet ratio to the reference engine (`measurement.duet.OBJECTIVE`), while that ran at
    its calm time, times the calm time, so that a busy minute of the machine does not enter it. `raw_*` is the plain
    clock. The last fields are None in records older than they are.
    """

    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    """95 % confidence interval of `p50_ms`, as a fresh process would measure it."""
    raw_p50_ms: float
    raw_p90_ms: float
    raw_p99_ms: float
    raw_min_ms: float
    reference_p50_ms: float
    """Raw median of the reference engine in this very session."""
    ratio: float
    runs: int
    batch: int
    stable: bool
    """The machine was calm for long enough, and the interval is within `latency.stable_within`."""
    enqueue_p50_ms: float | None = None
    """Median time that the host needed to hand a run to the GPU; None where host and device are one."""
    calm_fraction: float | None = None
    """Share of the session in which the reference ran at its calm time: `p50_ms` is taken from it, if it suffices."""
    raw_calm_p50_ms: float | None = None
    """Median of the candidate's runs in calm; None where there was none."""
    raw_disturbed_p50_ms: float | None = None
    """Median of its other runs; None where there were none."""
    reference_lowest_ms: float | None = None
    """Level of the reference in the pairs that counted: far above its calm time, if the machine was never calm."""

    @property
    def half_width(self) -> float:
        """Half of the interval, as a fraction of the latency."""
        return (self.p50_high_ms - self.p50_low_ms) / (2 * self.p50_ms)

    @property
    def why_unstable(self) -> str:
        """One sentence for a reader of the record; empty where it is stable."""
        if self.stable:
            return ""
        told = "its latency did not settle within the time limit"
        if self.calm_fraction is None:
            return told
        told += f" (+-{100 * self.half_width:.1f} %, machine calm for {100 * self.calm_fraction:.0f} % of it"
        moods = {"calm": self.raw_calm_p50_ms, "disturbed": self.raw_disturbed_p50_ms}
        clock = [f"{raw_ms:.3g} ms {mood}" for mood, raw_ms in moods.items() if raw_ms is not None]
        return f"{told}; plain clock {', '.join(clock)})"

    @property
    def unit_too_slow(self) -> bool:
        """Whether the reference ran so much faster than its calm time that this was found in a disturbed moment."""
        lowest_ms, calm_ms = self.reference_lowest_ms, self.p50_ms / self.ratio
        return lowest_ms is not None and lowest_ms < _FASTER_THAN_CALM * calm_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCount:
    """How many convolutions (and linear layers) a compiler really runs in one precision."""

    precision: str
    kernels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What NVIDIA's compiler made of the trial's graph, on a machine that need not hold the chip."""

    compiler: str
    """Name and version."""
    onnx_sha256: str
    """Of the graph that was compiled: the deployed one, or its twin in TensorRT's style of quantization."""
    build_s: float
    layers: int
    """Fused kernels, as the compiler lists them."""
    convolutions: tuple[KernelCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What one compression step brought, against the same network without it."""

    step: Literal["pruning", "precision"]
    what: str
    """The step in words: `channels 25 %`, `int8`."""
    speedup: float
    """Latency without it over latency with it, both relative to the reference engine."""
    speedup_low: float
    speedup_high: float
    """95 % interval."""
    top1_change: float
    """Top-1 with it less top-1 without it, as a fraction."""

    @property
    def no_gain(self) -> bool:
        """It costs accuracy, or gains none, and its speed cannot be told from none."""
        return self.top1_change <= 0 and self.speedup_low <= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAccuracy:
    """Top-1 on the validation images after one step of the way from the trained network to the engine."""

    step: Literal["float", "onnx_fp32", "onnx", "engine"]
    top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassQuality:
    """One class, one against the rest; the curve holds (recall, precision) from high to low threshold, thinned."""

    name: str
    support: int
    precision: float
    recall: float
    average_precision: float
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Quality of the compiled artifact on held-out images, as fractions (0..1)."""

    top1: float
    top1_low: float
    top1_high: float
    """95 % binomial (Wilson) interval."""
    macro_precision: float
    macro_recall: float
    images: int
    classes: tuple[ClassQuality, ...]

    def __post_init__(self) -> None:
        """Let the interval hold `top1` where it misses it by a rounding error, as formulas do at 0 and 100 %."""
        if 0 < self.top1_low - self.top1 < _ROUNDING_ERROR:
            object.__setattr__(self, "top1_low", self.top1)
        if 0 < self.top1 - self.top1_high < _ROUNDING_ERROR:
            object.__setattr__(self, "top1_high", self.top1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Wall time of one stage of one trial."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """Value over limit minus one, so that feasible is <= 0 (Optuna's convention)."""

    limit: str
    excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """The whole of one trial. Parts that a trial never reached are None."""

    trial: int
    key: str
    """Hash of what the candidate became after rounding; equal keys are equal work."""
    state: TrialState
    candidate: Candidate
    charged: bool
    """Its training was started, so it counts against the budget."""
    reason: str = ""
    same_as: int | None = None
    spec: NetworkSpec | None = None
    cost: Cost | None = None
    dense_macs: int | None = None
    """MACs before channel pruning."""
    training: TrainingResult | None = None
    latency: Latency | None = None
    quality: Quality | None = None
    accuracy_path: tuple[StepAccuracy, ...] = ()
    """Where accuracy was lost: float network, ONNX file in fp32, deployed ONNX file, engine."""
    gains: tuple[Gain, ...] = ()
    """One for each compression step of the trial, in the order of the chain."""
    sibling_of: int | None = None
    """Evaluated because that trial, of the same network in another precision, came near the front."""
    acceptance: Acceptance | None = None
    """None where the gate (`accept`) was off."""
    size_bytes: int | None = None
    onnx_sha256: str | None = None
    network_sha256: str | None = None
    """Hash over name and shape of every tensor after pruning: equal for a rebuilt network."""
    device: Device | None = None
    limits: tuple[LimitUse, ...] = ()
    stages: tuple[StageTime, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def feasible(self) -> bool:
        """Complete (or answered from a complete one), and within every limit."""
        if self.state not in ("complete", "cached"):
            return False
        return self.quality is not None and self.latency is not None and all(use.excess <= 0 for use in self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontScore:
    """A front member looked at again after the search: test images it never saw, latency in a fresh process."""

    trial: int
    test: Quality
    latency: Latency
