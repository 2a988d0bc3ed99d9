"""What every format writer must offer, so that `export` need not know which one it holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.values.candidate import Precision
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.settings import TensorRtSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckImages:
    """Inputs on which a written format must answer as the ONNX file does."""

    images: "NDArray[np.float32]"
    """(N, C, H, W), normalised as in training, N at least 2."""
    told: str
    """What they are, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """What a writer may want to know besides the ONNX file; it reads what concerns it."""

    precision: Precision
    class_names: tuple[str, ...]
    check_images: Callable[[], CheckImages]
    """A call, since loading images takes seconds that a plain export does not spend."""
    batch: int = 1
    """Images in each run that the network was timed at."""
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)


class Format(Protocol):
    """Writes an `OnnxModel` as something else, and proves or lets prove that it answers the same."""

    @property
    def name(self) -> str:
        """The registry's key, and the value of `--format`."""
        ...

    @property
    def what(self) -> str:
        """A few words for the model card."""
        ...

    def ensure_available(self) -> None:
        """Nothing, where the format can be written here.

        Raises:
            MissingBackendError: What it needs is not installed; the text names the extra.
        """
        ...

    def ensure_holds(self, precision: Precision) -> None:
        """Nothing, where the format can hold a network of that precision.

        Raises:
            ConfigError: It cannot; the text says what it can.
        """
        ...

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """The names, below `folder`, of the files that were written.

        Raises:
            StageFailed: The network has something that the format cannot express, or it answers otherwise there.
        """
        ...
