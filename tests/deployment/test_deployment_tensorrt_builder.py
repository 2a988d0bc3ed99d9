"""What NVIDIA's compiler takes and what it refuses, by TensorRT for RTX, which compiles without a GPU."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from small_graphs import WEIGHTED, small_graph, small_model

from scalesearch.deployment.acceptance import Gate, nearest_capability
from scalesearch.deployment.backends.tensorrt.builder import Build, build_plan, known_capabilities
from scalesearch.deployment.backends.tensorrt.library import Library, is_installed, load
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Precision
from scalesearch.values.record import KernelCount
from scalesearch.values.settings import TensorRtSettings

pytestmark = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
_ADA = "8.9"
Batches = tuple[int, int, int]


@pytest.fixture(scope="module")
def library() -> Library:
    return load("tensorrt_rtx")


def _build(library: Library, file: Path, *, capability: str = _ADA, batches: Batches | None = (1, 1, 1)) -> Build:
    return build_plan(library, file, TensorRtSettings(), batches=batches, compute_capability=capability)


@pytest.mark.parametrize("precision", _PRECISIONS)
def test_every_precision_is_taken_and_runs_in_itself(library: Library, tmp_path: Path, precision: Precision) -> None:
    build = _build(library, small_model(tmp_path, precision).path)
    assert len(build.plan) > 1000
    assert build.convolutions == (KernelCount(precision=precision, kernels=WEIGHTED),)
    assert len(build.layers) >= WEIGHTED
    assert build.warnings == ()
    assert 0 < build.seconds < 60


def test_what_openvino_gets_is_taken_too(library: Library, tmp_path: Path) -> None:
    build = _build(library, small_model(tmp_path, "int8", profile="openvino").path)
    assert build.convolutions == (KernelCount(precision="int8", kernels=WEIGHTED),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wrong:
    """A graph made wrong in one place, and what must be said of it."""

    name: str
    make: Callable[[Path], onnx.ModelProto]
    node: str
    """Empty where no single node is to blame."""
    remedy: str


def _uint8_zero_points(folder: Path) -> onnx.ModelProto:
    """ONNX Runtime's style of activations, without its style of biases."""
    return _with_zero_points(folder, np.array(128, dtype=np.uint8))


def _shifted_zero_points(folder: Path) -> onnx.ModelProto:
    return _with_zero_points(folder, np.array(3, dtype=np.int8))


def _with_zero_points(folder: Path, zero_point: NDArray[np.generic]) -> onnx.ModelProto:
    proto = onnx.load(small_model(folder, "int8", profile="openvino").path)
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("_zero_point") and not tensor.dims:
            tensor.CopyFrom(numpy_helper.from_array(zero_point, tensor.name))
    return proto


def _integer_bias(folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime's quantizer writes by default."""
    proto = onnx.load(small_model(folder, "int8", profile="openvino").path)
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros(16, dtype=np.int32), "stem_bias_quantized"),
            numpy_helper.from_array(np.full(16, 1e-3, dtype=np.float32), "stem_bias_scale"),
        ]
    )
    inputs = ["stem_bias_quantized", "stem_bias_scale"]
    node = helper.make_node("DequantizeLinear", inputs, ["stem_bias_float"], name="bias_dequantize", axis=0)
    proto.graph.node.insert(0, node)
    _node(proto, "Conv_0").input[2] = "stem_bias_float"
    return proto


def _mixed_add(folder: Path) -> onnx.ModelProto:
    proto = onnx.load(small_model(folder, "fp16").path)
    add = _node(proto, "Add_5")
    place = list(proto.graph.node).index(add)
    proto.graph.node.insert(place, helper.make_node("Cast", [add.input[1]], ["widened"], to=TensorProto.FLOAT))
    _node(proto, "Add_5").input[1] = "widened"
    return proto


