"""Rounding to 8 bits in a torch network, through which gradients pass straight."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scalesearch.compression.cpu_qdq import SEVEN_BITS
from scalesearch.compression.number_format import FORMATS, FormatName, NumberFormat
from scalesearch.values.candidate import Quantization
from scalesearch.values.target import QuantizationProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The number formats that a style rounds to."""

    weights: NumberFormat
    activations: NumberFormat
    unsigned: bool
    """Whether activations are uint8 with a zero point."""


def format_of(quantization: Quantization) -> FormatName:
    """Return the 8-bit format of a quantization."""
    return "fp8" if quantization.precision == "fp8" else "int8"


def numbers_of(quantization: Quantization, profile: QuantizationProfile) -> Numbers:
    """Return the number formats that a quantization rounds to in a style."""
    unsigned = profile == "onnxruntime_cpu" and quantization.precision == "int8"
    number = FORMATS[format_of(quantization)]
    return Numbers(weights=SEVEN_BITS if unsigned else number, activations=number, unsigned=unsigned)


class _Rounding(torch.autograd.Function):
    """round(clip(x / scale)) * scale.

    The gradient passes straight through to x; for the scale it is that of Esser's equation 3.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, rounded: Callable[[Tensor], Tensor]
    ) -> Tensor:
        scaled = x / scale
        codes = rounded(scaled.clamp(low, high))
        ctx.save_for_backward(scaled, codes)
        ctx.low, ctx.high = low, high
        return codes * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, codes = ctx.saved_tensors
        inside = (scaled >= ctx.low) & (scaled <= ctx.high)
        of_x = gradient * inside
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = (gradient * codes).sum() - (of_x * scaled).sum()
        return of_x, of_scale, None, None, None


def _to_fp8(values: Tensor) -> Tensor:
    return values.to(torch.float8_e4m3fn).to(values.dtype)


def _rounded(number: NumberFormat) -> Callable[[Tensor], Tensor]:
    return torch.round if number.dtype == np.int8 else _to_fp8


class ActivationRounding(nn.Module):
    """Rounds with a learnt scale and a zero point fixed at calibration; before calibration it passes values through."""

    def __init__(self, numbers: Numbers) -> None:
        super().__init__()
        self._number, self._unsigned = numbers.activations, numbers.unsigned
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.zero_point = 0.0
        self.calibrated = False
        self._seen: Tensor | None = None

    def set_range(self, low: float, high: float) -> None:
        """Set scale and zero point for values from `low` to `high`; from now on values are rounded."""
        if self._unsigned:
            low, high = min(low, 0.0), max(high, 0.0)
            scale = max(high - low, 1e-9) / 255
            self.zero_point = float(np.rint(-low / scale))
        else:
            scale = float(self._number.scale(max(-low, high)))
        with torch.no_grad():
            self.log_scale.fill_(math.log(scale))
        self.calibrated = True

    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest value that rounding gives."""
        scale = math.exp(self.log_scale.item())
        low, high = self._bounds()
        return low * scale, high * scale

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, of any shape, rounded, or as they are before calibration."""
        if not self.calibrated:
            self._seen = values
            return values
        rounded: Tensor = _Rounding.apply(values, self.log_scale.exp(), *self._bounds(), _rounded(self._number))
        return rounded

    def taken(self) -> Tensor:
        """Return the values that were passed through last, and forget them."""
        assert self._seen is not None
        seen, self._seen = self._seen, None
        return seen

    def _bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest code, counted from the zero point."""
        if self._unsigned:
            return -self.zero_point, 255 - self.zero_point
        return -self._number.largest, self._number.largest


class RoundedLayer(nn.Module):
    """A convolution or linear layer that uses its weight rounded."""

    def __init__(self, layer: nn.Module, number: NumberFormat, *, per_channel: bool) -> None:
        super().__init__()
        self.layer = layer
        self._number = number
        self._per_channel = per_channel

    def forward(self, values: Tensor) -> Tensor:
        """Return what the layer answers to (batch, ...) with its weight rounded."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        largest = self._number.largest
        reach = weight.detach().abs()
        reach = reach.amax(dim=tuple(range(1, weight.ndim)), keepdim=True) if self._per_channel else reach.amax()
        scale = (reach / largest).clamp_min(float(self._number.scale(0.0)))
        rounded = _Rounding.apply(weight, scale, -largest, largest, _rounded(self._number))
        out: Tensor = torch.func.functional_call(self.layer, {"weight": rounded}, (values,))
        return out
