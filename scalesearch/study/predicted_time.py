"""Predicts how long a run will take, as a range, from the cost of one candidate, which is derived from a few timings.

What cannot be known in advance is in the width of the range: how calm the machine is while latencies are measured, how
many siblings are evaluated, and which candidates the sampler turns to.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scalesearch.measurement.latency import FIRST_LOOK_PAIRS, MIN_S, REFERENCE_WINDOWS, WARMUP_WINDOWS
from scalesearch.spaces.axes import axis_of, largest_value
from scalesearch.study.pieces import Pieces
from scalesearch.study.time_words import Bounds, PredictedTime
from scalesearch.values.candidate import Candidate, Quantization
from scalesearch.values.plan import Plan
from scalesearch.values.settings import LatencySettings, RunSettings
from scalesearch.values.space import STEPS, Axis, Choice, NamedAxis, SearchSpace
from scalesearch.values.training_length import branch_steps, trunk_steps, updates

USUAL_VAL_IMAGES, USUAL_TRAIN_IMAGES = 1500, 4000
"""Numbers of images where no data set is loaded: those of the built-in signs."""
_QUANTIZATION, _QAT_STEPS = "quantization.", "quantization.qat_steps"
_BRANCH = "training.branch_fraction"
_ALIKE = frozenset({"quantization.precision", "quantization.bias_correction", _QAT_STEPS})
"""Axes of the quantization in which int8 trainings with as many updates of simulated rounding do not differ."""
FORWARD_SHARE = 1 / 3
"""Time of a network's answers relative to a training step with the same images."""


