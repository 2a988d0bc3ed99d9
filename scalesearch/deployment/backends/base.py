"""What every backend and every engine must offer, so that no other stage needs to know which one it holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from scalesearch.errors import StageFailed
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.settings import TensorRtSettings
from scalesearch.values.target import Device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """Whether a backend can compile and run here; if not, `reason` says what is missing and what to do.

    Its first line can stand alone.
    """

    available: bool
    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine shall be built and timed; a backend reads what concerns it."""

    threads: int = 1
    """Of the CPU."""
    batch: int = 1
    """Images in each timed run."""
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingNotes:
    """What an engine knows about its own timed runs besides their times."""

    enqueue_p50_ms: float | None = None
    """Median time of handing one run to the device; None where host and device are one."""
    doubts: tuple[str, ...] = ()
    """Why the times may not be what they seem, for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer of an engine as it ran: a kernel, and what of the network is in it."""

    name: str
    kind: str
    """The backend's word for the kernel."""
    precision: str
    """As the backend tells it; empty where it does not."""
    mean_ms: float


class Engine(Protocol):
    """A compiled model, open and runnable; a context manager that closes itself.

    The engine that is timed is the one that is scored: both calls use the same native object.
    """

    @property
    def batch(self) -> int:
        """Images in each run that `time_runs` times."""
        ...

    def run(self, images: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Logits (N, classes) of images (N, C, H, W), for any N >= 0; a large N may be run in parts.

        Raises:
            StageFailed: The images have another shape than the model's input, or the native code failed.
        """
        ...

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds of each of `count` single runs at the compiled batch, on a fixed input made once.

        Nothing but the run itself is inside the clock; warming up and statistics are the caller's.

        Raises:
            StageFailed: The native code failed.
        """
        ...

    def timing_notes(self) -> TimingNotes:
        """About all runs that `time_runs` timed so far."""
        ...

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Each layer's mean time over `runs` runs of their own, in the engine's order.

        Measuring layers slows them down, so these times explain a latency and never replace it.

        Raises:
            StageFailed: The native code failed.
        """
        ...

    def close(self) -> None:
        """Frees the native object; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def ensure_images(images: "NDArray[np.float32]", image_shape: tuple[int, ...], file: Path) -> None:
    """Nothing, where these are float32 images (N, C, H, W) of that shape.

    Raises:
        StageFailed: They are not.
    """
    if images.dtype != "float32" or images.shape[1:] != image_shape:
        expected, came = "x".join(map(str, image_shape)), f"{images.dtype} of shape {images.shape}"
        reason = f"{file.name} takes float32 images of shape (N, {expected}), got {came}"
        raise StageFailed(stage="run", reason=reason)


class Backend(Protocol):
    """What compiles an `OnnxModel`. It has no precision argument: precision is inside the file."""

    @property
    def name(self) -> str:
        """The registry's key."""
        ...

    def probe(self) -> BackendStatus:
        """Whether it works on this machine; never raises."""
        ...

    def device(self, threads: int) -> Device:
        """Fingerprint of what an engine with this many threads would be measured on."""
        ...

    def compile(self, model: OnnxModel, options: "EngineOptions") -> Engine:
        """An open engine of the model.

        Raises:
            StageFailed: The file is not a model that this backend takes.
        """
        ...
