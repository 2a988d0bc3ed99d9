"""The protocol of format writers, by which `export` uses them without knowing which one it has."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.deployment.formats.c_answer import MakesCAnswer
from scalesearch.errors import MissingBackendError, StageFailed
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import TensorRtSettings

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckImages:
    """Inputs for which a written format must give the same outputs as the ONNX file."""

    images: "NDArray[np.float32]"
    """(N, C, H, W), normalised as in training, N at least 2."""
    told: str
    """What the images are, in a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """What a writer may need besides the ONNX file; each writer reads what concerns it."""

    precision: Precision
    class_names: tuple[str, ...]
    check_images: Callable[[], CheckImages]
    """A function that loads the check images. It takes seconds, so it is called only by formats that need them."""
    batch: int = 1
    """Number of images in each run when the network was timed."""
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    """How its engine was built when it was timed."""
    measured_sha256: str = ""
    """SHA-256 of the file that was timed: the same graph as the exported one, without the export's metadata. Empty
    where there is none."""
    c_answer: MakesCAnswer | None = None
    """The task's part of the C files; None for classifiers, and for tasks that are not written in C."""


class Format(Protocol):
    """A writer of an `OnnxModel` in another format.

    It checks that the written files give the same outputs, or writes a program that checks it.
    """

    @property
    def name(self) -> str:
        """The format's key in the registry, and the value of `--format`."""
        ...

    @property
    def what(self) -> str:
        """A short description for the model card."""
        ...

    def ensure_available(self) -> None:
        """Raise an error if the format cannot be written here.

        Raises:
            MissingBackendError: What it needs is not installed; the message names the extra to install.
        """
        ...

    def ensure_holds(self, precision: Precision) -> None:
        """Raise an error if the format cannot hold this precision.

        Raises:
            ConfigError: It cannot; the message says which precisions it can hold.
        """
        ...

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write the model's files below `folder`, and return their names there.

        Raises:
            StageFailed: The network has something that the format cannot express, or it gives other outputs in that
                format.
        """
        ...


def require_one_output(proto: "onnx.ModelProto") -> None:
    """Raise StageFailed if the network has several outputs: a writer for classifiers would keep only the first."""
    if len(proto.graph.output) != 1:
        outputs = ", ".join(output.name for output in proto.graph.output)
        reason = f"this format is written for networks of one output, and this one has several: {outputs}"
        raise StageFailed(stage="export", reason=reason)


def ensure_installed(package: str, *, name: str, needs: str) -> None:
    """Raise an error if the package that writes a format is not installed.

    Args:
        package: The package as it is imported.
        name: The format's name, which is also that of the extra that installs the package.
        needs: The package as people call it.

    Raises:
        MissingBackendError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        message = f"--format {name} needs {needs}.\nInstall it with: pip install 'scalesearch[{name}]'"
        raise MissingBackendError(message)
