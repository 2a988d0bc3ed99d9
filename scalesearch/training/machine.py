"""How to train on this machine: device, thread count and bf16, taken from the settings or timed in a second or two."""

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.errors import ConfigError
from scalesearch.host import usable_cores
from scalesearch.memory_layouts import layout_of, moved
from scalesearch.values.settings import Machine, MachineSettings

# More threads, or bf16, are chosen only if they are clearly faster. A few per cent are noise, and a choice that differs
# from one probe to the next would change the rounding of every later training.
_CLEAR_GAIN: Final = 1.15
_ROUNDS: Final = 7
_BUDGET_S: Final = 1.5
_BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last is Arm's name
_PROBE_CHANNELS, _PROBE_BATCH, _PROBE_SIDE_PX = 32, 16, 32


def probe_machine(settings: MachineSettings, *, workers: int = 1) -> Machine:
    """Choose device, threads and precision for training; what the settings leave open is timed on a small step.

    The number of threads is not set here; `train` and `answers` set it and put the old number back. The inter-op pool
    is left alone: eager forward and backward never use it, and torch lets it be set only once per process.
    Channels-last is always on: it was 1.3 to 2.5 times faster on every CPU tried, and tensor cores want it. A user's
    own module that cannot take it is held as it is (`memory_layouts`).

    Args:
        settings: The user's settings; 0 and "auto" are left open.
        workers: Number of processes that will train at the same time and share the cores.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    device = _device(settings)
    if device == "cuda":
        bf16 = settings.bf16 == "on" or (settings.bf16 == "auto" and torch.cuda.is_bf16_supported())
        return Machine(device=device, threads=settings.threads or 1, bf16=bf16, channels_last=True)
    threads = settings.threads or _fastest([(count, False) for count in _thread_counts(usable_cores() // workers)])[0]
    bf16 = settings.bf16 == "on"
    if settings.bf16 == "auto" and cpu_flags() & _BF16_FLAGS:
        bf16 = _fastest([(threads, False), (threads, True)])[1]
    return Machine(device=device, threads=threads, bf16=bf16, channels_last=True)


def kept_machine(found: Machine, settings: MachineSettings) -> Machine:
    """Return the machine that a study was begun with, with as many threads as are asked for now.

    Threads change the time of a training, and of its result no more than the last digits. The number format is the
    study's own: another one that is asked for is refused (`records.run_file`).

    Args:
        found: What the study's first run found.
        settings: The user's settings; 0 threads leave the number as it was.

    Raises:
        ConfigError: The study trains on CUDA, and there is none.
    """
    if found.device == "cuda" and not torch.cuda.is_available():
        msg = (
            "The trainings of this study run on a CUDA device, and torch sees none: go on where there is one, or begin "
            "anew in another folder."
        )
        raise ConfigError(msg)
    return replace(found, threads=settings.threads or found.threads)


def on_cpu(machine: Machine, settings: MachineSettings, *, workers: int) -> Machine:
    """Return the machine for training that runs on the CPU whatever the device is.

    Beside a GPU the probe leaves one thread to training; the cores are free, and each of the workers takes its share.

    Args:
        machine: What was probed.
        settings: The user's settings; a number of threads in them holds here, too.
        workers: Number of processes that share the cores.
    """
    if machine.device == "cpu":
        return machine
    return replace(machine, device="cpu", threads=settings.threads or max(1, usable_cores() // workers))


@contextmanager
def torch_threads(machine: Machine) -> Iterator[None]:
    """Let torch compute with the machine's threads inside the block; afterwards restore the process's own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_flags() -> frozenset[str]:
    """Return the CPU's instruction sets by their Linux names; empty if /proc/cpuinfo does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    named = [line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))]
    return frozenset(named[0].split()) if named else frozenset()


def _device(settings: MachineSettings) -> str:
    there = torch.cuda.is_available()
    if settings.device == "cuda" and not there:
        msg = "machine.device = cuda, but torch sees no CUDA device: install a CUDA build of torch, or set it to auto"
        raise ConfigError(msg)
    return "cuda" if settings.device != "cpu" and there else "cpu"


def _thread_counts(cores: int) -> list[int]:
    """Return 1, 2, 4, ... up to the number of cores, and that number itself."""
    cores = max(1, cores)
    return sorted({cores, *(2**power for power in range(cores.bit_length()))} - {0})


def _fastest(choices: Sequence[tuple[int, bool]]) -> tuple[int, bool]:
    """Return the (threads, bf16) that trains fastest; a later choice must clearly beat the best so far.

    Each round times every choice once, so that other work on the machine slows all choices alike. The median decides,
    so that a thread count that collapses under load now and then is not judged by its best moment.
    """
    if len(choices) == 1:
        return choices[0]
    module, images, labels = _probe_work()
    seconds: dict[tuple[int, bool], list[float]] = {choice: [] for choice in choices}
    before = torch.get_num_threads()
    started = time.perf_counter()
    try:
        for done in range(_ROUNDS + 1):
            for choice in choices:
                spent = _time_step(module, images, labels, *choice)
                if done > 0:  # the first round warms up: thread pools, memory, kernels
                    seconds[choice].append(spent)
            if done >= 3 and time.perf_counter() - started > _BUDGET_S:
                break
    finally:
        torch.set_num_threads(before)
    best = choices[0]
    for choice in choices[1:]:
        if statistics.median(seconds[best]) > _CLEAR_GAIN * statistics.median(seconds[choice]):
            best = choice
    return best


def _probe_work() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a plain convolutional network and one batch for it."""
    random = torch.Generator().manual_seed(0)
    images = torch.rand(_PROBE_BATCH, 3, _PROBE_SIDE_PX, _PROBE_SIDE_PX, generator=random)
    labels = torch.randint(0, 10, (_PROBE_BATCH,), generator=random)
    with torch.random.fork_rng(devices=[]):  # layers fill themselves from the global generator
        layers: list[nn.Module] = []
        for channels in (3, *[_PROBE_CHANNELS] * 3):
            layers += [nn.Conv2d(channels, _PROBE_CHANNELS, 3, padding=1), nn.BatchNorm2d(_PROBE_CHANNELS), nn.ReLU()]
        module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_PROBE_CHANNELS, 10))
    module.to(memory_format=torch.channels_last)
    return module, images.to(memory_format=torch.channels_last), labels


def _time_step(module: nn.Module, images: Tensor, labels: Tensor, threads: int, bf16: bool) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        answers = module(images)
    torch.autograd.backward(functional.cross_entropy(answers.float(), labels))
    module.zero_grad()
    return time.perf_counter() - started


def on_device(module: nn.Module, machine: Machine) -> nn.Module:
    """Return a copy of the module on the machine's device and in its memory layout, if the module can take that."""
    layout = layout_of(module, channels_last=machine.channels_last)
    return moved(copy.deepcopy(module), layout, device=machine.device)
