"""Calibration: measure the value range of every activation on real images, by one of four methods.

This is our own code because ONNX Runtime's calibrators have three problems. They keep every activation of every batch
in memory. They read percentiles off a histogram of 2048 bins over the whole range, so a heavy tail blurs them. And with
their default of 128 bins into 128 levels, their "entropy" gives the same ranges as minmax. The Q/DQ nodes are inserted
afterwards: by ONNX Runtime's quantizer for its CPU kernels (`cpu_qdq.py`), otherwise by `qdq.py`; see `quantize.py`.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime as ort

from scalesearch.compression.number_format import FORMATS, FormatName
from scalesearch.compression.observers import Values, make_observer
from scalesearch.deployment.onnx_file import checking_session
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import CalibrationMethod

Ranges = dict[str, tuple[float, float]]

_MEMORY_BYTES = 256 * 2**20
_LARGEST_BATCH = 32


def calibrate(
    proto: onnx.ModelProto,
    images: Values,
    *,
    method: CalibrationMethod,
    clip_percentile: float,
    symmetric: bool,
    number: FormatName = "int8",
) -> Ranges:
    """Return the range (low, high) of every float activation of the graph, measured over all images.

    The methods:

    * minmax: from the lowest to the highest value.
    * percentile: from the (100 - p) / 2-th to the (100 + p) / 2-th percentile; if symmetric, up to the p-th percentile
      of the absolute values. The percentiles are exact, equal to those of `numpy.percentile`.
    * entropy: cut at the absolute value whose 128 levels lose least information (`entropy_threshold`).
    * mse: the range with the least squared error of rounding and clipping (`least_error_reach`, `least_error_bounds`).

    Args:
        proto: A float model with one input, shapes inferred.
        images: (N, C, H, W), normalised as in training.
        method: One of the methods above.
        clip_percentile: The percentile p, above 50 and up to 100; used by `percentile` only.
        symmetric: Make every range symmetric around 0 (-x..x).
        number: The number format that symmetric ranges are for; used by `mse` only. Other ranges are for uint8.

    Returns:
        The ranges by the names of the activations.

    Raises:
        StageFailed: No images, a percentile out of range, or values that are not finite.
    """
    sizes = _activation_sizes(proto)
    counts = {name: size * len(images) for name, size in sizes.items()}
    if others := sizes.keys() - _per_image(proto):
        counts |= dict.fromkeys(others, 0)
        for batch in activations(proto, images, sorted(others)):
            counts |= {name: counts[name] + values.size for name, values in batch.items()}
    return observe(
        lambda: activations(proto, images, sizes),
        counts,
        method=method,
        clip_percentile=clip_percentile,
        symmetric=symmetric,
        number=number,
    )


def observe(
    batches: Callable[[], Iterator[dict[str, Values]]],
    counts: Mapping[str, int],
    *,
    method: CalibrationMethod,
    clip_percentile: float,
    symmetric: bool,
    number: FormatName = "int8",
) -> Ranges:
    """Measure ranges as `calibrate` does, on activations from any source.

    Args:
        batches: Returns, each time it is called, an iterator over all batches; a batch is a dictionary from the
            activation's name to its values, an array of any shape. It is called twice for `entropy` and `mse`.
        counts: Number of values of each activation in all batches together.
        method: As in `calibrate`.
        clip_percentile: As in `calibrate`.
        symmetric: As in `calibrate`.
        number: As in `calibrate`.

    Returns:
        The range (low, high) of each activation by name.

    Raises:
        StageFailed: No values, or a percentile out of range.
    """
    if not 50 < clip_percentile <= 100 or not all(counts.values()):
        reason = f"needs images and 50 < clip_percentile <= 100, got {sum(counts.values())} values, {clip_percentile}"
        raise StageFailed(stage="quantize", reason=reason)
    codes = FORMATS[number].codes if symmetric else None
    observers = {
        name: make_observer(method, count, percentile=clip_percentile, codes=codes) for name, count in counts.items()
    }
    for batch in batches():
        for name, values in batch.items():
            observers[name].see(values)
    if method in ("entropy", "mse"):  # a histogram needs its range first, so all batches are read twice
        for batch in batches():
            for name, values in batch.items():
                observers[name].see_again(values)
    ranges = {name: observer.range() for name, observer in observers.items()}
    if symmetric:
        ranges = {name: (-max(-low, high), max(-low, high)) for name, (low, high) in ranges.items()}
    return ranges


def _activation_sizes(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the number of values of one image in every float activation, the input included, constants left out.

    Where the images are not along the first axis alone (`_per_image`), it is an estimate.
    """
    per_image = _per_image(proto)
    return {
        value.name: math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim[value.name in per_image :])
        for value in _float_activations(proto)
    }


def _per_image(proto: onnx.ModelProto) -> set[str]:
    """Return the names of the float activations with the images along the first axis, and only there.

    Others hold several rows of each image along it (tokens), have the images along another axis, or do not depend on
    them.
    """
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    return {
        value.name
        for value in _float_activations(proto)
        if (dims := value.type.tensor_type.shape.dim) and dims[0] == batch and all(dim.dim_value for dim in dims[1:])
    }


def _float_activations(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    return [
        value
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in constants
    ]


def activations(proto: onnx.ModelProto, images: Values, names: Collection[str]) -> Iterator[dict[str, Values]]:
    """Yield the named activations, batch by batch of images.

    A batch holds as many images as fit the memory bound, at most 32 and at least 1.

    Args:
        proto: A float model with one input, shapes inferred.
        images: (N, C, H, W).
        names: The activations to yield; the input may be among them.

    Yields:
        For each batch, arrays by the names of the activations, images along the first axis.

    Raises:
        StageFailed: A value is not finite.
    """
    input_name = proto.graph.input[0].name
    sizes = _activation_sizes(proto)
    inner = [name for name in names if name != input_name]
    session = _session_with_outputs(proto, inner)
    batch = max(1, min(_LARGEST_BATCH, _MEMORY_BYTES // (4 * sum(sizes[name] for name in names))))
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        values = dict(zip(inner, session.run(inner, {input_name: part}), strict=True)) if inner else {}
        values |= {name: part for name in names if name == input_name}
        for name, array in values.items():
            if not np.isfinite(array).all():
                raise StageFailed(stage="quantize", reason=f"activation {name} is not finite on calibration images")
        yield values


def _session_with_outputs(proto: onnx.ModelProto, names: list[str]) -> ort.InferenceSession:
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    present = {value.name for value in graph.graph.output}
    inner = {value.name: value for value in proto.graph.value_info}
    graph.graph.output.extend(inner[name] for name in names if name not in present)
    return checking_session(graph, as_written=True)  # fused operators have no activations between them
