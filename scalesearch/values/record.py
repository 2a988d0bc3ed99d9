"""All numbers of one trial, as they are stored."""

from dataclasses import dataclass, fields, replace
from typing import Literal, Self

from scalesearch.values.candidate import Candidate
from scalesearch.values.latency import Latency
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import Quality
from scalesearch.values.target import Device

TrialState = Literal["complete", "failed", "rejected", "cached"]


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
    """Score with the step minus score without it, after the same number of updates, as a fraction. None if the network
    without the step was not trained by as many. In older records with the schedule `cosine`, the pruned network made
    the updates of its retraining more; those with quantization-aware updates were compared with the weights after these
    updates, in fp32."""
    coarse: bool = False
    """Whether the candidate's own latency was timed only coarsely, since it was surely not on the front
    (`Latency.coarse`)."""

    @property
    def no_gain(self) -> bool:
        """Whether the step was of no use: it did not raise the score, and its speed-up cannot be told from none.

        The speed-up of a candidate that was not timed exactly is taken as it is.
        """
        least = self.speedup if self.coarse else self.speedup_low
        return (self.score_change is None or self.score_change <= 0) and least <= 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScore:
    """The score on the validation images after one step between the trained network and the deployed engine."""

    step: Literal["float", "onnx_fp32", "onnx", "engine"]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Wall time of one stage of one trial, and the processor time of the worker's threads in it."""

    stage: str
    seconds: float
    cpu_s: float | None = None
    """Processor seconds of all threads of the worker in this stage. On a machine that also does other work, these tell
    more than the wall time. None in records that are older than this field."""


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
    most_updates: int | None = None
    """Updates that a failed trial has made at most, where its training is not known."""
    latency: Latency | None = None
    quality: Quality | None = None
    accuracy_path: tuple[StepScore, ...] = ()
    """The scores that show where score was lost: float network, ONNX file in fp32, deployed ONNX file, engine."""
    gains: tuple[Gain, ...] = ()
    """One entry for each compression step of the trial, in the order in which the steps are applied."""
    sibling_of: int | None = None
    """Number of the trial because of which this one was evaluated: it came near the front, and has the same network in
    another precision, or the same trunk in another cut."""
    other_cut: bool | None = None
    """Whether that other trial has the same trunk in another cut, rather than the same network in another precision;
    None without such a trial, and in records of earlier versions."""
    full_updates: int = 0
    """Updates of a member of the front, where candidates are trained by unlike lengths; else 0."""
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

    def in_study_of(self, full_updates: int) -> Self:
        """Return the record as it is in a study whose front members make so many updates; itself if it says so.

        A study that is made longer has other members than when the record was made.
        """
        return self if self.full_updates >= full_updates else replace(self, full_updates=full_updates)

    @property
    def short(self) -> bool:
        """Whether the training was shorter than that of a member of the front, so that its score compares with none."""
        return self.candidate.recipe.steps < self.full_updates

    @property
    def is_branch(self) -> bool | None:
        """Whether the trial was evaluated because of one with the same trunk in another cut.

        None where a record of an earlier version does not tell: only branches were charged, and what was rejected or
        failed may have been either.
        """
        if self.sibling_of is None or self.other_cut is not None:
            return bool(self.other_cut)
        if self.charged:
            return True
        return False if self.state in ("complete", "cached") else None

    @property
    def within_limits(self) -> bool:
        """Whether the trial is complete (or took its results from a complete one) and within every limit."""
        if self.state not in ("complete", "cached"):
            return False
        return self.quality is not None and self.latency is not None and all(use.excess <= 0 for use in self.limits)

    @property
    def trained_in_part(self) -> bool:
        """Whether all that keeps the trial from the front is that its training was too short."""
        return self.within_limits and self.short

    @property
    def feasible(self) -> bool:
        """Whether the trial may be on the front: complete, within every limit, and trained in full length."""
        return self.within_limits and not self.short

    @property
    def charge(self) -> float:
        """The part of a full training that counts against the budget; 0 if no training was started.

        It is below 1 if the trial's trunk was stored already, or the training was a short one. A trial that failed is
        charged what it has made at most. If that is not known either, as in records of earlier versions, it is a whole
        training of its length.
        """
        if self.training is None and self.most_updates is not None:
            return self.charged * min(1.0, self.most_updates / max(1, self.candidate.recipe.steps, self.full_updates))
        if not self.charged or self.training is None or self.training.new_steps is None:
            return self.charged * min(
                1.0, self.candidate.recipe.steps / self.full_updates if self.full_updates else 1.0
            )
        return min(1.0, self.training.new_steps / max(self.training.steps, self.full_updates))

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
