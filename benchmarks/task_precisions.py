"""What each precision costs the trained networks of a study, of any task: the score of every file, exactly as written.

    scalesearch run --task detection --data DIR --budget 4 --to STUDY
    python benchmarks/task_precisions.py STUDY --networks 3 [--keep 0 2 4 8] [--to rows.jsonl]

Takes the networks of the study that were trained and differ (its front first), builds each in fp32 from its kept
weights, and quantizes it in every precision and style, int8 also with the layers that lose most left in float, and with
corrected biases. Every file runs on the validation images with each Q/DQ node executed as written, so no CPU kernel
adds an error of its own; bf16 is left out, since no kernel of ONNX Runtime's CPU runs it. Beside the score stands the
divergence from fp32 by the task's own measure.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from scalesearch.analysis.front import pareto_front
from scalesearch.chain.planner import Planner
from scalesearch.compression.layer_ranking import run_as_written
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.data import Dataset, to_input
from scalesearch.data.finding import load_study_data
from scalesearch.deployment.onnx_file import onnx_model, read_onnx
from scalesearch.errors import StageFailed
from scalesearch.export.trial_files import float_network
from scalesearch.records.run_file import stored_session
from scalesearch.records.store import RecordStore
from scalesearch.tasks.registry import sources_of, task_for
from scalesearch.values.candidate import Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.target import QuantizationProfile

BATCH = 16
CALIBRATION_IMAGES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file and its score."""

    trial: int
    network: str
    file: str
    score: float | None
    """None where the file could not be made; `told` says why."""
    divergence: float = 0.0
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A trained network in fp32, and the images that it is judged on."""

    trial: int
    network: str
    model: OnnxModel
    data: Dataset
    calibration: NDArray[np.float32]


def variants(keep: Sequence[int]) -> Iterator[tuple[str, QuantizationProfile, Quantization]]:
    """Yield name, style and request of every file."""
    yield "fp16", "tensorrt", Quantization(precision="fp16")
    yield "fp8", "tensorrt", Quantization(precision="fp8")
    styles: tuple[tuple[str, QuantizationProfile], ...] = (("CPU", "onnxruntime_cpu"), ("TensorRT", "tensorrt"))
    for name, profile in styles:
        for count in keep:
            yield f"int8 {name}, {count} in float", profile, Quantization(precision="int8", keep_float=count)
        yield f"int8 {name}, biases corrected", profile, Quantization(precision="int8", bias_correction=True)


def networks_of(records: Sequence[MeasuredTrial], count: int) -> list[MeasuredTrial]:
    """Return trials of distinct networks, members of the front first."""
    ordered = [*pareto_front(records), *records]
    found = {replace(each.candidate, quantization=Quantization()): each for each in reversed(ordered)}
    first = sorted(found.values(), key=lambda each: (ordered.index(each), each.trial))
    return first[:count]


def subject_of(record: MeasuredTrial, session: Session, folder: Path) -> Subject:
    """Build the trial's network in fp32."""
    path = folder / f"trial_{record.trial}.onnx"
    onnx.save(float_network(record, session), path)
    data = load_study_data(session, sources_of(session.settings.task)).at(
        Planner(session).spec(record.candidate).input_size
    )
    images = to_input(data.calibration.images[:CALIBRATION_IMAGES], mean=session.data.mean, std=session.data.std)
    scaling, cut = record.candidate.scaling, record.candidate.pruning.channel_fraction
    words = f"{record.spec.input_size}, depth {scaling.depth:g}, width {scaling.width:g}, kernel {scaling.kernel:g}"
    named = f"{words}, {100 * cut:.0f} % cut" if cut else words
    return Subject(trial=record.trial, network=named, model=onnx_model(path), data=data, calibration=images)


def judged(model: OnnxModel, subject: Subject, session: Session) -> tuple[float, list[dict[str, NDArray[np.float32]]]]:
    """Return the score of a file on the validation images, and its answers."""
    task, split, proto = task_for(session.settings), subject.data.val, read_onnx(model.path)
    metric, answers = task.make_metric(session.data.class_names), []
    for start in range(0, len(split.images), BATCH):
        images = to_input(split.images[start : start + BATCH], mean=session.data.mean, std=session.data.std)
        given = run_as_written(proto, images)
        metric.update(given, split.targets[start : start + BATCH])
        answers.append(given)
    return metric.score(), answers


def rows_of(subject: Subject, session: Session, keep: Sequence[int], folder: Path) -> Iterator[Row]:
    """Judge every file of one network."""
    task = task_for(session.settings)
    known = Calibration(images=subject.calibration, divergence=task.divergence)
    score, wanted = judged(subject.model, subject, session)
    yield Row(trial=subject.trial, network=subject.network, file="fp32", score=score)
    for name, profile, asked in variants(keep):
        try:
            model = quantize(subject.model, asked, calibration=known, profile=profile, to=folder / "quantized.onnx")
            score, given = judged(model, subject, session)
        except StageFailed as error:
            yield Row(trial=subject.trial, network=subject.network, file=name, score=None, told=error.reason)
            continue
        apart = np.mean([task.divergence(one, other) for one, other in zip(wanted, given, strict=True)])
        yield Row(
            trial=subject.trial, network=subject.network, file=name, score=score, divergence=float(apart),
            told=", ".join(floats(model)) if asked.precision == "int8" else "",
        )  # fmt: skip


def floats(model: OnnxModel) -> list[str]:
    """Return the names of convolutions whose weights are not dequantized: those that stay in float."""
    graph = read_onnx(model.path).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.name for node in graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] not in rounded]


def main() -> None:
    """Print the score of every file of every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--keep", type=int, nargs="+", default=[0, 2, 4], help="layers that stay in float")
    parser.add_argument("--to", type=Path, help="file for the rows (JSON lines)")
    told = parser.parse_args()
    session = stored_session(told.study)
    records = [each for record in RecordStore(told.study).all() if (each := record.measured)]
    rows = list[Row]()
    with tempfile.TemporaryDirectory() as scratch:
        for record in networks_of(records, told.networks):
            subject = subject_of(record, session, Path(scratch))
            print(f"\ntrial {subject.trial}: {subject.network}", flush=True)
            for row in rows_of(subject, session, told.keep, Path(scratch)):
                rows.append(row)
                shown = "-" if row.score is None else f"{100 * row.score:6.2f} %  divergence {row.divergence:.4g}"
                print(f"  {row.file:30} {shown}  {row.told}", flush=True)
    if told.to:
        told.to.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()
