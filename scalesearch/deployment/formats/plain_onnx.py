"""The ONNX file as it is: every export has it, for all other formats are made of it."""

import shutil
from pathlib import Path
from typing import Final

from scalesearch.deployment.formats.base import FormatOptions
from scalesearch.values.candidate import Precision
from scalesearch.values.onnx_model import OnnxModel

_NAME: Final = "model.onnx"


class PlainOnnx:
    """See the `Format` protocol."""

    name: Final = "onnx"
    what: Final = "the deployed network"

    def ensure_available(self) -> None:
        """Always."""

    def ensure_holds(self, precision: Precision) -> None:
        """Every precision."""

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """model.onnx, copied where it does not lie there already."""
        target = folder / _NAME
        if target.resolve() != model.path.resolve():
            shutil.copyfile(model.path, target)
        return (_NAME,)
