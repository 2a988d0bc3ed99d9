"""Chips as data: what a target can run, and the device that a record was measured on."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.candidate import Precision

QuantizationProfile = Literal["onnxruntime_cpu", "tensorrt", "openvino"]
"""Style of int8 and fp8: for ONNX Runtime's CPU kernels; or signed, symmetric, with fp16 (TensorRT) or fp32 around."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chip: its backend, the precisions it runs, and what its kernels like."""

    name: str
    backend: str
    precisions: tuple[Precision, ...]
    channel_multiple: int = 8
    sparsity_2_4: bool = False
    quantization_profile: QuantizationProfile = "onnxruntime_cpu"
    compute_capability: str = ""
    """Of an NVIDIA chip, "8.9"; empty: none, or that of whatever GPU is here."""
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What was really measured on. Latencies of unlike devices never share a front."""

    name: str
    backend: str
    backend_version: str
    threads: int
    features: tuple[str, ...] = ()
    """Instruction sets that change which kernels run (avx2, avx512_vnni, ...), sorted."""
