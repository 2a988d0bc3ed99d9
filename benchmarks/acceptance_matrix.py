"""What NVIDIA's compiler makes of our files: every base network, scaled and pruned, in every precision.

    python benchmarks/acceptance_matrix.py [--quick] [--networks resnet_small ...] [--heads detection ...] [--to FOLDER]

Each network is scaled, pruned, exported and quantized as a trial would be, and compiled with TensorRT for RTX for an
RTX 40; no GPU is needed, but the extra `rtx`. Weights are random, with BatchNorm statistics of the images that they are
calibrated on: neither acceptance nor kernels depend on what a network has learnt. Then come files that are wrong on
purpose, which must be refused. Heads are the classifier, the detector and the two decoders of segmentation; a base
network whose strides a head cannot use is left out, with the reason. Ends with code 1 if a good file is refused or a
wrong one accepted. FOLDER keeps both tables as JSON lines.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime import quantization as ort_quantization

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends.tensorrt.builder import build_plan
from scalesearch.deployment.backends.tensorrt.library import load
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.deployment.targets import get_target
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import ConfigError, MissingBackendError, StageFailed
from scalesearch.files import replace_file
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.networks.build import build, settle_norms
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Precision, Pruning, Quantization, Scaling
from scalesearch.values.network import OnnxModel
from scalesearch.values.network_spec import Decoder, InputSize
from scalesearch.values.settings import TensorRtSettings

CHIP = get_target("rtx40")
NUM_CLASSES = 43
SMALL_PX, LARGE_PX = 48, 64
"""Of networks with a total stride below 32, and of the others: twice their last feature map's side."""
SETTLING_IMAGES, CALIBRATION_IMAGES, PATCH_PX = 64, 16, 8
BAD_CHIP = "8.0"
QUICK_NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One way to scale a base network."""

    name: str
    scaling: Scaling
    pruned: float = 0.0
    multiple: int = CHIP.channel_multiple
    """Of the channels, before and after pruning."""
    wide: bool = False
    """Whether images are twice as wide as high."""
    networks: tuple[str, ...] = ()
    """The base networks that it is for; empty: all."""


# Depths are rounded up, so 1.1 adds a block to every stage. With 25 blocks instead of 20, an untrained ResNet-50
# multiplies float32's rounding errors so much that the export's own check, ONNX Runtime against torch, rightly fails.
SHAPES = (
    Shape(name="as it is", scaling=Scaling()),
    Shape(name="narrow, kernels 5 and 7", scaling=Scaling(width=0.5, kernel=1.67)),
    Shape(name="wide, deep, more pixels", scaling=Scaling(resolution=1.5, width=1.3, depth=1.1)),
    Shape(name="40 % pruned, in eights", scaling=Scaling(), pruned=0.4, multiple=8),
    Shape(name="30 % pruned, odd counts", scaling=Scaling(width=0.75, kernel=1.4), pruned=0.3, multiple=1),
)
QUICK_SHAPES = (SHAPES[1], SHAPES[4])
DENSE_SHAPES = (
    Shape(
        name="neck follows all, deep",
        scaling=Scaling(depth=2.0, kernel=1.67, neck_follows="all"),
        networks=(*QUICK_NETWORKS, "resnet_scene"),
    ),
    Shape(name="twice as wide as high", scaling=Scaling(), wide=True),
)
"""Ways for the heads of detection and segmentation alone. Larger networks of twice the depth fail as told above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What follows a backbone."""

    task: str = "classification"
    decoder: Decoder = "topdown"


HEADS = {
    "classification": Head(),
    "detection": Head(task="detection"),
    "segmentation": Head(task="segmentation"),
    "segmentation-lraspp": Head(task="segmentation", decoder="lraspp"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file and what the compiler made of it."""

    head: str
    network: str
    shape: str
    precision: Precision
    accepted: bool
    reason: str = ""
    build_s: float = 0.0
    kernels: int = 0
    layers: str = ""
    """Convolutions and linear layers, by the precision that they run in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrong:
    """One file that is wrong on purpose, and the compiler's message; empty where it was accepted."""

    fault: str
    message: str


# ---- good files -------------------------------------------------------------------------------------------------


def float_model(base: str, shape: Shape, head: Head, folder: Path) -> tuple[OnnxModel, NDArray[np.float32]]:
    """The untrained network as a trial would export it, and the images that it was settled on."""
    side = LARGE_PX if base_spec(base).total_stride >= 32 or head.task != "classification" else SMALL_PX
    scaling, task = replace(shape.scaling, decoder=head.decoder), get_task(head.task)
    size = InputSize(height_px=side, width_px=2 * side if shape.wide else side)
    spec = scale(base_spec(base), scaling, resolution_px=size, num_classes=NUM_CLASSES, channel_multiple=shape.multiple)
    images = patchwork(spec.image_channels, spec.input_size)
    network = build(spec, task.make_module)
    pruned = prune(network, Pruning(channel_fraction=shape.pruned), channel_multiple=shape.multiple)
    folded = fold_batchnorm(settle_norms(pruned, images))
    path = folder / "float.onnx"
    model = to_onnx(folded, to=path, check_images=images[:4], output_names=task.output_names)
    return model, images[:CALIBRATION_IMAGES]


