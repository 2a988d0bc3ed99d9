"""fp16 and bf16 graphs: every number changes its type, and the answers stay within what the type can hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16

from scalesearch.compression.half import HalfName, to_half
from scalesearch.compression.qdq import insert_qdq
from scalesearch.errors import StageFailed

_IMAGES = np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)
_TYPES: Mapping[HalfName, tuple[int, DTypeLike, float]] = {
    # ONNX type, numpy type, half the distance from 1 to the next number: 11 and 8 significant bits
    "fp16": (TensorProto.FLOAT16, np.float16, 2.0**-11),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16, 2.0**-8),
}
_BODY = """{
    six = Constant<value = float {6.0}>()
    a = Conv<pads = [1, 1, 1, 1]>(image, kernel, bias)
    b = Clip(a, zero, six)
    c = Resize<mode = "nearest">(b, region, factors)
    s = Sigmoid(c)
    d = Mul(c, s)
    e = Add(c, d)
    p = GlobalAveragePool(e)
    f = Reshape(p, shape)
    logits = Gemm<transB = 1>(f, matrix)
}"""


def _model() -> onnx.ModelProto:
    """Everything whose type matters: constants as initializers and as nodes, float32-only inputs, integers."""
    text = (
        '<ir_version: 10, opset_import: ["": 18]> tiny '
        f"(float[batch, 3, 8, 8] image) => (float[batch, 5] logits) {_BODY}"
    )
    proto = parser.parse_model(text)
    random = np.random.default_rng(0)
    floats = {
        "kernel": random.normal(size=(8, 3, 3, 3)),
        "bias": random.normal(size=8),
        "zero": np.zeros(()),
        "region": np.zeros(0),
        "factors": np.array([1, 1, 2, 2]),
        "matrix": random.normal(size=(5, 8)),
    }
    proto.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in floats.items()
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, 8]), "shape"))
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_every_float_changes_its_type_but_input_output_and_what_must_be_float32(name: HalfName) -> None:
    kind, dtype, _ = _TYPES[name]
    half = to_half(_model(), name)
    onnx.checker.check_model(half, full_check=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)}
    assert types == {"image": TensorProto.FLOAT, "logits": TensorProto.FLOAT}
    stored = {tensor.name: tensor for tensor in half.graph.initializer}
    assert {key for key, tensor in stored.items() if tensor.data_type == TensorProto.FLOAT} == {"region", "factors"}
    assert stored["shape"].data_type == TensorProto.INT64
    for constant in ("kernel", "bias", "matrix"):
        assert stored[constant].data_type == kind
        before = next(numpy_helper.to_array(t) for t in _model().graph.initializer if t.name == constant)
        assert np.array_equal(numpy_helper.to_array(stored[constant]), before.astype(dtype))
    inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
    floats = {
        value.name for value in inferred.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    assert not floats


@pytest.mark.parametrize(("name", "opset"), [("fp16", 18), ("bf16", 22)])
def test_bf16_gets_the_first_opset_whose_convolution_takes_it(name: HalfName, opset: int) -> None:
    half = to_half(_model(), name)
    assert [(entry.domain, entry.version) for entry in half.opset_import] == [("", opset)]
    spelt = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}[name]
    versions = [schema for schema in onnx.defs.get_all_schemas_with_history() if schema.name == "Conv"]
    took = [each.since_version for each in versions if spelt in each.type_constraints[0].allowed_type_strs]
    assert min(took) <= opset
    assert name == "fp16" or min(took) == opset


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_answers_are_as_near_as_the_type_allows(name: HalfName) -> None:
    """By ONNX's reference evaluator: ONNX Runtime's CPU kernels have no bf16 convolution."""
    expected, logits = (
        np.asarray(ReferenceEvaluator(proto).run(None, {"image": _IMAGES}), dtype=np.float64)[0]
        for proto in (_model(), to_half(_model(), name))
    )
    assert expected.std(axis=0).mean() > 0.05 * np.abs(expected).max()
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 0 < difference < 16 * _TYPES[name][2]  # some ten roundings in a row


def test_fp16_answers_as_the_file_of_onnx_runtimes_own_converter() -> None:
    ours, theirs = _ran(to_half(_model(), "fp16")), _ran(convert_float_to_float16(_model(), keep_io_types=True))
    exact = _ran(_model())
    assert np.abs(ours - exact).max() > 0
    np.testing.assert_allclose(ours, theirs, atol=2 * 2.0**-11 * np.abs(exact).max())


def _ran(proto: onnx.ModelProto) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"image": _IMAGES})[0]
    return logits


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_the_graph_that_was_given_is_untouched(name: HalfName) -> None:
    proto = _model()
    before = proto.SerializeToString(deterministic=True)
    to_half(proto, name)
    assert proto.SerializeToString(deterministic=True) == before


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weight:
    """A weight's largest number, and whether the type can hold it."""

    name: HalfName
    value: float
    holds: bool


@pytest.mark.parametrize(
    "weight",
    [
        _Weight(name="fp16", value=65504.0, holds=True),
        _Weight(name="fp16", value=-65536.0, holds=False),
        _Weight(name="bf16", value=-65536.0, holds=True),
        _Weight(name="bf16", value=3.4e38, holds=False),
        _Weight(name="fp16", value=float("nan"), holds=False),
        _Weight(name="bf16", value=float("inf"), holds=False),
    ],
    ids=lambda weight: f"{weight.name} {weight.value:g}",
)
def test_weights_that_the_type_cannot_hold_are_refused_by_name(weight: _Weight) -> None:
    proto = _model()
    (kernel,) = (tensor for tensor in proto.graph.initializer if tensor.name == "kernel")
    values = numpy_helper.to_array(kernel).copy()
    values[0, 0, 0, 0] = weight.value
    kernel.CopyFrom(numpy_helper.from_array(values, "kernel"))
    if not weight.holds:
        with pytest.raises(StageFailed, match=f"quantize: {weight.name} holds up to .* but weight kernel reaches"):
            to_half(proto, weight.name)
        return
    stored = next(t for t in to_half(proto, weight.name).graph.initializer if t.name == "kernel")
    assert np.isfinite(numpy_helper.to_array(stored).astype(np.float64)).all()


def test_a_graph_with_casts_or_qdq_nodes_is_refused() -> None:
    with pytest.raises(StageFailed, match="fp16 wants a plain fp32 graph, got one with casts or Q/DQ nodes"):
        to_half(to_half(_model(), "fp16"), "fp16")
    proto = onnx.shape_inference.infer_shapes(_model())
    quantized = insert_qdq(proto, {"image": (-4.0, 4.0), "f": (0.0, 6.0), "c": (0.0, 6.0)}, "int8")
    with pytest.raises(StageFailed, match="bf16 wants a plain fp32 graph"):
        to_half(quantized, "bf16")
