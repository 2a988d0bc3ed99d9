"""The 2:4 pattern of zeros in weights and in files, without torch; `sparsity` makes these zeros."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.values.candidate import Pruning

GROUP = 4
KEPT = 2
WIDE_FROM = 256
"""Number of channels from which on a sparse kernel can be faster, of the input and of the output both. NVIDIA's
developers say so in TensorRT's issues 3849 ("C and K are large enough (>256)") and 4065 ("256 or above").
"""


def has_pattern(weight: NDArray[Any]) -> bool:
    """Tell whether at most two of every four consecutive input channels are not zero; input channels are axis 1.

    This works for weights (outputs, inputs, ...) of torch, and of ONNX's Conv and of Gemm with transB. The answer is
    False if the number of input channels is not a multiple of four.
    """
    if weight.ndim < 2 or weight.shape[1] % GROUP:
        return False
    groups = weight.reshape(weight.shape[0], -1, GROUP, *weight.shape[2:])
    return bool(((groups != 0).sum(axis=2) <= KEPT).all())


def as_in_file(pruning: Pruning, file: Path) -> Pruning:
    """Return the pruning as a trial's ONNX file has it: without 2:4 zeros if no wide weight of it holds them.

    They are asked in vain of a network without a layer on which they can pay (`sparsity.sparsity_masks`).

    Args:
        pruning: What the candidate asks for.
        file: Its file, in any precision. It is read only if 2:4 zeros are asked for.

    Raises:
        StageFailed: The file is missing or is not ONNX.
    """
    if pruning.sparsity != "2:4" or any(map(_is_sparse, read_onnx(file).graph.initializer)):
        return pruning
    return replace(pruning, sparsity="none")


def _is_sparse(tensor: onnx.TensorProto) -> bool:
    if len(tensor.dims) < 2 or min(tensor.dims[:2]) < WIDE_FROM:
        return False
    values = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)  # rounding keeps zeros
    return has_pattern(values) or (values.ndim == 2 and has_pattern(values.T))  # a MatMul has its inputs first
