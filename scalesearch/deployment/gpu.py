"""The NVIDIA GPU of this machine, as torch sees it."""

from scalesearch.values.target import Device


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
