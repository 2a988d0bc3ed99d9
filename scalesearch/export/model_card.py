"""MODEL_CARD.md of an export: what the network is, how good and how fast, how to use it, and what not to believe."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scalesearch.export.metadata import PREPROCESSING
from scalesearch.export.reading import reading_words
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.tasks.base import CardParts
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import ClassDetail, Quality
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.training_length import full_length, recipe_of
from scalesearch.views import words as report
from scalesearch.views.markup import markdown_table, markdown_text

CARD = "MODEL_CARD.md"
_PACKAGES: Final = {"python": "Python", "pillow": "Pillow", "onnxruntime": "ONNX Runtime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """One file of an export."""

    name: str
    """Its path within the export's folder."""
    what: str
    """A few words for the reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """What was measured of a trial after the search."""

    score: FrontScore | None = None
    """The trial's second evaluation, on test images, if it had one."""
    confirmed: tuple[ConfirmedRun, ...] = ()
    """The trial's runs at full length, if it was confirmed."""
    exported: ConfirmedRun | None = None
    """The one of them whose file is exported; the record is then `confirmed.as_confirmed` of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What an export holds besides its card."""

    files: tuple[ExportedFile, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be exported and why, one line each."""
    oldest: Mapping[str, str] = field(default_factory=dict)
    """The oldest versions that run `infer.py` on this model: python, onnxruntime, numpy, pillow."""


_NOTHING_LATER, _NOTHING_WRITTEN = Later(), Written()


def write_model_card(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    card: CardParts,
    later: Later = _NOTHING_LATER,
    written: Written = _NOTHING_WRITTEN,
) -> Path:
    """Write MODEL_CARD.md for a complete trial into `folder` and return its path.

    Args:
        record: Record of the trial.
        session: Session of its study.
        folder: The export.
        card: What the task says (`TaskViews.card`).
        later: What was measured of the trial after the search.
        written: What else is in the export.
    """
    rows = ((f"`{file.name}`", file.what) for file in written.files)
    sections = (
        _head(record, session, card.noun),
        ("## Network", *_network(record)),
        (f"## {card.score}", *_accuracy(record, later), *card.details),
        ("## Latency", *_latency(record, later)),
        ("## How it was made", *_making(record, session)),
        ("## How to use it", *_use(record, session, later.exported, written.oldest, answers=card.answers)),
        ("## Files", *markdown_table(("file", "what"), rows)),
        ("## Limits", *_limits(record, session, later.confirmed, written.notes, card)),
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
        f"{markdown_text(session.folder.name)}. It takes {record.spec.input_size} "
        f"{'grey' if record.spec.image_channels == 1 else 'RGB'} images and is deployed in "
        f"{record.candidate.quantization.precision}. {_sentence_start(title)} is "
        f"{report.percent(record.quality.score)} on validation "
        f"images, latency {report.milliseconds(record.latency.p50_ms)} on the chip named below."
    )
    if session.synthetic:
        yield ""
        yield "**The data are synthetic:** road signs drawn by a program. Accuracies say nothing about photographs."


def _sentence_start(title: str) -> str:
    """Return a metric's name as a sentence begins with it: `Top-1`, but `mIoU`, which has capitals of its own."""
    return title if any(sign.isupper() for sign in title) else title[:1].upper() + title[1:]


def _network(record: MeasuredTrial) -> Iterator[str]:
    spec = record.spec
    if spec.origin:
        yield from _module(spec, record)
        return
    rows = [("stem", f"{spec.stem.kernel}x{spec.stem.kernel}", 1, spec.stem.channels, spec.stem.stride)]
    rows += [
        (stage.block.replace("_", " "), f"{stage.kernel}x{stage.kernel}", stage.depth, stage.channels, stage.stride)
        for stage in spec.stages
    ]
    if spec.head.channels:
        rows.append(("head", "1x1", 1, spec.head.channels, 1))
    yield from markdown_table(("part", "kernel", "blocks", "channels", "stride"), rows)
    pruned = report.pruning_text(record.candidate.pruning)
    yield ""
    yield _size(record)
    if pruned != "none":
        yield f"Channels and blocks are those before pruning; pruned: {pruned}. The counts are those after it."


def _module(spec: NetworkSpec, record: MeasuredTrial) -> Iterator[str]:
    yield (
        f"The torch module that `{spec.origin}` returns, trained on from its weights (SHA-256 over their names and "
        f"bytes `{spec.origin_sha256[:16]}`)."
    )
    pruned = report.pruning_text(record.candidate.pruning)
    yield f"Pruned: {pruned}."
    yield ""
    yield _size(record)
    yield (
        "`model.onnx` and `infer.py` need nothing of that module. `scalesearch train` does: the function must be found "
        "where it is run, and return the same weights. Their licence is that of their source."
    )


def _size(record: MeasuredTrial) -> str:
    cost = record.cost
    return (
        f"{report.count(cost.macs)} multiply-accumulates an image, {report.count(cost.params)} parameters, "
        f"{report.bytes_text(record.size_bytes or 0)} deployed."
    )


def _accuracy(record: MeasuredTrial, later: Later) -> Iterator[str]:
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
    path = " -> ".join(f"{report.STEP_NAMES[step.step]} {report.percent(step.score)}" for step in record.accuracy_path)
    if path:
        yield f"On the way to it (validation): {path}."
    if exported:
        yield (
            f"The exported file is the confirmed one of seed {exported.seed}, trained at full length. It is the first "
            "seed's, whatever the others reached, so its numbers are no winner's."
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


def _latency(record: MeasuredTrial, later: Later) -> Iterator[str]:
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
    yield from markdown_table(("measured", "p50, ms (95 % interval)", "stable"), rows)
    yield ""
    device = markdown_text(report.device_text(record.device)) if record.device else "a device that was not recorded"
    yield f"At batch {latency.batch} on {device}. The network alone: reading and resizing the image are not in it."


def _making(record: MeasuredTrial, session: Session) -> Iterator[str]:
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
        yield f"* Begun as {report.cut_text(record.spec, record.cut_from)}; cut to this one for the last updates."
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
    yield f"* Pruning: {report.pruning_text(record.candidate.pruning)}."
    yield f"* Precision: {report.quantization_text(record.candidate.quantization)}."
    for gain in record.gains:
        verdict = ", no gain" if gain.no_gain else ""
        points = None if gain.score_change is None else f"{100 * gain.score_change:+.1f}"
        change = f"and {points} points of {report.score_title([record])}" if points else "(scores not compared)"
        yield (
            f"* {gain.what} brought {gain.speedup:.2f}x the speed ({gain.speedup_low:.2f} to {gain.speedup_high:.2f}) "
            f"{change}{verdict}."
        )


def _use(
    record: MeasuredTrial,
    session: Session,
    exported: ConfirmedRun | None,
    oldest: Mapping[str, str],
    *,
    answers: str,
) -> Iterator[str]:
    train = "scalesearch train config.toml --to trained"
    if exported:
        recipe = record.candidate.recipe
        length = recipe_of(recipe, total_steps=exported.steps, pruned=record.candidate.pruning.any).steps
        train += f" --steps {length}" * (length != full_length(recipe).steps)
    yield "```bash"
    yield "pip install onnxruntime numpy pillow"
    yield "python infer.py photo.jpg                     # needs nothing of scalesearch"
    yield "scalesearch predict . photo.jpg --json        # the same with scalesearch installed"
    yield f"{train:<45} # the same network at full length, on your machine"
    yield "```"
    height_px, width_px = record.spec.input_size.sides
    sides, channels = f"{height_px}x{width_px}", record.spec.image_channels
    if oldest:
        told = ", ".join(f"{_PACKAGES.get(name, name)} {version}" for name, version in oldest.items())
        yield f"The oldest versions that do: {told}. numpy 2 wants ONNX Runtime 1.19; AVIF pictures want Pillow 11.3."
    if record.candidate.quantization.precision == "bf16":
        yield "`infer.py` cannot run bf16: ONNX Runtime has no such convolutions for CPUs. Run it by TensorRT."
    yield (
        f"`model.onnx` takes float32 images (batch, {channels}, {height_px}, {width_px}) and "
        f"gives {answers}. Preprocessing is in `{PREPROCESSING}` and in the file's own "
        f"metadata{', class names too' if session.data.class_names else ''}."
    )
    if words := reading_words(record.spec, session.settings.data, session.storage):
        yield words
    if session.target.backend.startswith("tensorrt"):
        batch = session.settings.latency.batch
        tool = "tensorrt_rtx" if session.target.backend == "tensorrt_rtx" else "trtexec"
        yield ""
        yield "A TensorRT engine fits one GPU and one TensorRT version only; build yours on the machine that runs it:"
        yield "```bash"
        yield (
            f"{tool} --onnx=model.onnx --stronglyTyped --optShapes=image:{batch}x{channels}x{sides}"
            f" --minShapes=image:{batch}x{channels}x{sides} --maxShapes=image:{batch}x{channels}x{sides}"
            " --saveEngine=model.engine"
        )
        yield "```"


def _limits(
    record: MeasuredTrial,
    session: Session,
    confirmed: Sequence[ConfirmedRun],
    notes: Sequence[str],
    card: CardParts,
) -> Iterator[str]:
    if session.synthetic:
        yield "* Synthetic data: do not expect these accuracies on photographs."
    if not confirmed:
        yield (
            "* Not confirmed: trained briefly, and chosen among many by these very validation images, so that "
            f"{card.score.lower()} is flattered (winner's curse). `scalesearch confirm` looks again."
        )
    for limit in card.limits:
        yield f"* {limit}"
    yield "* Latency holds for the named device, library version and number of threads, and for no other."
    for warning in (*session.data.warnings, *record.warnings):
        yield f"* {markdown_text(warning)}"
    for note in notes:
        yield f"* {markdown_text(note)}"
