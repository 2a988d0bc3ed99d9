"""The chips that a search can target, as data: to add a chip, add one entry here."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from scalesearch.deployment.backends import get_backend
from scalesearch.errors import ConfigError
from scalesearch.registry import look_up
from scalesearch.values.candidate import Precision
from scalesearch.values.target import Target

AUTO: Final = "auto"
"""Stands for the target that fits this machine best: its NVIDIA GPU if TensorRT or ONNX Runtime runs on it."""

# Channels: TensorRT's guide ("Optimizing for Tensor Cores") asks for multiples of 8 for fp16 and of 32 for int8
# (TensorRT pads other numbers); NVIDIA's mixed-precision training guide says 16 for int8. 16 keeps int8 kernels busy
# without making every narrow network wide.
_GPU_CHANNELS: Final = 16
# bf16 from compute capability 8.0, fp8 from 8.9: NVIDIA Transformer Engine, support matrix; ModelOpt's support matrix
# says "Ada and later" of fp8 too. TensorRT-LLM's support matrix lists the same precisions for sm_80, 86, 89 and 90.
_WITHOUT_FP8: Final[tuple[Precision, ...]] = ("fp32", "fp16", "bf16", "int8")
_WITH_FP8: Final[tuple[Precision, ...]] = (*_WITHOUT_FP8, "fp8")


def _gpu(name: str, capability: str, precisions: tuple[Precision, ...], summary: str) -> Target:
    return Target(
        name=name,
        backend="tensorrt",
        precisions=precisions,
        channel_multiple=_GPU_CHANNELS,
        # The cuSPARSELt package's table of 2:4 kernels: 8.0, 8.6, 8.7, 9.0, 12.0; its release notes: 8.9.
        sparsity_2_4=True,
        quantization_profile="tensorrt",
        compute_capability=capability,
        summary=summary,
    )


_TARGETS = (
    Target(
        name="cpu",
        backend="onnxruntime",
        precisions=("fp32", "fp16", "int8"),
        # 8 floats fill an AVX2 register; wider registers (AVX-512, NCHWc blocks of 16) take multiples of 8 as well.
        channel_multiple=8,
        quantization_profile="onnxruntime_cpu",
        summary="this machine's CPU through ONNX Runtime",
    ),
    Target(
        name="openvino",
        backend="openvino",
        # fp16 files would run as fp32 here (compile asks for it), so they would bring no speed.
        precisions=("fp32", "int8"),
        channel_multiple=8,
        quantization_profile="openvino",
        summary="this machine's CPU through OpenVINO; its int8 files are TensorRT's",
    ),
    Target(
        name="cuda",
        backend="onnxruntime_cuda",
        # The CUDA provider has no int8 convolutions: a quantized file would run in float and need casts in addition.
        precisions=("fp32", "fp16"),
        channel_multiple=8,
        summary="this machine's NVIDIA GPU through ONNX Runtime, without TensorRT",
    ),
    _gpu("tensorrt", "", _WITH_FP8, "this machine's NVIDIA GPU through TensorRT, whichever it is"),
    replace(
        _gpu("tensorrt_rtx", "", _WITH_FP8, "this machine's GeForce RTX through TensorRT for RTX"),
        backend="tensorrt_rtx",
    ),
    # Compute capabilities: NVIDIA, "CUDA GPU Compute Capability".
    _gpu("rtx30", "8.6", _WITHOUT_FP8, "GeForce RTX 30 series (Ampere)"),
    _gpu("rtx40", "8.9", _WITH_FP8, "GeForce RTX 40 series (Ada)"),
    _gpu("rtx50", "12.0", _WITH_FP8, "GeForce RTX 50 series (Blackwell)"),
    _gpu("a100", "8.0", _WITHOUT_FP8, "A100 (Ampere)"),
    _gpu("h100", "9.0", _WITH_FP8, "H100 (Hopper)"),
    # JetPack 6 comes with TensorRT 10.3, which is too old for us; JetPack 7.2 accepts 11.4 (TensorRT's migration
    # notes).
    _gpu("jetson_orin", "8.7", _WITHOUT_FP8, "Jetson Orin (Ampere), searched on the board itself"),
)

TARGETS: Mapping[str, Target] = {target.name: target for target in _TARGETS}


def get_target(name: str) -> Target:
    """Return the target of that name; `auto` gives what `choose_target` chooses.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    if name == AUTO:
        return choose_target()[0]
    return look_up(name, dict(sorted(TARGETS.items())), missing="target: no chip is called", more_names=(AUTO,))


def choose_target() -> tuple[Target, str]:
    """Return the best target of this machine, and one line that says why."""
    status = get_backend("tensorrt").probe()
    if not status.available:
        why = _first_clause(status.reason)
        cuda = get_backend("onnxruntime_cuda").probe()
        if cuda.available:
            return TARGETS["cuda"], f"target: cuda through ONNX Runtime {cuda.version} ({why})"
        return TARGETS["cpu"], f"target: cpu through ONNX Runtime ({why})"
    from scalesearch.deployment.devices import gpu_capability, gpu_name

    capability = gpu_capability()
    target = next((each for each in _TARGETS if each.compute_capability == capability), TARGETS["tensorrt"])
    return target, f"target: {target.name}, {gpu_name()} through TensorRT {status.version}"


def _first_clause(reason: str) -> str:
    return reason.splitlines()[0].split(", so ")[0].rstrip(".")


def fit_chip(target: Target) -> Target:
    """Return the target as it applies to the GPU here.

    A target that names no chip loses the precisions that this GPU lacks.

    Raises:
        ConfigError: The target names another chip, so its latencies would be reported for a chip that they were not
            measured on.
    """
    if not target.backend.startswith("tensorrt"):
        return target
    from scalesearch.deployment.devices import gpu_capability, gpu_name

    capability = gpu_capability()
    if target.compute_capability not in ("", capability):
        message = (
            f"target {target.name} has compute capability {target.compute_capability}, but the GPU here is "
            f"{gpu_name()} with {capability}.\nMeasure on the chip itself, or with --target tensorrt on this GPU."
        )
        raise ConfigError(message)
    version = tuple(int(part) for part in capability.split("."))
    least = {"bf16": (8, 0), "fp8": (8, 9)}
    runs = tuple(each for each in target.precisions if version >= least.get(each, (0, 0)))
    return replace(target, precisions=runs)
