"""Files get the lowest versions that mean the same, by ONNX's own table of operators, and answer alike."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from small_graphs import IMAGES, small_graph, small_model

from scalesearch.deployment.onnx_file import annotate, checking_session, onnx_model, read_onnx
from scalesearch.deployment.onnx_versions import at_opset, lower_versions, lowest_opset, opset_of
from scalesearch.values.candidate import Precision
from scalesearch.values.target import QuantizationProfile


def _graph(body: str, *, ir_version: int = 10, opset: int = 18) -> onnx.ModelProto:
    head = f'<ir_version: {ir_version}, opset_import: ["": {opset}]> tiny (float[2, 4] x) => (float[2, 4] y)'
    return parser.parse_model(f"{head} {{ {body} }}")


@pytest.mark.parametrize(
    ("precision", "profile", "opset", "ir_version"),
    [
        ("fp32", "onnxruntime_cpu", 14, 7),  # Relu and Add are of 14
        ("fp16", "onnxruntime_cpu", 14, 7),
        ("fp16", "tensorrt", 14, 7),
        ("int8", "onnxruntime_cpu", 14, 7),
        ("int8", "openvino", 14, 7),
        ("int8", "tensorrt", 19, 9),  # scales in half precision
        ("fp8", "tensorrt", 19, 9),
        ("bf16", "tensorrt", 22, 10),  # convolutions of bf16
    ],
)
def test_each_precision_is_written_in_the_lowest_versions(
    tmp_path: Path, precision: Precision, profile: QuantizationProfile, opset: int, ir_version: int
) -> None:
    proto = read_onnx(small_model(tmp_path, precision, profile).path)
    assert (opset_of(proto), proto.ir_version) == (opset, ir_version)
    assert len(proto.opset_import) == 1
    assert onnx.helper.find_min_ir_version_for(proto.opset_import) == ir_version
    onnx.checker.check_model(proto, full_check=True)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError, AssertionError)):
        lower = onnx.ModelProto()
        lower.CopyFrom(proto)
        lower.opset_import[0].version = opset - 1
        onnx.checker.check_model(lower, full_check=True)
        since = [onnx.defs.get_schema(node.op_type, opset).since_version for node in proto.graph.node]
        assert max(since) < opset


@pytest.mark.parametrize("profile", ["onnxruntime_cpu", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_lower_versions_answer_alike(tmp_path: Path, precision: Precision, profile: QuantizationProfile) -> None:
    low = read_onnx(small_model(tmp_path, precision, profile).path)
    high = onnx.ModelProto()
    high.CopyFrom(low)
    high.opset_import[0].version, high.ir_version = 18, 10
    mine, theirs = (checking_session(proto).run(None, {"image": IMAGES})[0] for proto in (low, high))
    # fp16 is rounded in other places: in operator set 18 ONNX Runtime cannot fuse Relu with the convolution before it.
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5 if precision == "fp16" else 0)
    assert high.opset_import != low.opset_import


@pytest.mark.parametrize(
    ("body", "opset", "lowest"),
    [
        ("y = Relu(x)", 18, 14),
        ("y = Abs(x)", 18, 13),
        ("y = LayerNormalization(x, x)", 18, 17),
        ("y = Gelu(x)", 21, 20),
        ("a = Relu(x) y = Gelu(a)", 20, 20),
        ("y = Relu(x)", 11, 11),  # never raised
    ],
)
def test_the_youngest_operator_decides(body: str, opset: int, lowest: int) -> None:
    proto = _graph(body, opset=opset)
    before = proto.graph.SerializeToString()
    assert lowest_opset(proto) == lowest
    lower_versions(proto)
    assert opset_of(proto) == lowest
    assert proto.graph.SerializeToString() == before


def test_operators_inside_branches_count() -> None:
    proto = _graph(
        "c = Constant<value_int = 1>() b = Cast<to = 9>(c)"
        " y = If(b)<then_branch = t () => (float[2, 4] u) { u = Gelu(x) },"
        " else_branch = e () => (float[2, 4] v) { v = Relu(x) }>",
        opset=20,
    )
    assert lowest_opset(proto) == 20


def test_other_domains_stay_where_they_are_used_and_go_where_not() -> None:
    proto = _graph("y = Relu(x)")
    proto.opset_import.extend([onnx.helper.make_opsetid("com.microsoft", 1), onnx.helper.make_opsetid("nobody", 3)])
    proto.graph.node.add(op_type="Gelu", domain="com.microsoft", input=["x"], output=["z"])
    lower_versions(proto)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 14), ("com.microsoft", 1)]
    assert proto.ir_version == 7


def test_unknown_operators_and_functions_are_left_alone() -> None:
    unknown = _graph("y = Relu(x)")
    unknown.graph.node[0].op_type = "NoSuchOperator"
    lower_versions(unknown)
    assert opset_of(unknown) == 18
    functions = _graph("y = Relu(x)")
    functions.functions.add(name="f", domain="own")
    lower_versions(functions)
    assert (opset_of(functions), functions.ir_version) == (18, 10)


def test_a_measured_file_keeps_its_versions_when_metadata_are_added(tmp_path: Path) -> None:
    measured = tmp_path / "measured.onnx"
    onnx.save(small_graph(), measured)  # as an older scalesearch wrote it
    noted = read_onnx(annotate(onnx_model(measured), {"scalesearch.trial": "old/3"}, tmp_path / "model.onnx").path)
    assert (opset_of(noted), noted.ir_version) == (18, 10)
    assert noted.graph == small_graph().graph


def test_the_opset_rises_and_never_falls() -> None:
    proto = small_graph()
    before = proto.SerializeToString(deterministic=True)
    relabelled, converted, same = at_opset(proto, 20), at_opset(proto, 22), at_opset(proto, 17)
    assert [opset_of(each) for each in (relabelled, converted, same)] == [20, 22, 18]
    assert relabelled.graph == proto.graph  # nothing changed up to 20; convolutions are defined anew in 22
    assert same == proto
    assert same is not proto
    assert proto.SerializeToString(deterministic=True) == before
    expected = checking_session(proto).run(None, {"image": IMAGES})[0]
    for each in (relabelled, converted):
        assert each.ir_version >= onnx.helper.find_min_ir_version_for(each.opset_import)
        np.testing.assert_allclose(checking_session(each).run(None, {"image": IMAGES})[0], expected, atol=1e-6)


def test_a_low_file_rises_to_a_version_whose_ir_it_names() -> None:
    proto = small_graph()
    lower_versions(proto)
    assert (opset_of(proto), proto.ir_version) == (14, 7)
    for opset, ir_version in ((14, 7), (19, 9), (22, 10)):
        risen = at_opset(proto, opset)
        assert (opset_of(risen), risen.ir_version) == (opset, ir_version)
        onnx.checker.check_model(risen, full_check=True)