def patchwork(channels: int, size: InputSize) -> NDArray[np.float32]:
    """Images of random patches of colour.

    A deep untrained network can hardly tell images of fine noise apart. BatchNorms settled on a few of them blow
    rounding errors up until no two programs agree on its answers.
    """
    rows, columns = (-(-side // PATCH_PX) for side in size.sides)
    drawn = np.random.default_rng(0).standard_normal((SETTLING_IMAGES, channels, rows, columns), dtype=np.float32)
    whole = np.kron(drawn, np.ones((1, 1, PATCH_PX, PATCH_PX), dtype=np.float32))
    return whole[:, :, : size.height_px, : size.width_px].copy()


def shapes_for(base: str, head: Head, *, quick: bool) -> tuple[Shape, ...]:
    """The ways to scale a base network with this head on it."""
    dense = DENSE_SHAPES if head.task != "classification" else ()
    shapes = (*(QUICK_SHAPES if quick else SHAPES), *dense)
    return tuple(shape for shape in shapes if not shape.networks or base in shape.networks)


def rows_of(base: str, shape: Shape, head: str, gate: Gate, folder: Path) -> Iterator[Row]:
    """The network in every precision of the chip; nothing if the head does not fit it."""
    try:
        model, images = float_model(base, shape, HEADS[head], folder)
    except ConfigError as error:
        print(f"{head:20} {base:18} left out: {str(error).splitlines()[0]}", flush=True)
        return
    except StageFailed as error:
        for precision in CHIP.precisions:
            yield Row(head=head, network=base, shape=shape.name, precision=precision, accepted=False, reason=str(error))
        return
    known = Calibration(images=images, divergence=get_task(HEADS[head].task).divergence)
    for precision in CHIP.precisions:
        try:
            file = quantize(
                model,
                Quantization(precision=precision),
                calibration=known,
                profile=CHIP.quantization_profile,
                to=folder / f"{precision}.onnx",
            )
            verdict = gate.judge(file)
        except StageFailed as error:
            reason = error.reason
            yield Row(head=head, network=base, shape=shape.name, precision=precision, accepted=False, reason=reason)
            continue
        yield Row(
            head=head,
            network=base,
            shape=shape.name,
            precision=precision,
            accepted=True,
            build_s=verdict.build_s,
            kernels=verdict.layers,
            layers=", ".join(f"{each.kernels} {each.precision}" for each in verdict.convolutions),
        )


# ---- files that are wrong on purpose ----------------------------------------------------------------------------


def cpu_style_int8(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """uint8 activations with zero points, as ONNX Runtime's CPU kernels want them."""
    quantization = Quantization(precision="int8")
    path = folder / "cpu_style.onnx"
    return quantize(model, quantization, calibration=_plain(images), profile="onnxruntime_cpu", to=path).path


def _plain(images: NDArray[np.float32]) -> Calibration:
    return Calibration(images=images, divergence=get_task("classification").divergence)


class _Once(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # a class of an untyped module
    """All images in one feed."""

    def __init__(self, feed: dict[str, NDArray[np.float32]]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._feeds, None)


def integer_bias(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """Symmetric int8 with the int32 biases that ONNX Runtime's quantizer writes if it is not told otherwise."""
    path, kind = folder / "integer_bias.onnx", ort_quantization.QuantType.QInt8
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it advises to pre-process, which is not wanted
    try:
        ort_quantization.quantize_static(
            str(model.path),
            str(path),
            _Once({read_onnx(model.path).graph.input[0].name: images}),
            quant_format=ort_quantization.QuantFormat.QDQ,
            activation_type=kind,
            weight_type=kind,
            per_channel=True,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
    finally:
        logging.getLogger().setLevel(level)
    return path


def mixed_add(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """The fp16 file with one side of its first Add cast to float."""
    half = quantize(
        model, Quantization(precision="fp16"), calibration=_plain(images), profile="tensorrt", to=folder / "half.onnx"
    )
    proto = read_onnx(half.path)
    place, add = next((at, node) for at, node in enumerate(proto.graph.node) if node.op_type == "Add")
    cast = onnx.helper.make_node("Cast", [add.input[0]], ["wide"], name="Cast_wide", to=onnx.TensorProto.FLOAT)
    add.input[0] = "wide"
    proto.graph.node.insert(place, cast)
    return _saved(proto, folder / "mixed_add.onnx")


def unknown_operator(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """The first ReLU replaced by an operator that nobody has."""
    proto = read_onnx(model.path)
    node = next(node for node in proto.graph.node if node.op_type == "Relu")
    node.op_type, node.domain = "Wobble", "nowhere"
    proto.opset_import.append(onnx.helper.make_opsetid("nowhere", 1))
    return _saved(proto, folder / "unknown.onnx")


def corrupt_bytes(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """The last half of the file missing."""
    content = model.path.read_bytes()
    path = folder / "corrupt.onnx"
    path.write_bytes(content[: len(content) // 2])
    return path


def good_fp8(model: OnnxModel, images: NDArray[np.float32], folder: Path) -> Path:
    """Right in itself; wrong is the chip."""
    quantization = Quantization(precision="fp8")
    path = folder / "fp8.onnx"
    return quantize(model, quantization, calibration=_plain(images), profile="tensorrt", to=path).path


def _saved(proto: onnx.ModelProto, path: Path) -> Path:
    del proto.graph.value_info[:]  # types of before the change
    onnx.save(proto, path)
    return path


def wrong_files(gate: Gate, folder: Path) -> Iterator[Wrong]:
    """Every fault in a small ResNet, and what is said to it."""
    model, images = float_model("resnet_small", SHAPES[0], HEADS["classification"], folder)
    faulty: dict[str, Callable[[OnnxModel, NDArray[np.float32], Path], Path]] = {
        "int8 in ONNX Runtime's CPU style": cpu_style_int8,
        "int32 bias behind a DequantizeLinear": integer_bias,
        "Add of half and float": mixed_add,
        "operator that nobody has": unknown_operator,
        "half of the file missing": corrupt_bytes,
    }
    for fault, make in faulty.items():
        path = make(model, images, folder)
        yield Wrong(fault=fault, message=said(functools.partial(gate.build, path)))
    yield Wrong(
        fault="dynamic batch without a profile",
        message=said(lambda: build_plan(load("tensorrt_rtx"), model.path, TensorRtSettings(), batches=None)),
    )
    fp8 = good_fp8(model, images, folder)
    yield Wrong(fault=f"fp8 for compute capability {BAD_CHIP}", message=said(lambda: Gate(BAD_CHIP).build(fp8)))


def said(build: Callable[[], object]) -> str:
    """The message of the refusal; empty where there is none."""
    try:
        build()
    except StageFailed as error:
        return error.reason
    return ""


# ---- the report -------------------------------------------------------------------------------------------------


def print_row(row: Row) -> None:
    """One line of the matrix."""
    verdict = (
        f"{'accepted':9} {row.build_s:7.2f} {row.kernels:7d}  {row.layers}" if row.accepted else f"REFUSED {row.reason}"
    )
    print(f"{row.head:20} {row.network:18} {row.shape:24} {row.precision:9} {verdict}", flush=True)


def print_totals(rows: list[Row]) -> None:
    """By precision: files, accepted ones, seconds."""
    print(f"\n{'precision':9} {'files':>5} {'accepted':>8} {'build s, mean':>13} {'worst':>6}")
    for precision in CHIP.precisions:
        group = [row for row in rows if row.precision == precision]
        seconds = [row.build_s for row in group if row.accepted] or [float("nan")]
        print(
            f"{precision:9} {len(group):5d} {sum(row.accepted for row in group):8d} "
            f"{sum(seconds) / len(seconds):13.2f} {max(seconds):6.2f}"
        )


@contextlib.contextmanager
def native_silence() -> Iterator[None]:
    """Nothing from native code on stderr meanwhile: protobuf prints about a damaged file, past Python."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def main() -> int:
    """Both tables; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three small networks at few scalings")
    parser.add_argument("--networks", nargs="+", choices=sorted(BASES), help="these alone")
    parser.add_argument("--heads", nargs="+", choices=sorted(HEADS), default=["classification"], help="these alone")
    parser.add_argument("--to", type=Path, help="folder for acceptance.jsonl and refused.jsonl")
    told = parser.parse_args()
    try:
        gate = Gate(CHIP.compute_capability)
    except MissingBackendError as error:
        raise SystemExit(str(error)) from error
    torch.set_num_threads(1)
    started = time.monotonic()
    rows: list[Row] = []
    print(
        f"{gate.name}\n{'head':20} {'network':18} {'scaling':24} {'precision':9} {'verdict':9} {'build s':>7}", end=" "
    )
    print("kernels  conv, linear")
    with tempfile.TemporaryDirectory() as scratch:
        for base in told.networks or (QUICK_NETWORKS if told.quick else BASES):
            for head in told.heads:
                for shape in shapes_for(base, HEADS[head], quick=told.quick):
                    for row in rows_of(base, shape, head, gate, Path(scratch)):
                        rows.append(row)
                        print_row(row)
        print_totals(rows)
        print("\nrefused on purpose")
        with native_silence():
            wrong = list(wrong_files(gate, Path(scratch)))
        for each in wrong:
            print(f"* {each.fault}: {each.message or 'ACCEPTED, which is a mistake'}")
    print(f"\n{sum(row.accepted for row in rows)} of {len(rows)} good files accepted,", end=" ")
    print(f"{sum(bool(each.message) for each in wrong)} of {len(wrong)} wrong ones refused;", end=" ")
    print(f"{time.monotonic() - started:.0f} s in all")
    if told.to:
        for name, lines in (("acceptance", rows), ("refused", wrong)):
            content = "".join(json.dumps(asdict(line)) + "\n" for line in lines)
            replace_file(told.to / f"{name}.jsonl", content.encode())
    return 0 if all(row.accepted for row in rows) and all(each.message for each in wrong) else 1


if __name__ == "__main__":
    raise SystemExit(main())
