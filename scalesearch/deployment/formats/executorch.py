"""ExecuTorch's program file, with operators run by XNNPACK: for phones and boards with ARM or x86 CPUs."""

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

_NAME: Final = "model.pte"


class ExecuTorchProgram(Format):
    """A writer of ExecuTorch programs in fp32, for batch 1; see the `Format` protocol."""

    name: Final = "executorch"
    what: Final = "ExecuTorch program for XNNPACK, batch 1"

    def ensure_available(self) -> None:
        """Raise an error if ExecuTorch is not installed.

        Raises:
            MissingBackendError: It is not installed.
        """
        ensure_installed("executorch", name=self.name, needs="ExecuTorch")

    def ensure_holds(self, precision: Precision) -> None:
        """Raise an error for every precision except fp32.

        Raises:
            ConfigError: The precision is another one: ExecuTorch would quantize the network again.
        """
        from scalesearch.deployment.formats.torch_graph import ensure_float

        ensure_float(precision, self.name)

    def write(self, model: OnnxModel, folder: Path, options: FormatOptions) -> tuple[str, ...]:
        """Write model.pte after running it once and comparing its outputs.

        Raises:
            StageFailed: ExecuTorch cannot express the network, or gives other outputs.
        """
        from scalesearch.deployment.formats.torch_graph import ensure_same

        images = options.check_images().images
        program = _program(model, images)
        ensure_same(model, images, _answers(program, images), self.name)
        replace_file(folder / _NAME, program)
        return (_NAME,)


def _program(model: OnnxModel, images: NDArray[np.float32]) -> bytes:
    import torch

    from scalesearch.deployment.formats.torch_graph import float_module

    module = float_module(model, ExecuTorchProgram.name)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            exported = torch.export.export(module, (torch.from_numpy(images[:1].copy()),))
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
        except Exception as error:  # its passes may raise any exception
            reason = f"ExecuTorch cannot express the network: {one_line(str(error))}"
            raise StageFailed(stage="export", reason=reason) from error


def _answers(program: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that its interface may change
        from executorch.runtime import Runtime

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _NAME
        path.write_bytes(program)
        method = Runtime.get().load_program(path).load_method("forward")
        answers = [method.execute([torch.from_numpy(image[np.newaxis].copy())])[0].numpy().copy() for image in images]
    return np.concatenate(answers)
