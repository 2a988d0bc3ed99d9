"""What BatchNorm folding changes: parity on every base network, latency before and after, and what compilers fuse.

    python benchmarks/folding.py [--networks resnet_small ...] [--resolution 64] [--seconds 6] [--to FILE]

For each network, on random weights (which cost the same time) and norms with real statistics:

*parity*: parameters before and after, BatchNorms folded and left, and the largest difference of the logits over their
spread over images, in float64 (is the algebra exact?) and float32 (what rounding adds).

*alone*, *as used*: latency of the same ONNX file with each convolution split again into Conv and BatchNormalization,
over that of the folded file, as a duet (scalesearch/measurement/latency.py), one thread; above 1, folding is faster.
Torch's exporter folds by itself, so the split is made here; and so does ONNX Runtime: *alone* has that one fusion off
on both sides (and so counts what else a BatchNorm in between keeps from fusing), *as used* has every optimization on,
as in a study. The 95 % interval is that of this session: a fresh process moves a ratio by about 0.4 % more.

*fusing*: how many of the folded file's activations run inside a convolution's kernel: in ONNX Runtime, all that are no
kernels of their own in its profile; in TensorRT for RTX, those that its layer list names together with a convolution;
and the kernels that it makes of the file with and without BatchNorms.

Needs a quiet machine, and holds the device lock; the extra `rtx` for its columns. FILE keeps the rows as JSON lines.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from scalesearch.compression.fold import fold_batchnorm, foldable_pairs
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.backends.onnxruntime import OnnxRuntimeEngine
from scalesearch.deployment.onnx_file import read_onnx, write_onnx
from scalesearch.errors import MissingBackendError
from scalesearch.files import replace_file
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.duet import ESTIMATORS, OBJECTIVE, ratio_interval
from scalesearch.measurement.latency import play_duet
from scalesearch.networks import BASES, base_spec, scale
from scalesearch.networks.build import settle_norms
from scalesearch.tasks.classification.pieces import build, to_onnx
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.settings import LatencySettings

NUM_CLASSES, IMAGES = 43, 16
OPTIONS = EngineOptions(threads=1, batch=1)
OWN_FUSION = "ConvBNFusion"
"""ONNX Runtime's name of what this benchmark must switch off."""
ACTIVATIONS = ("Relu", "Clip", "Sigmoid")
"""ReLU, ReLU6, and gates or the first half of SiLU, as ONNX files have them."""
OWN_KERNELS = (*ACTIVATIONS, "QuickGelu")
"""What they are called where ONNX Runtime runs them apart; it makes QuickGelu of a SiLU's two halves."""
SYNCHRONIZATION = ("signal", "wait")
"""Entries of TensorRT for RTX's layer list that compute nothing: kernels that run side by side meet there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Before and after, in torch."""

    network: str
    params_before: int
    params_after: int
    folded: int
    left: int
    """BatchNorms that stayed."""
    difference_f64: float
    difference_f32: float
    """Largest difference of logits over their spread (standard deviation over images, mean over classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One duet: the file with BatchNorms over the file without."""

    network: str
    optimizations: str
    ratio: float
    low: float
    high: float
    before_p50_ms: float
    after_p50_ms: float
    kernels_before: int
    kernels_after: int
    """That ONNX Runtime really runs; a BatchNorm left alone becomes a depthwise convolution there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusing:
    """Where the folded file's activations run; None without TensorRT for RTX."""

    network: str
    activations: int
    onnxruntime_inside: int
    rtx_inside: int | None
    rtx_kernels_before: int | None
    rtx_kernels_after: int | None


