"""Calibration: measure the value range of every activation on real images, by one of four methods.

This is our own code because ONNX Runtime's calibrators have three problems. They keep every activation of every batch
in memory. They read percentiles off a histogram of 2048 bins over the whole range, so a heavy tail blurs them. And with
their default of 128 bins into 128 levels, their "entropy" gives the same ranges as minmax. The Q/DQ nodes are inserted
afterwards: by ONNX Runtime's quantizer for its CPU kernels (`cpu_qdq.py`), otherwise by `qdq.py`; see `quantize.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from scalesearch.compression.clipping import LEVELS, entropy_threshold, least_error_bounds, least_error_reach
from scalesearch.compression.qdq import FORMATS, FormatName
from scalesearch.deployment.onnx_file import checking_session
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import CalibrationMethod

Values = NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]

_MEMORY_BYTES = 256 * 2**20
_LARGEST_BATCH = 32
_HISTOGRAM_BINS = 2048
_VALUES_A_BIN = 32


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
    return observe(
        lambda: activations(proto, images, sizes),
        {name: size * len(images) for name, size in sizes.items()},
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
        name: _observer(method, count, percentile=clip_percentile, codes=codes) for name, count in counts.items()
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


class _Observer(ABC):
    """Collects the values of one activation, batch by batch, in little memory."""

    @abstractmethod
    def see(self, values: Values) -> None: ...

    def see_again(self, values: Values) -> None:  # noqa: B027  (most need one pass)
        """Take in the same values a second time, after all of them were seen once."""

    @abstractmethod
    def range(self) -> tuple[float, float]: ...


class _MinMax(_Observer):
    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def see(self, values: Values) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def range(self) -> tuple[float, float]:
        return self.low, self.high


class _Percentile(_Observer):
    """Exact percentiles: keeps as many extreme values on each side as the percentile cuts off."""

    def __init__(self, count: int, percentile: float, symmetric: bool) -> None:
        self._symmetric = symmetric
        cut = (100 - percentile) / 100 if symmetric else (100 - percentile) / 200
        self._high = _Largest(count, cut)
        self._low = _Largest(count, cut)

    def see(self, values: Values) -> None:
        if self._symmetric:
            self._high.see(np.abs(values))
        else:
            self._high.see(values)
            self._low.see(-values)

    def range(self) -> tuple[float, float]:
        high = self._high.quantile()
        return (-high if self._symmetric else -self._low.quantile()), high


class _Largest:
    """Finds the value below which all but a fraction `cut` of `count` values lie, interpolated linearly."""

    def __init__(self, count: int, cut: float) -> None:
        self._place = cut * (count - 1)  # counted from the largest value, which has place 0
        self._keep = min(count, int(self._place) + 2)
        self._kept = np.empty(0, dtype=np.float32)

    def see(self, values: Values) -> None:
        values = values.ravel()
        if len(self._kept) == self._keep:
            values = values[values > self._kept.min()]
        kept = np.concatenate((self._kept, values))
        self._kept = np.partition(kept, -self._keep)[-self._keep :] if len(kept) > self._keep else kept

    def quantile(self) -> float:
        descending = np.sort(self._kept)[::-1].astype(np.float64)
        return float(np.interp(self._place, np.arange(len(descending)), descending))


class _Entropy(_MinMax):
    """Finds the range in a first pass and a histogram of absolute values over this range in a second pass.

    A histogram with few values in each bin is mostly noise, and so are the divergences computed from it. Therefore
    small activations (logits, squeezed channels) get fewer bins, down to one for each level; with that few, nothing is
    cut.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        bins = min(_HISTOGRAM_BINS, max(LEVELS, count // _VALUES_A_BIN))
        self._counts = np.zeros(bins, dtype=np.int64)

    def see_again(self, values: Values) -> None:
        self._counts += np.histogram(np.abs(values), bins=len(self._counts), range=(0, self._largest()))[0]

    def range(self) -> tuple[float, float]:
        threshold = entropy_threshold(self._counts, self._largest())
        return max(self.low, -threshold), min(self.high, threshold)

    def _largest(self) -> float:
        return max(-self.low, self.high, 1e-9)


class _LeastError(_MinMax):
    """Finds the range in a first pass and a histogram over it in a second pass.

    The histogram is of absolute values if `codes` are given.
    """

    def __init__(self, codes: NDArray[np.float64] | None) -> None:
        super().__init__()
        self._codes = codes
        self._counts = np.zeros(_HISTOGRAM_BINS, dtype=np.int64)

    def see_again(self, values: Values) -> None:
        values = values[values != 0]
        values = values if self._codes is None else np.abs(values)
        self._counts += np.histogram(values, bins=_HISTOGRAM_BINS, range=self._span())[0]

    def range(self) -> tuple[float, float]:
        low, high = self._span()
        if self._codes is None:
            return least_error_bounds(self._counts, low, high)
        reach = least_error_reach(self._counts, high, self._codes)
        return max(self.low, -reach), min(self.high, reach)

    def _span(self) -> tuple[float, float]:
        if self._codes is None:
            return self.low, max(self.high, self.low + 1e-9)
        return 0.0, max(-self.low, self.high, 1e-9)


def _observer(
    method: CalibrationMethod, count: int, *, percentile: float, codes: NDArray[np.float64] | None
) -> _Observer:
    """Make the observer of a method.

    `codes` are the numbers of a symmetric format, or None if the range need not be symmetric.
    """
    makers: dict[CalibrationMethod, Callable[[], _Observer]] = {
        "minmax": _MinMax,
        "percentile": lambda: _Percentile(count, percentile, codes is not None),
        "entropy": lambda: _Entropy(count),
        "mse": lambda: _LeastError(codes),
    }
    return makers[method]()


def _activation_sizes(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the number of values per image of every float activation, the input included and constants left out."""
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    sizes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type == onnx.TensorProto.FLOAT and value.name not in constants:
            sizes[value.name] = int(np.prod([dim.dim_value for dim in tensor.shape.dim[1:]], dtype=np.int64))
    return sizes


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
