"""The ONNX file as it is: every export has it, since all other formats are made from it."""

import shutil
from pathlib import Path
from typing import Final

from scalesearch.deployment.formats.base import Format, FormatOptions
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

_NAME: Final = "model.onnx"


class PlainOnnx(Format):
    """A writer that copies the ONNX file; see the `Format` protocol."""

    name: Final = "onnx"
    what: Final = "the deployed network"

    def ensure_available(self) -> None:
        """Accept: this format is always available."""

    def ensure_holds(self, precision: Precision) -> None:
        """Accept every precision."""

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Copy the file to model.onnx, unless it is already there."""
        target = folder / _NAME
        if target.resolve() != model.path.resolve():
            shutil.copyfile(model.path, target)
        return (_NAME,)
