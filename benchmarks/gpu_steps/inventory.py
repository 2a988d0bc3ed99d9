"""Say what is here: card, driver, clocks, versions, and what of the dependencies is missing or too old."""

import importlib.metadata
import os
import platform
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Final

import torch

from gpu_steps import Day

_ASKED: Final = (
    "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,persistence_mode"
)
_PROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"


def run(day: Day) -> None:
    """Put down the machine, torch's view of the GPU, and every dependency beside its lower bound."""
    day.put("system", platform.platform())
    day.put("python", platform.python_version())
    day.put("CPU cores", os.cpu_count() or 0)
    day.put("torch", torch.__version__, f"CUDA {torch.version.cuda}, cuDNN {_cudnn()}")
    day.put("nvidia-smi", _nvidia_smi())
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        day.put("GPU", properties.name, f"sm_{properties.major}{properties.minor}")
        day.put("GPU memory, GiB", properties.total_memory / 2**30)
        day.put("multiprocessors", properties.multi_processor_count)
        day.put("bf16", torch.cuda.is_bf16_supported())
    else:
        day.put("GPU", "none that torch sees")
    for requirement in tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]:
        _put_requirement(day, requirement)
    for extra in ("tensorrt", "tensorrt-rtx-cu13", "onnxruntime-gpu", "optuna-dashboard", "torchvision"):
        day.put(f"optional {extra}", _version(extra) or "not installed")


def _cudnn() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"not to be had: {type(error).__name__}"


def _put_requirement(day: Day, requirement: str) -> None:
    found = re.match(r"([A-Za-z0-9_.-]+)\s*(?:>=\s*([0-9][^,;\s]*))?", requirement)
    assert found is not None
    name, bound = found.group(1), found.group(2) or ""
    version = _version(name)
    if version is None:
        day.put(name, "MISSING", f"needs >= {bound}")
    elif bound and _numbers(version) < _numbers(bound):
        day.put(name, version, f"OLDER than >= {bound}")
    else:
        day.put(name, version, f">= {bound}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))
