"""Simulate the rounding of a Q/DQ file in a torch network: at the same places, with the same numbers.

Gradients pass straight through the rounding, so the network can be trained with it.
"""

import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from scalesearch.compression.calibration import observe
from scalesearch.compression.cpu_qdq import SEVEN_BITS
from scalesearch.compression.qdq import FORMATS, FormatName, NumberFormat, output_of
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Quantization
from scalesearch.values.target import QuantizationProfile

STAGE: Final = "qat"
_OBSERVED_BATCH: Final = 32
_WEIGHTED: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_PASSING: Final = (nn.Identity, nn.Dropout)
_ADDS: Final = frozenset({operator.add, operator.iadd, torch.add})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """The number formats that a style rounds to."""

    weights: NumberFormat
    activations: NumberFormat
    unsigned: bool
    """Whether activations are uint8 with a zero point."""


def _format(quantization: Quantization) -> FormatName:
    return "fp8" if quantization.precision == "fp8" else "int8"


def _numbers(quantization: Quantization, profile: QuantizationProfile) -> _Numbers:
    unsigned = profile == "onnxruntime_cpu" and quantization.precision == "int8"
    number = FORMATS[_format(quantization)]
    return _Numbers(weights=SEVEN_BITS if unsigned else number, activations=number, unsigned=unsigned)


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


class _ActivationRounding(nn.Module):
    """Rounds with a learnt scale and a zero point fixed at calibration; before calibration it passes values through."""

    def __init__(self, numbers: _Numbers) -> None:
        super().__init__()
        self._number, self._unsigned = numbers.activations, numbers.unsigned
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.zero_point = 0.0
        self.calibrated = False
        self._seen: Tensor | None = None

    def set_range(self, low: float, high: float) -> None:
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
        scale = math.exp(self.log_scale.item())
        low, high = self._bounds()
        return low * scale, high * scale

    def forward(self, values: Tensor) -> Tensor:
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


class _RoundedLayer(nn.Module):
    """A convolution or linear layer that uses its weight rounded."""

    def __init__(self, layer: nn.Module, number: NumberFormat, *, per_channel: bool) -> None:
        super().__init__()
        self.layer = layer
        self._number = number
        self._per_channel = per_channel

    def forward(self, values: Tensor) -> Tensor:
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        largest = self._number.largest
        reach = weight.detach().abs()
        reach = reach.amax(dim=tuple(range(1, weight.ndim)), keepdim=True) if self._per_channel else reach.amax()
        scale = (reach / largest).clamp_min(float(self._number.scale(0.0)))
        rounded = _Rounding.apply(weight, scale, -largest, largest, _rounded(self._number))
        out: Tensor = torch.func.functional_call(self.layer, {"weight": rounded}, (values,))
        return out


