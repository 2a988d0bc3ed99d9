"""The last sections of a model card: how to use the exported network, and how far its numbers can be trusted."""

from collections.abc import Iterator, Sequence
from typing import Final

from scalesearch.export.contents import Later, Written
from scalesearch.export.metadata import PREPROCESSING
from scalesearch.export.reading import reading_words
from scalesearch.tasks.base import CardParts
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.quality import score_noun
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.training_length import full_length, recipe_of
from scalesearch.views.markup import markdown_text

_PACKAGES: Final = {"python": "Python", "pillow": "Pillow", "onnxruntime": "ONNX Runtime"}


def use_section(
    record: MeasuredTrial,
    session: Session,
    later: Later,
    written: Written,
    *,
    answers: str,
) -> Iterator[str]:
    """Yield the lines on how to run, feed and retrain the network."""
    train = "scalesearch train config.toml --to trained"
    if exported := later.exported:
        recipe = record.candidate.recipe
        length = recipe_of(recipe, total_steps=exported.steps, pruned=later.retrained).steps
        train += f" --steps {length}" * (length != full_length(recipe, full_updates=record.full_updates).steps)
    yield "```bash"
    yield "pip install onnxruntime numpy pillow"
    yield "python infer.py photo.jpg                     # needs nothing of scalesearch"
    yield "scalesearch predict . photo.jpg --json        # the same with scalesearch installed"
    yield f"{train:<45} # the same network at full length, on your machine"
    yield "```"
    height_px, width_px = record.spec.input_size.sides
    sides, channels = f"{height_px}x{width_px}", record.spec.image_channels
    if written.oldest:
        told = ", ".join(f"{_PACKAGES.get(name, name)} {version}" for name, version in written.oldest.items())
        yield f"The oldest versions that do: {told}. numpy 2 wants ONNX Runtime 1.19; AVIF pictures want Pillow 11.3."
    if record.candidate.quantization.precision == "bf16":
        yield "`infer.py` cannot run bf16: ONNX Runtime has no such convolutions for CPUs. Run it by TensorRT."
    if _in_tensorrts_style(record, session):
        yield (
            "In your own code ONNX Runtime needs `graph_optimization_level = ORT_DISABLE_ALL` for this file, as in "
            "`infer.py`: its optimizations make other answers of it, in fp8 wrong ones."
        )
    yield (
        f"`model.onnx` takes float32 images (batch, {channels}, {height_px}, {width_px}) and "
        f"gives {answers}. Preprocessing is in `{PREPROCESSING}` and in the file's own "
        f"metadata{', class names too' if session.data.class_names else ''}."
    )
    if words := reading_words(record.spec, session.settings.data, session.storage):
        yield words
    if session.target.backend.startswith("tensorrt"):
        batch = session.settings.latency.batch
        tool, flags = "tensorrt_rtx", ""
        if session.target.backend != "tensorrt_rtx":  # whose tool may lack these flags
            made = written.pruning or record.candidate.pruning
            sparse = session.settings.tensorrt.for_pruning(made).sparse_weights
            tool, flags = "trtexec", " --noTF32" + " --sparsity=enable" * sparse
        yield ""
        yield "A TensorRT engine fits one GPU and one TensorRT version only; build yours on the machine that runs it:"
        yield "```bash"
        yield (
            f"{tool} --onnx=model.onnx --stronglyTyped --optShapes=image:{batch}x{channels}x{sides}"
            f" --minShapes=image:{batch}x{channels}x{sides} --maxShapes=image:{batch}x{channels}x{sides}"
            f"{flags} --saveEngine=model.engine"
        )
        yield "```"


def _in_tensorrts_style(record: MeasuredTrial, session: Session) -> bool:
    """Tell whether the network is quantized with scales in half precision, as for TensorRT."""
    precision = record.candidate.quantization.precision
    return precision == "fp8" or (precision == "int8" and session.target.quantization_profile == "tensorrt")


def limits_section(
    record: MeasuredTrial,
    session: Session,
    confirmed: Sequence[ConfirmedRun],
    notes: Sequence[str],
    card: CardParts,
) -> Iterator[str]:
    """Yield a line on each reason why the numbers should be read with care."""
    if session.synthetic:
        yield f"* Synthetic data: do not expect these {score_noun(record.quality.metric, plural=True)} on photographs."
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
