"""OpenVINO against ONNX Runtime on this CPU: the latency ratio on the same files, per precision and style of int8.

    python benchmarks/openvino_vs_onnxruntime.py [--networks resnet_small ...] [--seconds 6] [--to FILE]

Both engines run one file in turn in one process, as a duet (scalesearch/measurement/latency.py), one thread each; no
figure compares two runs. Below 1, OpenVINO is faster. The 95 % interval is that of this session: a fresh process moves
a ratio by about 0.4 % more. The last row of a network gives each engine the style of int8 that is made for it, which is
what targets `openvino` and `cpu` do. Weights are random, which costs the same time. `answers` is the correlation of the
two engines' logits over images, each class less its mean: far below 1, one of them computes something else. Needs the
extra `openvino`, and a quiet machine; it holds the device lock. FILE keeps the rows as JSON lines.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.errors import MissingBackendError
from scalesearch.files import replace_file
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.duet import ESTIMATORS, OBJECTIVE, ratio_interval
from scalesearch.measurement.latency import play_duet
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.networks.build import settle_norms
from scalesearch.tasks.classification.pieces import build, quantize, to_onnx
from scalesearch.values.candidate import Precision, Quantization, Scaling
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import LatencySettings
from scalesearch.values.target import QuantizationProfile

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")
RESOLUTION_PX, NUM_CLASSES, IMAGES = 64, 43, 64
FILES: tuple[tuple[str, Precision, QuantizationProfile], ...] = (
    ("fp32", "fp32", "openvino"),
    ("fp16", "fp16", "openvino"),
    ("int8, ONNX Runtime's style", "int8", "onnxruntime_cpu"),
    ("int8, TensorRT's and OpenVINO's", "int8", "openvino"),
)
OWN_STYLE = ("int8, each its own style", FILES[3][0], FILES[2][0])
"""The row's name, OpenVINO's file and ONNX Runtime's."""
OPTIONS = EngineOptions(threads=1, batch=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One duet."""

    network: str
    file: str
    ratio: float
    """OpenVINO's time over ONNX Runtime's."""
    low: float
    high: float
    openvino_p50_ms: float
    onnxruntime_p50_ms: float
    pairs: int
    """Of blocks, one of each engine."""
    answers: float
    """Correlation of the two engines' logits."""


def files_of(name: str, folder: Path) -> tuple[dict[str, OnnxModel], NDArray[np.float32]]:
    """The network's files by their names in the table, and images to run."""
    spec = scale(base_spec(name), Scaling(), resolution_px=RESOLUTION_PX, num_classes=NUM_CLASSES)
    side = spec.resolution_px
    images = np.random.default_rng(0).standard_normal((IMAGES, spec.image_channels, side, side), dtype=np.float32)
    network = fold_batchnorm(settle_norms(build(spec), images))
    model = to_onnx(network, to=folder / f"{name}.onnx", check_images=images[:8])
    files = {
        file: quantize(
            model,
            Quantization(precision=precision),
            calibration=images,
            profile=profile,
            to=folder / f"{name}.{place}.onnx",
        )
        for place, (file, precision, profile) in enumerate(FILES)
    }
    return files, images


def duet_row(
    name: str,
    file: str,
    models: tuple[OnnxModel, OnnxModel],
    images: NDArray[np.float32],
    settings: LatencySettings,
) -> Row:
    """OpenVINO with the first model against ONNX Runtime with the second."""
    openvino, onnxruntime = (get_backend(name) for name in ("openvino", "onnxruntime"))
    with openvino.compile(models[0], OPTIONS) as ours, onnxruntime.compile(models[1], OPTIONS) as other:
        answers = correlation(ours.run(images)["logits"], other.run(images)["logits"])
        with DeviceLock("cpu").quiet():
            duet = play_duet(ours, other, settings=settings)
    low, high = ratio_interval(duet, OBJECTIVE)
    return Row(
        network=name,
        file=file,
        ratio=ESTIMATORS[OBJECTIVE](duet),
        low=low,
        high=high,
        openvino_p50_ms=1e3 * float(np.median(duet.candidate_s)),
        onnxruntime_p50_ms=1e3 * float(np.median(duet.reference_s)),
        pairs=len(duet.candidate_s),
        answers=answers,
    )


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's, over images and classes, after each class's mean is taken off: a common offset is no agreement."""
    centred = [(logits - logits.mean(axis=0)).ravel() for logits in (one, other)]
    return float(np.corrcoef(centred[0], centred[1])[0, 1])


def print_row(row: Row) -> None:
    """One line of the table."""
    print(
        f"{row.network:18} {row.file:32} {row.ratio:6.3f} [{row.low:6.3f}, {row.high:6.3f}] "
        f"{row.openvino_p50_ms:9.3f} {row.onnxruntime_p50_ms:12.3f} {row.pairs:6d} {row.answers:8.4f}",
        flush=True,
    )


def print_head(settings: LatencySettings) -> None:
    """The machine, the versions, the columns.

    Raises:
        MissingBackendError: OpenVINO is not installed.
    """
    devices = [get_backend(name).device(OPTIONS.threads) for name in ("openvino", "onnxruntime")]
    libraries = ", ".join(f"{device.backend} {device.backend_version}" for device in devices)
    print(f"{devices[0].name} ({', '.join(devices[0].features)}), {os.cpu_count()} cores, {platform.system()}")
    print(f"{libraries}; {OPTIONS.threads} thread each, batch {OPTIONS.batch}, {RESOLUTION_PX} px;", end=" ")
    print(f"up to {settings.max_s:g} s a duet; load average before: {os.getloadavg()[0]:.1f}\n")
    print(f"{'':51} {'OpenVINO / ONNX Runtime':>25} {'median ms':>17}")
    print(f"{'network':18} {'file':32} {'ratio':>6} {'[95 %]':>16} {'OpenVINO':>9} {'ONNX Runtime':>12}", end=" ")
    print(f"{'pairs':>6} {'answers':>8}")


def main() -> None:
    """Every network and file in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=sorted(BASES), default=NETWORKS)
    parser.add_argument("--seconds", type=float, default=LatencySettings().max_s, help="longest duet")
    parser.add_argument("--to", type=Path, help="file for the rows, as JSON lines")
    told = parser.parse_args()
    settings = LatencySettings(max_s=told.seconds)
    torch.set_num_threads(1)
    try:
        print_head(settings)
    except MissingBackendError as error:
        raise SystemExit(str(error)) from error
    rows: list[Row] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in told.networks:
            files, images = files_of(name, Path(folder))
            rounds = [(file, file, file) for file in files] + [OWN_STYLE]
            for file, first, second in rounds:
                rows.append(duet_row(name, file, (files[first], files[second]), images, settings))
                print_row(rows[-1])
                if told.to:
                    replace_file(told.to, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())
    print(f"\n{time.monotonic() - started:.0f} s in all; load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
