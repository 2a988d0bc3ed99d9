"""ONNX Runtime on a GPU that is not there: what it is asked, where arrays lie, and what is said where it is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from small_graphs import IMAGES, small_model

from scalesearch.deployment.backends import onnxruntime_cuda
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.onnxruntime import OnnxRuntimeBackend
from scalesearch.deployment.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from scalesearch.deployment.targets import TARGETS, choose_target
from scalesearch.errors import MissingBackendError, StageFailed
from scalesearch.values.target import Device

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class FakeCuda:
    """Sessions that say they are on a GPU and run on the CPU; it keeps what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        self.places: list[tuple[str, int]] = []
        self.falls_back = False
        real_session, real_value = ort.InferenceSession, ort.OrtValue.ortvalue_from_numpy
        fake = self

        class Session(real_session):  # type: ignore[misc, valid-type]  # a class of an untyped module
            def __init__(self, model: Any, options: Any = None, providers: Any = None) -> None:
                fake.asked.append(providers)
                super().__init__(model, options, providers=[CPU])

            def get_providers(self) -> list[str]:
                return [CPU] if fake.falls_back else [CUDA, CPU]

        def value(array: Any, device: str = "cpu", number: int = 0) -> Any:
            fake.places.append((device, number))
            return real_value(array)

        monkeypatch.setattr(ort, "InferenceSession", Session)
        monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", value)
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))


@pytest.fixture(autouse=True)
def forgotten_probe() -> Iterator[None]:
    onnxruntime_cuda._why_not.cache_clear()
    yield
    onnxruntime_cuda._why_not.cache_clear()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def test_the_gpu_is_asked_first_without_tf32(fake: FakeCuda, tmp_path: Path) -> None:
    OnnxRuntimeCudaBackend().compile(small_model(tmp_path), EngineOptions()).close()
    (name, options), fallback = fake.asked[-1]
    assert (name, fallback) == (CUDA, CPU)
    assert options["use_tf32"] == "0"


def test_it_answers_as_the_cpu_and_times_with_arrays_on_the_gpu(fake: FakeCuda, tmp_path: Path) -> None:
    model = small_model(tmp_path)
    with OnnxRuntimeBackend().compile(model, EngineOptions()) as cpu:
        expected = cpu.run(IMAGES)["logits"]
    with OnnxRuntimeCudaBackend().compile(model, EngineOptions(batch=4)) as engine:
        assert np.array_equal(engine.run(IMAGES)["logits"], expected)
        assert len(engine.time_runs(3)) == 3
        assert engine.profile(2)
    assert fake.places == [("cuda", 0)] * 2
    assert all(asked[0][0] == CUDA for asked in fake.asked[1:])  # the first session is the CPU's


def test_a_file_that_lands_on_the_cpu_is_no_gpus_latency(fake: FakeCuda, tmp_path: Path) -> None:
    assert OnnxRuntimeCudaBackend().probe().available
    fake.falls_back = True
    with pytest.raises(StageFailed, match=r"opened fp32\.onnx on the CPU"):
        OnnxRuntimeCudaBackend().compile(small_model(tmp_path), EngineOptions())


def test_the_device_is_the_gpu(fake: FakeCuda) -> None:
    device = OnnxRuntimeCudaBackend().device(1)
    assert device == Device(
        name="Fake GPU", backend="onnxruntime_cuda", backend_version=ort.__version__, threads=1, features=("sm_89",)
    )


def test_auto_takes_it_where_tensorrt_is_missing(fake: FakeCuda) -> None:
    target, why = choose_target()
    assert target == TARGETS["cuda"]
    assert why.startswith("target: cuda through ONNX Runtime ")


def test_a_build_without_the_provider_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    status = OnnxRuntimeCudaBackend().probe()
    assert not status.available
    first, second = status.reason.splitlines()
    assert first.endswith("has no CUDA provider, so it runs nothing on a GPU here.")
    assert "pip uninstall onnxruntime && pip install 'onnxruntime-gpu>=" in second
    with pytest.raises(MissingBackendError, match="no CUDA provider"):
        OnnxRuntimeCudaBackend().device(1)


def test_a_gpu_that_is_not_there_is_said(fake: FakeCuda) -> None:
    fake.falls_back = True
    assert "finds no NVIDIA GPU" in OnnxRuntimeCudaBackend().probe().reason


def test_a_provider_that_fails_to_start_is_said_in_one_line(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA failure 35:\n driver version is insufficient")

    monkeypatch.setattr(ort, "InferenceSession", fails)
    reason = OnnxRuntimeCudaBackend().probe().reason
    assert reason == "ONNX Runtime's CUDA provider does not start: CUDA failure 35: driver version is insufficient"
