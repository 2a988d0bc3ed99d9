"""Everything about one trial as headed lists. The printed page of a trial and its dashboard note use the same ones."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.latency import Latency
from scalesearch.values.network_spec import NetworkSpec, StageSpec
from scalesearch.values.quality import ClassDetail
from scalesearch.values.record import FrontScore, TrialRecord
from scalesearch.views.layer_table import BuiltParts, all_parts
from scalesearch.views.words import (
    accuracy_with_interval,
    bytes_text,
    count,
    cut_text,
    device_text,
    latency_with_interval,
    milliseconds,
    milliseconds_number,
    multipliers,
    named_steps,
    neck_text,
    percent,
    pruning_text,
    quantization_text,
    score_change_text,
    score_noun_of,
    score_title,
    verdict,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A headed list of (label, text) lines."""

    title: str
    lines: tuple[tuple[str, str], ...]


def describe(
    record: TrialRecord,
    score: FrontScore | None = None,
    *,
    task_sections: Iterable[Section] = (),
    parts: BuiltParts | None = None,
) -> tuple[Section, ...]:
    """Return everything about one trial, from the verdict to the stage times; missing parts are left out.

    Args:
        record: The trial.
        score: The second evaluation that members of the front get: test images, and latency in a fresh process.
        task_sections: What the task adds (`TaskViews.sections`).
        parts: Which parts of its spec the network has; None: all of them.
    """
    sections = (
        Section(title="Result", lines=tuple(_result(record))),
        Section(title="What was asked", lines=tuple(_asked(record.candidate))),
        Section(title="What it became", lines=tuple(_became(record, parts))),
        Section(title="Training", lines=tuple(_training(record))),
        Section(title="Latency", lines=tuple(_latency(record))),
        Section(title="Quality of the deployed file", lines=tuple(_quality(record))),
        Section(title="What compression brought", lines=tuple(_gains(record))),
        Section(title="NVIDIA's compiler", lines=tuple(_acceptance(record))),
        Section(title="Looked at again after the search", lines=tuple(_again(score))),
        *task_sections,
        Section(title="Time", lines=tuple(_time(record))),
        Section(title="Warnings", lines=tuple((str(place), text) for place, text in enumerate(record.warnings, 1))),
    )
    return tuple(section for section in sections if section.lines)


def _result(record: TrialRecord) -> Iterator[tuple[str, str]]:
    yield ("verdict", verdict(record))
    if record.same_as is not None:
        yield ("answered from", f"trial {record.same_as}: the same after rounding, so it cost nothing")
    if record.quality:
        yield (f"{record.quality.title}, %", f"{accuracy_with_interval(record.quality)}, 95 % interval")
    if record.latency:
        yield (f"{record.latency.title}, ms", f"{latency_with_interval(record.latency)}, 95 % interval")
    if record.size_bytes is not None:
        yield ("file", bytes_text(record.size_bytes))
    for use in record.limits:
        yield (use.limit, f"{100 * (1 + use.excess):.0f} % of the limit used")
    reused = record.training is not None and record.training.weights_reused and record.same_as is None
    free = "no: it used the weights of an earlier trial" if reused else "no"
    if record.sibling_of is not None:
        yield _origin(record)
    yield ("charged", _charge(record) if record.charged else free)


def _origin(record: TrialRecord) -> tuple[str, str]:
    """Return because of which trial this one was evaluated, and what both have in common."""
    cut, precision = "the same trunk, but another cut", "the same network in another precision"
    if record.is_branch is None:
        return ("branch or sibling of", f"trial {record.sibling_of}: {cut}, or {precision}")
    if record.is_branch:
        return ("branch of", f"trial {record.sibling_of}: {cut}")
    return ("sibling of", f"trial {record.sibling_of}: {precision}")


def _charge(record: TrialRecord) -> str:
    if not 0 < record.charge < 1:
        return "yes: its training was started"
    training = record.training
    begun = training is not None and (training.new_steps or training.steps) < training.steps
    return f"yes: {100 * record.charge:.0f} % of a {'full ' if record.full_updates else ''}training" + (
        ", the rest was there" if begun and not record.short else ", a part of it was there" if begun else ""
    )


