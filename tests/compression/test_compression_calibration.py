import itertools
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, parser

from scalesearch.compression.calibration import calibrate, observe
from scalesearch.compression.clipping import entropy_threshold, least_error_bounds, least_error_reach
from scalesearch.compression.number_format import FORMATS, FormatName
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import CalibrationMethod

_METHODS: tuple[CalibrationMethod, ...] = get_args(CalibrationMethod)
_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.normal(size=(50, 3, 16, 16)).astype(np.float32)


def _heavy_tailed_graph(size: int = 16) -> onnx.ModelProto:
    """image -> cube = image^3 (heavy tails on both sides) -> positive = ReLU(cube)."""
    nodes = [
        helper.make_node("Mul", ["image", "image"], ["square"]),
        helper.make_node("Mul", ["square", "image"], ["cube"]),
        helper.make_node("Relu", ["cube"], ["positive"]),
    ]
    shape: list[str | int | None] = ["batch", 3, size, size]
    graph = helper.make_graph(
        nodes,
        "heavy_tailed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("positive", TensorProto.FLOAT, shape)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(proto)


def _activations(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    square = images * images
    cube = square * images
    return {"image": images, "square": square, "cube": cube, "positive": np.maximum(cube, 0)}


def _ranges(
    method: CalibrationMethod, *, percentile: float = 99.9, symmetric: bool = False
) -> dict[str, tuple[float, float]]:
    return calibrate(_heavy_tailed_graph(), _IMAGES, method=method, clip_percentile=percentile, symmetric=symmetric)


def test_minmax_is_numpys() -> None:
    ranges = _ranges("minmax")
    expected = _activations(_IMAGES)
    assert ranges.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(ranges[name], (values.min(), values.max()), rtol=1e-6)


@pytest.mark.parametrize("percentile", [60.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_is_numpys(percentile: float) -> None:
    ranges = _ranges("percentile", percentile=percentile)
    for name, values in _activations(_IMAGES).items():
        expected = np.percentile(values.astype(np.float64), [(100 - percentile) / 2, (100 + percentile) / 2])
        np.testing.assert_allclose(ranges[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("percentile", [90.0, 99.99])
def test_symmetric_percentile_is_that_of_absolute_values(percentile: float) -> None:
    ranges = _ranges("percentile", percentile=percentile, symmetric=True)
    for name, values in _activations(_IMAGES).items():
        expected = np.percentile(np.abs(values).astype(np.float64), percentile)
        np.testing.assert_allclose(ranges[name], (-expected, expected), rtol=1e-5, err_msg=name)


def test_lower_percentiles_cut_more() -> None:
    highs = [_ranges("percentile", percentile=percentile)["cube"][1] for percentile in (90.0, 99.0, 99.9, 99.99)]
    assert all(low < 0.8 * high for low, high in itertools.pairwise(highs))


@pytest.mark.parametrize("symmetric", [False, True])
def test_all_methods_really_differ_where_tails_are_heavy(symmetric: bool) -> None:
    highs = {method: _ranges(method, percentile=99.0, symmetric=symmetric)["cube"][1] for method in _METHODS}
    ordered = sorted(highs.values())
    assert all(low < 0.96 * high for low, high in itertools.pairwise(ordered)), highs
    assert max(highs, key=lambda method: highs[method]) == "minmax"


def _error(values: NDArray[np.float64], low: float, high: float, codes: NDArray[np.float64]) -> float:
    """Mean squared error of rounding to the nearest of these codes times a scale, by definition."""
    scale = (high - low) / (codes[-1] - codes[0])
    grid = codes * scale
    nearest = np.clip(np.searchsorted((grid[1:] + grid[:-1]) / 2, values), 0, len(grid) - 1)
    return float(np.mean((values - grid[nearest]) ** 2))


@pytest.mark.parametrize("number", ["int8", "fp8"])
@pytest.mark.parametrize("name", ["cube", "positive", "image"])
def test_no_symmetric_range_has_less_squared_error_than_that_of_mse(name: str, number: FormatName) -> None:
    values = _activations(_IMAGES)[name].astype(np.float64).ravel()
    codes = FORMATS[number].codes
    ranges = calibrate(
        _heavy_tailed_graph(), _IMAGES, method="mse", clip_percentile=99.9, symmetric=True, number=number
    )
    reach = np.abs(values).max()
    tried = [_error(values, -end, end, codes) for end in reach * np.linspace(0.02, 1, 50)]
    assert _error(values, *ranges[name], codes) < 1.02 * min(tried)
    if (name, number) == ("cube", "int8"):
        assert min(tried) < 0.95 * tried[-1]  # it matters which


@pytest.mark.parametrize("name", ["cube", "positive", "square"])
def test_no_unsigned_range_has_less_squared_error_than_that_of_mse(name: str) -> None:
    values = _activations(_IMAGES)[name].astype(np.float64).ravel()

    def error(low: float, high: float) -> float:
        return _error(values, low, high, np.arange(256) - np.rint(-low * 255 / (high - low)))

    shares = np.linspace(0.1, 1, 10)
    lows = values.min() * shares if values.min() < 0 else [0.0]
    tried = [error(low, high) for low in lows for high in values.max() * shares]
    low, high = _ranges("mse")[name]
    assert error(low, high) < 1.02 * min(tried)
    if name == "cube":
        assert error(low, high) < 0.97 * error(values.min(), values.max())


def test_mse_cuts_laplace_values_where_banner_et_al_do() -> None:
    """Of density exp(-|x|/b)/2b, cut at a and rounded to 2^8 levels, the error is 2 b^2 exp(-a/b) + a^2 / (3 * 2^16).

    Banner et al., "Post training 4-bit quantization of convolutional networks", 2019, section 3.1. Its derivative is
    zero at a = 9.89 b.
    """
    values = np.abs(np.random.default_rng(3).laplace(size=2_000_000))
    counts = np.histogram(values, bins=2048, range=(0, 16))[0]
    counts[-1] += (values > 16).sum()
    expected = 9.89
    assert 3 * 65536 * np.exp(-expected) == pytest.approx(expected, rel=0.01)
    assert least_error_reach(counts, 16.0, FORMATS["int8"].codes) == pytest.approx(expected, rel=0.05)


def test_mse_of_numbers_that_need_no_rounding_is_their_range() -> None:
    counts = np.zeros(2048, dtype=np.int64)
    assert least_error_reach(counts, 3.0, FORMATS["int8"].codes) == 3.0
    assert least_error_bounds(counts, -1.0, 3.0) == (-1.0, 3.0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize("value", [5.0, -3.0, 1e-6, 70_000.0, 0.0])
@pytest.mark.parametrize("steps", [0, 1, 100])
def test_an_activation_that_hardly_varies_has_a_range_that_holds_it(
    value: float, steps: int, method: CalibrationMethod, symmetric: bool
) -> None:
    """`steps` numbers of float32 lie between its two values: no histogram over these alone has 2048 edges."""
    first = np.float32(value)
    second = np.float32(first + steps * np.spacing(np.abs(first)))
    values = np.array([first, second] * 500, np.float32)
    ranges = observe(
        lambda: iter([{"a": values}]), {"a": values.size}, method=method, clip_percentile=99.9, symmetric=symmetric
    )
    low, high = ranges["a"]
    near = 0.01 * abs(value) + 1e-8
    assert min(low, 0) <= value + near and max(high, 0) >= value - near
    assert max(-low, high) <= abs(value) + near


@pytest.mark.parametrize("method", _METHODS)
def test_symmetric_ranges_are_symmetric_and_asymmetric_ones_are_not(method: CalibrationMethod) -> None:
    low, high = _ranges(method, symmetric=True)["square"]
    assert low == -high
    low, _ = _ranges(method, symmetric=False)["square"]
    assert low >= 0


def test_ranges_do_not_depend_on_how_the_images_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [_ranges(method) for method in _METHODS]
    # One image of this graph has 4 activations of 3 * 16 * 16 floats: 12 kB.
    monkeypatch.setattr("scalesearch.compression.calibration._MEMORY_BYTES", 40_000)
    assert [_ranges(method) for method in _METHODS] == before


def test_entropy_of_few_values_is_their_full_range() -> None:
    """One 4 px image has 48 values: no histogram of 2048 bins says anything about them."""
    image = _IMAGES[:1, :, :4, :4]
    ranges = calibrate(_heavy_tailed_graph(4), image, method="entropy", clip_percentile=99.9, symmetric=False)
    values = _activations(image)["cube"]
    np.testing.assert_allclose(ranges["cube"], (values.min(), values.max()), rtol=1e-6)


@pytest.mark.parametrize("bins", [128, 130, 1001, 2048])
def test_entropy_threshold_keeps_a_flat_histogram_whole(bins: int) -> None:
    assert entropy_threshold(np.full(bins, 1000), 4.0) == 4.0


def test_entropy_threshold_cuts_one_far_outlier() -> None:
    counts = np.zeros(2048, dtype=np.int64)
    counts[:200] = np.linspace(1_000, 10, 200).astype(np.int64)
    counts[-1] = 1
    assert 150 / 2048 < entropy_threshold(counts, 1.0) < 300 / 2048


def _divergence_by_definition(counts: NDArray[np.int64], stop: int) -> float:
    """The slides' loop, written plainly: merge `stop` bins into 128 levels, spread each level over its filled bins."""
    reference = counts[:stop].astype(float)
    reference[-1] += counts[stop:].sum()
    width = stop // 128
    quantized = np.zeros(stop)
    for level in range(128):
        part = counts[level * width : (level + 1) * width].astype(float)
        filled = part > 0
        quantized[level * width : (level + 1) * width][filled] = part.sum() / max(filled.sum(), 1)
    p, q = reference / reference.sum(), quantized / quantized.sum()
    if (q[p > 0] == 0).any():
        return float("inf")
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def test_entropy_threshold_is_the_best_by_definition() -> None:
    """Checked at the multiples of 128, where levels are whole bins and the plain loop leaves no remainder."""
    values = np.abs(np.random.default_rng(1).standard_t(3, 200_000))
    counts = np.histogram(values, bins=2048, range=(0, values.max()))[0]
    counts[0] = counts[1]
    largest = float(values.max())
    found = entropy_threshold(counts, largest)
    stop = round(found / largest * 2048)
    candidates = range(128, 2049, 128)
    best = min(candidates, key=lambda candidate: _divergence_by_definition(counts, candidate))
    assert best - 128 < stop < best + 128


@pytest.mark.parametrize(
    ("images", "percentile"), [(_IMAGES[:0], 99.9), (_IMAGES, 50.0), (_IMAGES, 100.1), (_IMAGES, float("nan"))]
)
def test_no_images_or_a_percentile_out_of_range_is_refused(images: NDArray[np.float32], percentile: float) -> None:
    with pytest.raises(StageFailed, match="quantize: needs images and 50 < clip_percentile <= 100"):
        calibrate(_heavy_tailed_graph(), images, method="percentile", clip_percentile=percentile, symmetric=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused(bad: float) -> None:
    images = _IMAGES.copy()
    images[40, 0, 0, 0] = bad
    with pytest.raises(StageFailed, match="is not finite on calibration images"):
        calibrate(_heavy_tailed_graph(), images, method="minmax", clip_percentile=99.9, symmetric=False)


_ARRANGED = {
    "images along the second axis": ("t = Transpose<perm = [1, 2, 3, 0]>(image) out = Relu(t)", ["t", "out"]),
    "several rows of each image": ("s = Constant<value_ints = [-1, 16]>() t = Reshape(image, s) out = Exp(t)", ["t"]),
    "the same for all images": (
        "s = Constant<value_floats = [1.0, 2.0, 4.0]>() t = Exp(s) u = Reshape(t, v) out = Mul(image, u)", ["t", "out"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("arranged", _ARRANGED)
def test_values_are_counted_where_images_are_not_along_the_first_axis(arranged: str) -> None:
    body, names = _ARRANGED[arranged]
    if "u = Reshape" in body:
        body = f"v = Constant<value_ints = [1, 3, 1, 1]>() {body}"
    header = '<ir_version: 10, opset_import: ["": 18]> arranged (float[batch, 3, 16, 16] image) => (float[] out)'
    proto = parser.parse_model(f"{header} {{ {body} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto = onnx.shape_inference.infer_shapes(proto)
    inner = onnx.ModelProto()
    inner.CopyFrom(proto)
    inner.graph.output.extend(value for value in proto.graph.value_info if value.name in names)
    session = ort.InferenceSession(inner.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = [session.run(names, {"image": part}) for part in (_IMAGES[:32], _IMAGES[32:])]
    ranges = calibrate(proto, _IMAGES, method="percentile", clip_percentile=90.0, symmetric=False)
    for place, name in enumerate(names):
        values = np.concatenate([part[place].ravel() for part in parts]).astype(np.float64)
        np.testing.assert_allclose(ranges[name], np.percentile(values, [5, 95]), rtol=1e-5, atol=1e-6, err_msg=name)
