"""The 8-bit number formats, and how values are written in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray

FormatName = Literal["int8", "fp8"]
_SMALLEST_SCALE: Final = 2.0**-14
"""The smallest normal fp16 number. A smaller scale would lose digits in fp16, and a scale of 0 would divide by zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """An 8-bit number format, symmetric around 0, so that no zero point is needed."""

    onnx_type: int
    dtype: DTypeLike
    largest: float

    def scale(self, reach: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the scale (what one step stands for) with which `reach` becomes the format's largest number.

        Args:
            reach: The largest absolute value: a number, or an array of any shape with one for each scale.
        """
        return np.maximum(np.asarray(reach, dtype=np.float64) / self.largest, _SMALLEST_SCALE)

    @property
    def codes(self) -> NDArray[np.float64]:
        """Every number that the format can hold and that we use, ascending: (codes,)."""
        numbers = np.arange(256, dtype=np.uint8).view(self.dtype).astype(np.float64)
        return np.unique(numbers[np.abs(numbers) <= self.largest])  # a NaN fails the comparison

    def encode(self, values: NDArray[np.float32], scale: NDArray[np.float64]) -> NDArray[Any]:
        """Return the values scaled, clipped and rounded to the nearest number of the format (ties to even).

        Args:
            values: An array of any shape.
            scale: Broadcasts against `values`.
        """
        scaled = np.clip(values / scale, -self.largest, self.largest)
        return (np.rint(scaled) if self.onnx_type == onnx.TensorProto.INT8 else scaled).astype(self.dtype)


FORMATS: Final[Mapping[FormatName, NumberFormat]] = {
    "int8": NumberFormat(onnx_type=onnx.TensorProto.INT8, dtype=np.int8, largest=127.0),
    # Micikevicius et al., "FP8 Formats for Deep Learning", 2022, table 1: E4M3 reaches 448.
    "fp8": NumberFormat(onnx_type=onnx.TensorProto.FLOAT8E4M3FN, dtype=ml_dtypes.float8_e4m3fn, largest=448.0),
}


def encode_weight(
    values: NDArray[Any], axis: int | None, number: NumberFormat
) -> tuple[NDArray[Any], NDArray[np.floating[Any]]]:
    """Return the codes of a weight and its scales.

    Args:
        values: The weight, an array of any shape.
        axis: One scale for each place along this axis; None for a single scale.
        number: The number format.

    Returns:
        The codes, of the weight's shape, and the scales: (length of the axis,), or () for a single one.
    """
    wide = values.astype(np.float32)
    others = tuple(other for other in range(values.ndim) if other != axis)
    reach = np.abs(wide).max(axis=others).astype(np.float64)
    scale = np.asarray(number.scale(reach).astype(values.dtype))  # rounded before use: the file has this one
    fitting = scale.astype(np.float64)
    return number.encode(wide, fitting if axis is None else np.expand_dims(fitting, others)), scale
