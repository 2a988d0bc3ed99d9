"""OpenVINO's own files, .xml and .bin, which are read back and compared before they are kept."""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.backends.signal_stack import signal_stack_kept
from scalesearch.deployment.formats.base import Format, FormatOptions, ensure_installed
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.plain_text import one_line
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

_FOLDER: Final = "openvino"
_HINTS: Final = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


class OpenVinoIr(Format):
    """A writer of OpenVINO's own files; see the `Format` protocol."""

    name: Final = "openvino"
    what: Final = "OpenVINO's own files of the network"

    def ensure_available(self) -> None:
        """Raise an error if OpenVINO is not installed.

        Raises:
            MissingBackendError: It is not installed.
        """
        ensure_installed("openvino", name=self.name, needs="OpenVINO")

    def ensure_holds(self, precision: Precision) -> None:
        """Accept every precision: OpenVINO itself refuses what it lacks."""

    @signal_stack_kept()
    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model.xml and model.bin into the folder `openvino`, and return their names; the batch stays dynamic.

        Raises:
            StageFailed: OpenVINO refuses the network, or the files read back give other outputs than the ONNX file.
        """
        import openvino

        images = options.check_images().images
        core = openvino.Core()
        try:
            network = core.read_model(model.path)
            before = _answers(core, network, images)
            with tempfile.TemporaryDirectory() as scratch:
                # Not compressed, since the default would round fp32 weights to fp16.
                openvino.save_model(network, Path(scratch) / "model.xml", compress_to_fp16=False)
                after = _answers(core, core.read_model(Path(scratch) / "model.xml"), images)
                contents = {name: (Path(scratch) / name).read_bytes() for name in ("model.xml", "model.bin")}
        except RuntimeError as error:  # the bindings' only error
            reason = f"OpenVINO cannot hold the network: {one_line(str(error))}"
            raise StageFailed(stage="export", reason=reason) from error
        _ensure_same(before, after)
        for name, content in contents.items():
            replace_file(folder / _FOLDER / name, content)
        return tuple(f"{_FOLDER}/{name}" for name in contents)


def _answers(core: Any, network: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    request = core.compile_model(network, "CPU", _HINTS).create_infer_request()
    return np.concatenate([np.array(next(iter(request.infer([each[np.newaxis]]).values()))) for each in images])


def _ensure_same(before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
    spread = float(before.std(axis=0).mean())
    difference = float(np.abs(before - after).max())
    if not difference <= 1e-5 * spread + 1e-6 * float(np.abs(before).max()):  # `not <=`, so that NaN fails
        reason = f"OpenVINO's files answer otherwise than the ONNX file in OpenVINO: by {difference:.3g}"
        raise StageFailed(stage="export", reason=reason)
