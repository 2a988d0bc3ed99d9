"""Whose int8 and fp8 files serve TensorRT best: NVIDIA ModelOpt's, our own, or ONNX Runtime's quantize_static?

    python benchmarks/quantizers.py --data DIR --to FOLDER [--steps 300]

Trains three networks briefly (weights are kept in FOLDER, so a second run starts at once), quantizes each by every
producer and calibration on the same images, compiles every file with TensorRT for RTX for an RTX 40 (no GPU is needed)
and scores it on validation images. Neither these nor the calibration images were trained on. Needs the extras
`modelopt` and `rtx`. FOLDER keeps the ONNX files and the rows as `quantizers.jsonl`.

Scores are of each file's own Q/DQ nodes, run one by one by ONNX Runtime on the CPU with all half-precision parts
widened to fp32 (weights and scales keep their values). With graph optimizations on, its integer kernels may saturate
(benchmarks/int8_profiles.py), and in fp16 files its WeightBiasQuantization divides each bias by the product of two
scales, which overflows fp16 in fp8 files: 1.32 then gets up to every answer wrong. What is left in float is fp16 in
ModelOpt's files and ours, fp32 in ONNX Runtime's. Times are processor seconds of the producer alone, without imports.
"""

import argparse
import concurrent.futures
import contextlib
import copy
import importlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, get_args

import numpy as np
import onnx
import onnxruntime as ort
import torch
from brief_training import MACHINE, trained
from numpy.typing import NDArray
from onnxruntime import quantization as ort_quantization

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset, to_input
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.onnx_file import onnx_model, read_onnx
from scalesearch.deployment.targets import get_target
from scalesearch.errors import MissingBackendError, StageFailed
from scalesearch.files import replace_file
from scalesearch.tasks.classification.pieces import quantize, to_onnx
from scalesearch.values.candidate import CalibrationMethod, Precision, Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import DataSettings

