"""Turn an ONNX file into a TensorRT plan, strongly typed, for TensorRT 10.12 and later, 11, and TensorRT for RTX."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

from scalesearch.deployment.backends.tensorrt.layers import Layer, count_precisions, parse_layers
from scalesearch.deployment.backends.tensorrt.library import Library, logger_of
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.plain_text import one_line
from scalesearch.values.record import KernelCount
from scalesearch.values.settings import TensorRtSettings

STAGE: Final = "compile"
_MESSAGE_LENGTH: Final = 240
_HEAVY: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_HARMLESS: Final = ("scales to fp32",)
"""Words of warnings that are not passed on. This one comes with fp16 graphs with Q/DQ nodes: TensorRT keeps the scales
in float32, which is what we want."""

_REMEDIES: Final = (
    ("hw-specific datatypes", "this chip lacks the file's precision: choose another precision or chip"),
    ("zero point", "quantize with symmetric, signed int8 (target profile `tensorrt`), not in the style of a CPU"),
    ("same type", "cast both sides to one type: convert the whole graph, not a part, to half precision"),
    ("same input types", "cast both sides to one type: convert the whole graph, not a part, to half precision"),
    ("has type int32", "leave the bias in float: quantize with the target profile `tensorrt`"),
    ("no optimization profile", "the batch is dynamic and has no profile: give the batch that the engine shall run"),
    ("plugin", "the compiler has no such operator: replace it in the network"),
    ("no importer", "the compiler has no such operator: replace it in the network"),
    ("failed to parse", "the file is damaged: export it again"),
    ("at least one output", "the file is empty: export it again"),
    ("cannot be found", "the file is gone: export it again"),
    ("memory", "raise tensorrt.workspace_mb, or choose a smaller network or batch"),
)
"""Advice to the user on native messages: that of the first entry whose words are in the message is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A serialized engine, and what the compiler reported about it."""

    plan: bytes
    layers: tuple[Layer, ...]
    convolutions: tuple[KernelCount, ...]
    """Number of the file's convolutions and linear layers for each precision that they really run in."""
    seconds: float
    warnings: tuple[str, ...]


def build_plan(
    library: Library,
    onnx_file: Path,
    settings: TensorRtSettings,
    *,
    batches: tuple[int, int, int] | None,
    compute_capability: str = "",
    timing_cache: Path | None = None,
) -> Build:
    """Build the plan of an ONNX file, and list the layers that it holds.

    Args:
        library: The library, as `library.load` returns it.
        onnx_file: The file. The engine uses the types of its tensors: a strongly typed network takes no other hint of
            precision.
        settings: Builder effort, workspace and sparsity.
        batches: Smallest, optimal and largest batch of a dynamic first dimension; None builds without a profile.
        compute_capability: "8.9" builds for that chip (TensorRT for RTX only, which needs no GPU for it). Empty builds
            for the GPU here or, without one, a portable engine.
        timing_cache: File in which a timing cache is kept between builds (only TensorRT itself: TensorRT for RTX
            chooses its kernels on the GPU).

    Raises:
        StageFailed: The file cannot be read, or parser or compiler refuse it; the reason names the node and what to do.
    """
    trt, logger = library.trt, logger_of(library)
    library.messages.take()
    started = time.perf_counter()
    builder = trt.Builder(logger) if library.flavour == "tensorrt_rtx" else _builder(library)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        raise StageFailed(STAGE, _parser_reason(library, parser, onnx_file))
    config = builder.create_builder_config()
    _configure(library, builder, config, settings, compute_capability)
    if batches is not None:
        config.add_optimization_profile(_profile(builder, network, batches))
    cache = _timing_cache(library, config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    said = library.messages.take()
    if plan is None:
        raise StageFailed(STAGE, _reason(library, onnx_file, said.errors or ["no reason was given"]))
    if cache is not None and timing_cache is not None:
        with contextlib.suppress(OSError):  # a full or read-only disk: kernels are timed again in the next build
            replace_file(timing_cache, bytes(cache.serialize()))
    seconds = time.perf_counter() - started
    layers = parse_layers(said.details)
    return Build(
        plan=bytes(plan),
        layers=layers,
        convolutions=count_precisions(layers, _heavy_nodes(onnx_file)),
        seconds=seconds,
        warnings=tuple(text for text in said.warnings if not any(word in text for word in _HARMLESS)),
    )


def _heavy_nodes(onnx_file: Path) -> list[str]:
    graph = onnx.load(onnx_file, load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type in _HEAVY]


def _builder(library: Library) -> Any:
    try:
        return library.trt.Builder(logger_of(library))
    except TypeError as error:
        reason = f"{library.title} finds no usable NVIDIA driver: see `scalesearch doctor`"
        raise StageFailed(STAGE, reason) from error


def _configure(library: Library, builder: Any, config: Any, settings: TensorRtSettings, capability: str) -> None:
    trt = library.trt
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = settings.optimization_level
    if settings.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_mb << 20)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and with it fp32 is not really fp32
    if settings.sparse_weights:
        config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
    if capability and library.flavour == "tensorrt_rtx":
        name = "SM" + capability.replace(".", "")
        chip = getattr(trt.ComputeCapability, name, None)
        if chip is None:
            known = ", ".join(known_capabilities(library))
            reason = (
                f"{library.title} {library.version} cannot build for compute capability {capability}; it knows {known}"
            )
            raise StageFailed(STAGE, reason)
        config.num_compute_capabilities = 1
        config.set_compute_capability(chip, 0)


def known_capabilities(library: Library) -> tuple[str, ...]:
    """Return the compute capabilities that TensorRT for RTX can build for, in ascending order, as "8.9"."""
    names = [name[2:] for name in dir(library.trt.ComputeCapability) if name.startswith("SM")]
    return tuple(sorted((f"{name[:-1]}.{name[-1]}" for name in names), key=lambda text: float(text)))


def _profile(builder: Any, network: Any, batches: tuple[int, int, int]) -> Any:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if shape[0] == -1:
            profile.set_shape(tensor.name, *((batch, *shape[1:]) for batch in batches))
    return profile


def _timing_cache(library: Library, config: Any, path: Path | None) -> Any:
    if path is None or library.flavour == "tensorrt_rtx":
        return None
    try:
        content = path.read_bytes()
    except OSError:  # there is none yet, or it cannot be read
        content = b""
    cache = config.create_timing_cache(content)
    if not config.set_timing_cache(cache, False):  # the cache is of another version or GPU
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _parser_reason(library: Library, parser: Any, onnx_file: Path) -> str:
    library.messages.take()
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    if not found:
        return f"{library.title} cannot read {onnx_file.name}"
    first = found[0]
    node = " ".join(part for part in (first.node_operator(), first.node_name()) if part)
    return _reason(library, onnx_file, [first.desc()], node=node)


def _reason(library: Library, onnx_file: Path, texts: list[str], node: str = "") -> str:
    text = " ".join(texts[0].split())
    remedy = next((remedy for word, remedy in _REMEDIES if word in text.lower()), "")
    short = one_line(text, _MESSAGE_LENGTH)
    where = f" at node {node}" if node else ""
    return f"{library.title} refuses {onnx_file.name}{where}: {short}" + (f"; {remedy}" if remedy else "")
