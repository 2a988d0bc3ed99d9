"""Where Q/DQ nodes go and what their constants are, on graphs small enough to be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from scalesearch.compression.half import to_half
from scalesearch.compression.number_format import FORMATS, FormatName
from scalesearch.compression.qdq import given_ranges, insert_qdq, output_of, weighted_nodes
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import WeightScales

_SIDE = 6
_HEADER = '<ir_version: 10, opset_import: ["": 18]>'
_LARGEST: Mapping[FormatName, float] = {"int8": 127.0, "fp8": 448.0}


def _model(body: str, weights: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A graph over 4 channels whose weights, named in `body`, are seeded noise of these shapes."""
    text = f"{_HEADER} tiny (float[batch, 4, {_SIDE}, {_SIDE}] image) => (float[batch, 4, {_SIDE}, {_SIDE}] out) {body}"
    proto = parser.parse_model(text)
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        # Each output channel has another size, so that one scale for all of them would show.
        values = random.normal(size=shape) * np.linspace(0.1, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
        proto.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    return onnx.shape_inference.infer_shapes(proto)


def _ranges(proto: onnx.ModelProto, reach: float = 5.0) -> dict[str, tuple[float, float]]:
    """One range a tensor, none like another."""
    names = [proto.graph.input[0].name, *(output for node in proto.graph.node for output in node.output)]
    return {name: (-reach - place, reach / 2) for place, name in enumerate(names)}


_KERNELS = {"w0": (4, 4, 3, 3), "w1": (4, 4, 3, 3), "w2": (4, 4, 1, 1)}
_IDENTITY = """{
    a = Conv<pads = [1, 1, 1, 1]>(image, w0)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, w1)
    sum = Add(c, b)
    d = Relu(sum)
    out = Conv(d, w2)
}"""
_PROJECTION = """{
    b = Relu(image)
    c = Conv<pads = [1, 1, 1, 1]>(b, w0)
    short = Conv(b, w2)
    sum = Add(c, short)
    d = Relu(sum)
    out = Conv<pads = [1, 1, 1, 1]>(d, w1)
}"""
_LINEAR_BOTTLENECK = """{
    a = Conv<pads = [1, 1, 1, 1]>(image, w0)
    b = Conv(a, w2)
    r = Relu(b)
    c = Conv<pads = [1, 1, 1, 1]>(r, w1)
    out = Add(a, c)
}"""
_UNRELATED = """{
    a = Relu(image)
    b = Sigmoid(image)
    sum = Add(a, b)
    out = Conv(sum, w2)
}"""
_CONSTANT = """{
    a = Conv<pads = [1, 1, 1, 1]>(image, w0)
    out = Add(a, shift)
}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Residual:
    """A graph with one Add, and what its two inputs must be afterwards."""

    name: str
    body: str
    expected: tuple[str, str]


_RESIDUALS = (
    _Residual(name="identity", body=_IDENTITY, expected=("c", "b_dequantized")),
    _Residual(
        name="identity, sides changed",
        body=_IDENTITY.replace("Add(c, b)", "Add(b, c)"),
        expected=("b_dequantized", "c"),
    ),
    _Residual(name="projection", body=_PROJECTION, expected=("c", "short_dequantized")),
    _Residual(
        # The side that the next block reads too has its pair already; the other one is fused with the Add.
        name="linear bottleneck",
        body=_LINEAR_BOTTLENECK,
        expected=("a_dequantized", "c"),
    ),
    _Residual(name="no convolution feeds it", body=_UNRELATED, expected=("a", "b")),
    _Residual(name="a constant is no branch", body=_CONSTANT, expected=("a", "shift")),
)


@pytest.mark.parametrize("case", _RESIDUALS, ids=lambda case: case.name)
def test_of_an_add_only_the_branch_is_quantized_that_is_not_fused_with_its_convolution(case: _Residual) -> None:
    """TensorRT developer guide, "Working with Quantized Types": quantize the residual input of the Add."""
    proto = _model(case.body, _KERNELS | {"shift": (1, 4, 1, 1)})
    quantized = insert_qdq(proto, _ranges(proto), "int8")
    (add,) = (node for node in quantized.graph.node if node.op_type == "Add")
    assert tuple(add.input) == case.expected


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_every_weighted_layer_reads_eight_bits_twice_and_nothing_is_behind_it(name: FormatName) -> None:
    proto = _model(_IDENTITY, _KERNELS)
    quantized = insert_qdq(proto, _ranges(proto), name)
    makers = {output: node.op_type for node in quantized.graph.node for output in node.output}
    layers = weighted_nodes(proto)
    assert len(layers) == 3
    for node in quantized.graph.node:
        if node.op_type == "Conv":
            assert [makers[entry] for entry in node.input] == ["DequantizeLinear", "DequantizeLinear"]
        if node.op_type in ("Relu", "Add", "Sigmoid"):  # what a compiler fuses with the convolution before it
            assert all(makers[entry] != "DequantizeLinear" for entry in node.input[:1])
    read_in_8_bits = {node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    assert read_in_8_bits == {"image", "b", "d"}
    assert [output.name for output in quantized.graph.output] == ["out"]


def test_one_pair_for_one_activation_however_many_read_it() -> None:
    proto = _model(_PROJECTION, _KERNELS)
    quantized = insert_qdq(proto, _ranges(proto), "int8")
    pairs = [node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(pairs) == ["b", "d", "short"]
    readers = [node for node in quantized.graph.node if "b_dequantized" in node.input]
    assert [node.op_type for node in readers] == ["Conv", "Conv"]


_TWICE = "{ a = Conv<pads = [1, 1, 1, 1]>(image, w0) b = Relu(a) out = Conv<pads = [1, 1, 1, 1]>(b, w0) }"


@pytest.mark.parametrize("skip", [frozenset[str](), frozenset({"Conv_0"})], ids=["both", "one in float"])
@pytest.mark.parametrize("weights", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_a_weight_that_two_layers_read_is_rounded_once(
    name: FormatName, weights: WeightScales, skip: frozenset[str]
) -> None:
    """A module may run one layer twice: two nodes of the file then read one weight."""
    proto = _model(_TWICE, {"w0": (4, 4, 3, 3)})
    quantized = insert_qdq(proto, _ranges(proto), name, weights=weights, skip=skip)
    names = [tensor.name for tensor in quantized.graph.initializer]
    assert len(names) == len(set(names))
    readers = [node.input[1] for node in quantized.graph.node if node.op_type == "Conv"]
    assert readers == ["w0" if skip else "w0_dequantized", "w0_dequantized"]
    _sorted(quantized)
    onnx.checker.check_model(quantized, full_check=True)


def test_a_weight_whose_outputs_are_counted_along_two_axes_has_scales_for_each() -> None:
    body = """{
        p = GlobalAveragePool(image) f = Flatten(p) g = Gemm(f, w) h = Gemm<transB = 1>(g, w)
        s = Constant<value_ints = [-1, 4, 1, 1]>() r = Reshape(h, s) out = Add(image, r)
    }"""
    proto = _model(body, {"w": (4, 4)})
    quantized = insert_qdq(proto, _ranges(proto), "int8")
    constants, values = _constants(quantized), _constants(proto)["w"]
    reach = {node.input[1]: axis for node, axis in zip(_nodes(quantized, "Gemm"), (1, 0), strict=True)}
    assert len(reach) == 2
    for node in quantized.graph.node:
        if node.output[0] in reach:
            expected = np.abs(values).max(axis=1 - reach[node.output[0]]) / 127
            np.testing.assert_allclose(constants[node.input[1]], expected, rtol=1e-6)
    _sorted(quantized)
    onnx.checker.check_model(quantized, full_check=True)


def _nodes(proto: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == kind]


def test_skipped_layers_stay_as_they_are() -> None:
    proto = _model(_IDENTITY, _KERNELS)
    quantized = insert_qdq(proto, _ranges(proto), "int8", skip={"Conv_0", "Conv_5"})
    by_name = {node.name: list(node.input) for node in quantized.graph.node}
    assert by_name["Conv_0"] == ["image", "w0"]
    assert by_name["Conv_5"] == ["d", "w2"]
    assert by_name["Conv_2"] == ["b_dequantized", "w1_dequantized"]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    assert {"w0", "w2"} < set(constants)
    assert constants["w0"].dtype == np.float32


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_the_files_are_valid_and_the_input_is_untouched(name: FormatName, half: bool) -> None:
    proto = _model(_IDENTITY, _KERNELS)
    proto = to_half(proto, "fp16") if half else proto
    before = proto.SerializeToString(deterministic=True)
    quantized = insert_qdq(proto, _ranges(proto), name)
    assert proto.SerializeToString(deterministic=True) == before
    _sorted(quantized)
    onnx.checker.check_model(quantized, full_check=True)
    # The model's own, but for what operator set 19 brought: fp8 and scales in half precision.
    opset = 19 if half or name == "fp8" else 18
    assert [(entry.domain, entry.version) for entry in quantized.opset_import] == [("", opset)]
    scales = {tensor.data_type for tensor in quantized.graph.initializer if tensor.name.endswith("_scale")}
    assert scales == {onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT}
    used = {entry for node in quantized.graph.node for entry in node.input}
    assert {tensor.name for tensor in quantized.graph.initializer} <= used  # no float weight is left over


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_activation_scales_are_reach_over_the_largest_number(name: FormatName) -> None:
    proto = _model(_IDENTITY, _KERNELS)
    ranges = _ranges(proto) | {"b": (-1e-9, 0.0), "d": (-0.25, 6.5)}
    constants = _constants(insert_qdq(proto, ranges, name))
    assert constants["image_scale"] == pytest.approx(5.0 / _LARGEST[name], rel=1e-6)  # the side that reaches further
    assert constants["d_scale"] == pytest.approx(6.5 / _LARGEST[name], rel=1e-6)
    assert constants["b_scale"] == 2.0**-14  # the smallest normal number of fp16
    for tensor in ("image", "b", "d"):
        assert constants[f"{tensor}_zero_point"].astype(np.float32) == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A layer with constant weights, and the axis of them that counts its outputs."""

    name: str
    body: str
    shape: tuple[int, ...]
    axis: int


_LAYERS = (
    _Layer(name="convolution", body="{ out = Conv(image, w) }", shape=(4, 4, 1, 1), axis=0),
    _Layer(
        name="depthwise",
        body="{ out = Conv<group = 4, pads = [1, 1, 1, 1]>(image, w) }",
        shape=(4, 1, 3, 3),
        axis=0,
    ),
    _Layer(name="matrix", body="{ out = MatMul(image, w) }", shape=(_SIDE, _SIDE), axis=1),
    _Layer(
        name="linear, out x in",
        body="{ p = GlobalAveragePool(image) f = Flatten(p) g = Gemm<transB = 1>(f, w) out = Add(image, g) }",
        shape=(_SIDE, 4),
        axis=0,
    ),
    _Layer(
        name="linear, in x out",
        body="{ p = GlobalAveragePool(image) f = Flatten(p) g = Gemm(f, w) out = Add(image, g) }",
        shape=(4, _SIDE),
        axis=1,
    ),
)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", ["int8", "fp8"])
@pytest.mark.parametrize("layer", _LAYERS, ids=lambda layer: layer.name)
def test_weights_have_one_scale_an_output_and_are_rounded_to_the_nearest_code(
    layer: _Layer, name: FormatName, half: bool
) -> None:
    proto = _model(layer.body, {"w": layer.shape})
    proto = to_half(proto, "fp16") if half else proto
    weights = np.moveaxis(_constants(proto)["w"].astype(np.float64), layer.axis, 0).reshape(layer.shape[layer.axis], -1)
    quantized = insert_qdq(proto, _ranges(proto), name)
    constants = _constants(quantized)
    (node,) = (node for node in quantized.graph.node if "w_quantized" in node.input)
    assert [attribute.i for attribute in node.attribute if attribute.name == "axis"] == [layer.axis]
    scale = constants["w_scale"].astype(np.float64)
    # fp16 rounds a scale to 11 significant bits.
    np.testing.assert_allclose(scale, np.abs(weights).max(axis=1) / _LARGEST[name], rtol=2**-11 if half else 1e-6)
    stored = constants["w_quantized"].astype(np.float64)
    stored = np.moveaxis(stored, layer.axis, 0).reshape(len(scale), -1)
    grid = np.arange(-127, 128.0) if name == "int8" else _e4m3_numbers()
    nearest = np.abs(weights[:, :, None] / scale[:, None, None] - grid).min(axis=2)
    difference = np.abs(weights / scale[:, None] - stored)
    np.testing.assert_allclose(difference, nearest, atol=1e-6)
    if name == "int8":
        assert difference.max() <= 0.5 + 1e-6
        assert difference.max() > 0.2  # it was rounded at all
    zero_point = constants["w_zero_point"]
    assert zero_point.shape == scale.shape
    assert not zero_point.astype(np.float32).any()


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_per_tensor_weights_have_one_scale_for_all_outputs(name: FormatName, half: bool) -> None:
    proto = _model(_IDENTITY, _KERNELS)
    proto = to_half(proto, "fp16") if half else proto
    quantized = insert_qdq(proto, _ranges(proto), name, weights="per_tensor")
    constants, before = _constants(quantized), _constants(proto)
    for weight in _KERNELS:
        (node,) = (node for node in quantized.graph.node if f"{weight}_quantized" in node.input)
        assert not node.attribute
        assert constants[f"{weight}_scale"].shape == constants[f"{weight}_zero_point"].shape == ()
        wide = before[weight].astype(np.float64)
        expected = np.abs(wide).max() / _LARGEST[name]
        assert constants[f"{weight}_scale"] == pytest.approx(expected, rel=2**-11 if half else 1e-6)
        decoded = constants[f"{weight}_quantized"].astype(np.float64) * constants[f"{weight}_scale"].astype(np.float64)
        # Half a step of int8; half of E4M3's last of three bits, 1/16 of a number, or of its smallest step.
        bound = expected / 2 if name == "int8" else np.maximum(np.abs(wide) / 16, expected * 2**-10)
        assert (np.abs(decoded - wide) <= bound * 1.01).all()
    _sorted(quantized)
    onnx.checker.check_model(quantized, full_check=True)


def test_ranges_by_weight_become_ranges_of_what_its_layer_reads_or_gives() -> None:
    body = (
        "{ a = Conv(image, w) p = GlobalAveragePool(a) f = Flatten(p) g = Gemm<transB = 1>(f, v) out = Add(image, g) }"
    )
    proto = _model(body, {"w": (4, 4, 1, 1), "v": (_SIDE, 4)})
    given = given_ranges(proto, {"w": (-1.0, 2.0), output_of("w"): (-3.0, 4.0), "v": (0.0, 5.0)})
    # What is only reshaped keeps its scale, so the pool's output has the range too.
    assert given == {"image": (-1.0, 2.0), "a": (-3.0, 4.0), "f": (0.0, 5.0), "p": (0.0, 5.0)}


def test_a_range_for_a_weight_that_no_layer_has_is_refused() -> None:
    proto = _model(_IDENTITY, _KERNELS)
    for key in ("w9", output_of("w9"), "image"):
        with pytest.raises(StageFailed, match=f"quantize: a range is given for {key}, but no layer has that weight"):
            given_ranges(proto, {key: (0.0, 1.0)})


def _e4m3_numbers() -> NDArray[np.float64]:
    """Micikevicius et al., 2022, table 1: bias 7, 3 bits of mantissa, no infinities, S.1111.111 is not a number."""
    numbers = [mantissa / 8 * 2.0**-6 for mantissa in range(8)]
    numbers += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    positive = np.array(numbers[:-1])
    assert positive.max() == 448
    return np.concatenate((-positive[::-1], positive))


def test_codes_are_all_numbers_of_the_format() -> None:
    np.testing.assert_array_equal(FORMATS["int8"].codes, np.arange(-127, 128))
    np.testing.assert_array_equal(FORMATS["fp8"].codes, np.unique(_e4m3_numbers()))


def test_a_channel_of_zeros_stays_zeros() -> None:
    proto = _model("{ out = Conv(image, w) }", {"w": (4, 4, 1, 1)})
    values = _constants(proto)["w"].copy()
    values[2] = 0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    constants = _constants(insert_qdq(proto, _ranges(proto), "int8"))
    assert constants["w_scale"][2] == 2.0**-14
    assert not constants["w_quantized"][2].any()
    assert all(constants["w_quantized"][channel].any() for channel in (0, 1, 3))


@pytest.mark.parametrize("name", ["int8", "fp8"])
def test_the_file_computes_what_numpy_computes_with_rounded_numbers(name: FormatName) -> None:
    """Fake quantization written out: round what goes in and the weights, multiply in float."""
    proto = _model(_IDENTITY, _KERNELS)
    images = np.random.default_rng(1).normal(size=(5, 4, _SIDE, _SIDE)).astype(np.float32)
    ranges = {"image": (-3.0, 3.0), "b": (0.0, 9.0), "d": (0.0, 30.0)} | {
        name: (-99.0, 99.0) for name in ("a", "c", "sum")
    }
    quantized = insert_qdq(proto, ranges, name)
    constants = _constants(proto)
    kernels = {}
    for weight in ("w0", "w1", "w2"):
        reach = np.abs(constants[weight]).max(axis=(1, 2, 3), keepdims=True)
        kernels[weight] = _rounded(constants[weight], reach, name)
    b = np.maximum(_convolved(_rounded(images, 3.0, name), kernels["w0"]), 0)
    rounded = _rounded(b, 9.0, name)
    d = np.maximum(_convolved(rounded, kernels["w1"]) + rounded, 0)
    expected = _convolved(_rounded(d, 30.0, name), kernels["w2"])
    answer = _run(quantized, images)
    exact = _run(proto, images)
    step = expected.std()
    # A value on the border of two codes may round the other way, which one in thousands does, and is then seen by 36.
    assert np.quantile(np.abs(answer - expected), 0.9) < 1e-5 * step
    assert np.abs(answer - expected).max() < 0.2 * step
    assert np.abs(answer - exact).max() > 1e-2 * step


def _rounded(values: NDArray[Any], reach: NDArray[Any] | float, name: FormatName) -> NDArray[np.float64]:
    grid = np.arange(-127, 128.0) if name == "int8" else _e4m3_numbers()
    scale = np.asarray(reach, dtype=np.float64) / grid.max()
    between = (grid[1:] + grid[:-1]) / 2
    rounded: NDArray[np.float64] = grid[np.searchsorted(between, values / scale)] * scale
    return rounded


def _convolved(images: NDArray[Any], kernel: NDArray[Any]) -> NDArray[np.float64]:
    side = kernel.shape[-1]
    padded = np.pad(images, ((0, 0), (0, 0), (side // 2, side // 2), (side // 2, side // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    result: NDArray[np.float64] = np.einsum("ncxyij,ocij->noxy", windows, kernel)
    return result


def test_a_missing_range_names_the_activation() -> None:
    proto = _model(_IDENTITY, _KERNELS)
    ranges = _ranges(proto)
    del ranges["d"]
    with pytest.raises(StageFailed, match=r"quantize: no range was measured for activation d$"):
        insert_qdq(proto, ranges, "int8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_ranges_and_weights_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    proto = _model(_IDENTITY, _KERNELS)
    with pytest.raises(StageFailed, match="quantize: activation b is not finite"):
        insert_qdq(proto, _ranges(proto) | {"b": (bad, bad)}, "int8")
    values = _constants(proto)["w1"].copy()
    values[1, 2] = bad
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == "w1")
    tensor.CopyFrom(numpy_helper.from_array(values, "w1"))
    with pytest.raises(StageFailed, match="quantize: weight w1 is not finite"):
        insert_qdq(proto, _ranges(proto), "fp8")


def _constants(proto: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _sorted(proto: onnx.ModelProto) -> None:
    """In place: every node behind what it reads, as `quantize` leaves it."""
    ready = {proto.graph.input[0].name} | set(_constants(proto))
    waiting, placed = list(proto.graph.node), []
    while waiting:
        node = next(node for node in waiting if set(node.input) <= ready)
        waiting.remove(node)
        placed.append(node)
        ready |= set(node.output)
    del proto.graph.node[:]
    proto.graph.node.extend(placed)


def _run(proto: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    _sorted(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # every node as it is written
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    answer: NDArray[np.float32] = session.run(None, {"image": images})[0]
    return answer


def test_a_layer_is_found_by_its_numbers_where_the_file_names_its_weight_otherwise() -> None:
    """As torch exports a linear layer on three dimensions: the transposed weight, and the bias in an Add."""
    body = (
        "{ p = GlobalAveragePool(image) f = Flatten(p) m = MatMul(f, val_0) linear = Add(m, b) "
        "n = MatMul(linear, val_1) out = Add(image, n) }"
    )
    proto = _model(body, {"val_0": (4, _SIDE), "val_1": (_SIDE, _SIDE), "b": (_SIDE,)})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    weights = {"one.weight": constants["val_0"].T, "two.weight": constants["val_1"].T, "gone.weight": np.ones((2, 2))}
    keys = ("one.weight", output_of("one.weight"), output_of("two.weight"), "gone.weight")
    ranges = {key: (-1.0, float(place)) for place, key in enumerate(keys)}
    given = given_ranges(proto, ranges, {name: each.astype(np.float32) for name, each in weights.items()})
    # The two outputs of the first layer are those before and after its bias: only the latter is read by others.
    assert given == {"f": (-1.0, 0.0), "p": (-1.0, 0.0), "linear": (-1.0, 1.0), "n": (-1.0, 2.0)}
    with pytest.raises(StageFailed, match=r"for one\.weight, but no layer has that weight"):
        given_ranges(proto, ranges)
