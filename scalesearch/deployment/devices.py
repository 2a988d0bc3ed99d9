"""The devices of this machine: its CPU with the instruction sets that matter, and its NVIDIA GPU as torch sees it."""

import functools
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scalesearch.values.target import Device

_CPUINFO = Path("/proc/cpuinfo")
# Only the instruction sets by which ONNX Runtime's CPU provider chooses its kernels (its MLAS library checks for
# these).
_RELEVANT = frozenset(
    {
        "avx", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx_vnni",
        "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The model name and the relevant instruction sets, sorted."""

    name: str
    features: tuple[str, ...]


@functools.cache
def read_cpu() -> Cpu:
    """Return this machine's CPU.

    If the system does not report them, the features are empty and the name is the architecture.
    """
    if _CPUINFO.exists():
        return parse_cpuinfo(_CPUINFO.read_text(errors="replace"), machine=platform.machine())
    return Cpu(name=_name_outside_linux(), features=())


def cpu_device(*, backend: str, version: str, threads: int) -> Device:
    """Return this machine's CPU as the device that an engine of this backend is measured on."""
    cpu = read_cpu()
    return Device(name=cpu.name, backend=backend, backend_version=version, threads=threads, features=cpu.features)


def parse_cpuinfo(text: str, *, machine: str) -> Cpu:
    """Read the first processor of a /proc/cpuinfo text; ARM lists `Features` and often no `model name`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    name = fields.get("model name") or fields.get("hardware") or _arm_name(fields) or machine
    flags = fields.get("flags") or fields.get("features") or ""
    return Cpu(name=re.sub(r"\s+", " ", name), features=tuple(sorted(_RELEVANT.intersection(flags.split()))))


def _arm_name(fields: dict[str, str]) -> str:
    implementer, part = fields.get("cpu implementer"), fields.get("cpu part")
    return f"ARM {implementer} {part}" if implementer and part else ""


def _name_outside_linux() -> str:
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            return answer
    return platform.processor() or platform.machine()


def gpu_name() -> str:
    """Return the name of the current GPU, as NVIDIA writes it."""
    import torch

    return torch.cuda.get_device_name()


def gpu_capability() -> str:
    """Return the compute capability of the current GPU, such as "8.9"."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def gpu_device(*, backend: str, version: str, threads: int) -> Device:
    """Return the current GPU as the device that an engine of this backend is measured on."""
    return Device(
        name=gpu_name(),
        backend=backend,
        backend_version=version,
        threads=threads,
        features=(f"sm_{gpu_capability().replace('.', '')}",),
    )
