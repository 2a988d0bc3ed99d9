"""One suite for every export format: what it writes answers as the ONNX file does, and what it lacks it says."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from small_graphs import CLASSES, IMAGES, small_graph, small_model

from scalesearch.deployment.backends.signal_stack import signal_stack_kept
from scalesearch.deployment.formats import FORMATS, OUTPUTS, CheckImages, FormatOptions, get_format
from scalesearch.deployment.formats.c99 import allowed_difference, answers_as_written, at_batch_one, generated
from scalesearch.deployment.formats.c_texts import c_float, c_string
from scalesearch.deployment.onnx_file import annotate
from scalesearch.errors import ConfigError, MissingBackendError, StageFailed
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel

Answers = Callable[[Path, np.ndarray], np.ndarray]
NAMES = ('say "stop"', "*/ int x; /*", "é \\ ??/ 50 %", "\n#define double float")
COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


def _by_onnxruntime(folder: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": images})[0])


def _by_c(folder: Path, images: np.ndarray) -> np.ndarray:
    if COMPILER is None:
        pytest.skip("no C compiler here")
    library = folder / "model.so"
    strict = ("-O1", "-std=c99", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")
    subprocess.run([COMPILER, *strict, "-o", str(library), str(folder / "c" / "model.c"), "-lm"], check=True)
    function, pointer = ctypes.CDLL(str(library)).model, ctypes.POINTER(ctypes.c_float)
    function.restype = None
    logits = np.full((len(images), CLASSES), np.nan, np.float32)
    for image, row in zip(images, logits, strict=True):
        function(np.ascontiguousarray(image).ctypes.data_as(pointer), row.ctypes.data_as(pointer))
    return logits


@signal_stack_kept()
def _by_openvino(folder: Path, images: np.ndarray) -> np.ndarray:
    import openvino

    answers = []
    for path in (folder / "openvino" / "model.xml", folder / "model.onnx"):
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        answers.append(np.array(next(iter(compiled([images]).values()))))
    np.testing.assert_array_equal(answers[0], answers[1])  # OpenVINO's files are the ONNX file in OpenVINO, exactly
    return answers[0]


def _by_tensorrt(folder: Path, images: np.ndarray) -> np.ndarray:
    pytest.skip("a TensorRT engine runs on the GPU that it was built on: see test_deployment_tensorrt_gpu.py")


def _by_executorch(folder: Path, images: np.ndarray) -> np.ndarray:
    import torch
    from executorch.runtime import Runtime  # loaded by the writer already, with its warnings silenced

    method = Runtime.get().load_program(folder / "model.pte").load_method("forward")
    return np.concatenate([method.execute([torch.from_numpy(each[None].copy())])[0].numpy().copy() for each in images])


def _by_litert(folder: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "model.tflite"))
    runner = interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    return np.concatenate([next(iter(runner(**{name: each[None]}).values())) for each in images])


FOR_DETECTORS = {"onnx-nms", "tensorrt-nms"}
"""Formats that refuse these classifiers: tests/tasks/test_tasks_detection_*_nms.py."""
# A format without an entry here fails.
READERS: dict[str, Answers] = {
    "onnx": _by_onnxruntime,
    "c": _by_c,
    "openvino": _by_openvino,
    "tensorrt": _by_tensorrt,
    "executorch": _by_executorch,
    "litert": _by_litert,
}
# Largest allowed difference of a logit, over the logits' spread: int8 kernels round a step up or down, and OpenVINO's
# keep other steps between its layers than ONNX Runtime's.
ALLOWED: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.1}
ALLOWED_IN_OPENVINO: dict[Precision, float] = {"fp32": 1e-4, "int8": 0.4}


def options(precision: Precision = "fp32", told: str = "noise") -> FormatOptions:
    check = CheckImages(images=IMAGES[:6], told=told)
    return FormatOptions(precision=precision, class_names=NAMES, check_images=lambda: check)


@pytest.fixture(params=["fp32", "int8"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[OnnxModel, Precision]:
    made = small_model(tmp_path, request.param, "onnxruntime_cpu")
    return annotate(made, {"scalesearch.class_names": NAMES[1]}, tmp_path / "model.onnx"), request.param


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_what_the_registry_says(name: str) -> None:
    writer = get_format(name)
    assert writer.name == name
    assert writer.what and "\n" not in writer.what and "|" not in writer.what  # a cell of the model card
    writer.ensure_holds("fp32")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning:executorch", "ignore::Warning:litert_torch", "ignore::Warning:jax")
@pytest.mark.parametrize("name", sorted(FORMATS.keys() - FOR_DETECTORS))
def test_what_is_written_answers_as_onnx_runtime_does(
    name: str, model: tuple[OnnxModel, Precision], tmp_path: Path
) -> None:
    writer, read, (onnx_model, precision) = get_format(name), READERS[name], model
    try:
        writer.ensure_holds(precision)
    except ConfigError as error:
        assert precision in str(error) and len(str(error).splitlines()) <= 3
        return
    try:
        writer.ensure_available()
    except MissingBackendError as error:
        pytest.skip(str(error).splitlines()[0])
    files = writer.write(onnx_model, tmp_path, options(precision))
    assert files == OUTPUTS[name] and all((tmp_path / file).is_file() for file in files)
    session = ort.InferenceSession(str(onnx_model.path), providers=["CPUExecutionProvider"])
    expected = np.asarray(session.run(None, {"image": IMAGES})[0])
    spread = expected.std(axis=0).mean()
    assert len(set(expected.argmax(axis=1).tolist())) > 1 and spread > 0.01  # otherwise nothing would be compared
    allowed = (ALLOWED_IN_OPENVINO if name == "openvino" else ALLOWED)[precision]
    np.testing.assert_allclose(read(tmp_path, IMAGES), expected, atol=allowed * spread, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"onnx", "tensorrt", *FOR_DETECTORS}))
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingBackendError, match=re.escape(f"pip install 'scalesearch[{name}]'")) as caught:
        get_format(name).ensure_available()
    assert len(str(caught.value).splitlines()) <= 3


def test_an_unknown_format_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'openvin'.*Did you mean 'openvino'\? There are: onnx, .*openvino"):
        get_format("openvin")


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8"])
def test_c_says_which_precisions_it_cannot_hold(precision: Precision) -> None:
    with pytest.raises(ConfigError, match=f"expected a network in fp32 or int8, came {precision}"):
        get_format("c").ensure_holds(precision)


def test_c_refuses_int8_that_leaves_the_rest_in_fp16(tmp_path: Path) -> None:
    """So TensorRT has it; C99 has no _Float16, which the generator would write."""
    with pytest.raises(StageFailed, match="C99 has no floats of 16 bits, and this int8 network holds some"):
        get_format("c").write(small_model(tmp_path, "int8", "tensorrt"), tmp_path, options("int8"))
    assert not (tmp_path / "c").exists()


@needs_compiler
@pytest.mark.slow
def test_the_self_test_passes_and_can_fail(model: tuple[OnnxModel, Precision], tmp_path: Path) -> None:
    onnx_model, precision = model
    get_format("c").write(onnx_model, tmp_path, options(precision, told='6 images of */ "x" \\'))

    def make() -> subprocess.CompletedProcess[str]:
        make = ["make", "-C", str(tmp_path / "c"), "test", f"CC={COMPILER}", "CFLAGS=-O1"]
        return subprocess.run(make, capture_output=True, text=True, check=False)

    done = make()
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stdout and "image 5: " in done.stdout
    source = tmp_path / "c" / "model.c"
    text = source.read_text()
    wrong = (
        "\nvoid model(const float image[1][3][8][8], float logits[1][4]) { right(image, logits); logits[0][1] += 1; }\n"
    )
    source.write_text(
        text.replace(
            "\nvoid model(",
            "\nvoid right(const float image[restrict 1][3][8][8], float logits[restrict 1][4]);\nvoid right(",
        )
        + wrong
    )
    done = make()
    assert done.returncode != 0 and "SELF-TEST FAILED" in done.stdout


@needs_compiler
def test_class_names_reach_c_as_they_are(tmp_path: Path) -> None:
    names = (*NAMES, "??=??/", "\x00a", "7\x017", "emoji \U0001f34c", "\udcff")
    literals = ",\n".join(c_string(name) for name in names)
    program = tmp_path / "names.c"
    program.write_text(
        f"#include <stdio.h>\nstatic const char *const names[] = {{ {literals} }};\n"
        "int main(void) { for (unsigned place = 0; place < sizeof names / sizeof *names; place++) "
        '{ fputs(names[place], stdout); fputs("\\003", stdout); } return 0; }\n'
    )
    strict = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
    assert COMPILER
    subprocess.run([COMPILER, *strict, "-o", str(tmp_path / "names"), str(program)], check=True)
    printed = subprocess.run([tmp_path / "names"], capture_output=True, check=True).stdout
    expected = [name.encode("utf-8", "replace").split(b"\0")[0] for name in names]
    assert printed.split(b"\3")[:-1] == expected


def test_a_network_that_always_answers_the_same_gets_no_self_test(tmp_path: Path) -> None:
    model = small_model(tmp_path)
    same = np.repeat(IMAGES[:1], 3, axis=0)
    with pytest.raises(StageFailed, match="nearly the same to all 3 check images"):
        get_format("c").write(
            model, tmp_path, replace(options(), check_images=lambda: CheckImages(images=same, told="one image"))
        )
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(("most", "held", "told"), [(1, 1, "1 of noise"), (587, 2, "2 of noise"), (10_000, 6, "noise")])
def test_a_self_test_of_large_images_holds_fewer_of_them(
    most: int, held: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.deployment.formats.c99._MOST_NUMBERS", most)  # an image has 192, its answer 4
    monkeypatch.setattr("scalesearch.deployment.formats.c99.generated", lambda _: "")
    get_format("c").write(small_model(tmp_path), tmp_path, options())
    text = (tmp_path / "c" / "self_test.c").read_text()
    assert f"#define IMAGES {held}\n" in text and f"/* {told}, as the network takes them. */" in text
    assert text.count("\n{{\n") == held
    # What may differ goes by the spread over all images: over a single one there is none.
    spread = allowed_difference(answers_as_written(at_batch_one(small_graph()), IMAGES[:6]), "fp32")
    assert f"tolerance = {c_float(spread)};" in text


def test_the_allowed_difference_is_a_part_of_the_spread() -> None:
    logits = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)  # deviation over the images: 1
    assert allowed_difference(logits, "fp32") == pytest.approx(1e-3 + 1e-5)
    assert allowed_difference(logits, "int8") == pytest.approx(0.1 + 1e-5)


@pytest.mark.slow
def test_weights_stay_in_the_source_whatever_their_size(tmp_path: Path) -> None:
    proto = small_graph()
    wide = np.zeros((CLASSES, 40_000), np.float32)  # 640 kB, six times the generator's own limit
    wide[:, :16] = 1
    for tensor in proto.graph.initializer:
        if tensor.name == "classifier":
            tensor.CopyFrom(numpy_helper.from_array(wide, "classifier"))
    proto.graph.node.insert(9, helper.make_node("Pad", ["features", "pads"], ["padded"]))
    proto.graph.node[10].input[0] = "padded"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 0, 39_984]), "pads"))
    text = generated(at_batch_one(proto))
    assert len(text) > 4 * CLASSES * 40_000 and "fopen" not in text


def test_a_tensorrt_engine_is_the_backends_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalesearch.deployment.backends.tensorrt import TensorRtBackend

    asked = []

    def plan(self: TensorRtBackend, model: OnnxModel, built: object) -> bytes:
        asked.append((self.name, model.sha256, built))
        return b"plan"

    monkeypatch.setattr(TensorRtBackend, "plan", plan)
    model = small_model(tmp_path)
    assert get_format("tensorrt").write(model, tmp_path, replace(options(), batch=4)) == ("model.engine",)
    assert (tmp_path / "model.engine").read_bytes() == b"plan"
    ((name, sha256, built),) = asked
    assert (name, sha256, getattr(built, "batch", None)) == ("tensorrt", model.sha256, 4)


def test_a_tensorrt_engine_is_found_under_the_hash_of_the_file_that_was_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalesearch.deployment.backends.tensorrt import TensorRtBackend

    asked = []

    def plan(self: TensorRtBackend, model: OnnxModel, built: object) -> bytes:
        asked.append((model.path, model.sha256))
        return b"plan"

    monkeypatch.setattr(TensorRtBackend, "plan", plan)
    timed = small_model(tmp_path)
    model = annotate(timed, {"scalesearch.study": "first"}, tmp_path / "model.onnx")
    get_format("tensorrt").write(model, tmp_path, replace(options(), measured_sha256=timed.sha256))
    assert asked == [(model.path, timed.sha256)] and model.sha256 != timed.sha256


def test_without_a_gpu_an_engine_is_refused_before_anything_is_written() -> None:
    from scalesearch.deployment.backends import get_backend

    if get_backend("tensorrt").probe().available:
        pytest.skip("there is a GPU here")
    with pytest.raises(MissingBackendError, match=r"--format tensorrt builds for the GPU of this machine") as refused:
        get_format("tensorrt").ensure_available()
    assert "trtexec --onnx=model.onnx --stronglyTyped --noTF32 " in str(refused.value)
