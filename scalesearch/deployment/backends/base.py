"""What every backend and every engine must offer, so that no other stage needs to know which one it holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.target import Device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """Whether a backend can compile and run here; if not, `reason` says what is missing and which extra brings it."""

    available: bool
    version: str
    reason: str = ""


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

    def close(self) -> None:
        """Frees the native object; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


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

    def compile(self, model: OnnxModel, *, threads: int, batch: int) -> Engine:
        """An open engine that is timed at `batch` images a run, with `threads` threads.

        Raises:
            StageFailed: The file is not a model that this backend takes.
        """
        ...
