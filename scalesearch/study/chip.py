"""The chip that a study measures on, as it is on this machine."""

from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import fit_chip, get_target
from scalesearch.values.settings import AcceptName
from scalesearch.values.target import Device, Target


def chip_here(name: str, *, threads: int, accept: AcceptName) -> tuple[Target, Device]:
    """Return the target, fitted to the chip that is here, and the device.

    Args:
        name: Name of the target.
        threads: Threads of the engine that is timed.
        accept: The compiler that must accept every graph.

    Raises:
        MissingBackendError: The target's backend, or the compiler that must accept every graph, is not installed.
    """
    target = get_target(name)
    device = get_backend(target.backend).device(threads)
    target = fit_chip(target)
    if accept == "rtx":
        Gate(target.compute_capability)  # a missing library is reported now, not by every trial
    return target, device