def _mixed_bias(folder: Path) -> onnx.ModelProto:
    proto = onnx.load(small_model(folder, "fp16").path)
    (bias,) = (tensor for tensor in proto.graph.initializer if tensor.name == "pointwise_bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias).astype(np.float32), bias.name))
    return proto


def _unknown_operator(_: Path) -> onnx.ModelProto:
    proto = small_graph()
    proto.graph.node[1].op_type = "Frobnicate"
    return proto


def _node(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(node for node in proto.graph.node if node.name == name)
    return found


_ONE_TYPE = "cast both sides to one type: convert the whole graph, not a part, to half precision"
_WRONG = (
    _Wrong(
        name="uint8 zero point",
        make=_uint8_zero_points,
        node="QuantizeLinear image_quantized_QuantizeLinear",
        remedy="quantize with symmetric, signed int8 (target profile `tensorrt`)",
    ),
    _Wrong(
        name="shifted zero point",
        make=_shifted_zero_points,
        node="QuantizeLinear image_quantized_QuantizeLinear",
        remedy="quantize with symmetric, signed int8 (target profile `tensorrt`)",
    ),
    _Wrong(
        name="int32 bias",
        make=_integer_bias,
        node="DequantizeLinear bias_dequantize",
        remedy="leave the bias in float: quantize with the target profile `tensorrt`",
    ),
    _Wrong(name="half and float in one Add", make=_mixed_add, node="Add Add_5", remedy=_ONE_TYPE),
    _Wrong(name="half weights and float bias", make=_mixed_bias, node="Conv Conv_4", remedy=_ONE_TYPE),
    _Wrong(
        name="unknown operator",
        make=_unknown_operator,
        node="Frobnicate Relu_1",
        remedy="the compiler has no such operator: replace it in the network",
    ),
)


@pytest.mark.parametrize("wrong", _WRONG, ids=lambda wrong: wrong.name)
def test_wrong_graphs_are_refused_with_node_and_remedy(
    library: Library, tmp_path: Path, wrong: _Wrong, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx.save(wrong.make(tmp_path), tmp_path / "wrong.onnx")
    said = _refusal(library, tmp_path / "wrong.onnx")
    assert said.startswith(f"compile: TensorRT for RTX refuses wrong.onnx at node {wrong.node}: ")
    assert said.rpartition("; ")[2].startswith(wrong.remedy)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_file_for_onnx_runtimes_cpu_kernels_is_refused(library: Library, tmp_path: Path) -> None:
    said = _refusal(library, small_model(tmp_path, "int8", profile="onnxruntime_cpu").path)
    assert re.search(r"refuses int8\.onnx at node DequantizeLinear \w+: ", said)
    assert said.endswith("quantize with the target profile `tensorrt`")


def test_a_dynamic_batch_needs_a_profile(library: Library, tmp_path: Path) -> None:
    file = small_model(tmp_path).path
    said = _refusal(library, file, batches=None)
    assert said.endswith("; the batch is dynamic and has no profile: give the batch that the engine shall run")
    assert _build(library, file, batches=(1, 4, 8)).convolutions == (KernelCount(precision="fp32", kernels=WEIGHTED),)


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        ("corrupt", "the file is damaged"),
        ("truncated", "the file is damaged"),
        ("one byte short", "the file is damaged"),
        ("empty", "the file is empty"),
        ("missing", "the file is gone"),
    ],
)
def test_damaged_files_are_refused(library: Library, tmp_path: Path, damage: str, remedy: str) -> None:
    file = small_model(tmp_path).path
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        changed = {"corrupt": b"\x08garbage" * 50, "truncated": content[: len(content) // 2], "empty": b""}
        file.write_bytes(changed.get(damage, content[:-1]))
    said = _refusal(library, file)
    assert said.startswith("compile: TensorRT for RTX refuses fp32.onnx: ")
    assert said.endswith(f"; {remedy}: export it again")


@pytest.mark.parametrize(
    ("precision", "capability"), [("fp8", "7.5"), ("fp8", "8.0"), ("fp8", "8.6"), ("bf16", "7.5")], ids=str
)
def test_chips_without_the_precision_refuse_it(
    library: Library, tmp_path: Path, precision: Precision, capability: str
) -> None:
    """fp8 is of compute capability 8.9 and later, bf16 of 8.0 and later, as in `targets.py`."""
    said = _refusal(library, small_model(tmp_path, precision).path, capability=capability)
    assert f"sm{capability.replace('.', '')}" in said
    assert said.endswith("; this chip lacks the file's precision: choose another precision or chip")


@pytest.mark.parametrize("capability", ["9.0", "42.0", "ada"])
def test_chips_that_the_library_does_not_know_are_refused(library: Library, tmp_path: Path, capability: str) -> None:
    said = _refusal(library, small_model(tmp_path).path, capability=capability)
    assert f"{library.version} cannot build for compute capability {capability}; it knows " in said
    assert said.endswith(", ".join(known_capabilities(library)))


def _refusal(library: Library, file: Path, *, capability: str = _ADA, batches: Batches | None = (1, 1, 1)) -> str:
    with pytest.raises(StageFailed) as failure:
        _build(library, file, capability=capability, batches=batches)
    said = str(failure.value)
    assert failure.value.stage == "compile"
    assert "\n" not in said
    assert len(said) < 500
    return said


def test_a_refusal_leaves_nothing_behind_for_the_next_build(library: Library, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08garbage")
    _refusal(library, tmp_path / "bad.onnx")
    said = library.messages.take()
    assert said.errors == []
    assert _build(library, small_model(tmp_path).path).warnings == ()


@pytest.mark.parametrize(
    "settings",
    [
        TensorRtSettings(optimization_level=0),
        TensorRtSettings(optimization_level=5),
        TensorRtSettings(workspace_mb=64),
        TensorRtSettings(sparse_weights=True),
    ],
    ids=str,
)
def test_every_setting_is_taken(library: Library, tmp_path: Path, settings: TensorRtSettings) -> None:
    file = small_model(tmp_path, "int8").path
    build = build_plan(library, file, settings, batches=(1, 1, 1), compute_capability=_ADA)
    assert build.convolutions == (KernelCount(precision="int8", kernels=WEIGHTED),)


def test_known_capabilities_are_sorted_as_numbers(library: Library) -> None:
    known = known_capabilities(library)
    assert [float(each) for each in known] == sorted(float(each) for each in known)
    assert {"8.0", "8.6", "8.9", "12.0"} <= set(known)  # Ampere, Ada, Blackwell
    assert len(set(known)) == len(known)


def test_the_nearest_capability_is_the_newest_that_is_not_newer(library: Library) -> None:
    for known in known_capabilities(library):
        assert nearest_capability(library, known) == known
    assert nearest_capability(library, "") == ""
    assert nearest_capability(library, "8.7") == "8.6"  # Jetson Orin
    assert nearest_capability(library, "9.0") == "8.9"  # H100
    assert nearest_capability(library, "99.0") == known_capabilities(library)[-1]
    assert nearest_capability(library, "5.0") == known_capabilities(library)[0]


def test_the_gate_tells_compiler_chip_and_kernels(tmp_path: Path) -> None:
    gate = Gate("9.0")
    model = small_model(tmp_path, "int8")
    accepted = gate.judge(model, batch=4)
    version = load("tensorrt_rtx").version
    assert accepted.compiler == gate.name == f"TensorRT for RTX {version} for sm_89"
    assert accepted.onnx_sha256 == model.sha256
    assert accepted.convolutions == (KernelCount(precision="int8", kernels=WEIGHTED),)
    assert accepted.layers == len(gate.build(model.path, batch=4).layers)
    assert accepted.build_s > 0


def test_the_gate_refuses_for_its_chip_alone(tmp_path: Path) -> None:
    model = small_model(tmp_path, "fp8")
    with pytest.raises(StageFailed, match="this chip lacks the file's precision"):
        Gate("8.0").judge(model)
    assert Gate("8.9").judge(model).convolutions == (KernelCount(precision="fp8", kernels=WEIGHTED),)


def test_without_a_chip_the_gate_judges_for_the_librarys_default_ones(tmp_path: Path) -> None:
    """They have fp8, so that it does not stand for every chip that the library knows."""
    gate = Gate()
    assert gate.name.endswith(" for its default chips")
    assert gate.judge(small_model(tmp_path, "fp8")).convolutions == (KernelCount(precision="fp8", kernels=WEIGHTED),)
    onnx.save(_unknown_operator(tmp_path), tmp_path / "wrong.onnx")
    with pytest.raises(StageFailed, match="Frobnicate"):
        gate.judge(onnx_model(tmp_path / "wrong.onnx"))
