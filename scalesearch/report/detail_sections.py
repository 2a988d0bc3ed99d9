"""The sections that explain: axes, compression, classes, weights, training, and the machine."""

import platform
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from scalesearch.analysis.importance import FEWEST_TRIALS
from scalesearch.analysis.paid import paid_lines
from scalesearch.analysis.score_error import metric_of
from scalesearch.analysis.untrained import untrained_line
from scalesearch.export.reading import reading_words
from scalesearch.report.effects import axis_levels, effects_table
from scalesearch.study.contents import StudyContents
from scalesearch.values.quality import metric_title
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.settings import MANY_TRIALS, UNLIMITED_BUDGET
from scalesearch.views.markup import bullets, chart, paragraph, section, table, text
from scalesearch.views.words import device_text, latency_title, percent, score_noun_of

NO_MEMBER: Final = "The front has no member yet."
SPACE_UNKNOWN: Final = "The space is not known: run.toml is absent or cannot be read."


def axes(study: StudyContents) -> str:
    """Write the section on the effect of each axis: its importance, and score and latency at each value."""
    title = "What each axis did"
    levels = axis_levels(study.records, study.session.space) if study.session else ()
    left_out = _left_out_words(study.records)
    if not levels:
        words = f"No axis took two values in measured trials of full length.{left_out}"
        return section("axes", title, paragraph(words if study.session else SPACE_UNKNOWN))
    parts, noun = [], score_noun_of(study.records)
    if study.importance:
        height = 300 if len(study.importance) <= 6 else 460
        parts.append(chart("importance", f"Importance of each axis for {noun} and for latency", height_px=height))
        note = (
            "PED-ANOVA: by how much the best tenth of the trials differs from all trials along an axis. It ranks axes, "
            "and says nothing of the direction: for that, see the table. Axes that only some candidates are asked for "
            "(such as a clip percentile) are left out."
        )
        parts.append(paragraph(note, css="note"))
    else:
        parts.append(
            paragraph(f"Importance is left out below {FEWEST_TRIALS} measured trials of full length.", css="note")
        )
    parts.append(effects_table(levels, metric_of(study.records), latency_title(study.records)))
    caution = (
        "The sampler tries good regions more often, and axes move together: these are the trials as they were asked, "
        "not an experiment with all else equal."
    )
    return section("axes", title, *parts, paragraph(caution + left_out, css="note"))


def _left_out_words(records: Sequence[TrialRecord]) -> str:
    """Return a sentence on the measured trials that are left out since they were trained in part, if there are any."""
    measured = (record for record in records if record.same_as is None and record.quality and record.latency)
    number = sum(record.short for record in measured)
    if not number:
        return ""
    return f" Left out: {number} trial{'' if number == 1 else 's'} trained in part."


def compression(study: StudyContents) -> str:
    """Write the section on what each compression step brought, against the same network without it."""
    lines = paid_lines(study.records)
    if not lines:
        words = "No compression step was measured against the same network without it."
        return section("compression", "What compression paid", paragraph(words))
    note = (
        "A step paid where it is faster beyond doubt: the 95 % interval of its speed-up lies above 1. In these lines a "
        "network counts once."
    )
    return section(
        "compression",
        "What compression paid",
        chart("paid", f"Speed-up against change of {score_noun_of(study.records)} for every measured compression step"),
        bullets(lines),
        paragraph(note, css="note"),
    )


def histograms(study: StudyContents, shown: tuple[int, ...], left_out: int) -> str:
    """Write the section on weights and activations of the front members that `scalesearch histogram` was run for."""
    title = "Weights and activations"
    if not shown and not (study.front or study.without_histograms):
        return section("histograms", title, paragraph(NO_MEMBER))
    if not shown:
        words = (
            f"They cannot be read from the study's database: {study.without_histograms}"
            if study.without_histograms
            else f"{left_out} are left out to keep the file small. `scalesearch histogram --trial N` shows them."
            if left_out
            else "None are stored in this study. `scalesearch histogram --front` computes them for every member of the "
            "front and keeps them here; then write the report again."
        )
        return section("histograms", title, paragraph(words))
    options = "".join(f'<option value="{trial}">trial {trial}</option>' for trial in shown)
    rest = f" {left_out} more are left out to keep the file small." if left_out else ""
    missing = len(study.front) - len(shown) - left_out
    todo = f" {missing} members have none: `scalesearch histogram --front`." if missing > 0 else ""
    note = (
        "A line for each layer, darker where more values lie (log scale). Marks: 99 % of the weights, and what eight "
        f"bits reach of what the layer reads.{rest}{todo}"
    )
    pick = f'<p class="pick"><label>Member <select id="histogram-member">{options}</select></label></p>'
    figure = chart("histogram", "Histograms of weights and activations, one line a layer", height_px=460)
    return section("histograms", title, pick, figure, paragraph(note, css="note"))


