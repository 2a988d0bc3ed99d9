"""Where rounding after training loses much: does training with rounding win it back, and what does mixed precision?

    python benchmarks/qat_vs_ptq.py --data DIR --to FOLDER [--steps 300] [--latency]

Trains small networks briefly (weights are kept in FOLDER), quantizes each in ways that hurt it, and compares on
validation images, over three seeds of training batches:

* ptq: as trained, calibrated and rounded; with corrected biases in the next column;
* float: fine-tuned in float for as many steps by the same rate on the same batches, then rounded. Without this control
  one would credit the rounding in training with what any further training brings;
* qat: `quantization_aware` for as many steps.

Then the curve of mixed precision of the network that loses most: the k layers that suffer most in float. With
`--latency` each of its files is timed in turn with the fp32 file (needs a quiet machine).

Rows are kept in FOLDER/qat_vs_ptq.jsonl; the same command continues, and prints the tables alone once all are there.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from brief_training import MACHINE, tensors, trained
from numpy.typing import NDArray

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.qdq import weighted_nodes
from scalesearch.data import LABEL_SOURCES, load_dataset, to_input
from scalesearch.data.normalisation import Normalisation
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.measurement.duet import ESTIMATORS, OBJECTIVE, ratio_interval
from scalesearch.measurement.latency import play_duet
from scalesearch.tasks.classification.augment import Batches
from scalesearch.tasks.classification.pieces import (
    quantization_aware,
    quantize,
    run_as_written,
    to_onnx,
    train,
)
from scalesearch.values.candidate import Quantization, Recipe, Scaling
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.settings import DataSettings, LatencySettings
from scalesearch.values.target import QuantizationProfile

Images = NDArray[np.float32]

RESOLUTION_PX = 48
SEEDS = (0, 1, 2)
STEPS = (60, 120)
CONTROL_RATE = 2e-3
"""Of the control's AdamW: that of `quantization_aware`."""
KEPT = (0, 1, 2, 3, 4, 6, 8, 12, 16, 1000)
BACKENDS: dict[QuantizationProfile, str] = {"onnxruntime_cpu": "onnxruntime", "openvino": "openvino"}
NETWORKS = {
    "mobilenet narrow": ("mobilenet_small", Scaling(width=0.5, depth=2)),
    "efficientnet narrow": ("efficientnet_small", Scaling(width=0.5, depth=2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network, quantized in one way; `openvino` is the style of TensorRT with fp32 around."""

    network: str
    profile: QuantizationProfile
    quantization: Quantization

    @property
    def name(self) -> str:
        """Short and unique."""
        asked = self.quantization
        clip = f" {asked.clip_percentile:g}" if asked.calibration == "percentile" else ""
        return f"{self.network}, {self.profile}, {asked.precision} {asked.weights} {asked.calibration}{clip}"


_TENSOR = Quantization(precision="int8", weights="per_tensor")
_CLIPPED = Quantization(precision="int8", calibration="percentile", clip_percentile=99.9)
CASES = (
    Case(network="mobilenet narrow", profile="openvino", quantization=_TENSOR),
    Case(network="mobilenet narrow", profile="onnxruntime_cpu", quantization=_TENSOR),
    Case(network="mobilenet narrow", profile="openvino", quantization=replace(_CLIPPED, precision="fp8")),
    Case(network="efficientnet narrow", profile="openvino", quantization=_CLIPPED),
    Case(network="efficientnet narrow", profile="openvino", quantization=replace(_CLIPPED, precision="fp8")),
)
CURVES = CASES[:2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file, scored."""

    case: str
    arm: str
    """ptq, bias, float, qat, or `keep K`."""
    steps: int
    seed: int
    top1: float
    agreement: float
    """Share of images that it puts into the same class as the float network."""
    float_top1: float
    ratio: float = 0.0
    """Latency over that of the fp32 file; 0 where not measured."""
    ratio_low: float = 0.0
    ratio_high: float = 0.0


class Bench:
    """Data, networks and rows."""

    def __init__(self, told: argparse.Namespace) -> None:
        self._told = told
        settings = DataSettings(source=told.data, val_fraction=told.val_fraction)
        self._data = load_dataset(settings, LABEL_SOURCES, storage_px=RESOLUTION_PX)
        self._val, self._calibration = (
            to_input(part.images[:], mean=self._data.mean, std=self._data.std)
            for part in (self._data.val, self._data.calibration)
        )
        self._labels = np.asarray(self._data.val.targets)
        self._path = told.to / "qat_vs_ptq.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows = [Row(**json.loads(line)) for line in lines]
        self._scratch = tempfile.TemporaryDirectory()
        self._networks: dict[str, tuple[Network, OnnxModel, Images]] = {}

    def run(self) -> None:
        """Everything that has no row yet."""
        for case in CURVES:
            for kept in KEPT:
                self._add(case, f"keep {kept}", 0, 0)
        for case in CASES:
            self._add(case, "ptq", 0, 0)
            self._add(case, "bias", 0, 0)
            for steps in STEPS:
                for seed in SEEDS:
                    self._add(case, "float", steps, seed)
                    self._add(case, "qat", steps, seed)

    def _add(self, case: Case, arm: str, steps: int, seed: int) -> None:
        done = self._find(case.name, arm, steps, seed)
        timed = self._told.latency and arm.startswith("keep")
        if done is not None and (done.ratio or not timed):
            return
        network, model, expected = self._network(case.network)
        asked = replace(case.quantization, qat_steps=steps, bias_correction=arm == "bias")
        ranges = None
        if arm.startswith("keep"):
            asked = replace(asked, keep_float=int(arm.split()[1]))
        elif arm == "float":
            network = self._finetuned(network, steps, seed)
        elif arm == "qat":
            result = quantization_aware(
                network,
                asked,
                profile=case.profile,
                batches=self._batches(seed).next,
                calibration=torch.from_numpy(self._calibration),
                seed=seed,
            )
            network, ranges = result.network, result.ranges
        if steps:
            model = to_onnx(network, to=self._file("tuned"), check_images=self._calibration[:8])
        file = quantize(
            model,
            asked,
            calibration=self._calibration,
            profile=case.profile,
            to=self._file("quantized"),
            input_ranges=ranges,
        )
        answers = self._answers(file, case.profile).argmax(axis=1)
        row = Row(
            case=case.name,
            arm=arm,
            steps=steps,
            seed=seed,
            top1=float((answers == self._labels).mean()),
            agreement=float((answers == expected.argmax(axis=1)).mean()),
            float_top1=float((expected.argmax(axis=1) == self._labels).mean()),
        )
        if timed:
            row = self._timed(row, file, self._network(case.network)[1], case.profile)
        self.rows = [each for each in self.rows if each != done] + [row]
        self._path.write_text("".join(json.dumps(asdict(each)) + "\n" for each in self.rows))
        print(f"{case.name}: {arm} {steps} steps, seed {seed}: {100 * row.top1:.1f}", flush=True)

    def _find(self, case: str, arm: str, steps: int, seed: int) -> Row | None:
        key = (case, arm, steps, seed)
        return next((row for row in self.rows if (row.case, row.arm, row.steps, row.seed) == key), None)

    def _network(self, name: str) -> tuple[Network, OnnxModel, Images]:
        """Folded, as a file, and what it answers to the validation images."""
        if name not in self._networks:
            network = fold_batchnorm(self._trained(name))
            file = self._told.to / f"{name.replace(' ', '_')}.onnx"
            model = to_onnx(network, to=file, check_images=self._calibration[:8])
            self._networks[name] = network, model, run_as_written(read_onnx(model.path), self._val)
        return self._networks[name]

    def _finetuned(self, network: Network, steps: int, seed: int) -> Network:
        recipe = Recipe(optimizer="adamw", learning_rate=CONTROL_RATE, dropout=0.0, label_smoothing=0.0)
        done = train(
            network,
            *tensors(self._data.train),
            recipe,
            MACHINE,
            mean=self._data.mean,
            std=self._data.std,
            seed=seed,
            steps=steps,
        )
        return done.network

    def _batches(self, seed: int) -> Batches:
        images = tensors(self._data.train)
        constants = Normalisation(mean=self._data.mean, std=self._data.std)
        return Batches(*images, Recipe(), normalisation=constants, device="cpu", seed=seed)

    def _answers(self, file: OnnxModel, profile: QuantizationProfile) -> Images:
        """By the session that would be deployed, or as the nodes are written where ONNX Runtime is not the target."""
        if profile != "onnxruntime_cpu":
            return run_as_written(read_onnx(file.path), self._val)
        with get_backend("onnxruntime").compile(file, EngineOptions()) as engine:
            parts = [engine.run(self._val[at : at + 64])["logits"] for at in range(0, len(self._val), 64)]
        return np.concatenate(parts)

    def _timed(self, row: Row, file: OnnxModel, reference: OnnxModel, profile: QuantizationProfile) -> Row:
        backend = get_backend(BACKENDS[profile])
        with backend.compile(file, EngineOptions()) as engine, backend.compile(reference, EngineOptions()) as fp32:
            duet = play_duet(engine, fp32, settings=LatencySettings())
        low, high = ratio_interval(duet, OBJECTIVE)
        return replace(row, ratio=ESTIMATORS[OBJECTIVE](duet), ratio_low=low, ratio_high=high)

    def _trained(self, name: str) -> Network:
        base, scaling = NETWORKS[name]
        return trained(base, self._data, self._told.steps, self._told.to / "weights", scaling=scaling)

    def _file(self, name: str) -> Path:
        return Path(self._scratch.name) / f"{name}.onnx"

    def layers(self, name: str) -> int:
        """Convolutions and linear layers of a network."""
        return len(weighted_nodes(read_onnx(self._network(name)[1].path)))


def comparison(rows: Iterable[Row]) -> list[str]:
    """A line for each case and number of steps; top-1 in per cent, mean of the seeds and their extremes."""
    rows = list(rows)
    lines = [f"{'':64} {'float':>6} {'ptq':>6} {'+bias':>6} {'steps':>6} {'float, then ptq':>20} {'qat':>20}"]
    for case in CASES:
        found = [row for row in rows if row.case == case.name]
        single = {row.arm: 100 * row.top1 for row in found if not row.steps}
        for steps in STEPS:
            cells = [_spread([row.top1 for row in found if (row.arm, row.steps) == (arm, steps)])
                     for arm in ("float", "qat")]  # fmt: skip
            floats = f"{100 * found[0].float_top1:6.1f} {single['ptq']:6.1f} {single['bias']:6.1f}"
            lines.append(f"{case.name:64} {floats} {steps:6d} {cells[0]:>20} {cells[1]:>20}")
    return lines


def _spread(values: list[float]) -> str:
    points = 100 * np.asarray(values)
    return f"{points.mean():.1f} ({points.min():.1f}..{points.max():.1f})"


def curve(rows: Iterable[Row], case: Case, layers: int) -> list[str]:
    """A line for each number of layers in float."""
    lines = [
        f"mixed precision, {case.name}: {layers} layers",
        f"{'in float':>9} {'top-1':>6} {'same':>6}  latency / fp32",
    ]
    chosen = {min(int(row.arm.split()[1]), layers): row for row in rows if row.case == case.name and "keep" in row.arm}
    for kept, row in sorted(chosen.items()):
        ratio = f"{row.ratio:.3f} [{row.ratio_low:.3f}, {row.ratio_high:.3f}]" if row.ratio else "not measured"
        lines.append(f"{kept:9d} {100 * row.top1:6.1f} {100 * row.agreement:6.1f}  {ratio}")
    return lines


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, .npz file or data set's name")
    parser.add_argument("--to", type=Path, required=True, help="folder for weights and rows")
    parser.add_argument("--steps", type=int, default=300, help="of the networks' training")
    parser.add_argument("--val-fraction", type=float, default=0.3)
    parser.add_argument("--latency", action="store_true", help="time the files of the mixed-precision curve as well")
    told = parser.parse_args()
    told.to.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(MACHINE.threads)
    bench = Bench(told)
    bench.run()
    print("\n".join(["", *comparison(bench.rows)]))
    for case in CURVES:
        print("\n".join(["", *curve(bench.rows, case, bench.layers(case.network))]))


if __name__ == "__main__":
    main()
