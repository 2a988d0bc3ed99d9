"""Numbers, settings and verdicts in words, the same wherever they are shown."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from scalesearch.analysis.score_error import metric_of
from scalesearch.values.candidate import CALIBRATED, Pruning, Quantization, Scaling
from scalesearch.values.latency import LATENCY_TITLES, Latency
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import DEFAULT_METRIC, Quality, metric_title, score_noun
from scalesearch.values.record import Gain, MeasuredTrial, TrialRecord
from scalesearch.values.target import Device

_MOST_DECIMALS = 9
_STEP_NAMES = {"float": "torch", "onnx_fp32": "ONNX fp32", "onnx": "deployed ONNX", "engine": "engine"}


def named_steps(record: TrialRecord) -> tuple[tuple[str, float], ...]:
    """Return names for people and scores of the steps from the trained network to the engine.

    The fp32 file of a network with quantization-aware updates has the weights after them, which nobody deploys so.
    """
    names = _STEP_NAMES | ({"onnx_fp32": "fp32 after QAT"} if record.candidate.quantization.aware_steps else {})
    return tuple((names[step.step], step.score) for step in record.accuracy_path)


def verdict(record: TrialRecord) -> str:
    """Return the result of a trial in a few words: feasible, which limit it breaks, or why it has no result."""
    if record.feasible:
        return "feasible"
    broken = [f"{use.limit} exceeded by {100 * use.excess:.0f} %" for use in record.limits if use.excess > 0]
    if record.trained_in_part:
        return f"trained in part: {record.candidate.recipe.steps} of {record.full_updates} updates"
    if record.state in ("failed", "rejected") or not broken:
        return f"{record.state}: {record.reason or ', '.join(broken) or 'no reason was recorded'}"
    return f"infeasible: {', '.join(broken)}"


def remedy(records: Sequence[TrialRecord]) -> str:
    """Return what to do about a study without a front, as a sentence."""
    if any(record.trained_in_part for record in records):
        return "Continue the run: no training was brought to full length yet."
    if records and all(record.state == "failed" for record in records):
        return f"Every trial failed, the last one: {records[-1].reason or 'no reason was recorded'}."
    return "Continue the run; or, with --fresh, loosen [limits] or widen the space."


def percent(fraction: float) -> str:
    """Return a fraction as text in percent: 0.8134 -> `81.3 %`."""
    return f"{100 * fraction:.1f} %"


def score_title(records: Iterable[TrialRecord]) -> str:
    """Return the name of the score of these records: `top-1`, `mAP50-95`, `mIoU`."""
    return metric_title(metric_of(records))


def score_noun_of(records: Iterable[TrialRecord], *, plural: bool = False) -> str:
    """Return what the score of these records is called in a sentence: `accuracy` or `score`."""
    return score_noun(metric_of(records), plural=plural)


def score_axis(records: Iterable[TrialRecord]) -> str:
    """Return the label of an axis of scores: `top-1 accuracy`, `mAP50-95`."""
    title = score_title(records)
    return f"{title} accuracy" if title == metric_title(DEFAULT_METRIC) else title


def latency_title(records: Iterable[TrialRecord]) -> str:
    """Return the name of the latency of these records: `p50` of the engine, or `end-to-end`."""
    return next((record.latency.title for record in records if record.latency), LATENCY_TITLES["engine"])


def latency_words(latency: Latency) -> str:
    """Return a latency in a sentence: `latency 1.234 ms`, `end-to-end latency 1.234 ms`."""
    kind = "" if latency.objective == "engine" else f"{latency.title} "
    return f"{kind}latency {milliseconds(latency.p50_ms)}"


def latency_axis(records: Iterable[TrialRecord]) -> str:
    """Return the label of an axis of latencies: `p50 latency, ms`, `end-to-end latency, ms`."""
    return f"{latency_title(records)} latency, ms"


def accuracy_with_interval(quality: Quality) -> str:
    """Return score and interval as text, in percent: `81.3 (80.1-82.4)`."""
    return f"{100 * quality.score:.1f} ({100 * quality.score_low:.1f}-{100 * quality.score_high:.1f})"


def latency_with_interval(latency: Latency) -> str:
    """Return latency and interval as text, in milliseconds: `1.234 (1.221-1.250)`."""
    low, value, high = latency.p50_low_ms, latency.p50_ms, latency.p50_high_ms
    places = _decimals(value)
    # An interval of half a per cent must show as one, too.
    while places < _MOST_DECIMALS and low < value < high and f"{low:.{places}f}" == f"{high:.{places}f}":
        places += 1
    return f"{value:.{places}f} ({low:.{places}f}-{high:.{places}f})"


def milliseconds(value_ms: float) -> str:
    """Return a time as text: 1.2345 -> `1.234 ms`, 0.0051234 -> `0.00512 ms`."""
    return f"{milliseconds_number(value_ms)} ms"


def milliseconds_number(value_ms: float) -> str:
    """Return the number of `milliseconds`, with three significant digits or more down to a microsecond.

    It is for columns whose header names the unit.
    """
    return f"{value_ms:.{1 if value_ms >= 10 else _decimals(value_ms)}f}"


def _decimals(value_ms: float) -> int:
    """Return the number of decimals for a time in ms: three below 10 ms, and more below 0.1 ms.

    This gives at least three significant digits, as long as `_MOST_DECIMALS` are enough for them.
    """
    if value_ms >= 10:
        return 2 if value_ms < 100 else 1
    if not 0 < value_ms < 0.1:
        return 3
    return min(_MOST_DECIMALS, 2 - math.floor(math.log10(value_ms)))


def count(number: int) -> str:
    """Return a count as text: 20_400_000 -> `20.4 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:  # 999,999 is `1 M`, not `1e+03 k`
            return f"{number / size:.3g} {unit}" if number < 999.5 * size else f"{number / size:.0f} {unit}"
    return str(number)


def bytes_text(size_bytes: int) -> str:
    """Return a size as text: 1_250_000 -> `1.25 MB` (decimal, as file managers and data sheets count)."""
    text = count(size_bytes)
    return f"{text}B" if " " in text else f"{text} B"


def multipliers(scaling: Scaling) -> str:
    """Return depth, width and kernel as text: `1.5 x 0.75 x 1`; `*` says that single stages differ."""
    star = "*" if scaling.stages else ""
    return f"{scaling.depth:.4g} x {scaling.width:.4g} x {scaling.kernel:.4g}{star}"


def neck_text(scaling: Scaling) -> str:
    """Return what is scaled of neck, heads or decoder besides the width, as text; empty if nothing is."""
    usual = Scaling()
    parts = [
        f"width x {scaling.neck_width:.4g}" * (scaling.neck_width != usual.neck_width),
        f"follows {scaling.neck_follows.replace('_', ' and ')}" * (scaling.neck_follows != usual.neck_follows),
        scaling.decoder * (scaling.decoder != usual.decoder),
    ]
    return ", ".join(part for part in parts if part)


def scaling_text(scaling: Scaling) -> str:
    """Return the multipliers as text, with a neck that is not the usual one: `1 x 0.75 x 1, neck lraspp`."""
    neck = neck_text(scaling)
    return multipliers(scaling) + (f", neck {neck}" if neck else "")


def shape_text(record: TrialRecord) -> str:
    """Return the multipliers of a trial as text, with a neck that is not the usual one, and `, cut` if it was cut."""
    return f"{scaling_text(record.candidate.scaling)}{', cut' if record.cut_from else ''}"


def cut_text(spec: NetworkSpec, larger: NetworkSpec, *, built: int | None = None) -> str:
    """Return the trunk that a network is cut from as text: `the trunk of stem 24, stages 2 x 32 (3x3), ...`.

    `built` is the number of stages that both have, if these are not all of their specs.
    """
    mine, theirs = spec.stages[:built], larger.stages[:built]
    stages = ", ".join(f"{stage.depth} x {stage.channels} ({stage.kernel}x{stage.kernel})" for stage in theirs)
    unlike = [
        word
        for word, differs in (
            ("width", [each.channels for each in mine] != [each.channels for each in theirs]),
            ("depth", [each.depth for each in mine] != [each.depth for each in theirs]),
            ("kernel", [each.kernel for each in mine] != [each.kernel for each in theirs]),
        )
        if differs
    ]
    return f"the trunk of a network of larger {' and '.join(unlike) or 'width'}: stem {larger.stem.channels}, {stages}"


def quantization_text(quantization: Quantization, there: int | None = None) -> str:
    """Return the precision as text: `fp32`, or for int8 and fp8 how it was calibrated.

    `there` is the number of calibration images that the data have, of which there may be fewer than asked.
    """
    if quantization.precision not in CALIBRATED:
        return quantization.precision
    clip = f" {quantization.clip_percentile:g}" if quantization.calibration == "percentile" else ""
    images = quantization.calibration_images if there is None else min(quantization.calibration_images, there)
    words = [f"{quantization.calibration}{clip} over {images} image{'s' * (images != 1)}"]
    if quantization.weights == "per_tensor":
        words.append("one scale for all of a layer's weights")
    if quantization.keep_float:
        words.append(f"{quantization.keep_float} layers left in float")
    if quantization.bias_correction and not quantization.aware_steps:
        words.append("biases corrected")
    if quantization.aware_steps:
        words.append(f"{quantization.aware_steps} steps of quantization-aware training")
        if quantization.bias_correction:  # asked by a fixed axis, or run by an earlier version, which corrected them
            words.append("bias correction asked (only earlier versions correct biases after that training)")
    return ", ".join((quantization.precision, *words))


def device_text(device: Device) -> str:
    """Return the device as text: `AMD EPYC (2 cores), onnxruntime 1.32.0, 1 thread`."""
    threads = f"{device.threads} thread{'' if device.threads == 1 else 's'}"
    return f"{device.name}, {device.backend} {device.backend_version}, {threads}"


def pruning_text(pruning: Pruning) -> str:
    """Return the pruning as text: `25 % of the channels (l2, uniform), 30 % of the blocks, 2:4 zeros`, or `none`."""
    parts = []
    if pruning.channel_fraction:
        rounds = f", {pruning.rounds} rounds" if pruning.rounds > 1 else ""
        how = f"{pruning.criterion}, {pruning.scope}{rounds}"
        parts.append(f"{100 * pruning.channel_fraction:.0f} % of the channels ({how})")
    if pruning.block_fraction:
        parts.append(f"{100 * pruning.block_fraction:.0f} % of the blocks")
    if pruning.sparsity == "2:4":
        parts.append("2:4 zeros")
    if pruning.sparsity == "unstructured":
        parts.append(f"{100 * pruning.sparse_fraction:.0f} % zeros")
    return ", ".join(parts) or "none"


def made_pruning_text(asked: Pruning, made: Pruning) -> str:
    """Return the pruning that had an effect, and what was asked in vain: `none (asked: ..., which rounds to no block)`.

    Args:
        asked: What the candidate asks for.
        made: The part of it that had an effect.
    """
    vain = list[str]()
    if asked.channel_fraction and not made.channel_fraction:
        channels = replace(asked, block_fraction=0.0, sparsity="none")
        vain.append(f"{pruning_text(channels)}, which rounds to no channel")
    if asked.block_fraction and not made.block_fraction:
        vain.append(f"{pruning_text(Pruning(block_fraction=asked.block_fraction))}, which rounds to no block")
    if asked.sparsity != made.sparsity:
        zeros = Pruning(sparsity=asked.sparsity, sparse_fraction=asked.sparse_fraction)
        vain.append(f"{pruning_text(zeros)}, for which no layer is wide enough")
    return f"{pruning_text(made)} (asked: {'; '.join(vain)})" if vain else pruning_text(made)


def score_change_text(gain: Gain) -> str:
    """Return the points that a step gained or lost, or that no network without it was trained as long."""
    if gain.score_change is None:
        return "not compared: no candidate trained the network without it for as many updates"
    return f"{100 * gain.score_change:+.1f} points"


def unknown_bias_line(front: Sequence[MeasuredTrial]) -> str:
    """Return the line that stands below a front about whose bias nothing is known."""
    updates = sorted({record.candidate.recipe.steps for record in front})
    told = f"{updates[0]} to {updates[-1]}" if len(updates) > 1 else f"{updates[0]}"
    return (
        f"scores are of {told} updates: whether so few favour small, large or cut networks, is not known "
        "(`scalesearch confirm` trains members longer, and finds out)"
    )
