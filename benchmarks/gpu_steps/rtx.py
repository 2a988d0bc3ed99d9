"""TensorRT and TensorRT for RTX: build, ask whether the engine is valid here, load, run, compare with torch, time."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch

from gpu_steps import Day
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.backends import tensorrt
from scalesearch.deployment.backends.base import BackendStatus, EngineOptions
from scalesearch.deployment.backends.tensorrt import TensorRtBackend, library
from scalesearch.deployment.backends.tensorrt.builder import build_plan
from scalesearch.deployment.backends.tensorrt.library import Flavour, is_installed, load, logger_of
from scalesearch.errors import ScalesearchError
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.pieces import build, quantize, to_onnx
from scalesearch.values.candidate import Precision, Quantization, Scaling
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import TensorRtSettings

_FLAVOURS: Final[tuple[Flavour, ...]] = ("tensorrt", "tensorrt_rtx")
_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8", "bf16", "fp8")
_SIDE_PX: Final = 64
_RUNS: Final = 200


def run(day: Day) -> None:
    """Put down for each library and precision how far it came; a refusal is an answer, with its words."""
    models, images, expected = _models(day)
    for flavour in _FLAVOURS:
        if not is_installed(flavour):
            day.put(flavour, "not installed")
            continue
        status = TensorRtBackend(flavour, folder=day.folder / "engines").probe()
        day.put(
            f"{flavour}, usable here", status.available, " ".join(f"{status.version} {status.reason}".split())[:200]
        )
        for precision, model in models.items():
            _put_way(day, flavour, precision, model, images, expected)
    if day.device == "cpu":
        _rehearse(day)


def _models(day: Day) -> tuple[dict[Precision, OnnxModel], Any, Any]:
    """The small ResNet in every precision as files, images, and torch's own answers to them."""
    spec = scale(base_spec("resnet_small"), Scaling(), resolution_px=_SIDE_PX, num_classes=20)
    built = build(spec, seed=0)
    built.module.eval()
    network = fold_batchnorm(built)
    images = np.random.default_rng(1).normal(size=(64, 3, _SIDE_PX, _SIDE_PX)).astype(np.float32)
    with torch.inference_mode():
        expected = network.module(torch.from_numpy(images)).numpy()
    folder = day.folder / "models"
    folder.mkdir(exist_ok=True)
    float_model = to_onnx(network, to=folder / "fp32.onnx", check_images=images[:8])
    found: dict[Precision, OnnxModel] = {}
    for precision in _PRECISIONS[:3] if day.quick else _PRECISIONS:
        to = folder / f"{precision}_deployed.onnx"
        found[precision] = quantize(
            float_model, Quantization(precision=precision), profile="tensorrt", calibration=images, to=to
        )
    return found, images, expected


def _put_way(day: Day, flavour: Flavour, precision: str, model: OnnxModel, images: Any, expected: Any) -> None:
    what = f"{flavour} {precision}"
    settings = TensorRtSettings()
    try:
        built = build_plan(load(flavour), model.path, settings, batches=(1, 1, 64))
    except ScalesearchError as error:
        day.put(f"{what}: build", "refused", str(error)[:200])
        return
    day.put(f"{what}: build, s", built.seconds, f"{len(built.plan) // 1024} KiB, {len(built.layers)} kernels")
    day.put(f"{what}: valid here", _validity(flavour, built.plan))
    try:
        with TensorRtBackend(flavour, folder=day.folder / "engines").compile(model, EngineOptions()) as engine:
            answers = engine.run(images)["logits"]
            engine.time_runs(_RUNS)
            times_s = engine.time_runs(_RUNS)
            apart = float(np.abs(answers - expected).max() / np.abs(expected).max())
            same = float((answers.argmax(1) == expected.argmax(1)).mean())
            day.put(f"{what}: largest difference to torch, relative", apart, f"same class on {100 * same:.0f} %")
            notes = engine.timing_notes()
            day.put(f"{what}: median of a run, us", 1e6 * float(np.median(times_s)), "; ".join(notes.doubts))
    except ScalesearchError as error:
        day.put(f"{what}: run", "refused", " ".join(str(error).split())[:200])


def _validity(flavour: Flavour, plan: bytes) -> str:
    """What `Runtime.get_engine_validity` says, which TensorRT for RTX alone has."""
    trt = load(flavour)
    runtime = trt.trt.Runtime(logger_of(trt))
    if not hasattr(runtime, "get_engine_validity"):
        return "not asked: this library cannot tell"
    validity, diagnostics = runtime.get_engine_validity(plan)
    named = [
        name
        for name, value in getattr(trt.trt.EngineInvalidityDiagnostics, "__members__", {}).items()
        if int(value) & int(diagnostics)
    ]
    return f"{validity.name}{': ' + ', '.join(named) if named else ''}"


def _rehearse(day: Day) -> None:
    """Walk the same way with the tests' stand-in for library and GPU, so that this page cannot be what fails."""
    import pytest
    from fake_tensorrt import CLASSES, IMAGE_SHAPE, FakeGpu, FakeTensorRt, expected_logits
    from small_graphs import small_model

    with _patched(pytest.MonkeyPatch()) as patch:
        gpu = FakeGpu(patch)
        fake = FakeTensorRt(gpu)
        patch.setitem(sys.modules, "tensorrt", fake)
        patch.setattr("importlib.util.find_spec", lambda name: object())
        patch.setattr(library, "_loggers", {})
        loaded = library.load.__wrapped__("tensorrt")
        fake.logger = library.logger_of(loaded)
        patch.setattr(tensorrt, "load", lambda flavour: loaded)
        patch.setattr(sys.modules[__name__], "load", lambda flavour: loaded)
        status = BackendStatus(available=True, version=fake.__version__)
        patch.setattr(tensorrt, "probe", lambda flavour: status)
        images = np.random.default_rng(2).normal(size=(9, *IMAGE_SHAPE)).astype(np.float32)
        assert expected_logits(images).shape == (9, CLASSES)
        folder = day.folder / "stand-in"
        folder.mkdir(exist_ok=True)
        model = small_model(folder)
        day.put("stand-in", "the tests' TensorRT and GPU, which are not there", f"at {time.strftime('%H:%M:%S')}")
        _put_way(day, "tensorrt", "stand-in", model, images, expected_logits(images))


@contextlib.contextmanager
def _patched(patch: Any) -> Iterator[Any]:
    try:
        yield patch
    finally:
        patch.undo()