def _asked(candidate: Candidate) -> Iterator[tuple[str, str]]:
    scaling = candidate.scaling
    yield ("resolution", f"x {scaling.resolution:.4g}")
    yield ("depth x width x kernel", multipliers(scaling))
    if neck := neck_text(scaling):
        yield ("neck", neck)
    if by_cut := [name for name in ("width", "depth", "kernel") if getattr(scaling, f"{name}_by") == "cut"]:
        yield ("by a cut", f"{', '.join(by_cut)}, where it is below the largest of the space")
    for place, stage in enumerate(scaling.stages, 1):
        yield (f"stage {place} on top", f"{stage.depth:.4g} x {stage.width:.4g} x {stage.kernel:.4g}")
    yield ("pruning", pruning_text(candidate.pruning))
    yield ("precision", quantization_text(candidate.quantization))


def _became(record: TrialRecord, parts: BuiltParts | None) -> Iterator[tuple[str, str]]:
    spec, cost = record.spec, record.cost
    if spec:
        parts = parts or all_parts(spec)
        yield (
            "network",
            ", ".join((spec.name, str(spec.input_size), *([f"{spec.num_classes} classes"] * (spec.num_classes > 0)))),
        )
        if spec.origin:
            yield ("module of", f"{spec.origin}, weights of SHA-256 {spec.origin_sha256[:12]}...")
        else:
            yield ("stem", _stem(spec))
        for place, stage in enumerate(spec.stages[: parts.stages], 1):
            yield (f"stage {place}", _stage(stage))
        if (spec.neck_depth, spec.neck_kernel) != (1, 3):
            yield ("neck", f"rows of {spec.neck_depth} convolutions, {spec.neck_kernel}x{spec.neck_kernel}")
        if spec.head.channels and parts.classifier:
            yield ("head", f"1x1 convolution to {spec.head.channels} channels")
        if record.cut_from:
            yield ("begun as", cut_text(spec, record.cut_from, built=parts.stages))
    if cost:
        pruned = record.dense_macs is not None and record.dense_macs != cost.macs
        before = f", {count(record.dense_macs)} before pruning" if pruned and record.dense_macs is not None else ""
        yield ("MACs", f"{count(cost.macs)}{before}")
        yield ("parameters", count(cost.params))


def _stem(spec: NetworkSpec) -> str:
    stem = spec.stem
    pool = ", 3x3 max pooling" if stem.pool else ""
    return f"{stem.channels} channels, {stem.kernel}x{stem.kernel}, stride {stem.stride}{pool}"


def _stage(stage: StageSpec) -> str:
    expansion = f", expansion {stage.expansion}" if stage.expansion != 1 else ""
    shape = f"{stage.channels} channels, {stage.kernel}x{stage.kernel}, stride {stage.stride}"
    return f"{stage.depth} x {stage.block.replace('_', ' ')}, {shape}{expansion}"


def _peak_rate(recipe: Recipe) -> float:
    return recipe.muon_learning_rate if recipe.optimizer == "muon" else recipe.learning_rate


def _training(record: TrialRecord) -> Iterator[tuple[str, str]]:
    training, recipe = record.training, record.candidate.recipe
    if training is None:
        return
    yield (
        "recipe",
        f"{recipe.optimizer}, peak rate {_peak_rate(recipe):g}, {training.steps} steps of {recipe.batch_size}",
    )
    if recipe.distill_weight:
        share = f"{100 * recipe.distill_weight:.0f} % of the loss"
        yield ("distillation", f"{share} by the parent's answers, at temperature {recipe.distill_temperature:g}")
    if training.safe_recipe_used:
        yield ("safe recipe", "used: the asked one gave a loss that is not finite")
    yield (f"float {score_title([record])}", percent(training.float_score))
    yield ("final loss", f"{training.final_loss:.4g}")
    reused = " (weights of an equal network reused)" if training.weights_reused else ""
    cut = "the cut" if record.cut_from else "pruning"
    retrain = f", {training.retrain_s:.1f} s after {cut}" if training.retrain_s else ""
    yield ("time", f"{training.train_s:.1f} s{reused}{retrain}")


