"""How many candidates a run evaluates at once, if the user leaves that to the program."""

from pathlib import Path
from typing import Final

from scalesearch.errors import ConfigError
from scalesearch.values.settings import RunSettings

AUTO: Final = "auto"
MOST: Final = 8
"""Largest number of workers. Each result makes the next candidates better; with more workers, each candidate is chosen
from fewer results."""
TRIALS_OF_EACH: Final = 4
"""Number of trainings of the budget for each worker, at least."""
WORKER_BYTES: Final = 1_500_000_000
"""Memory of one worker with its libraries and the small networks of brief searches."""
_GPUS: Final = Path("/proc/driver/nvidia/gpus")


def number_of(asked: str | None) -> int | None:
    """Return the number that was asked for on the command line; None for `auto`, and where none was.

    Raises:
        ConfigError: It is neither `auto` nor a whole number.
    """
    if asked is None or asked == AUTO:
        return None
    if not asked.isdecimal():
        message = f"--workers {asked}: expected a whole number, or {AUTO}."
        raise ConfigError(message)
    return int(asked)


def workers_here(settings: RunSettings, *, threads: int = 1) -> tuple[int, str]:
    """Return how many workers suit this machine and budget, and one line on what decided it.

    On a CPU that is one for each core, as far as the memory and the budget suffice, and at most MOST. If training runs
    on a GPU, it is one, which uses the GPU best.

    Args:
        settings: The settings of the run.
        threads: Number of threads with which each worker trains; 1 in a new study that leaves them to the program,
            which chooses them for its workers.
    """
    from scalesearch.host import available_bytes, usable_cores

    if settings.machine.device == "cuda" or (settings.machine.device == "auto" and _trains_on_gpu()):
        return 1, "workers: 1, since it trains on a GPU"
    cores, free_bytes = usable_cores(), available_bytes()
    alike = "one for each core" if threads == 1 else f"one for each {threads} cores: each trains with {threads} threads"
    bounds = {
        alike: cores // threads,
        f"{free_bytes / 1e9:.0f} GB of memory are free": int(free_bytes // WORKER_BYTES),
        f"one for each {TRIALS_OF_EACH} trainings of the budget": settings.budget // TRIALS_OF_EACH,
        "more would each know less": MOST,
    }
    why = min(bounds, key=lambda name: bounds[name])
    workers = max(1, bounds[why])
    return workers, f"workers: {workers} ({why}; --workers N)"


def _trains_on_gpu() -> bool:
    """Tell whether torch would train on a GPU; torch is loaded only where the machine has one."""
    if not _GPUS.exists():
        return False
    import torch

    return torch.cuda.is_available()
