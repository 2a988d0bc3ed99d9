"""LiteRT's file, formerly TensorFlow Lite: for phones, microcontrollers and their accelerators."""

import tempfile
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.formats.base import Format, FormatOptions, ensure_installed
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.plain_text import one_line
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

_NAME: Final = "model.tflite"


class LiteRtModel(Format):
    """A writer of LiteRT models in fp32, for batch 1, channels first as in the ONNX file; see the `Format` protocol."""

    name: Final = "litert"
    what: Final = "LiteRT (TensorFlow Lite) model, batch 1"

    def ensure_available(self) -> None:
        """Raise an error if the converter is not installed.

        Raises:
            MissingBackendError: It is not installed.
        """
        ensure_installed("litert_torch", name=self.name, needs="the converter litert-torch")

    def ensure_holds(self, precision: Precision) -> None:
        """Raise an error for every precision except fp32.

        Raises:
            ConfigError: The precision is another one: the converter would quantize the network again.
        """
        from scalesearch.deployment.formats.torch_graph import ensure_float

        ensure_float(precision, self.name)

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model.tflite after running it once and comparing its outputs.

        Raises:
            StageFailed: The converter cannot express the network, or the model gives other outputs.
        """
        from scalesearch.deployment.formats.torch_graph import ensure_same

        images = options.check_images().images
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / _NAME
            _convert(model, images, path)
            ensure_same(model, images, _answers(path, images), self.name)
            replace_file(folder / _NAME, path.read_bytes())
        return (_NAME,)


def _convert(model: OnnxModel, images: NDArray[np.float32], to: Path) -> None:
    import torch

    from scalesearch.deployment.formats.torch_graph import float_module

    module = float_module(model, LiteRtModel.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litert_torch

        try:
            litert_torch.convert(module, (torch.from_numpy(images[:1].copy()),)).export(str(to))
        except Exception as error:  # its passes may raise any exception
            reason = f"litert-torch cannot express the network: {one_line(str(error))}"
            raise StageFailed(stage="export", reason=reason) from error


def _answers(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    given, answered = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    answers = []
    for image in images:
        interpreter.set_tensor(given, image[np.newaxis])
        interpreter.invoke()
        answers.append(np.array(interpreter.get_tensor(answered)))
    return np.concatenate(answers)