def main() -> None:
    """Every network in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=sorted(BASES), default=list(BASES))
    parser.add_argument("--resolution", type=int, default=0, help="side in pixels (default: each network's own)")
    parser.add_argument("--seconds", type=float, default=LatencySettings().max_s, help="longest duet")
    parser.add_argument("--to", type=Path, help="file for the rows, as JSON lines")
    told = parser.parse_args()
    torch.set_num_threads(1)
    settings = LatencySettings(max_s=told.seconds)
    gate = rtx_gate()
    print_head(settings, gate)
    rows: list[Parity | Speed | Fusing] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for name in told.networks:
            for row in rows_of(name, told.resolution, settings, gate, Path(folder)):
                rows.append(row)
                print(line(row), flush=True)
                if told.to:
                    replace_file(told.to, "".join(json.dumps(asdict(each)) + "\n" for each in rows).encode())
    print(f"\n{time.monotonic() - started:.0f} s in all; load average after: {os.getloadavg()[0]:.1f}")


def rows_of(
    name: str, resolution_px: int, settings: LatencySettings, gate: Gate | None, folder: Path
) -> Iterable[Parity | Speed | Fusing]:
    """All that is found out about one network."""
    network, images = settled(name, resolution_px)
    folded = fold_batchnorm(network)
    yield parity(name, network, folded, images)
    after = to_onnx(folded, to=folder / f"{name}.onnx", check_images=images[:8])
    before = write_onnx(with_norms(read_onnx(after.path), network.module), folder / f"{name}.norms.onnx")
    ensure_equal(before, after, images)
    for optimizations, off in (("alone", (OWN_FUSION,)), ("as used", ())):
        yield speed(name, optimizations, (before, after), off, settings)
    yield fusing(name, before, after, gate)


def settled(name: str, resolution_px: int) -> tuple[Network, NDArray[np.float32]]:
    """The untrained network with norms that have seen the images, and the images."""
    spec = base_spec(name)
    spec = scale(spec, Scaling(), resolution_px=resolution_px or spec.resolution_px, num_classes=NUM_CLASSES)
    side = spec.resolution_px
    images = np.random.default_rng(0).standard_normal((IMAGES, spec.image_channels, side, side), dtype=np.float32)
    network = build(spec)
    generator = torch.Generator().manual_seed(1)
    for norm in norms(network.module):
        # As after training, where gains and shifts are no longer 1 and 0.
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
        nn.init.normal_(norm.bias, 0.0, 0.3, generator=generator)
    return settle_norms(network, images), images


def norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    """Every BatchNorm of the network."""
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def parity(name: str, network: Network, folded: Network, images: NDArray[np.float32]) -> Parity:
    """The same images through both, in both number formats."""
    pixels = torch.from_numpy(images)
    exact = replace(network, module=copy.deepcopy(network.module).double())
    return Parity(
        network=name,
        params_before=sum(parameter.numel() for parameter in network.module.parameters()),
        params_after=sum(parameter.numel() for parameter in folded.module.parameters()),
        folded=len(norms(network.module)) - len(norms(folded.module)),
        left=len(norms(folded.module)),
        difference_f64=difference(exact.module, fold_batchnorm(exact).module, pixels.double()),
        difference_f32=difference(network.module, folded.module, pixels),
    )


def difference(one: nn.Module, other: nn.Module, pixels: Tensor) -> float:
    """Largest difference of the logits over their spread."""
    with torch.no_grad():
        logits, folded = one(pixels), other(pixels)
    return float((logits - folded).abs().max() / logits.std(dim=0).mean())


def with_norms(folded: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """The folded file with each convolution split again into Conv and BatchNormalization, by the module's tensors."""
    proto = onnx.ModelProto()
    proto.CopyFrom(folded)
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    by_weight = {node.input[1]: node for node in graph.node if node.op_type == "Conv"}
    for layer_name, norm_name in foldable_pairs(module):
        layer, norm = module.get_submodule(layer_name), module.get_submodule(norm_name)
        assert isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and layer.bias is None
        node = by_weight[f"{layer_name}.weight"]
        constants[node.input[1]].CopyFrom(tensor_of(node.input[1], layer.weight))
        graph.initializer.remove(constants[node.input[2]])
        del node.input[2:]
        tensors = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        names = [f"{norm_name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        graph.initializer.extend(tensor_of(*pair) for pair in zip(names, tensors, strict=True))
        output = node.output[0]
        node.output[0] = f"{output}_before_norm"
        split = onnx.helper.make_node(
            "BatchNormalization", [node.output[0], *names], [output], name=f"{node.name}_norm", epsilon=norm.eps
        )
        graph.node.insert(list(graph.node).index(node) + 1, split)
    del graph.value_info[:]
    return proto


def tensor_of(name: str, values: Tensor | None) -> onnx.TensorProto:
    """A tensor of the module as one of the file."""
    assert values is not None
    return numpy_helper.from_array(values.detach().numpy(), name)


def ensure_equal(before: OnnxModel, after: OnnxModel, images: NDArray[np.float32]) -> None:
    """The split file answers as the folded one, and answers spread: else the latencies would compare two networks."""
    logits = [run(model, images) for model in (before, after)]
    spread = logits[0].std(axis=0).mean()
    apart = np.abs(logits[0] - logits[1]).max()
    assert spread > 1e-3 * np.abs(logits[0]).max() and apart < 1e-2 * spread, (spread, apart)


def run(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits by ONNX Runtime."""
    with get_backend("onnxruntime").compile(model, OPTIONS) as engine:
        return engine.run(images)["logits"]


def engine_without(model: OnnxModel, off: tuple[str, ...]) -> OnnxRuntimeEngine:
    """The engine that a study times, but for the fusions in `off`."""
    options = session_options()
    session = ort.InferenceSession(
        str(model.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(off)
    )
    return OnnxRuntimeEngine(session, model, OPTIONS)


def session_options() -> ort.SessionOptions:
    """As deployment/backends/onnxruntime_session.py sets them, which offers no switch for single fusions."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def speed(
    name: str,
    optimizations: str,
    models: tuple[OnnxModel, OnnxModel],
    off: tuple[str, ...],
    settings: LatencySettings,
) -> Speed:
    """Before in turn with after."""
    with (
        engine_without(models[0], off) as before,
        engine_without(models[1], off) as after,
        DeviceLock("cpu").quiet(),
    ):
        duet = play_duet(before, after, settings=settings)
    low, high = ratio_interval(duet, OBJECTIVE)
    return Speed(
        network=name,
        optimizations=optimizations,
        ratio=ESTIMATORS[OBJECTIVE](duet),
        low=low,
        high=high,
        before_p50_ms=1e3 * float(np.median(duet.candidate_s)),
        after_p50_ms=1e3 * float(np.median(duet.reference_s)),
        kernels_before=len(kernels(models[0], off)),
        kernels_after=len(kernels(models[1], off)),
    )


def kernels(model: OnnxModel, off: tuple[str, ...] = ()) -> list[str]:
    """The operator of every kernel that ONNX Runtime runs, by its profiler."""
    options = session_options()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(
            str(model.path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(off)
        )
        image = np.zeros((1, *model.input_shape[1:]), dtype=np.float32)
        session.run(None, {session.get_inputs()[0].name: image})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        str(event["args"]["op_name"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]


def fusing(name: str, before: OnnxModel, after: OnnxModel, gate: Gate | None) -> Fusing:
    """What two compilers make of the activations."""
    nodes = read_onnx(after.path).graph.node
    activations = {node.name for node in nodes if node.op_type in ACTIVATIONS}
    own = sum(kind in OWN_KERNELS for kind in kernels(after))
    inside = before_count = after_count = None
    if gate is not None:
        convolutions = {node.name for node in nodes if node.op_type == "Conv"}
        layers, unfolded = (
            [layer for layer in gate.build(model.path).layers if layer.kind not in SYNCHRONIZATION]
            for model in (after, before)
        )
        held = {source for layer in layers if convolutions & set(layer.sources) for source in layer.sources}
        inside, after_count, before_count = len(activations & held), len(layers), len(unfolded)
    return Fusing(
        network=name,
        activations=len(activations),
        onnxruntime_inside=len(activations) - own,
        rtx_inside=inside,
        rtx_kernels_before=before_count,
        rtx_kernels_after=after_count,
    )


def rtx_gate() -> Gate | None:
    """TensorRT for RTX, which compiles without a GPU; None where the extra is missing."""
    try:
        return Gate()
    except MissingBackendError:
        return None


def line(row: Parity | Speed | Fusing) -> str:
    """One row in words and columns."""
    if isinstance(row, Parity):
        text = (
            f"parity   {row.params_before:,} -> {row.params_after:,} parameters, {row.folded} folded, {row.left} left, "
            f"differ by {row.difference_f64:.1e} (float64), {row.difference_f32:.1e} (float32) of the spread"
        )
    elif isinstance(row, Speed):
        text = (
            f"{row.optimizations:8} before / after {row.ratio:.3f} [{row.low:.3f}, {row.high:.3f}], "
            f"{row.before_p50_ms:.3f} / {row.after_p50_ms:.3f} ms, {row.kernels_before} / {row.kernels_after} kernels"
        )
    else:
        text = f"fusing   {row.onnxruntime_inside} of {row.activations} activations inside convolutions (ONNX Runtime)"
        if row.rtx_inside is not None:
            text += f", {row.rtx_inside} (TensorRT for RTX, {row.rtx_kernels_before} / {row.rtx_kernels_after} kernels)"
    return f"{row.network:18} {text}"


def print_head(settings: LatencySettings, gate: Gate | None) -> None:
    """The machine and the versions."""
    device = get_backend("onnxruntime").device(OPTIONS.threads)
    print(f"{device.name} ({', '.join(device.features)}), {os.cpu_count()} cores; torch {torch.__version__},", end=" ")
    print(f"onnxruntime {ort.__version__}; {gate.name if gate else 'no TensorRT for RTX'}; {IMAGES} images;", end=" ")
    print(f"up to {settings.max_s:g} s a duet, 1 thread; load average before: {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