Images = NDArray[np.float32]

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")
RESOLUTION_PX = 48
CHIP = "rtx40"
CALIBRATION_IMAGES = 128
CLIP_PERCENTILE = 99.99
"""Of ours and of ONNX Runtime's percentile calibration, so that they differ in nothing but their histograms."""
NO_MODELOPT = (
    "NVIDIA ModelOpt is not installed, so there is nothing to compare with.\n"
    "Install it with: pip install 'scalesearch[modelopt]'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One file to write: whose, from what, how and where."""

    producer: str
    model: OnnxModel
    images: Images
    precision: Precision
    calibration: str
    to: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantized file."""

    network: str
    producer: str
    precision: Precision
    calibration: str
    float_top1: float
    top1: float
    loss_standard_error: float
    """Of float_top1 - top1, which are of the same images."""
    agreement: float
    """Share of the images that the file and the float network put into the same class."""
    accepted: bool
    reason: str
    kernels: int
    """Fused layers that the compiler made."""
    low_layers: int
    """Convolutions and linear layers that it runs in the asked precision."""
    heavy_layers: int
    """All of them."""
    quantize_cpu_s: float
    size_bytes: int


# ---- the producers ----------------------------------------------------------------------------------------------


def write_ours(task: Task) -> None:
    """Our Q/DQ nodes, at the inputs of convolutions, linear layers and residual Adds alone."""
    method = next(each for each in OUR_METHODS if each == task.calibration)
    quantization = Quantization(
        precision=task.precision,
        calibration=method,
        clip_percentile=CLIP_PERCENTILE,
        calibration_images=len(task.images),
    )
    quantize(task.model, quantization, calibration=task.images, profile="tensorrt", to=task.to)


def write_modelopt(task: Task) -> None:
    """ModelOpt's default placement, with fp16 around it like ours."""
    from modelopt.onnx.quantization import quantize as modelopt_quantize

    modelopt_quantize(
        str(task.model.path),
        quantize_mode=task.precision,
        calibration_data=task.images,
        calibration_method=task.calibration,
        calibration_eps=["cpu"],  # its default tries CUDA and TensorRT first
        high_precision_dtype="fp16",
        output_path=str(task.to),
        log_level="ERROR",
    )


class _OneByOne(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # a class of an untyped module
    """Images as ONNX Runtime's calibrators want them."""

    def __init__(self, images: Images, input_name: str) -> None:
        self._feeds = iter({input_name: images[place : place + 1]} for place in range(len(images)))

    def get_next(self) -> dict[str, Images] | None:
        return next(self._feeds, None)


def write_onnxruntime(task: Task) -> None:
    """quantize_static with the options that TensorRT accepts."""
    methods, kinds = ort_quantization.CalibrationMethod, ort_quantization.QuantType
    method = {"minmax": methods.MinMax, "percentile": methods.Percentile, "distribution": methods.Distribution}
    kind = kinds.QInt8 if task.precision == "int8" else kinds.QFLOAT8E4M3FN
    ort_quantization.quantize_static(
        str(task.model.path),
        str(task.to),
        _OneByOne(task.images, read_onnx(task.model.path).graph.input[0].name),
        quant_format=ort_quantization.QuantFormat.QDQ,
        activation_type=kind,
        weight_type=kind,
        per_channel=True,
        calibrate_method=method[task.calibration],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "CalibPercentile": CLIP_PERCENTILE,
        },
    )


PRODUCERS: dict[str, tuple[str, Callable[[Task], None]]] = {
    "modelopt": ("modelopt.onnx.quantization", write_modelopt),
    "ours": ("scalesearch.compression.quantize", write_ours),
    "onnxruntime": ("onnxruntime.quantization", write_onnxruntime),
}
"""What is imported before the clock starts, and what writes the file."""
OUR_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
ARMS: tuple[tuple[Precision, str, tuple[str, ...]], ...] = (
    ("int8", "modelopt", ("max", "entropy")),
    ("int8", "ours", OUR_METHODS),
    ("int8", "onnxruntime", ("minmax", "percentile")),  # its entropy gives minmax's ranges
    ("fp8", "modelopt", ("max", "entropy")),
    ("fp8", "ours", OUR_METHODS),
    ("fp8", "onnxruntime", ("distribution",)),  # the only one that it has for fp8
)


def timed(task: Task) -> float:
    """Processor seconds of writing the file; called in the producer's own process."""
    package, write = PRODUCERS[task.producer]
    with _hushed():
        torch.set_num_threads(MACHINE.threads)
        importlib.import_module(package)
        started = time.process_time()
        write(task)
        return time.process_time() - started


class Processes:
    """One process for each producer: ModelOpt patches ONNX Runtime's calibrators, and quantize_static then fails."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pools = {name: concurrent.futures.ProcessPoolExecutor(1, mp_context=context) for name in PRODUCERS}

    def write(self, task: Task) -> float:
        """Processor seconds of the producer."""
        return self._pools[task.producer].submit(timed, task).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for pool in self._pools.values():
            pool.shutdown()


# ---- training, compiling, scoring -------------------------------------------------------------------------------


def as_written(path: Path, images: Images) -> Images:
    """Logits of the widened file, each of its nodes run as it stands there."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    content = widened(read_onnx(path)).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {feed: images[at : at + 64]})[0] for at in range(0, len(images), 64)])


def widened(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every fp16 tensor and cast in fp32: the same numbers, without fp16's rounding of activations."""
    wide = copy.deepcopy(proto)
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT

    def widen(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == half:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )

    for tensor in wide.graph.initializer:
        widen(tensor)
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                widen(attribute.t)
            elif attribute.name in ("to", "output_dtype") and attribute.i == half:
                attribute.i = single
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    del wide.graph.value_info[:]
    return wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Validation images with their labels and what the float network says of them."""

    network: str
    images: Images
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]


def measure(task: Task, *, spent_s: float, gate: Gate, truth: Truth) -> Row:
    """Scores and compiles the file that the task's producer wrote."""
    predicted = as_written(task.to, truth.images).argmax(axis=1)
    lost = (truth.predicted == truth.labels).astype(float) - (predicted == truth.labels)
    try:
        verdict, reason = gate.judge(onnx_model(task.to)), ""
    except StageFailed as error:
        verdict, reason = None, error.reason
    counts = {each.precision: each.kernels for each in verdict.convolutions} if verdict else {}
    return Row(
        network=truth.network,
        producer=task.producer,
        precision=task.precision,
        calibration=task.calibration,
        float_top1=float((truth.predicted == truth.labels).mean()),
        top1=float((predicted == truth.labels).mean()),
        loss_standard_error=float(lost.std(ddof=1)) / math.sqrt(len(lost)),
        agreement=float((predicted == truth.predicted).mean()),
        accepted=verdict is not None,
        reason=reason,
        kernels=verdict.layers if verdict else 0,
        low_layers=counts.get(task.precision, 0),
        heavy_layers=sum(counts.values()),
        quantize_cpu_s=spent_s,
        size_bytes=task.to.stat().st_size,
    )


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """The other producers print progress bars and advice, and log by the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


# ---- the report -------------------------------------------------------------------------------------------------

HEADING = (
    f"{'producer':12} {'to':5} {'calibration':12} {'top-1':>6} {'loss':>13} {'same':>6} "
    f"{'RTX':>8} {'8-bit':>6} {'kernels':>7} {'CPU s':>6} {'KiB':>6}"
)


def line(row: Row) -> str:
    """A row of a network's table; accuracies in per cent, losses in points with their standard error."""
    loss = f"{100 * (row.float_top1 - row.top1):5.1f} +-{100 * row.loss_standard_error:4.1f}"
    return (
        f"{row.producer:12} {row.precision:5} {row.calibration:12} {100 * row.top1:6.1f} {loss:>13} "
        f"{100 * row.agreement:6.1f} {'accepted' if row.accepted else 'REFUSED':>8} "
        f"{f'{row.low_layers}/{row.heavy_layers}':>6} {row.kernels:7d} {row.quantize_cpu_s:6.1f} "
        f"{row.size_bytes / 1024:6.0f}"
    )


def summary(rows: Sequence[Row]) -> list[str]:
    """Every arm over all networks, then what the compiler said to refused files."""
    arms: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        arms.setdefault((row.producer, row.precision, row.calibration), []).append(row)
    lines = ["", "over all networks: means of top-1, loss and agreement, sums of the rest", HEADING]
    lines += [line(_pooled(group)) for group in arms.values()]
    refused = [f"refused: {row.network} {row.producer} {row.calibration}: {row.reason}" for row in rows if row.reason]
    return [*lines, *refused]


def _pooled(group: Sequence[Row]) -> Row:
    count = len(group)
    return replace(
        group[0],
        float_top1=sum(row.float_top1 for row in group) / count,
        top1=sum(row.top1 for row in group) / count,
        loss_standard_error=math.sqrt(sum(row.loss_standard_error**2 for row in group)) / count,
        agreement=sum(row.agreement for row in group) / count,
        accepted=all(row.accepted for row in group),
        kernels=sum(row.kernels for row in group),
        low_layers=sum(row.low_layers for row in group),
        heavy_layers=sum(row.heavy_layers for row in group),
        quantize_cpu_s=sum(row.quantize_cpu_s for row in group),
        size_bytes=sum(row.size_bytes for row in group),
    )


def versions() -> str:
    """Of the three producers."""
    names = ("nvidia-modelopt", "onnxruntime", "onnx", "scalesearch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def run_network(name: str, data: Dataset, gate: Gate, processes: Processes, told: argparse.Namespace) -> list[Row]:
    """One network's table, printed as it grows."""
    files = told.to / "onnx"
    calibration, val = (to_input(part.images[:], mean=data.mean, std=data.std) for part in (data.calibration, data.val))
    network = trained(name, data, told.steps, told.to / "weights", channel_multiple=get_target(CHIP).channel_multiple)
    model = to_onnx(fold_batchnorm(network), to=files / f"{name}.onnx", check_images=calibration[:8])
    predicted = as_written(model.path, val).argmax(axis=1)
    truth = Truth(network=name, images=val, labels=np.asarray(data.val.targets), predicted=predicted)
    half = quantize(
        model,
        Quantization(precision="fp16"),
        calibration=calibration,
        profile="tensorrt",
        to=files / f"{name}.fp16.onnx",
    )
    top1 = 100 * float((predicted == truth.labels).mean())
    print(f"\n{name}: float top-1 {top1:.1f} %, {gate.judge(half).layers} kernels in fp16\n{HEADING}", flush=True)
    rows = []
    for precision, producer, methods in ARMS:
        for method in methods:
            task = Task(
                producer=producer,
                model=model,
                images=calibration[:CALIBRATION_IMAGES],
                precision=precision,
                calibration=method,
                to=files / f"{name}.{producer}.{precision}.{method}.onnx",
            )
            rows.append(measure(task, spent_s=processes.write(task), gate=gate, truth=truth))
            print(line(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Every network, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, .npz file or data set's name")
    parser.add_argument("--to", type=Path, required=True, help="folder for weights, ONNX files and quantizers.jsonl")
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--val-fraction", type=float, default=0.3)
    told = parser.parse_args()
    try:
        if importlib.util.find_spec("modelopt") is None:
            raise MissingBackendError(NO_MODELOPT)
        gate = Gate(get_target(CHIP).compute_capability)
    except MissingBackendError as error:
        raise SystemExit(str(error)) from error
    torch.set_num_threads(MACHINE.threads)
    data = load_dataset(
        DataSettings(source=told.data, val_fraction=told.val_fraction), LABEL_SOURCES, storage_px=RESOLUTION_PX
    )
    print(f"{gate.name}; {versions()}\n{data.name}, {len(data.class_names)} classes at {RESOLUTION_PX} px:", end=" ")
    print(f"{len(data.train)} train, {len(data.val)} validation, {CALIBRATION_IMAGES} calibration images")
    print("loss and standard error in points; same: answers equal to the float network's; 8-bit: of conv and linear")
    rows: list[Row] = []
    with Processes() as processes:
        for name in NETWORKS:
            rows += run_network(name, data, gate, processes, told)
            content = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
            replace_file(told.to / "quantizers.jsonl", content.encode())
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