def training(study: StudyContents) -> str:
    """Write the section on how each member of the front was trained: steps, loss and seconds."""
    title = metric_title(study.metric)
    header = ("trial", "optimizer", "steps", "batch", "final loss", f"float {title}", f"engine {title}", "train, s",
              "after pruning, s", "weights")  # fmt: skip
    rows = [_training_row(record) for record in study.front if record.training and record.quality]
    note = "Reused weights were trained by another trial of the same network, whose time is shown."
    saved = untrained_line(study.records)
    curves = any(record.training and record.training.loss_curves for record in study.front)
    if curves:
        words = "Loss over the steps of training, a line for each member of the front; the knee's is strong"
        drawn = chart("losses", words)
    elif study.front:
        drawn = paragraph("These records hold no loss curves: an earlier version wrote them.", css="note")
    else:
        drawn = paragraph(NO_MEMBER, css="note")
    told = table(header, rows, caption="Training of the members of the front, fastest first")
    shown = [drawn, told, paragraph(note, css="note"), *([paragraph(f"{saved}.")] if saved else [])]
    return section("training", "Training", *shown)


def _training_row(record: MeasuredTrial) -> tuple[str, ...]:
    training, recipe = record.training, record.candidate.recipe
    return (
        str(record.trial),
        recipe.optimizer
        + (", distilled" if recipe.distill_weight else "")
        + (" (safe recipe)" if training.safe_recipe_used else ""),
        str(training.steps),
        str(recipe.batch_size),
        f"{training.final_loss:.4g}",
        percent(training.float_score),
        f"{percent(record.quality.score)} ({record.candidate.quantization.label})",
        f"{training.train_s:.1f}",
        f"{training.retrain_s:.1f}" if training.retrain_s else "-",
        "reused" if training.weights_reused else "own",
    )


def machine(study: StudyContents) -> str:
    """Write the section on where the numbers come from: device, versions, seeds, and the commands."""
    facts = [(label, words) for label, words in _facts(study) if words]
    rows = "".join(f"<dt>{text(label)}</dt><dd>{text(words)}</dd>" for label, words in facts)
    commands = "\n".join(
        command for command in (study.origin.command, f"scalesearch report {shlex.quote(study.name)}") if command
    )
    return section(
        "machine",
        "Machine, versions, commands",
        f"<dl>{rows}</dl>",
        "<h3>Commands that made it</h3>",
        f"<pre><code>{'<br>'.join(text(line) for line in commands.splitlines())}</code></pre>",
    )


def _facts(study: StudyContents) -> Iterator[tuple[str, str]]:
    session = study.session
    device = next((record.device for record in study.records if record.device), None)
    yield "Measured on", device_text(device) if device else ""
    if device and device.features:
        yield "Instruction sets", ", ".join(device.features)
    if session:
        settings, data = session.settings, session.data
        classes = f"; {len(data.class_names)} classes" if data.class_names else ""
        trained = session.machine
        yield (
            "Trained on",
            f"{trained.device}, {trained.threads} thread{'' if trained.threads == 1 else 's'}, "
            f"{'bf16' if trained.bf16 else 'fp32'}",
        )
        yield "Target", session.target.name
        whole = "end to end, " if settings.latency.objective == "end_to_end" else ""
        yield (
            "Latency",
            f"{whole}batch {settings.latency.batch}, 95 % interval to {100 * settings.latency.half_width:g} %",
        )
        yield (
            "Images",
            f"{data.train_images} train, {data.val_images} validation, {data.calibration_images} calibration, "
            f"{data.test_images} test{classes}",
        )
        if words := reading_words(session.base, settings.data, session.storage):
            yield "Read", words
        yield "Data fingerprint", data.fingerprint
        yield "Space", f"{session.space.name}, base network {session.base.name}"
        budget = "no budget" if settings.budget == UNLIMITED_BUDGET else f"budget {settings.budget}"
        limit = f", at most {settings.max_time_s:g} s a run" if settings.max_time_s else ""
        later = session.sampler_after(len(study.records))
        changed = f", {later} beyond {MANY_TRIALS:,} trials" if later != settings.sampler_name else ""
        yield "Sampler", f"{settings.sampler_name}{changed}, {budget}{limit}, {settings.workers} workers"
        yield "Seeds", f"search {settings.seed}, data {settings.data.seed}"
    yield "Host", ", ".join(f"{key} {value}" for key, value in study.origin.host)
    yield "Versions", ", ".join(f"{key} {value}" for key, value in study.origin.versions)
    yield "Run written by", study.origin.written_by
    yield "Report written with", f"Python {platform.python_version()}"
