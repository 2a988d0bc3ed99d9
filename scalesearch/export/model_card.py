"""MODEL_CARD.md of an export: what the network is, its scores and latencies, how to use it, and its limits."""

from collections.abc import Iterator
from pathlib import Path

from scalesearch.export.card_numbers import latency_section, score_section
from scalesearch.export.card_use import limits_section, use_section
from scalesearch.export.contents import Later, Written
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.records.confirmed import UNKNOWN_COST
from scalesearch.tasks.base import CardParts
from scalesearch.values.candidate import Pruning
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.views import words as report
from scalesearch.views.layer_table import BuiltParts, all_parts
from scalesearch.views.markup import markdown_table, markdown_text

CARD = "MODEL_CARD.md"


_NOTHING_LATER, _NOTHING_WRITTEN = Later(), Written()


def write_model_card(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    card: CardParts,
    parts: BuiltParts | None = None,
    later: Later = _NOTHING_LATER,
    written: Written = _NOTHING_WRITTEN,
) -> Path:
    """Write MODEL_CARD.md for a complete trial into `folder` and return its path.

    Args:
        record: Record of the trial.
        session: Session of its study.
        folder: The export.
        card: What the task says (`TaskViews.card`).
        parts: Which parts of its spec the network has; None: all of them.
        later: What was measured of the trial after the search.
        written: What else is in the export.
    """
    built, made = parts or all_parts(record.spec), written.pruning or record.candidate.pruning
    rows = ((f"`{file.name}`", file.what) for file in written.files)
    sections = (
        _head(record, session, card.noun),
        ("## Network", *_network(record, made, built)),
        (f"## {card.score}", *score_section(record, later), *card.details),
        ("## Latency", *latency_section(record, later)),
        ("## How it was made", *_making(record, session, made, built)),
        ("## How to use it", *use_section(record, session, later, written, answers=card.answers)),
        ("## Files", *markdown_table(("file", "what"), rows)),
        ("## Limits", *limits_section(record, session, later.confirmed, written.notes, card)),
    )
    path = folder / CARD
    text = "\n\n".join("\n".join(section) for section in sections)
    replace_file(path, f"{utf8_text(text)}\n".encode())
    return path


def _head(record: MeasuredTrial, session: Session, noun: str) -> Iterator[str]:
    data, title = session.data, record.quality.title
    yield f"# {markdown_text(record.spec.name)} for {markdown_text(data.name)}"
    yield ""
    yield (
        f"{noun}, found by scalesearch: trial {record.trial} of study "
        f"{markdown_text(session.name)}. It takes {record.spec.input_size} "
        f"{'grey' if record.spec.image_channels == 1 else 'RGB'} images and is deployed in "
        f"{record.candidate.quantization.precision}. {_sentence_start(title)} is "
        f"{report.percent(record.quality.score)} on validation "
        f"images, {report.latency_words(record.latency)} on the chip named below."
    )
    if session.synthetic:
        yield ""
        scores = report.score_noun_of([record], plural=True).capitalize()
        yield f"**The data are synthetic:** {session.drawn} drawn by a program. {scores} say nothing about photographs."


def _sentence_start(title: str) -> str:
    """Return a metric's name as a sentence begins with it: `Top-1`, but `mIoU`, which has capitals of its own."""
    return title if any(sign.isupper() for sign in title) else title[:1].upper() + title[1:]


def _network(record: MeasuredTrial, made: Pruning, built: BuiltParts) -> Iterator[str]:
    spec = record.spec
    if spec.origin:
        yield from _module(spec, record, made)
        return
    rows = [("stem", f"{spec.stem.kernel}x{spec.stem.kernel}", 1, spec.stem.channels, spec.stem.stride)]
    rows += [
        (stage.block.replace("_", " "), f"{stage.kernel}x{stage.kernel}", stage.depth, stage.channels, stage.stride)
        for stage in spec.stages[: built.stages]
    ]
    if spec.head.channels and built.classifier:
        rows.append(("head", "1x1", 1, spec.head.channels, 1))
    yield from markdown_table(("part", "kernel", "blocks", "channels", "stride"), rows)
    yield ""
    if neck := report.neck_text(record.candidate.scaling):
        own = f" (rows of {spec.neck_depth} convolutions of {spec.neck_kernel}x{spec.neck_kernel})"
        yield f"Between backbone and outputs: {neck}{own if spec.decoder != 'lraspp' else ''}."
    yield _size(record)
    if made.any:
        pruned = report.made_pruning_text(record.candidate.pruning, made)
        yield f"Channels and blocks are those before pruning; pruned: {pruned}. The counts are those after it."


def _module(spec: NetworkSpec, record: MeasuredTrial, made: Pruning) -> Iterator[str]:
    yield (
        f"The torch module that `{spec.origin}` returns, trained on from its weights (SHA-256 over their names and "
        f"bytes `{spec.origin_sha256[:16]}`)."
    )
    yield f"Pruned: {report.made_pruning_text(record.candidate.pruning, made)}."
    yield ""
    yield _size(record)
    yield (
        "`model.onnx` and `infer.py` need nothing of that module. `scalesearch train` does: the function must be found "
        "where it is run, and return the same weights. Their licence is that of their source."
    )


def _size(record: MeasuredTrial) -> str:
    cost, counted = record.cost, ""
    if cost != UNKNOWN_COST:
        counted = f"{report.count(cost.macs)} multiply-accumulates an image, {report.count(cost.params)} parameters, "
    return f"{counted}{report.bytes_text(record.size_bytes or 0)} deployed."


def _making(record: MeasuredTrial, session: Session, made: Pruning, built: BuiltParts) -> Iterator[str]:
    data, recipe = session.data, record.candidate.recipe
    yield f"* Data: {markdown_text(data.name)}: {data.train_images} training, {data.val_images} validation,"
    yield (
        f"  {data.calibration_images} calibration and {data.test_images} test images (fingerprint "
        f"`{data.fingerprint[:16]}`)."
    )
    yield (
        f"* Training: {recipe.optimizer}, {record.training.steps} steps of {recipe.batch_size} images, seed "
        f"{session.settings.seed}."
    )
    if record.cut_from:
        trunk = report.cut_text(record.spec, record.cut_from, built=built.stages)
        yield f"* Begun as {trunk}; cut to this one for the last updates."
    if parent := session.parent:
        tuned = f"fine-tuned on these images by {parent.steps} updates" if parent.steps else "used as it was"
        yield (
            f"* Parent: begun with weights of {markdown_text(parent.network.name)} from {markdown_text(parent.source)} "
            f"(SHA-256 `{parent.sha256[:16]}`), {tuned}."
        )
        if recipe.distill_weight:
            yield (
                f"* Distillation: {100 * recipe.distill_weight:.0f} % of the loss asked for the parent's answers, at "
                f"temperature {recipe.distill_temperature:g}."
            )
        yield f"* Licence of the parent: {markdown_text(parent.licence)}."
    yield f"* Pruning: {report.made_pruning_text(record.candidate.pruning, made)}."
    yield f"* Precision: {report.quantization_text(record.candidate.quantization, data.calibration_images)}."
    for gain in record.gains:
        verdict = ", no gain" if gain.no_gain else ""
        points = None if gain.score_change is None else f"{100 * gain.score_change:+.1f}"
        change = f"and {points} points of {report.score_title([record])}" if points else "(scores not compared)"
        yield (
            f"* {gain.what} brought {gain.speedup:.2f}x the speed ({gain.speedup_low:.2f} to {gain.speedup_high:.2f}) "
            f"{change}{verdict}."
        )