class Simulation:
    """The network's graph with rounding in it; its layers are the module's own, so training it trains the module.

    Inputs and weights of convolutions and linear layers and one side of residual sums are rounded, as `insert_qdq` does
    it. ONNX Runtime's CPU style also rounds what is between them; this is left out here. Until `calibrate` or
    `set_ranges` is called, activations pass through as they are.
    """

    def __init__(self, module: nn.Module, quantization: Quantization, profile: QuantizationProfile) -> None:
        """Take a module in eval mode, its BatchNorms folded.

        Raises:
            StageFailed: The module cannot be traced, or it runs a layer twice.
        """
        self._numbers = _numbers(quantization, profile)
        per_channel = quantization.weights == "per_channel"
        self._graph = _traced(module)
        self._modules: dict[str, Any] = {
            str(node.target): operator.attrgetter(str(node.target))(module)
            for node in self._graph.nodes
            if node.op in ("call_module", "get_attr")
        }
        self._pairs: dict[fx.Node, tuple[fx.Node, _ActivationRounding]] = {}
        self._names: dict[fx.Node, str] = {}
        self._keys: dict[str, _ActivationRounding] = {}
        layers = [node for node in self._graph.nodes if self._is(node, _WEIGHTED)]
        for node in layers:
            self._round_layer(node, per_channel=per_channel)
        for node in list(self._graph.nodes):
            if node.op == "call_function" and node.target in _ADDS:
                self._round_residual(node, set(layers))
        self.module = fx.GraphModule(self._modules, self._graph)

    @property
    def scales(self) -> list[nn.Parameter]:
        """The learnt logarithms of the activations' scales."""
        return [rounding.log_scale for _, rounding in self._pairs.values()]

    def calibrate(self, images: Tensor, quantization: Quantization) -> None:
        """Set the range of every activation, by the quantization's method, on normalised images (N, C, H, W)."""
        roundings = {node.name: rounding for node, (_, rounding) in self._pairs.items()}

        def batches() -> Iterator[dict[str, NDArray[np.float32]]]:
            for part in torch.split(images, _OBSERVED_BATCH):
                with torch.inference_mode():
                    self.module(part)
                yield {name: rounding.taken().cpu().numpy() for name, rounding in roundings.items()}

        counts = dict.fromkeys(roundings, 0)
        for batch in batches():
            counts = {name: counts[name] + values.size for name, values in batch.items()}
        ranges = observe(
            batches,
            counts,
            method=quantization.calibration,
            clip_percentile=quantization.clip_percentile,
            symmetric=not self._numbers.unsigned,
            number=_format(quantization),
        )
        for name, rounding in roundings.items():
            rounding.set_range(*ranges[name])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return (low, high) of each activation by the keys of `qdq.given_ranges`."""
        return {key: rounding.range() for key, rounding in self._keys.items()}

    def set_ranges(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Set all ranges to what `ranges` returned, for this network or an earlier one."""
        for key, rounding in self._keys.items():
            rounding.set_range(*ranges[key])

    def _round_layer(self, node: fx.Node, *, per_channel: bool) -> None:
        layer = str(node.target)
        weight = f"{layer}.weight"
        self._names[node] = weight
        if weight in self._keys:
            raise StageFailed(STAGE, f"{layer} runs twice, so that its input has no one range")
        self._keys[weight] = self._round_argument(node, 0)
        name = f"rounded_{node.name}"
        self._modules[name] = _RoundedLayer(self._modules[layer], self._numbers.weights, per_channel=per_channel)
        node.target = name

    def _round_residual(self, node: fx.Node, layers: set[fx.Node]) -> None:
        """Round one side of a sum, the same one that `qdq.insert_qdq` chooses."""
        sides = [self._source(side) for side in node.args[:2] if isinstance(side, fx.Node)]
        if len(sides) < 2:
            return
        light = [place for place, side in enumerate(sides) if side not in layers]
        if len(light) == 2:
            return
        place = light[0] if light else 0 if sides[0] in self._pairs else 1
        rounding = self._round_argument(node, place)
        if sides[place] in layers:
            self._keys[output_of(self._names[sides[place]])] = rounding

    def _round_argument(self, node: fx.Node, place: int) -> _ActivationRounding:
        """Round the node's argument, and return its rounding: one for each activation, however many layers read it."""
        argument = node.args[place]
        assert isinstance(argument, fx.Node)
        source = self._source(argument)
        if source not in self._pairs:
            name, rounding = f"rounding_{len(self._pairs)}", _ActivationRounding(self._numbers)
            self._modules[name] = rounding
            with self._graph.inserting_after(source):
                self._pairs[source] = (self._graph.call_module(name, (source,)), rounding)
        pair, rounding = self._pairs[source]
        node.update_arg(place, pair)
        return rounding

    def _is(self, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return node.op == "call_module" and isinstance(self._modules[str(node.target)], kinds)

    def _source(self, node: fx.Node) -> fx.Node:
        """Return the node whose value this is, skipping layers that the exported file does not have."""
        while self._is(node, _PASSING):
            (node,) = node.all_input_nodes
        return node


def _traced(module: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        raise StageFailed(STAGE, f"the network cannot be traced by torch.fx: {error}") from error
