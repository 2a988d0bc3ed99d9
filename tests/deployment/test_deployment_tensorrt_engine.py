"""The engine and its clock on a GPU that is not there: the order of calls, the batches, the doubts and the failures."""

import sys
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
import torch
from fake_tensorrt import CLASSES, IMAGE_SHAPE, FakeGpu, FakeTensorRt, expected_logits
from native_api import describe
from small_graphs import small_model

from scalesearch.deployment.backends import tensorrt
from scalesearch.deployment.backends.base import BackendStatus, EngineOptions, LayerTime, TimingNotes
from scalesearch.deployment.backends.tensorrt import TensorRtBackend
from scalesearch.deployment.backends.tensorrt import library as libraries
from scalesearch.deployment.backends.tensorrt.cuda_clock import CudaClock
from scalesearch.deployment.backends.tensorrt.engine import TensorRtEngine
from scalesearch.deployment.backends.tensorrt.library import is_installed, load
from scalesearch.errors import StageFailed
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import TensorRtSettings
from scalesearch.values.target import Device

_IMAGES = np.random.default_rng(3).normal(size=(19, *IMAGE_SHAPE)).astype(np.float32)
_NO_GRAPH = TensorRtSettings(cuda_graph=False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


@pytest.fixture
def trt(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """The fake as the one library that is loaded, with our own logger on it."""
    fake = FakeTensorRt(gpu)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(libraries, "_loggers", {})  # what the process's real library was given stays with it
    library = libraries.load.__wrapped__("tensorrt")
    fake.logger = libraries.logger_of(library)
    monkeypatch.setattr(tensorrt, "load", lambda flavour: library)
    monkeypatch.setattr(tensorrt, "probe", lambda flavour: BackendStatus(available=True, version=fake.__version__))
    return fake


@pytest.fixture
def backend(trt: FakeTensorRt, tmp_path: Path) -> TensorRtBackend:
    return TensorRtBackend("tensorrt", folder=tmp_path / "engines")


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return small_model(tmp_path)


def _compile(backend: TensorRtBackend, model: OnnxModel, batch: int = 1, **settings: Any) -> TensorRtEngine:
    options = EngineOptions(batch=batch, tensorrt=TensorRtSettings(**settings))
    engine = backend.compile(model, options)
    assert isinstance(engine, TensorRtEngine)
    return engine


@pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")
def test_the_fake_has_no_name_that_the_real_one_lacks() -> None:
    real = describe(load("tensorrt_rtx").trt)
    pairs = {
        "_FakeBuilder": "Builder", "_FakeOptimizationProfile": "IOptimizationProfile", "_FakeConfig": "IBuilderConfig",
        "_FakeTimingCache": "ITimingCache", "_FakeRuntime": "Runtime", "_FakeEngine": "ICudaEngine",
        "_FakeContext": "IExecutionContext",
    }  # fmt: skip
    for fake, name in pairs.items():
        public = {each for each in vars(getattr(fake_tensorrt, fake)) if not each.startswith("_")}
        assert public <= real[name].keys(), fake
    public = {each for each in vars(FakeTensorRt) if each[0].isupper()}
    assert public <= real[""].keys()


@pytest.mark.parametrize("batch", [1, 8])
def test_any_number_of_images_gives_the_right_logits(
    backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu, batch: int
) -> None:
    with _compile(backend, model, batch) as engine:
        assert engine.batch == batch
        for count in (1, batch, batch + 1, 19):
            before = gpu.runs
            logits = engine.run(_IMAGES[:count])["logits"]
            np.testing.assert_allclose(logits, expected_logits(_IMAGES[:count]), atol=1e-4)
            assert gpu.runs - before == -(-count // batch)  # a last, short part is one more run
        assert engine.run(_IMAGES[:0])["logits"].shape == (0, CLASSES)
        np.testing.assert_allclose(engine.run(_IMAGES[::-2])["logits"], expected_logits(_IMAGES[::-2]), atol=1e-4)


def test_a_short_part_is_run_at_the_whole_batch(backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu) -> None:
    """A fixed batch takes nothing else; what is left of the part before does not show in the answers."""
    with _compile(backend, model, 8) as engine:
        engine.run(_IMAGES[:8])["logits"]
        np.testing.assert_allclose(engine.run(_IMAGES[8:11])["logits"], expected_logits(_IMAGES[8:11]), atol=1e-4)
    logits = next(tensor for tensor in gpu.memory.values() if tensor.shape == (8, CLASSES))
    assert bool((logits != 0).any(dim=1).all())


def test_the_largest_batch_is_used_to_score_and_the_asked_one_to_time(
    backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu, trt: FakeTensorRt
) -> None:
    with _compile(backend, model, 2, max_batch=16, cuda_graph=False) as engine:
        engine.run(_IMAGES)["logits"]
        assert gpu.runs == 2  # 16 and 3 images
        assert engine.batch == 2
    (profile,) = trt.configs[0].profiles
    assert profile.shapes == {"image": tuple((batch, *IMAGE_SHAPE) for batch in (1, 2, 16))}


def test_a_fixed_batch_is_its_own_profile(backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt) -> None:
    _compile(backend, model, 4).close()
    (profile,) = trt.configs[0].profiles
    assert profile.shapes == {"image": ((4, *IMAGE_SHAPE),) * 3}


def test_every_setting_reaches_the_builder(backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt) -> None:
    _compile(backend, model).close()
    _compile(backend, model, workspace_mb=64, sparse_weights=True, optimization_level=5).close()
    plain, asked = trt.configs
    assert (plain.flags, plain.limits, plain.builder_optimization_level) == (set(), {}, 3)  # and TF32 is off
    assert (asked.flags, asked.builder_optimization_level) == ({"sparse weights"}, 5)
    assert asked.limits == {"workspace": 64 * 2**20}
    assert {config.profiling_verbosity for config in trt.configs} == {"detailed"}


def test_an_equal_engine_is_built_once(backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt) -> None:
    for _ in range(3):
        with _compile(backend, model) as engine:
            np.testing.assert_allclose(engine.run(_IMAGES)["logits"], expected_logits(_IMAGES), atol=1e-4)
    _compile(backend, model, cuda_graph=False).close()  # how it is run is no part of it
    assert len(trt.configs) == 1
    _compile(backend, model, 2).close()
    assert len(trt.configs) == 2


def test_another_file_or_gpu_or_a_touched_plan_is_built_anew(
    backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compile(backend, model).close()
    _compile(backend, small_model(tmp_path, "fp16")).close()
    assert len(trt.configs) == 2
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Another GPU")
    _compile(backend, model).close()
    assert len(trt.configs) == 3
    for plan in (tmp_path / "engines").glob("*.plan"):
        plan.write_bytes(b"native code of somebody else")
    _compile(backend, model).close()
    assert len(trt.configs) == 4


def test_the_timing_cache_goes_from_build_to_build(
    backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt, tmp_path: Path
) -> None:
    for batch in (1, 2):
        _compile(backend, model, batch).close()
    assert [config.caches for config in trt.configs] == [[b""], [b"."]]
    (cache,) = (tmp_path / "engines").glob("timing-*.bin")
    cache.write_bytes(b"of another version")
    _compile(backend, model, 3).close()
    assert trt.configs[2].caches == [b"of another version", b""]
    assert cache.read_bytes() == b"."


def test_a_cache_folder_that_cannot_be_written_or_read_ends_no_run(
    model: OnnxModel, trt: FakeTensorRt, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"in place of the folder")
    backend = TensorRtBackend("tensorrt", folder=tmp_path / "file" / "engines")
    for _ in range(2):
        with _compile(backend, model) as engine:
            np.testing.assert_allclose(engine.run(_IMAGES)["logits"], expected_logits(_IMAGES), atol=1e-4)
    assert len(trt.configs) == 2, "nothing could be kept"


def test_the_device_is_the_gpu_and_its_compute_capability(backend: TensorRtBackend, trt: FakeTensorRt) -> None:
    assert backend.device(2) == Device(
        name="Fake GPU", backend="tensorrt", backend_version=trt.__version__, threads=2, features=("sm_89",)
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("build", "compile: TensorRT refuses fp32.onnx: [native.cpp::build] Error Code 2: OutOfMemory (build); raise "),
        (
            "deserialize",
            "run: TensorRT does not load its engine of fp32.onnx: [native.cpp::deserialize] Error Code 2: ",
        ),
        (
            "context",
            "run: TensorRT has too little memory for the engine's context of fp32.onnx: [native.cpp::context] ",
        ),
    ],
)
def test_what_fails_natively_while_compiling_fails_in_the_librarys_words(
    backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt, step: str, said: str
) -> None:
    trt.fails = {step}
    with pytest.raises(StageFailed) as failure:
        _compile(backend, model)
    assert str(failure.value).startswith(said)
    assert "\n" not in str(failure.value)
    trt.fails = set()
    with _compile(backend, model) as engine:  # the failure leaves nothing behind
        np.testing.assert_allclose(engine.run(_IMAGES)["logits"], expected_logits(_IMAGES), atol=1e-4)


def test_what_fails_natively_while_running_fails_in_the_librarys_words(
    backend: TensorRtBackend, model: OnnxModel, trt: FakeTensorRt
) -> None:
    with _compile(backend, model) as engine:
        trt.fails = {"execute"}
        for use in (lambda: engine.run(_IMAGES)["logits"], lambda: engine.time_runs(3), lambda: engine.profile(3)):
            with pytest.raises(
                StageFailed, match=r"run: TensorRT failed to run the engine of fp32\.onnx: .*\(execute\)$"
            ):
                use()
        trt.fails = {"second context"}
        with pytest.raises(StageFailed, match="too little memory for a second context of fp32"):
            engine.profile(3)


def test_a_batch_that_does_not_fit_the_gpu_is_no_bug(
    backend: TensorRtBackend, model: OnnxModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    monkeypatch.setattr(torch, "zeros", full)
    with pytest.raises(StageFailed, match=r"run: the GPU has too little memory for a batch of 64 of fp32\.onnx"):
        _compile(backend, model, 64)


def test_a_closed_engine_says_so(backend: TensorRtBackend, model: OnnxModel) -> None:
    engine = _compile(backend, model)
    engine.time_runs(2)
    engine.close()
    engine.close()
    for use in (lambda: engine.run(_IMAGES)["logits"], lambda: engine.time_runs(1), lambda: engine.profile(1)):
        with pytest.raises(StageFailed, match=r"run: the engine of fp32\.onnx is closed"):
            use()


@pytest.mark.parametrize("images", [_IMAGES[:2, :, :7], _IMAGES[:2].astype(np.float64), _IMAGES[0]])
def test_other_images_are_refused(backend: TensorRtBackend, model: OnnxModel, images: Any) -> None:
    with _compile(backend, model) as engine, pytest.raises(StageFailed, match=r"fp32\.onnx takes float32 images"):
        engine.run(images)["logits"]


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 0)])
def test_batch_and_threads_below_one_are_refused(
    backend: TensorRtBackend, model: OnnxModel, batch: int, threads: int
) -> None:
    with pytest.raises(StageFailed, match="compile: batch and threads must be at least 1"):
        backend.compile(model, EngineOptions(threads=threads, batch=batch))


def test_the_profile_adds_up_the_layers_of_its_own_runs(
    backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu
) -> None:
    with _compile(backend, model) as engine:
        first, second = engine.profile(10)
        assert first == LayerTime(name="conv", kind="correlation", precision="fp16", mean_ms=first.mean_ms)
        assert second == LayerTime(name="reformat", kind="", precision="", mean_ms=second.mean_ms)
        assert (first.mean_ms, second.mean_ms) == pytest.approx((0.75, 0.25))
        assert gpu.runs == 11  # one to warm up, without the profiler
        assert engine.timing_notes() == TimingNotes()


def test_timed_runs_are_replays_of_one_captured_run(backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu) -> None:
    gpu.costs_s = [2e-3]
    with _compile(backend, model) as engine:
        assert engine.timing_notes() == TimingNotes()
        assert engine.time_runs(100) == pytest.approx((2e-3,) * 100)
        assert (gpu.runs, gpu.replays) == (101, 100)  # one before the capture, none by it
        engine.time_runs(5)
        assert gpu.replays == 105  # captured once


def test_without_a_graph_every_run_is_handed_over(backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu) -> None:
    with _compile(backend, model, cuda_graph=False) as engine:
        assert len(engine.time_runs(70)) == 70
    assert (gpu.runs, gpu.replays) == (71, 0)


def test_copies_are_inside_the_clock_only_where_asked(backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu) -> None:
    fixed = np.random.default_rng(0).standard_normal((1, *IMAGE_SHAPE), dtype=np.float32)
    for copies in (False, True):
        with _compile(backend, model, cuda_graph=False, copies=copies) as engine:
            engine.time_runs(1)
            buffer = list(gpu.memory.values())[-2]
            np.testing.assert_array_equal(buffer.numpy(), fixed)
            buffer.zero_()
            engine.time_runs(1)
            assert bool(buffer.any()) == copies


def _clock(gpu: FakeGpu, *, graph: bool = False) -> CudaClock:
    return CudaClock(lambda: gpu.launch(lambda: None), stream=torch.cuda.Stream(), graph=graph)  # type: ignore[no-untyped-call]


def test_a_capture_that_fails_is_a_doubt_and_runs_go_on(gpu: FakeGpu) -> None:
    gpu.capturable = False
    gpu.costs_s = [1.0]
    clock = _clock(gpu, graph=True)
    assert not clock.captured
    assert clock.time_runs(3) == (1.0, 1.0, 1.0)
    assert gpu.replays == 0
    (doubt,) = clock.notes().doubts
    assert doubt == "no CUDA graph: CUDA error: operation not permitted when stream is capturing"


def test_a_library_that_refuses_to_be_captured_is_a_doubt_too(
    backend: TensorRtBackend, model: OnnxModel, gpu: FakeGpu, trt: FakeTensorRt
) -> None:
    trt.fails = {"captured execute"}
    with _compile(backend, model) as engine:
        assert len(engine.time_runs(4)) == 4
        assert any(doubt.startswith("no CUDA graph: ") for doubt in engine.timing_notes().doubts)
    assert gpu.replays == 0


def test_a_run_that_takes_longer_to_hand_over_than_to_run_is_a_doubt(gpu: FakeGpu) -> None:
    """trtexec warns from 0.8 of the GPU's time on; no host hands a run over in a nanosecond."""
    gpu.costs_s = [1e-9]
    fast = _clock(gpu)
    fast.time_runs(10)
    assert [doubt.partition(":")[0] for doubt in fast.notes().doubts] == ["enqueue-bound"]
    gpu.costs_s = [10.0]
    slow = _clock(gpu)
    slow.time_runs(10)
    assert slow.notes().doubts == ()
    enqueue_p50_ms = slow.notes().enqueue_p50_ms
    assert enqueue_p50_ms is not None
    assert 0 < enqueue_p50_ms < 1000


@pytest.mark.parametrize(("spread", "doubts"), [(0.02, 0), (0.03, 1)])
def test_more_than_two_and_a_half_percent_of_variation_is_a_doubt(gpu: FakeGpu, spread: float, doubts: int) -> None:
    """Two values as far above as below 1: their coefficient of variation is that distance."""
    gpu.costs_s = [1 - spread, 1 + spread]
    clock = _clock(gpu)
    clock.time_runs(1)
    assert clock.notes() == TimingNotes()  # one time says nothing yet
    clock.time_runs(99)
    found = clock.notes().doubts
    assert len(found) == doubts
    assert all(doubt.startswith(f"GPU times vary by {100 * spread:.1f} %") for doubt in found)


def test_times_come_in_the_order_of_the_runs_over_any_count(gpu: FakeGpu) -> None:
    """More runs than are handed over at once (64), in no other order and none twice."""
    gpu.costs_s = [float(number) for number in range(1, 201)]
    clock = _clock(gpu)  # takes the first
    assert clock.time_runs(150) == pytest.approx([float(number) for number in range(2, 152)])
    assert clock.time_runs(0) == ()
