"""The protocols of backends and engines, by which other stages use them without knowing which one they have."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import TensorRtSettings
from scalesearch.values.target import Device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """Whether a backend can compile and run here; if not, `reason` says what is missing and what to do.

    The first line of `reason` can be shown alone.
    """

    available: bool
    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine is to be built and timed; each backend reads the options that concern it."""

    threads: int = 1
    """Number of CPU threads."""
    batch: int = 1
    """Images in each timed run."""
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingNotes:
    """What an engine knows about its own timed runs besides their times."""

    enqueue_p50_ms: float | None = None
    """Median time in milliseconds to hand one run to the device; None if host and device are the same."""
    doubts: tuple[str, ...] = ()
    """Reasons why the times may be misleading, for the trial's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer of an engine as it ran: a kernel, and the part of the network that it computes."""

    name: str
    kind: str
    """The backend's name for this kind of kernel."""
    precision: str
    """The precision as the backend gives it; empty if it gives none."""
    mean_ms: float


class Engine(Protocol):
    """A compiled model, open and runnable. It is a context manager that closes itself.

    The engine that is timed is also the one that is scored: `run` and `time_runs` use the same native object.
    """

    @property
    def batch(self) -> int:
        """Images in each run that `time_runs` times."""
        ...

    def run(self, images: "NDArray[np.float32]") -> "dict[str, NDArray[np.float32]]":
        """Run images (N, C, H, W), for any N >= 0; a large N may be run in parts.

        Args:
            images: Float32 images of shape (N, C, H, W), normalised as in training.

        Returns:
            Arrays (N, ...) by the names of the file's outputs, in the file's order.

        Raises:
            StageFailed: The images have another shape than the model's input, or the native code failed.
        """
        ...

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Return the seconds of each of `count` single runs at the compiled batch, on a fixed input that is made once.

        Only the run itself is timed. Warming up and statistics are left to the caller.

        Raises:
            StageFailed: The native code failed.
        """
        ...

    def timing_notes(self) -> TimingNotes:
        """Return notes about all runs that `time_runs` has timed so far."""
        ...

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Measure each layer's mean time over `runs` separate runs, in the engine's order.

        Measuring the layers slows them down, so these times help to explain a latency but never replace it.

        Raises:
            StageFailed: The native code failed.
        """
        ...

    def close(self) -> None:
        """Free the native object; calling it again does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


class Backend(Protocol):
    """A compiler of `OnnxModel` files. It takes no precision, since the precision is part of the file."""

    @property
    def name(self) -> str:
        """The backend's key in the registry."""
        ...

    def probe(self) -> BackendStatus:
        """Tell whether the backend works on this machine; never raises."""
        ...

    def device(self, threads: int) -> Device:
        """Return the fingerprint of the device that an engine with this many threads would be measured on."""
        ...

    def compile(self, model: OnnxModel, options: "EngineOptions") -> Engine:
        """Compile the model and return an open engine.

        Raises:
            StageFailed: The file is not a model that this backend accepts.
        """
        ...