# Seconds on a calm and on a busy machine with two cores; every run needs them once. Opening: data from the cache,
# probe, reference, start of a worker. Ending: two processes that load torch, tables and pictures.
OPENING_S: Bounds = (8.0, 40.0)
ENDING_S: Bounds = (5.0, 30.0)
AROUND_S: Bounds = (0.6, 3.0)
"""Around every evaluated file: loading weights, counting, tables, pictures, the dashboard's notes."""
FRONT_S: Bounds = (1.0, 5.0)
"""For each front member at the end, without its latency: test images and histograms."""
FRONT_MEMBERS: Bounds = (2, 12)
BUILD_S = {"tensorrt": (4.0, 40.0), "tensorrt_rtx": (1.0, 10.0), "openvino": (0.2, 1.5)}
"""Seconds to build an engine; ONNX Runtime needs next to none."""
GATE_S: Bounds = (0.3, 5.0)
NEAR_FRONT: Bounds = (0.4, 1.0)
"""Fraction of the trained candidates whose siblings are evaluated: 33 of the 60 in results/example, all of the first
8."""
TWINS_TIMED: Bounds = (0.3, 1.0)
"""Fraction of the twins that are timed; others are known already, or belong to candidates far from the front."""
TRAINING_SPREAD: Bounds = (0.85, 1.25)
"""Time of a whole training relative to the probed steps. The two differ because weights may come from the store, and
because of other work on the machine."""
SHARED_CORES = 1.25
"""Workers that run at the same time slow each other down by up to this factor."""
PIECES_SPREAD: Bounds = (0.7, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """The run whose time is predicted."""

    settings: RunSettings
    space: SearchSpace
    """Fitted to the run's target, and as `lengths.with_lengths` returns it."""
    backend: str
    """Backend of the target."""
    val_images: int = USUAL_VAL_IMAGES
    """Number of validation images in the data set."""
    train_images: int = USUAL_TRAIN_IMAGES
    """Number of training images in the data set."""
    parent_macs: int = 0
    """MACs of one image of the parent, as a network of the base's size; 0 without a parent that is to be tuned."""
    judge: Plan | None = None
    """The network that is trained first, to see whether training mirrors its images; None where that is decided."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of a training in updates, ascending; empty where all are trained alike."""
        several = self.settings.lengths != "off" and len(self.space.lengths) > 1
        return self.space.lengths if several else ()


def predict(run: PlannedRun, plans: Sequence[Plan], pieces: Pieces, *, first: Plan | None = None) -> PredictedTime:
    """Predict the time of a run whose candidates are like `plans`, which are within the limits.

    Args:
        run: The run.
        plans: Plans of randomly drawn candidates.
        pieces: The times that were measured.
        first: The plan of the run's first trial, the cheapest candidate.
    """
    if run.lengths:
        return _of_lengths(run, plans, pieces, first)
    fewest, most = candidates_of(plans, run)
    training = statistics.fmean(_training_s(plan, pieces) for plan in plans)
    # Shared work is charged by its number of updates, but the updates of a trunk that is cut take longer than others.
    share = statistics.fmean(_begun_updates(plan) / _updates(plan) for plan in plans)
    shared_s = statistics.fmean(_begun_s(plan, pieces) for plan in plans) / share if share else 0.0
    ends = []
    for end, trained in enumerate((fewest, most)):
        costs = [_seconds(plan, run, pieces, end) for plan in plans]
        mean = statistics.fmean(costs)
        if len(costs) > 1:  # the mean of so few candidates is itself random
            mean += (-1, 1)[end] * statistics.stdev(costs) / math.sqrt(trained)
        mean = max(mean, min(costs))
        begin = _seconds(first, run, pieces, end) if first else mean
        members = min(FRONT_MEMBERS[end], trained * len(_precisions(run.space)))
        ending = ENDING_S[end] + members * (FRONT_S[end] + _latency_s(plans[0], run.settings.latency, pieces)[end])
        # However many candidates share trunks, the budget is a number of full trainings.
        mean -= (1 - fewest / trained) * TRAINING_SPREAD[end] * shared_s / run.settings.workers
        ends.append(OPENING_S[end] + _before_s(run, plans, pieces)[end] + begin + (trained - 1) * mean + ending)
    low, high = (statistics.fmean(_seconds(plan, run, pieces, end, training=False) for plan in plans) for end in (0, 1))
    return PredictedTime(
        low_s=ends[0],
        high_s=ends[1],
        trained=(fewest, most),
        training_s=training,
        other_s=(low, max(low, high)),
        branch=_branch_share(run.space) if any(plan.trunk_key for plan in plans) else None,
        before_s=_before_s(run, plans, pieces),
    )


def _of_lengths(run: PlannedRun, plans: Sequence[Plan], pieces: Pieces, first: Plan | None) -> PredictedTime:
    """Return the range between a run whose candidates are all trained in full, and one that trains all as briefly."""
    shortest, full = run.lengths[0], run.lengths[-1]
    settings = replace(run.settings, lengths="off")
    more = replace(settings, budget=round(settings.budget * full / shortest))

    def alike(settings: RunSettings, steps: int) -> PredictedTime:
        space = run.space.with_axis(NamedAxis(name=STEPS, axis=Choice(values=(steps,))))
        return predict(replace(run, settings=settings, space=space), _at(plans, steps), pieces, first=first)

    few, many = alike(settings, full), alike(more, shortest)
    return PredictedTime(
        low_s=min(few.low_s, many.low_s),
        high_s=max(few.high_s, many.high_s),
        trained=(few.trained[0], many.trained[1]),
        training_s=few.training_s,
        other_s=few.other_s,
        branch=few.branch,
        before_s=few.before_s,
    )


def _at(plans: Sequence[Plan], steps: int) -> list[Plan]:
    """Return the plans with so many updates, each candidate once."""
    found: dict[Candidate, Plan] = {}
    for plan in plans:
        recipe = replace(plan.candidate.recipe, steps=steps)
        longer = branch_steps(recipe) - branch_steps(plan.candidate.recipe) if plan.trunk_key else 0
        candidate = replace(plan.candidate, recipe=recipe)
        found[candidate] = replace(plan, candidate=candidate, branch_updates=plan.branch_updates + longer)
    return list(found.values())


def candidates_of(plans: Sequence[Plan], run: PlannedRun) -> tuple[int, int]:
    """Return the least and the largest number of candidates that the budget is likely to train.

    The largest number holds if trunks are shared as often as among the drawn candidates. A candidate whose trunk is
    stored is charged with its branch alone; with the schedule `cosine`, with its retraining alone.
    """
    space = distinct_trainings(run.space)
    fewest = int(min(run.settings.budget, space))
    seen = set[str]()
    charges = list[float]()
    for plan in {plan.shape_key: plan for plan in plans}.values():  # equal networks are trained once
        begun, own = plan.trunk_key or plan.weights_key, _updates(plan) - _begun_updates(plan)
        charges.append(own / _updates(plan) if begun in seen else 1.0)
        seen.add(begun)
    return fewest, max(fewest, int(min(run.settings.budget / statistics.fmean(charges), space)))


def _branch_share(space: SearchSpace) -> Bounds:
    """Return the least and largest share of its updates that the space gives to a candidate's branch."""
    largest, axis = largest_value(space.axes, _BRANCH), axis_of(space.axes, _BRANCH)
    if axis is None:
        return largest, largest
    return (min(map(float, axis.values)) if isinstance(axis, Choice) else axis.low), largest


def distinct_trainings(space: SearchSpace) -> float:
    """Count the combinations of values that training depends on; infinite where an axis is a range without steps.

    These are the values of all axes but those of the quantization, times what `_roundings` returns.
    """
    count = math.prod(_count(named.axis) for named in space.axes if not named.name.startswith(_QUANTIZATION))
    return count * _roundings(space)


def _roundings(space: SearchSpace) -> float:
    """Return how often a network is trained for its precisions.

    That is once for all of them, and once more for each way to simulate rounding, which is trained by itself.
    """
    precisions, steps = _precisions(space), axis_of(space.axes, _QAT_STEPS)
    if steps is None or "int8" not in precisions or largest_value(space.axes, _QAT_STEPS) <= 0:
        return 1.0
    aware = sum(float(value) > 0 for value in steps.values) or math.inf
    in_float = set(precisions) != {"int8"} or 0 in steps.values
    others = (named for named in space.axes if named.name.startswith(_QUANTIZATION) and named.name not in _ALIKE)
    return in_float + aware * math.prod(_count(named.axis) for named in others)


def _count(axis: Axis) -> float:
    """Return the number of an axis's values; infinite for a range without steps."""
    return len(axis.values) or math.inf


def _seconds(plan: Plan, run: PlannedRun, pieces: Pieces, end: int, *, training: bool = True) -> float:
    """Return the seconds that a trained candidate adds to the run, siblings included.

    Latencies are measured one after the other, whatever the number of workers. All other work is shared between them.
    `end` is the end of the range: 0 for a calm machine, 1 for a busy one.
    """
    settings, precisions = run.settings, _precisions(run.space)
    pruned, quantized = plan.pruning.any, plan.candidate.quantization.precision != "fp32"
    latencies, twins = 1.0, TWINS_TIMED[end] * (quantized + pruned) if settings.twins else 0.0
    around = AROUND_S[end] + BUILD_S.get(run.backend, (0.0, 0.0))[end]
    around += GATE_S[end] if settings.accept != "off" else 0
    passes = 2 if run.backend == "onnxruntime" else 3
    scoring = passes * run.val_images * plan.cost.macs * pieces.image_s_per_mac
    file = PIECES_SPREAD[end] * (pieces.quantize_s + scoring) + around
    exports = PIECES_SPREAD[end] * pieces.export_s * (1 + TWINS_TIMED[end] * (pruned and settings.twins))
    shared = exports + file
    if training:
        slower = SHARED_CORES if end and settings.workers > 1 else 1.0
        shared += TRAINING_SPREAD[end] * slower * _training_s(plan, pieces)
    if run.space.limits.max_latency_ms is not None:  # untrained, each shape and precision is timed once
        latencies += (0, 1)[end]
        shared += (0, 1)[end] * PIECES_SPREAD[end] * (pieces.export_s + pieces.quantize_s)
    if settings.siblings:
        siblings = NEAR_FRONT[end] * (len(precisions) - 1)
        latencies += siblings
        shared += siblings * file
    roughly = replace(settings.latency, max_s=settings.latency.max_s / 4)  # twins are not timed exactly
    timing = latencies * _latency_s(plan, settings.latency, pieces)[end]
    timing += twins * _latency_s(plan, roughly, pieces)[end]
    return timing + shared / settings.workers


def _before_s(run: PlannedRun, plans: Sequence[Plan], pieces: Pieces) -> Bounds:
    """Return the least and most seconds of the trainings that come before the first candidate."""
    low, high = _parent_s(run, plans, pieces)
    if run.judge:  # one process trains it, whatever the number of workers
        training = _training_s(run.judge, pieces)
        low, high = low + TRAINING_SPREAD[0] * training, high + TRAINING_SPREAD[1] * training
    return low, high


def _parent_s(run: PlannedRun, plans: Sequence[Plan], pieces: Pieces) -> Bounds:
    """Return the least and most seconds that a parent takes once, for its fine-tuning and its answers.

    It is fine-tuned unless it knows the classes of the data. If it teaches, it answers all training images at each of
    their sizes.
    """
    if not run.parent_macs:
        return 0.0, 0.0
    step_s, answers_s = pieces.step_s(run.parent_macs), 0.0
    if largest_value(run.space.axes, "training.distill_weight") > 0:
        sizes = len({plan.spec.input_size for plan in plans})
        answers_s = sizes * FORWARD_SHARE * step_s * run.train_images / plans[0].candidate.recipe.batch_size
    low, high = TRAINING_SPREAD
    return low * answers_s, high * (run.settings.parent_steps * step_s + answers_s)


def _training_s(plan: Plan, pieces: Pieces) -> float:
    recipe, quantization = plan.candidate.recipe, plan.candidate.quantization
    seconds = _begun_s(plan, pieces)
    if plan.trunk_key:
        seconds += plan.branch_updates * pieces.step_s(plan.cost.macs)
    elif plan.pruning.any:
        seconds += recipe.retrain_steps * pieces.step_s(plan.cost.macs)
    # Rounding in the forward pass about doubles a step.
    return seconds + 2 * quantization.aware_steps * pieces.step_s(plan.cost.macs)


def _begun_s(plan: Plan, pieces: Pieces) -> float:
    """Return the seconds of work that other candidates may share: the trunk, or with `cosine` the dense training."""
    return _begun_updates(plan) * pieces.step_s(plan.begun[1].macs)


def _begun_updates(plan: Plan) -> int:
    recipe = plan.candidate.recipe
    return trunk_steps(recipe) if plan.trunk_key else recipe.steps


def _updates(plan: Plan) -> int:
    return updates(plan.candidate.recipe, pruned=plan.pruning.any)


def _latency_s(plan: Plan, latency: LatencySettings, pieces: Pieces) -> Bounds:
    """Return the shortest and longest time in seconds that one latency measurement takes.

    Candidate and reference are warmed up, then run in turn.
    """
    run_s = latency.batch * plan.cost.macs * pieces.image_s_per_mac
    first_look_s = 2 * FIRST_LOOK_PAIRS * run_s
    warm_s = latency.warmup_s + run_s
    least = 2 * warm_s + min(max(MIN_S, first_look_s), latency.max_s)
    return least, (WARMUP_WINDOWS + REFERENCE_WINDOWS) / 4 * warm_s + max(latency.max_s, 12 * run_s)


def _precisions(space: SearchSpace) -> tuple[object, ...]:
    axis = next((named.axis for named in space.axes if named.name == "quantization.precision"), None)
    return axis.values if isinstance(axis, Choice) else (Quantization().precision,)
