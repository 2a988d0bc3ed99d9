"""The numbers of a model card: scores and latencies."""

from collections.abc import Iterator

from scalesearch.export.contents import Later
from scalesearch.values.quality import ClassDetail, Quality
from scalesearch.values.record import MeasuredTrial
from scalesearch.views import words as report
from scalesearch.views.markup import markdown_table, markdown_text


def score_section(record: MeasuredTrial, later: Later) -> Iterator[str]:
    """Yield the lines on the network's scores, on which images, and after each step from float to the deployed file."""
    score, confirmed, exported = later.score, later.confirmed, later.exported
    name = f"validation, confirmed: seed {exported.seed}" if exported else "validation, by which it was chosen"
    rows = [(name, *_quality_cells(record.quality))]
    if score and not exported:
        rows.append(("test", *_quality_cells(score.test)))
    for run in confirmed:
        rows.append((f"test, confirmed: seed {run.seed}, {run.steps} steps", *_quality_cells(run.test)))
    macro = ("macro precision", "macro recall") if isinstance(record.quality.detail, ClassDetail) else ()
    yield from markdown_table(("images", f"{record.quality.title}, % (95 % interval)", *macro, "number"), rows)
    yield ""
    yield "All by the deployed file, run by the engine that was timed."
    path = " -> ".join(f"{name} {report.percent(score)}" for name, score in report.named_steps(record))
    if path:
        yield f"On the way to it (validation): {path}."
    if exported:
        yield (
            f"The exported file is the confirmed one of seed {exported.seed}, trained at full length. It is the first "
            "seed's, however the other seeds did, so its numbers were not picked for being the best."
        )
    elif confirmed:
        yield (
            f"The exported weights are the search's ({record.training.steps} steps); the confirmed rows are this "
            "network trained anew at full length: `scalesearch export --confirmed` exports those."
        )


def _quality_cells(quality: Quality) -> tuple[str, ...]:
    detail = quality.detail
    macro = (detail.macro_precision, detail.macro_recall) if isinstance(detail, ClassDetail) else ()
    return (
        report.accuracy_with_interval(quality),
        *(report.percent(each) for each in macro),
        str(quality.images),
    )


def latency_section(record: MeasuredTrial, later: Later) -> Iterator[str]:
    """Yield the lines on the network's latency, one for each time that it was measured."""
    latency = record.latency
    rows = [("search", report.latency_with_interval(latency), "yes" if latency.stable else "NO")]
    if later.exported:  # the search timed another file
        rows.clear()
    elif later.score:
        again = later.score.latency
        rows.append(("fresh process", report.latency_with_interval(again), "yes" if again.stable else "NO"))
    for run in later.confirmed:
        timed = run.latency
        rows.append(
            (f"confirmed, seed {run.seed}", report.latency_with_interval(timed), "yes" if timed.stable else "NO")
        )
    yield from markdown_table(("measured", f"{latency.title}, ms (95 % interval)", "stable"), rows)
    yield ""
    device = markdown_text(report.device_text(record.device)) if record.device else "a device that was not recorded"
    after, alone = latency.postprocessing, latency.of_engine
    yield (
        f"At batch {latency.batch} on {device}. "
        + ("The network" + (" and the work on its answers" if latency.objective == "end_to_end" else " alone"))
        + ": reading and resizing the image are not in it."
    )
    if after and (whole := latency.end_to_end):
        when = "after this training" if later.exported else "when the study was made"
        yield ""
        yield (
            f"End to end {report.milliseconds(whole.p50_ms)}: {report.milliseconds(alone.p50_ms)} for the network, "
            f"{report.milliseconds(after.p50_ms)} for making results of its answers (numpy on one thread, median of "
            f"{after.images} validation images, {when})."
        )
