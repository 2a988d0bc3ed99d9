"""A TensorRT engine for the GPU of this machine, as `trtexec --loadEngine` and the runtime read it."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.formats.base import Format, FormatOptions
from scalesearch.errors import MissingBackendError
from scalesearch.files import replace_file
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

_NAME: Final = "model.engine"


class TensorRtPlan(Format):
    """A writer of TensorRT engines, each for one GPU model and one version of TensorRT; see the `Format` protocol."""

    name: Final = "tensorrt"
    what: Final = "TensorRT engine for the GPU that exported it"

    def ensure_available(self) -> None:
        """Raise an error if there is no TensorRT or no NVIDIA GPU.

        Raises:
            MissingBackendError: One of them is missing.
        """
        from scalesearch.deployment.backends import get_backend

        status = get_backend("tensorrt").probe()
        if not status.available:
            first = status.reason.splitlines()[0]
            message = f"--format tensorrt builds for the GPU of this machine: {first}\n"
            message += "Export without it, and build the engine on the machine that runs it:\n"
            message += "trtexec --onnx=model.onnx --stronglyTyped --noTF32 --saveEngine=model.engine"
            raise MissingBackendError(message)

    def ensure_holds(self, precision: Precision) -> None:
        """Accept every precision: TensorRT itself refuses what the GPU lacks."""

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model.engine, taken from the store of engines if it was built before, as for the study's timing.

        Raises:
            StageFailed: TensorRT refuses the file.
        """
        from scalesearch.deployment.backends.tensorrt import TensorRtBackend

        built = EngineOptions(batch=options.batch, tensorrt=options.tensorrt)
        same_graph = replace(model, sha256=options.measured_sha256 or model.sha256)
        replace_file(folder / _NAME, TensorRtBackend("tensorrt").plan(same_graph, built))
        return (_NAME,)