def _latency(record: TrialRecord) -> Iterator[tuple[str, str]]:
    latency, device = record.latency, record.device
    if latency is None:
        return
    yield ("p50, ms", f"{latency_with_interval(latency.of_engine)}, {_how_sure(latency)}")
    after, whole = latency.postprocessing, latency.end_to_end
    if after and whole:
        yield (
            "post-processing, ms",
            f"{milliseconds_number(after.p50_ms)} on the host, at the exported threshold, over {after.images} images",
        )
        yield ("end to end, ms", latency_with_interval(whole))
    if latency.calm_fraction is not None:
        moods = [
            f"{milliseconds(raw_ms)} {mood}"
            for raw_ms, mood in ((latency.raw_calm_p50_ms, "in calm"), (latency.raw_disturbed_p50_ms, "disturbed"))
            if raw_ms is not None
        ]
        yield ("machine calm", f"{100 * latency.calm_fraction:.0f} % of the time; plain clock {', '.join(moods)}")
    tail = f"p90 {milliseconds(latency.raw_p90_ms)}, p99 {milliseconds(latency.raw_p99_ms)}"
    yield ("plain clock", f"p50 {milliseconds(latency.raw_p50_ms)}, {tail}, minimum {milliseconds(latency.raw_min_ms)}")
    yield (
        "against reference",
        f"{latency.ratio:.3f} of its {milliseconds(latency.reference_p50_ms)} in the same session",
    )
    yield ("runs", f"{latency.runs} at batch {latency.batch}")
    if latency.enqueue_p50_ms is not None:
        yield ("enqueue", f"{milliseconds(latency.enqueue_p50_ms)} of the host for a run, median")
    if device:
        yield ("device", device_text(device))


def _quality(record: TrialRecord) -> Iterator[tuple[str, str]]:
    quality = record.quality
    if quality is None:
        return
    yield (f"{quality.title}, %", f"{accuracy_with_interval(quality)} on {quality.images} held-out images")
    if record.accuracy_path:
        way = " -> ".join(f"{name} {percent(score)}" for name, score in named_steps(record))
        gap = 100 * (quality.score - record.accuracy_path[0].score)
        yield ("way to the engine", f"{way}, {gap:+.1f} points")
    if isinstance(quality.detail, ClassDetail):
        macro = quality.detail.macro_precision, quality.detail.macro_recall
        yield ("macro precision, recall", ", ".join(map(percent, macro)))
    else:
        yield from (
            (number.name, f"{number.value:.4g}") for number in quality.detail.numbers if number.name != quality.metric
        )


def _gains(record: TrialRecord) -> Iterator[tuple[str, str]]:
    title, noun = score_title([record]), score_noun_of([record])
    for gain in record.gains:
        no_gain = "" if gain.score_change is None else f", and no {noun} was gained"
        verdict = f", NO GAIN: not faster beyond doubt{no_gain}" if gain.no_gain else ""
        speed = f"{gain.speedup:.2f}x as fast ({gain.speedup_low:.2f}-{gain.speedup_high:.2f})"
        yield (gain.what, f"{speed}, {title} {score_change_text(gain)}{verdict}")


def _acceptance(record: TrialRecord) -> Iterator[tuple[str, str]]:
    told = record.acceptance
    if told is None:
        return
    yield ("accepted by", told.compiler)
    runs = ", ".join(f"{entry.kernels} in {entry.precision}" for entry in told.convolutions)
    yield ("kernels", f"{told.layers} after fusing; convolutions and linear layers: {runs}")
    twin = "" if told.onnx_sha256 == record.onnx_sha256 else " (its twin in TensorRT's style of quantization)"
    yield ("build", f"{told.build_s:.2f} s{twin}")


def _again(score: FrontScore | None) -> Iterator[tuple[str, str]]:
    if score:
        images = f"on {score.test.images} images it never saw"
        yield (f"test {score.test.title}, %", f"{accuracy_with_interval(score.test)} {images}")
        yield (f"{score.latency.title}, ms", f"{latency_with_interval(score.latency)} in a fresh process")


def _time(record: TrialRecord) -> Iterator[tuple[str, str]]:
    for stage in record.stages:
        yield (stage.stage, f"{stage.seconds:.1f} s")
    if record.stages:
        yield ("together", f"{sum(stage.seconds for stage in record.stages):.1f} s")


def _how_sure(latency: Latency) -> str:
    """Return in words how well the latency is known."""
    if latency.stable:
        return "stable"
    return f"{'NOT STABLE' if latency.unsettled else 'coarse'}: {latency.why_unstable}"
