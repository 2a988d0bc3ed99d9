"""What each int8 style costs and breaks on this CPU: accuracy, agreement with fp32, and latency of ONNX Runtime.

Trains one small network of each kind, quantizes it in every style and runs it twice: by the integer kernels of this CPU
and, as the truth, with every Q/DQ node executed as written. Where the two disagree, the kernels saturate. It is the
reason for the 7-bit weights of the `onnxruntime_cpu` profile (scalesearch/compression/quantize.py).

    python benchmarks/int8_profiles.py [--data FOLDER_OR_NPZ_OR_NAME] [--steps 600]
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorData, TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel

from scalesearch.compression.calibration import calibrate
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset, to_input
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.devices import read_cpu
from scalesearch.deployment.to_onnx import onnx_model
from scalesearch.networks import base_spec
from scalesearch.tasks.classification.pieces import build, to_onnx, train
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import DataSettings, MachineSettings

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")
# name, activation type, weight type, seven-bit weights, symmetric activations, integer bias
STYLES = (
    ("U8 x S8", QuantType.QUInt8, QuantType.QInt8, False, False, True),
    ("U8 x S7 (onnxruntime_cpu)", QuantType.QUInt8, QuantType.QInt8, True, False, True),
    ("U8 x U8", QuantType.QUInt8, QuantType.QUInt8, False, False, True),
    ("S8 x S8", QuantType.QInt8, QuantType.QInt8, False, False, True),
    ("S8 x S8 symmetric (tensorrt)", QuantType.QInt8, QuantType.QInt8, False, True, False),
)
OPERATORS = ["Conv", "Gemm", "Add", "Mul", "Relu", "Clip", "Sigmoid", "MaxPool", "GlobalAveragePool", "Reshape"]
RESOLUTION_PX = 32
TIMED_RUNS = 400


def main() -> None:
    """Prints one table per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    cpu = read_cpu()
    print(f"{cpu.name} ({', '.join(cpu.features)}), onnxruntime {ort.__version__}, 1 thread, {RESOLUTION_PX} px")
    dataset = load_dataset(DataSettings(source=arguments.data), LABEL_SOURCES, storage_px=RESOLUTION_PX).at(
        RESOLUTION_PX
    )
    images = to_input(dataset.val.images[:], mean=dataset.mean, std=dataset.std)
    calibration = to_input(dataset.calibration.images[:128], mean=dataset.mean, std=dataset.std)
    labels = np.asarray(dataset.val.targets)
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            network = trained(name, dataset, arguments.steps)
            path = Path(folder) / f"{name}.onnx"
            to_onnx(fold_batchnorm(network), to=path, check_images=calibration[:8])
            report(name, path, images, labels, calibration)


def trained(name: str, dataset: Dataset, steps: int) -> Network:
    """The base network of that name after brief training, in eval mode."""
    spec = replace(base_spec(name), resolution_px=RESOLUTION_PX, num_classes=len(dataset.class_names))
    machine = probe_machine(MachineSettings(threads=1, device="cpu"))
    images = torch.from_numpy(dataset.train.images[:].transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(np.asarray(dataset.train.targets, dtype=np.int64))
    recipe = Recipe(steps=steps)
    return train(
        build(spec, dropout=recipe.dropout), images, labels, recipe, machine, mean=dataset.mean, std=dataset.std, seed=0
    ).network


def report(
    name: str, path: Path, images: NDArray[np.float32], labels: NDArray[np.int64], calibration: NDArray[np.float32]
) -> None:
    """Rows of one network: style, top-1 by kernels and as written, agreement of the two, agreement with fp32, ms."""
    reference, time_ms = kernels_answer(path, images)
    print(f"\n{name}: fp32 top-1 {top1(reference, labels):.1%}, {time_ms:.3f} ms, {len(images)} images")
    print(f"{'style':30} {'top-1':>6} {'written':>8} {'kernel=written':>15} {'kernel=fp32':>12} {'ms':>7}")
    for style in STYLES:
        quantized = path.with_suffix(".int8.onnx")
        write_int8(path, quantized, style, calibration)
        answer, time_ms = kernels_answer(quantized, images)
        written = as_written(quantized, images)
        print(
            f"{style[0]:30} {top1(answer, labels):6.1%} {top1(written, labels):8.1%} "
            f"{agreement(answer, written):15.1%} {agreement(answer, reference):12.1%} {time_ms:7.3f}"
        )


def write_int8(
    source: Path,
    to: Path,
    style: tuple[str, QuantType, QuantType, bool, bool, bool],
    calibration: NDArray[np.float32],
) -> None:
    """One style with minmax ranges, so that nothing else differs between the rows."""
    _, activations, weights, seven_bit, symmetric, integer_bias = style
    proto = onnx.shape_inference.infer_shapes(onnx.load(source))
    ranges = calibrate(proto, calibration, method="minmax", clip_percentile=100.0, symmetric=symmetric)
    data = {key: TensorData(lowest=np.float32(low), highest=np.float32(high)) for key, (low, high) in ranges.items()}
    options = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": weights == QuantType.QInt8,
        "QuantizeBias": integer_bias,
    }
    tensors = TensorsData(CalibrationMethod.MinMax, data)
    quantizer = QDQQuantizer(proto, True, seven_bit, weights, activations, tensors, [], [], OPERATORS, options)
    quantized = quantizer.quantize_model()
    ONNXModel(quantized).topological_sort()
    onnx.save(quantized, to)


def kernels_answer(path: Path, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Logits of the engine that a search would time, and its fastest run in ms."""
    with get_backend("onnxruntime").compile(onnx_model(path), EngineOptions(threads=1, batch=1)) as engine:
        logits = engine.run(images)["logits"]
        engine.time_runs(50)
        return logits, 1e3 * min(engine.time_runs(TIMED_RUNS))


def as_written(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits without any graph optimization: Q/DQ nodes run one by one around float operators."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, {"image": images[start : start + 64]})[0] for start in range(0, len(images), 64)]
    return np.concatenate(parts)


def top1(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of images whose largest logit is their label's."""
    return float((logits.argmax(axis=1) == labels).mean())


def agreement(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Share of images that both put into the same class."""
    return float((one.argmax(axis=1) == other.argmax(axis=1)).mean())


if __name__ == "__main__":
    main()
