"""What rounding does to each layer: histograms of weights and inputs, clip ranges, clipped shares, rounding noise."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from scalesearch.compression.calibration import Ranges, activations, observe
from scalesearch.compression.cpu_qdq import SEVEN_BITS
from scalesearch.compression.number_format import FORMATS, FormatName, NumberFormat, encode_weight
from scalesearch.compression.observers import Values
from scalesearch.compression.qdq import output_axis, weighted_nodes
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import CALIBRATED, Quantization
from scalesearch.values.histogram import LayerHistogram, TensorHistogram

_MOST = 0.99
_UINT8, _INT8 = (0, 255), (-128, 127)
"""Smallest and largest code that QuantizeLinear saturates to. Our int8 ranges stop at -127 (`number_format.FORMATS`),
but activations below that range still become -128."""

Rounding = Callable[[Values], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """The 8-bit number formats that a file of one precision and style uses."""

    name: FormatName
    weights: NumberFormat
    symmetric: bool


def layer_histograms(
    proto: onnx.ModelProto,
    images: NDArray[np.float32],
    quantization: Quantization,
    *,
    symmetric: bool,
    bins: int = 64,
) -> tuple[LayerHistogram, ...]:
    """Return histograms of weights and inputs, and the effect of quantization, of every convolution and linear layer.

    The signal-to-quantization-noise ratio (SQNR) is as in Lin, Talathi and Annapureddy, "Fixed Point Quantization of
    Deep Convolutional Networks" (arXiv 1511.06393, equation 1): with uniform values, each bit is worth 6 dB. The bins
    of weights reach from -max|w| to max|w|, as their quantized numbers do; the bins of activations reach from the
    smallest to the largest value.

    Args:
        proto: The fp32 model.
        images: (N, C, H, W), float32, normalised as in training; the first `calibration_images` of them are used.
        quantization: Number format, calibration and kind of weight scales. For a precision that does not have 8 bits,
            the histograms show what int8 with its whole range (minmax) and a scale for each channel would do.
        symmetric: The target's style. True: int8 for weights and activations (TensorRT, OpenVINO). False: uint8
            activations and 7-bit weights (ONNX Runtime's CPU kernels). fp8 is always symmetric.
        bins: Number of bins of each histogram.

    Returns:
        One entry for each layer, in the graph's order.

    Raises:
        StageFailed: No layer, no image, images of another shape, or values that are not finite.
    """
    proto = onnx.shape_inference.infer_shapes(proto)
    nodes, images = weighted_nodes(proto), images[: quantization.calibration_images]
    _ensure_fit(proto, nodes, images)
    if quantization.precision not in CALIBRATED:
        quantization = replace(quantization, precision="int8", calibration="minmax", weights="per_channel")
    numbers = _numbers(quantization, symmetric=symmetric)
    read = _activation_histograms(proto, images, {node.input[0] for node in nodes}, quantization, numbers, bins)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = []
    for node in nodes:
        values = onnx.numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
        if not np.isfinite(values).all():
            raise StageFailed(stage="histogram", reason=f"weight {node.input[1]} is not finite")
        axis = output_axis(node, values.ndim) if quantization.weights == "per_channel" else None
        found.append(
            LayerHistogram(
                name=node.input[1].removesuffix(".weight"),
                node=node.name,
                kind=node.op_type,
                shape=values.shape,
                weights=_weight_histogram(values, axis, numbers.weights, bins),
                activations=read[node.input[0]],
                within_99=_within(np.abs(values)),
            )
        )
    return tuple(found)


def _ensure_fit(proto: onnx.ModelProto, nodes: tuple[onnx.NodeProto, ...], images: Values) -> None:
    expected = tuple(dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim[1:])
    if not nodes or not len(images) or images.dtype != np.float32 or images.shape[1:] != expected:
        wanted = f"needs layers with weights and float32 images (N, {', '.join(map(str, expected))})"
        reason = f"{wanted}, got {len(nodes)} layers and {images.dtype} {images.shape}"
        raise StageFailed(stage="histogram", reason=reason)


def _within(sizes: Values) -> float:
    """Return which share of 0..largest holds 99 % of the absolute values; 1 if all of them are zero."""
    largest = float(sizes.max())
    return float(np.quantile(sizes, _MOST)) / largest if largest else 1.0


def _numbers(quantization: Quantization, *, symmetric: bool) -> _Numbers:
    if quantization.precision == "fp8":
        return _Numbers(name="fp8", weights=FORMATS["fp8"], symmetric=True)
    return _Numbers(name="int8", weights=FORMATS["int8"] if symmetric else SEVEN_BITS, symmetric=symmetric)


def _weight_histogram(values: Values, axis: int | None, number: NumberFormat, bins: int) -> TensorHistogram:
    codes, scales = encode_weight(values, axis, number)
    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = scales.astype(np.float64) if axis is None else np.expand_dims(scales.astype(np.float64), others)
    tally = _Tally(low=float(values.min()), high=float(values.max()), bins=bins, centred=True)
    reach = float(number.largest * scale.max())
    # No weight is clipped, since each scale fits the largest weight of its channel.
    tally.see(values, codes.astype(np.float64) * scale, (-math.inf, math.inf))
    return tally.histogram((-reach, reach))


def _activation_histograms(
    proto: onnx.ModelProto,
    images: Values,
    names: set[str],
    quantization: Quantization,
    numbers: _Numbers,
    bins: int,
) -> dict[str, TensorHistogram]:
    """Return the histograms by name of the activation.

    The images run once for the full ranges, then as often as calibration needs, and then once more.
    """

    def batches() -> Iterator[dict[str, Values]]:
        return activations(proto, images, sorted(names))

    whole: Ranges = dict.fromkeys(names, (math.inf, -math.inf))
    counts = dict.fromkeys(names, 0)
    for batch in batches():
        for name, values in batch.items():
            low, high = whole[name]
            whole[name] = (min(low, float(values.min())), max(high, float(values.max())))
            counts[name] += values.size
    clips = observe(
        batches,
        counts,
        method=quantization.calibration,
        clip_percentile=quantization.clip_percentile,
        symmetric=numbers.symmetric,
        number=numbers.name,
    )
    tallies = {name: _Tally(low=low, high=high, bins=bins) for name, (low, high) in whole.items()}
    roundings = {name: _rounding(numbers, clip) for name, clip in clips.items()}
    for batch in batches():
        for name, values in batch.items():
            tallies[name].see(values, roundings[name](values), clips[name])
    return {name: tally.histogram(clips[name]) for name, tally in tallies.items()}


def _rounding(numbers: _Numbers, clip: tuple[float, float]) -> Rounding:
    """Return the function that rounds an activation to 8 bits and back, as QuantizeLinear and DequantizeLinear do."""
    if numbers.name == "fp8":
        number = FORMATS["fp8"]
        scale = number.scale(max(-clip[0], clip[1]))
        return lambda values: number.encode(values, scale).astype(np.float64) * scale
    if numbers.symmetric:
        step, zero, codes = float(FORMATS["int8"].scale(max(-clip[0], clip[1]))), 0.0, _INT8
    else:
        # ONNX Runtime's quantizer widens a range to include 0, which must have an exact code (zero padding).
        low, high = min(clip[0], 0.0), max(clip[1], 0.0)
        step, codes = (high - low) / _UINT8[1] or 1.0, _UINT8
        zero = float(np.rint(-low / step))
    return lambda values: (np.clip(np.rint(values / step) + zero, *codes) - zero) * step


class _Tally:
    """Counts values and sums up rounding errors, batch by batch."""

    def __init__(self, *, low: float, high: float, bins: int, centred: bool = False) -> None:
        reach = max(-low, high)
        first, last = (-reach, reach) if centred else (low, high)
        if first == last:  # all values are equal: put them into the middle
            first, last = first - 0.5, last + 0.5
        self._low, self._high, self._edges = low, high, (first, last)
        self._counts = np.zeros(bins, dtype=np.int64)
        self._clipped = 0
        self._signal = self._noise = 0.0

    def see(self, values: Values, rounded: NDArray[np.float64], clip: tuple[float, float]) -> None:
        """Take in more values, their rounded values, and the range outside of which values are clipped."""
        # Another batch size can change the last bit of an activation: no value may fall outside the bins.
        inside = np.clip(values, *self._edges)
        self._counts += np.histogram(inside, bins=len(self._counts), range=self._edges)[0]
        self._clipped += int(((values < clip[0]) | (values > clip[1])).sum())
        wide = values.astype(np.float64)
        self._signal += float(np.square(wide).sum())
        self._noise += float(np.square(wide - rounded).sum())

    def histogram(self, clip: tuple[float, float]) -> TensorHistogram:
        return TensorHistogram(
            low=self._low,
            high=self._high,
            first_edge=self._edges[0],
            last_edge=self._edges[1],
            counts=tuple(int(count) for count in self._counts),
            clip_low=clip[0],
            clip_high=clip[1],
            clipped_fraction=self._clipped / int(self._counts.sum()),
            sqnr_db=_decibels(self._signal, self._noise),
        )


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if noise else None
