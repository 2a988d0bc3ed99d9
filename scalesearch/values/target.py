"""Chips as data: what a target can run, and the device that a record was measured on."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.candidate import Precision

QuantizationProfile = Literal["onnxruntime_cpu", "tensorrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A chip: its backend, the precisions it runs, and what its kernels like."""

    name: str
    backend: str
    precisions: tuple[Precision, ...]
    channel_multiple: int = 8
    sparsity_2_4: bool = False
    quantization_profile: QuantizationProfile = "onnxruntime_cpu"
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
