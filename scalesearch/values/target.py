"""Chips as data: what a target can run, and the device that a record was measured on."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.candidate import Precision

QuantizationProfile = Literal["onnxruntime_cpu", "tensorrt", "openvino"]
"""How int8 and fp8 are stored: for ONNX Runtime's CPU kernels; or signed and symmetric, with the other layers in fp16
(TensorRT) or fp32 (OpenVINO)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chip: its backend, the precisions that it runs, and what suits its kernels."""

    name: str
    backend: str
    precisions: tuple[Precision, ...]
    channel_multiple: int = 8
    sparsity_2_4: bool = False
    quantization_profile: QuantizationProfile = "onnxruntime_cpu"
    compute_capability: str = ""
    """Compute capability of an NVIDIA chip, for example "8.9"; empty for other chips, and for a target that means any
    GPU in this machine."""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device that was really measured on. Latencies of different devices never share a front."""

    name: str
    backend: str
    backend_version: str
    threads: int
    features: tuple[str, ...] = ()
    """Instruction sets that decide which kernels run (avx2, avx512_vnni, ...), sorted."""
