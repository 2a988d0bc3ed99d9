"""One suite for every backend of the registry; a backend that is not available here is skipped by its own reason."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from loading import loaded
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scalesearch.deployment.backends import BACKENDS, Backend, Engine, get_backend
from scalesearch.deployment.backends.base import BackendStatus, EngineOptions
from scalesearch.deployment.backends.onnxruntime import OnnxRuntimeEngine
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.values.network import OnnxModel

_CLASSES = 4
_RANDOM = np.random.default_rng(0)
_IMAGES = _RANDOM.normal(size=(200, 3, 8, 8)).astype(np.float32)
_KERNEL = _RANDOM.normal(size=(16, 3, 3, 3)).astype(np.float32)
_CLASSIFIER = _RANDOM.normal(size=(16, _CLASSES)).astype(np.float32)


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    backend = get_backend(request.param)
    status = backend.probe()
    if not status.available:
        pytest.skip(f"{request.param}: {status.reason}")
    return backend


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    """Convolution, ReLU, pooling, linear layer: written by hand, so that numpy can say what must come out."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel"], ["map"], kernel_shape=[3, 3]),
         helper.make_node("Relu", ["map"], ["positive"]),
         helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
         helper.make_node("Flatten", ["pooled"], ["features"]),
         helper.make_node("MatMul", ["features", "classifier"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES])],
        [numpy_helper.from_array(_KERNEL, "kernel"), numpy_helper.from_array(_CLASSIFIER, "classifier")],
    )  # fmt: skip
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return onnx_model(path)


def _expected(images: NDArray[np.float32]) -> NDArray[np.float32]:
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    maps = np.einsum("ncxyij,ocij->noxy", windows, _KERNEL)
    logits: NDArray[np.float32] = np.maximum(maps, 0).mean(axis=(2, 3)) @ _CLASSIFIER
    return logits


def test_it_says_that_it_works_and_in_which_version(backend: Backend) -> None:
    status = backend.probe()
    assert status == BackendStatus(available=True, version=status.version)
    assert status.version[0].isdigit()


def test_the_device_names_backend_version_and_threads(backend: Backend) -> None:
    device = backend.device(2)
    assert device == backend.device(2)
    assert device != backend.device(1)
    assert (device.backend, device.backend_version, device.threads) == (backend.name, backend.probe().version, 2)
    assert device.name
    assert list(device.features) == sorted(device.features)


def test_any_batch_gives_the_right_logits(backend: Backend, model: OnnxModel) -> None:
    expected = _expected(_IMAGES)
    assert expected.std(axis=0).min() > 0.1
    with backend.compile(model, EngineOptions(threads=1, batch=1)) as engine:
        for count in (1, 2, 64, 65, 200):
            logits = engine.run(_IMAGES[:count])["logits"]
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, expected[:count], rtol=1e-3, atol=1e-3)
        assert engine.run(_IMAGES[:0])["logits"].shape == (0, _CLASSES)


