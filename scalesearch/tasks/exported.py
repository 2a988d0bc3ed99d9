"""An exported ONNX file of any task, open on the CPU: from an image file to the network's named outputs."""

from pathlib import Path

import numpy as np

from scalesearch.measurement.metric import Outputs
from scalesearch.tasks.answers import NoAnswerError, unreadable
from scalesearch.tasks.infer_parts.images import UNREADABLE, read_input
from scalesearch.tasks.infer_parts.preprocessing import read_preprocessing
from scalesearch.tasks.infer_parts.versions import open_session


class ExportedNetwork:
    """An open ONNX file with its preprocessing, for the predictors of tasks that read images in the usual way."""

    def __init__(self, model: Path, *, threads: int) -> None:
        """Open the file; with `threads` 0 it uses all cores.

        Raises:
            ValueError: The file's metadata do not describe its preprocessing, or it needs a newer ONNX Runtime.
        """
        self._session = open_session(model, threads)
        self.preprocessing = read_preprocessing(self._session.get_modelmeta().custom_metadata_map)

    def outputs(self, image: Path) -> Outputs:
        """Return the outputs for one image file by their names, each with a first axis of length 1.

        Raises:
            UnreadableImageError: The file is no image that can be read.
            NoAnswerError: An output holds NaN or infinity.
        """
        try:
            pixels = read_input(image, self.preprocessing)
        except UNREADABLE as error:
            raise unreadable(error) from error
        names = [output.name for output in self._session.get_outputs()]
        answers = self._session.run(names, {self._session.get_inputs()[0].name: pixels})
        outputs = {name: np.asarray(answer, np.float32) for name, answer in zip(names, answers, strict=True)}
        if not all(np.isfinite(answer).all() for answer in outputs.values()):
            message = "the network answers it with NaN or infinity (fp16 overflows and a failed calibration do this)"
            raise NoAnswerError(message)
        return outputs
