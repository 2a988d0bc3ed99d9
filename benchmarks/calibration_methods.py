"""Which calibration method serves trained networks best: four methods, three networks, three styles of eight bits.

    python benchmarks/calibration_methods.py --data DIR --to FOLDER [--steps 300]

Networks are trained briefly (weights are kept in FOLDER) and quantized with per-channel weights by each method on the
same calibration images. Scored on validation images, neither trained nor calibrated on: top-1, the share of answers
equal to the float network's, and the squared change of the logits relative to their variance, which tells methods
apart long before answers change. ONNX Runtime's CPU style is scored by its own session, the others (TensorRT's style
with fp32 around) as their nodes are written.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from brief_training import MACHINE, trained
from qat_vs_ptq import RESOLUTION_PX, Images

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset, to_input
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.tasks.classification.pieces import quantize, run_as_written, to_onnx
from scalesearch.values.candidate import CalibrationMethod, Precision, Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import DataSettings
from scalesearch.values.target import QuantizationProfile

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")
STYLES: tuple[tuple[QuantizationProfile, Precision], ...] = (
    ("onnxruntime_cpu", "int8"),
    ("openvino", "int8"),
    ("openvino", "fp8"),
)
METHODS: tuple[tuple[CalibrationMethod, float], ...] = (
    ("minmax", 100.0),
    ("percentile", 99.9),
    ("percentile", 99.99),
    ("percentile", 99.999),
    ("entropy", 100.0),
    ("mse", 100.0),
)
HEADING = (
    f"{'style':16} {'':5} {'method':18} {'top-1':>6} {'loss':>13} {'same':>6} {'change of logits':>17} {'CPU s':>6}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file, scored."""

    network: str
    profile: str
    precision: str
    method: str
    float_top1: float
    top1: float
    loss_standard_error: float
    """Of float_top1 - top1, which are of the same images."""
    agreement: float
    squared_change: float
    quantize_cpu_s: float


def line(row: Row) -> str:
    """Accuracies in per cent, the loss in points with its standard error."""
    loss = f"{100 * (row.float_top1 - row.top1):5.1f} +-{100 * row.loss_standard_error:4.1f}"
    return (
        f"{row.profile:16} {row.precision:5} {row.method:18} {100 * row.top1:6.1f} {loss:>13} "
        f"{100 * row.agreement:6.1f} {row.squared_change:17.5f} {row.quantize_cpu_s:6.1f}"
    )


def answers(file: OnnxModel, profile: QuantizationProfile, images: Images) -> Images:
    """Logits by the session that would be deployed, or as written."""
    if profile != "onnxruntime_cpu":
        return run_as_written(read_onnx(file.path), images)
    with get_backend("onnxruntime").compile(file, EngineOptions()) as engine:
        return np.concatenate([engine.run(images[at : at + 64])["logits"] for at in range(0, len(images), 64)])


def run_network(name: str, data: Dataset, told: argparse.Namespace) -> list[Row]:
    """One network's table, printed as it grows."""
    calibration, val = (to_input(part.images[:], mean=data.mean, std=data.std) for part in (data.calibration, data.val))
    labels = np.asarray(data.val.targets)
    network = fold_batchnorm(trained(name, data, told.steps, told.to / "weights"))
    model = to_onnx(network, to=told.to / f"{name}.onnx", check_images=calibration[:8])
    expected = run_as_written(read_onnx(model.path), val)
    right = expected.argmax(axis=1) == labels
    print(f"\n{name}: float top-1 {100 * right.mean():.1f} %\n{HEADING}", flush=True)
    rows = []
    for profile, precision in STYLES:
        for method, percentile in METHODS:
            quantization = Quantization(precision=precision, calibration=method, clip_percentile=percentile)
            started = time.process_time()
            file = quantize(
                model, quantization, calibration=calibration, profile=profile, to=told.to / "quantized.onnx"
            )
            spent_s = time.process_time() - started
            given = answers(file, profile, val)
            lost = right.astype(float) - (given.argmax(axis=1) == labels)
            rows.append(
                Row(
                    network=name,
                    profile=profile,
                    precision=precision,
                    method=f"{method} {percentile:g}" if method == "percentile" else method,
                    float_top1=float(right.mean()),
                    top1=float((given.argmax(axis=1) == labels).mean()),
                    loss_standard_error=float(lost.std(ddof=1)) / math.sqrt(len(lost)),
                    agreement=float((given.argmax(axis=1) == expected.argmax(axis=1)).mean()),
                    squared_change=float(((given - expected) ** 2).mean() / expected.var()),
                    quantize_cpu_s=spent_s,
                )
            )
            print(line(rows[-1]), flush=True)
    return rows


def summary(rows: list[Row]) -> list[str]:
    """Every style and method over all networks: means, the geometric one of the squared change."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.profile, row.precision, row.method), []).append(row)
    lines = ["", f"over {len(NETWORKS)} networks", HEADING]
    for (profile, precision, method), group in groups.items():
        count = len(group)
        pooled = Row(
            network="all",
            profile=profile,
            precision=precision,
            method=method,
            float_top1=sum(row.float_top1 for row in group) / count,
            top1=sum(row.top1 for row in group) / count,
            loss_standard_error=math.sqrt(sum(row.loss_standard_error**2 for row in group)) / count,
            agreement=sum(row.agreement for row in group) / count,
            squared_change=math.exp(sum(math.log(row.squared_change) for row in group) / count),
            quantize_cpu_s=sum(row.quantize_cpu_s for row in group) / count,
        )
        lines.append(line(pooled))
    return lines


def main() -> None:
    """Every network, then the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, .npz file or data set's name")
    parser.add_argument(
        "--to", type=Path, required=True, help="folder for weights, files and calibration_methods.jsonl"
    )
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--val-fraction", type=float, default=0.3)
    told = parser.parse_args()
    told.to.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(MACHINE.threads)
    settings = DataSettings(source=told.data, val_fraction=told.val_fraction)
    data = load_dataset(settings, LABEL_SOURCES, storage_px=RESOLUTION_PX)
    print(f"{data.name}, {len(data.class_names)} classes at {RESOLUTION_PX} px: {len(data.val)} validation images")
    rows: list[Row] = []
    for name in NETWORKS:
        rows += run_network(name, data, told)
        content = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
        (told.to / "calibration_methods.jsonl").write_text(content, encoding="utf-8")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