@pytest.mark.parametrize(("most", "parts"), [(64, [64, 64, 64, 8]), (30, [30] * 6 + [20])])
def test_onnx_runtime_answers_large_images_a_few_at_a_time(
    most: int, parts: list[int], model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.host._MOST_PIXELS", most * 8 * 8)
    run_once, counts = OnnxRuntimeEngine._run_once, list[int]()

    def counted(self: OnnxRuntimeEngine, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        counts.append(len(images))
        return run_once(self, images)

    monkeypatch.setattr(OnnxRuntimeEngine, "_run_once", counted)
    with get_backend("onnxruntime").compile(model, EngineOptions(threads=1, batch=1)) as engine:
        np.testing.assert_allclose(engine.run(_IMAGES)["logits"], _expected(_IMAGES), rtol=1e-3, atol=1e-3)
        assert counts == parts
        assert engine.run(_IMAGES[:0])["logits"].shape == (0, _CLASSES)


def test_images_that_are_not_contiguous_are_read_right(backend: Backend, model: OnnxModel) -> None:
    with backend.compile(model, EngineOptions(threads=1, batch=1)) as engine:
        np.testing.assert_allclose(engine.run(_IMAGES[::-3])["logits"], _expected(_IMAGES[::-3]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 8])
def test_timing_gives_one_positive_time_a_run(backend: Backend, model: OnnxModel, batch: int) -> None:
    with backend.compile(model, EngineOptions(threads=1, batch=batch)) as engine:
        assert engine.batch == batch
        times = engine.time_runs(20)
        assert len(times) == 20
        assert all(0 < seconds < 1 for seconds in times)
        assert engine.time_runs(0) == ()


def test_a_larger_batch_takes_longer(backend: Backend, model: OnnxModel) -> None:
    """The clock times the compiled batch, not one image."""
    with (
        backend.compile(model, EngineOptions(threads=1, batch=1)) as one,
        backend.compile(model, EngineOptions(threads=1, batch=512)) as many,
    ):
        assert min(many.time_runs(20)) > 5 * min(one.time_runs(20))


def test_timing_between_runs_changes_no_answer(backend: Backend, model: OnnxModel) -> None:
    with backend.compile(model, EngineOptions(threads=1, batch=2)) as engine:
        before = engine.run(_IMAGES)["logits"]
        engine.time_runs(5)
        assert np.array_equal(engine.run(_IMAGES)["logits"], before)


def test_engines_are_independent(backend: Backend, model: OnnxModel) -> None:
    first = backend.compile(model, EngineOptions(threads=1, batch=1))
    with backend.compile(model, EngineOptions(threads=2, batch=1)) as second:
        first.close()
        np.testing.assert_allclose(second.run(_IMAGES[:3])["logits"], _expected(_IMAGES[:3]), rtol=1e-3, atol=1e-3)


def test_closing_twice_is_fine_and_a_closed_engine_says_so(backend: Backend, model: OnnxModel) -> None:
    engine: Engine = backend.compile(model, EngineOptions(threads=1, batch=1))
    engine.time_runs(1)
    engine.close()
    engine.close()
    with pytest.raises(StageFailed, match=r"run: the engine of small\.onnx is closed"):
        engine.run(_IMAGES)["logits"]
    with pytest.raises(StageFailed, match="closed"):
        engine.time_runs(1)


@pytest.mark.parametrize(
    "images",
    [_IMAGES[:2, :, :7], _IMAGES[:2].astype(np.float64), _IMAGES[0], _IMAGES[:2].transpose(0, 2, 3, 1)],
    ids=["side", "type", "rank", "channels_last"],
)
def test_other_images_are_refused(backend: Backend, model: OnnxModel, images: NDArray[np.float32]) -> None:
    with (
        backend.compile(model, EngineOptions(threads=1, batch=1)) as engine,
        pytest.raises(StageFailed, match=r"run: small\.onnx takes float32 images of shape \(N, 3x8x8\)"),
    ):
        engine.run(images)["logits"]


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "missing"])
def test_a_corrupt_file_is_refused_in_few_words(
    backend: Backend, model: OnnxModel, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = model.path.read_bytes()
    contents = {"garbage": b"\x08garbage" * 50, "truncated": content[: len(content) // 2], "empty": b""}
    if damage == "missing":
        model.path.unlink()
    else:
        model.path.write_bytes(contents[damage])
    with pytest.raises(StageFailed, match=r"small\.onnx") as failure:
        backend.compile(model, EngineOptions(threads=1, batch=1))
    assert failure.value.stage == "compile"
    assert len(str(failure.value)) < 500
    assert "\n" not in str(failure.value)
    assert capfd.readouterr().err == ""


def test_an_unknown_operator_is_refused(backend: Backend, model: OnnxModel) -> None:
    proto = onnx.load(model.path)
    proto.graph.node[1].op_type = "Frobnicate"
    onnx.save(proto, model.path)
    with pytest.raises(StageFailed, match="Frobnicate"):
        backend.compile(model, EngineOptions(threads=1, batch=1))


@pytest.mark.parametrize(("threads", "batch"), [(0, 1), (1, 0), (-1, 1)])
def test_threads_and_batch_below_one_are_refused(backend: Backend, model: OnnxModel, threads: int, batch: int) -> None:
    with pytest.raises(StageFailed, match="compile: batch and threads must be at least 1"):
        backend.compile(model, EngineOptions(threads=threads, batch=batch))


def test_one_thread_really_is_one(backend: Backend, model: OnnxModel) -> None:
    """A hidden pool would disturb the other engine of a duet: no more CPU seconds than seconds may pass."""
    with backend.compile(model, EngineOptions(threads=1, batch=1)) as engine:
        engine.run(_IMAGES)["logits"]
        began_s, used_s = time.perf_counter(), time.process_time()
        while time.perf_counter() - began_s < 0.3:
            engine.time_runs(100)
        assert time.process_time() - used_s < 1.2 * (time.perf_counter() - began_s)


def test_an_unknown_backend_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"no backend is called 'onxruntime'\. Did you mean 'onnxruntime'\?"):
        get_backend("onxruntime")


@pytest.mark.parametrize(
    "module", ["scalesearch.deployment.backends", "scalesearch.deployment.targets", "scalesearch.deployment.devices"]
)
def test_importing_loads_no_heavy_library(module: str) -> None:
    assert not loaded(f"import {module}", of={"torch", "onnxruntime", "onnx", "numpy"})
