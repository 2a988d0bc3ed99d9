"""What only a GPU can show: `pytest -m gpu`. Tests skip with the reason where GPU or library are missing."""

import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser
from small_graphs import CLASSES, IMAGES, small_graph, small_model
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.tensorrt import TensorRtBackend
from scalesearch.deployment.backends.tensorrt.cuda_clock import CudaClock
from scalesearch.deployment.backends.tensorrt.library import Flavour
from scalesearch.deployment.devices import gpu_capability, gpu_name
from scalesearch.deployment.onnx_file import write_onnx
from scalesearch.deployment.targets import choose_target
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import quantize, to_onnx
from scalesearch.values.candidate import Precision, Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.settings import TensorRtSettings

pytestmark = pytest.mark.gpu

_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
_FROM_CAPABILITY = {"bf16": 8.0, "fp8": 8.9}
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
_WARM_RUNS, _RUNS = 100, 300


@pytest.fixture(scope="module", autouse=True)
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no NVIDIA GPU here")
    print(f"{gpu_name()}, compute capability {gpu_capability()}, torch {torch.__version__}")


@pytest.fixture(scope="module", params=_FLAVOURS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TensorRtBackend:
    backend = TensorRtBackend(request.param, folder=tmp_path_factory.mktemp("engines"))
    status = backend.probe()
    if not status.available:
        pytest.skip(f"{request.param}: {' '.join(status.reason.split())}")
    return backend


# --- The clock alone: any work of torch will do, so that it needs no TensorRT.


def _clock(module: nn.Module, images: torch.Tensor, *, graph: bool) -> CudaClock:
    @torch.no_grad()
    def enqueue() -> None:
        module(images)

    return CudaClock(enqueue, stream=torch.cuda.Stream(), graph=graph)  # type: ignore[no-untyped-call]


def _convolutions(channels: int, count: int = 6) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(count)]
    return nn.Sequential(*layers).cuda().eval()


def _median_s(clock: CudaClock) -> float:
    clock.time_runs(_WARM_RUNS)
    return statistics.median(clock.time_runs(_RUNS))


def test_the_clock_agrees_with_the_hosts_where_the_gpu_is_the_slow_one() -> None:
    """Matrices of 4096: milliseconds each, beside which a launch is nothing."""
    matrix = torch.randn(4096, 4096, device="cuda")
    clock = _clock(nn.Linear(4096, 4096).cuda(), matrix, graph=True)
    clock.time_runs(_WARM_RUNS)
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    times_s = clock.time_runs(200)
    host_s = time.perf_counter() - began_s
    assert len(times_s) == 200
    assert 0.8 * host_s < sum(times_s) <= 1.02 * host_s
    assert not [doubt for doubt in clock.notes().doubts if "graph" in doubt or "enqueue" in doubt]


def test_more_work_takes_longer() -> None:
    images = torch.randn(8, 64, 56, 56, device="cuda")
    few, many = (_median_s(_clock(_convolutions(64, count), images, graph=True)) for count in (2, 8))
    assert 2 < many / few < 8


def test_a_replayed_graph_is_not_slower_and_answers_the_same() -> None:
    """Small kernels, where the host's launches are the bottleneck."""
    images = torch.randn(1, 16, 16, 16, device="cuda")
    module = _convolutions(16, 20)
    plain, graph = (_clock(module, images, graph=captured) for captured in (False, True))
    assert (plain.captured, graph.captured) == (False, True)
    assert _median_s(graph) < 1.05 * _median_s(plain)
    enqueue_p50_ms = graph.notes().enqueue_p50_ms
    assert enqueue_p50_ms is not None
    assert 0 < enqueue_p50_ms < 5


def test_what_cannot_be_captured_is_timed_all_the_same_with_a_doubt() -> None:
    matrix = torch.randn(256, 256, device="cuda")

    def asks_the_host() -> None:
        if (matrix @ matrix).sum().item() > 0:  # waits for the GPU, which no graph can hold
            matrix.add_(0)

    clock = CudaClock(asks_the_host, stream=torch.cuda.Stream(), graph=True)  # type: ignore[no-untyped-call]
    assert not clock.captured
    assert all(seconds > 0 for seconds in clock.time_runs(20))
    assert any(doubt.startswith("no CUDA graph: ") for doubt in clock.notes().doubts)
    # The failed capture left nothing broken behind.
    assert _clock(_convolutions(16), torch.randn(1, 16, 8, 8, device="cuda"), graph=True).captured


def test_repeated_medians_agree() -> None:
    images = torch.randn(8, 64, 56, 56, device="cuda")
    clock = _clock(_convolutions(64), images, graph=True)
    medians = [_median_s(clock) for _ in range(5)]
    assert statistics.stdev(medians) / statistics.fmean(medians) < 0.05


# --- Engines: answers.


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The networks of the compression tests: one of them has really learnt something."""
    path = Path(__file__).parents[1] / "compression" / "tiny_networks.py"
    spec = importlib.util.spec_from_file_location("tiny_networks_of_compression", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["basic", "inverted_residual"])
def trained(request: pytest.FixtureRequest, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """A trained network of dense and one of depthwise convolutions, in fp32."""
    calibration, _ = tiny.gratings(128, seed=5)
    network = fold_batchnorm(tiny.trained_network(request.param))
    folder = tmp_path_factory.mktemp("trained")
    return to_onnx(network, to=folder / "model.onnx", check_images=calibration[:8])


def _needs(precision: Precision) -> None:
    least = _FROM_CAPABILITY.get(precision, 0.0)
    if float(gpu_capability()) < least:
        pytest.skip(f"{precision} is of compute capability {least} and later, {gpu_name()} has {gpu_capability()}")


def _on_cpu(model: OnnxModel, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """ONNX Runtime's answer, every node run as it is written."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"image": images})[0]
    return logits


# Root mean square of the difference to fp32, over the logits' spread. On the CPU the two networks show 1e-4 (fp16),
# 0.006 (int8) and 0.02 (fp8); bf16 has an eighth of fp16's digits.
_TOLERANCES = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 2e-2, "int8": 5e-2, "fp8": 1e-1}


@pytest.mark.parametrize("precision", _PRECISIONS)
def test_every_precision_answers_as_the_float_network_within_what_it_can_hold(
    backend: TensorRtBackend, trained: OnnxModel, tiny: Any, tmp_path: Path, precision: Precision
) -> None:
    _needs(precision)
    calibration, _ = tiny.gratings(128, seed=5)
    images, labels = tiny.gratings(600, seed=6)
    expected = _on_cpu(trained, images)
    quantization = Quantization(precision=precision)
    model = quantize(trained, quantization, calibration=calibration, profile="tensorrt", to=tmp_path / "model.onnx")
    with backend.compile(model, EngineOptions(batch=16)) as engine:
        logits = engine.run(images)["logits"]
    difference = float(np.sqrt(np.mean((logits - expected) ** 2)) / expected.std())
    accuracy, expected_accuracy = (float((each.argmax(1) == labels).mean()) for each in (logits, expected))
    print(f"{backend.name} {precision}: {difference:.2g} of the spread, top-1 {accuracy:.4f} ({expected_accuracy:.4f})")
    assert expected_accuracy > 0.9
    assert difference < _TOLERANCES[precision]
    assert accuracy > expected_accuracy - 0.02
    if precision in ("int8", "fp16"):  # the same file on the CPU: only the order of sums differs
        same = _on_cpu(model, images)
        assert float(np.sqrt(np.mean((logits - same) ** 2)) / same.std()) < 2e-2


def test_any_number_of_images_at_a_fixed_and_at_a_dynamic_batch(backend: TensorRtBackend, tmp_path: Path) -> None:
    model = small_model(tmp_path)
    expected = _on_cpu(model, IMAGES)
    settings = (TensorRtSettings(), TensorRtSettings(max_batch=32))
    for chosen, batch in itertools.product(settings, (1, 8)):
        with backend.compile(model, EngineOptions(batch=batch, tensorrt=chosen)) as engine:
            for count in (0, 1, 8, 9, 40):
                logits = engine.run(IMAGES[:count])["logits"]
                assert logits.shape == (count, CLASSES)
                np.testing.assert_allclose(logits, expected[:count], rtol=1e-3, atol=1e-3)
            engine.time_runs(5)
            np.testing.assert_allclose(
                engine.run(IMAGES)["logits"], expected, rtol=1e-3, atol=1e-3
            )  # timing changed nothing


def test_two_engines_live_side_by_side(backend: TensorRtBackend, tmp_path: Path) -> None:
    first, second = small_model(tmp_path), small_model(tmp_path, "fp16")
    expected = _on_cpu(first, IMAGES)
    with backend.compile(first, EngineOptions(batch=4)) as one, backend.compile(second, EngineOptions(batch=2)) as two:
        for _ in range(3):
            one.time_runs(10)
            two.time_runs(10)
            np.testing.assert_allclose(one.run(IMAGES)["logits"], expected, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(two.run(IMAGES)["logits"], expected, rtol=0.02, atol=0.02)


# --- Engines: times.


def _wide_model(folder: Path, precision: Precision, *, channels: int, layers: int = 6) -> OnnxModel:
    """A stack of 3x3 convolutions on 28x28: arithmetic is what its time goes to."""
    names = ["image", *(f"map{number}" for number in range(layers))]
    body = "".join(
        f"{after} = Conv<pads = [1, 1, 1, 1]>({before}, w{number})\n"
        for number, (before, after) in enumerate(itertools.pairwise(names))
    )
    text = (
        '<ir_version: 10, opset_import: ["": 18]> wide '
        f"(float[batch, {channels}, 28, 28] image) => (float[batch, {channels}] logits) "
        f"{{ {body} pooled = GlobalAveragePool({names[-1]}) logits = Flatten(pooled) }}"
    )
    proto = parser.parse_model(text)
    random = np.random.default_rng(0)
    for number in range(layers):
        weights = random.normal(size=(channels, channels, 3, 3)) / np.sqrt(9 * channels)
        proto.graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), f"w{number}"))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    model = write_onnx(proto, folder / "wide.onnx")
    images = random.normal(size=(4, channels, 28, 28)).astype(np.float32)
    to = folder / f"wide_{precision}.onnx"
    return quantize(model, Quantization(precision=precision), calibration=images, profile="tensorrt", to=to)


def _engine_median_s(backend: TensorRtBackend, model: OnnxModel, *, batch: int = 1, **settings: bool) -> float:
    options = EngineOptions(batch=batch, tensorrt=TensorRtSettings(**settings))
    with backend.compile(model, options) as engine:
        engine.time_runs(_WARM_RUNS)
        return statistics.median(engine.time_runs(_RUNS))


def test_half_and_eight_bits_are_faster_than_fp32_on_a_wide_network(backend: TensorRtBackend, tmp_path: Path) -> None:
    precisions = [each for each in _PRECISIONS if float(gpu_capability()) >= _FROM_CAPABILITY.get(each, 0.0)]
    times_s = {
        precision: _engine_median_s(backend, _wide_model(tmp_path, precision, channels=256), batch=16)
        for precision in precisions
    }
    print(backend.name, {precision: f"{1e3 * seconds:.3f} ms" for precision, seconds in times_s.items()})
    for precision in precisions[1:]:
        assert times_s[precision] < 0.8 * times_s["fp32"], precision


def test_a_bigger_network_and_a_bigger_batch_are_slower(backend: TensorRtBackend, tmp_path: Path) -> None:
    small = _wide_model(tmp_path, "fp16", channels=128)
    small_s, batch_s = (_engine_median_s(backend, small, batch=batch) for batch in (1, 32))
    large_s = _engine_median_s(backend, _wide_model(tmp_path, "fp16", channels=512))
    assert large_s > 1.5 * small_s
    assert batch_s > 1.5 * small_s


def test_a_cuda_graph_is_not_slower_and_copies_are_not_faster(backend: TensorRtBackend, tmp_path: Path) -> None:
    model = small_model(tmp_path, "fp16")
    graph_s, plain_s, copies_s = (
        _engine_median_s(backend, model, cuda_graph=graph, copies=copies)
        for graph, copies in ((True, False), (False, False), (True, True))
    )
    print(f"{backend.name}: graph {1e6 * graph_s:.1f} us, plain {1e6 * plain_s:.1f} us, copies {1e6 * copies_s:.1f} us")
    assert graph_s < 1.05 * plain_s
    assert copies_s > 0.98 * graph_s


def test_repeated_medians_of_fresh_engines_agree(backend: TensorRtBackend, tmp_path: Path) -> None:
    model = _wide_model(tmp_path, "fp16", channels=128)
    medians = [_engine_median_s(backend, model, batch=8) for _ in range(5)]
    variation = statistics.stdev(medians) / statistics.fmean(medians)
    print(f"{backend.name}: {1e3 * statistics.fmean(medians):.3f} ms, variation of the median {100 * variation:.2f} %")
    assert variation < 0.05


def test_the_notes_tell_how_long_handing_over_took(backend: TensorRtBackend, tmp_path: Path) -> None:
    with backend.compile(small_model(tmp_path), EngineOptions()) as engine:
        engine.time_runs(_RUNS)
        enqueue_p50_ms = engine.timing_notes().enqueue_p50_ms
    assert enqueue_p50_ms is not None
    assert 0 < enqueue_p50_ms < 5


def test_the_profile_names_kernels_with_precision_and_adds_up(backend: TensorRtBackend, tmp_path: Path) -> None:
    model = _wide_model(tmp_path, "fp16", channels=256)
    with backend.compile(model, EngineOptions(batch=16)) as engine:
        engine.time_runs(_WARM_RUNS)
        whole_ms = 1e3 * statistics.median(engine.time_runs(_RUNS))
        layers = engine.profile(50)
    assert len(layers) >= 6
    assert all(layer.mean_ms >= 0 for layer in layers)
    assert "fp16" in {layer.precision for layer in layers}
    assert 0.5 * whole_ms < sum(layer.mean_ms for layer in layers) < 3 * whole_ms  # each layer is slowed down


# --- The store, the device, and what goes wrong.


def test_an_equal_engine_is_loaded_and_not_built(
    backend: TensorRtBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _wide_model(tmp_path, "fp32", channels=64)
    with backend.compile(model, EngineOptions(batch=2)) as engine:
        images = np.random.default_rng(1).normal(size=(5, 64, 28, 28)).astype(np.float32)
        expected = engine.run(images)["logits"]

    def built_again(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("scalesearch.deployment.backends.tensorrt.builder.build_plan", built_again)
    with backend.compile(model, EngineOptions(batch=2)) as engine:
        np.testing.assert_array_equal(engine.run(images)["logits"], expected)
    with pytest.raises(AssertionError, match="built again"):
        backend.compile(model, EngineOptions(batch=3))


def test_the_device_is_this_gpu(backend: TensorRtBackend) -> None:
    device = backend.device(1)
    assert device.name == torch.cuda.get_device_name()
    assert device.backend == backend.name
    assert device.features == (f"sm_{gpu_capability().replace('.', '')}",)


def test_the_automatic_target_is_this_gpu_where_tensorrt_runs() -> None:
    status = TensorRtBackend("tensorrt").probe()
    if not status.available:
        pytest.skip(f"tensorrt: {' '.join(status.reason.split())}")
    target, why = choose_target()
    assert target.backend == "tensorrt"
    assert target.compute_capability in ("", gpu_capability())
    assert gpu_name() in why


def _unknown_operator(folder: Path) -> OnnxModel:
    proto = small_graph()
    model = write_onnx(proto, folder / "wrong.onnx")
    proto.graph.node[1].op_type = "Frobnicate"
    onnx.save(proto, model.path)
    return model


def _truncated(folder: Path) -> OnnxModel:
    model = small_model(folder)
    model.path.write_bytes(model.path.read_bytes()[:500])
    return model


@pytest.mark.parametrize("make", [_unknown_operator, _truncated])
def test_a_file_that_cannot_be_built_is_a_failed_stage(
    backend: TensorRtBackend, tmp_path: Path, make: Callable[[Path], OnnxModel]
) -> None:
    model = make(tmp_path)
    with pytest.raises(StageFailed, match=rf"compile: .* refuses {model.path.name}"):
        backend.compile(model, EngineOptions())


@pytest.fixture
def _emptied() -> Iterator[None]:
    yield
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("_emptied")
def test_a_batch_beyond_the_memory_is_a_failed_stage_and_the_gpu_goes_on(
    backend: TensorRtBackend, tmp_path: Path
) -> None:
    image_bytes = 4 * 256 * 28 * 28
    beyond = torch.cuda.get_device_properties(0).total_memory // image_bytes + 1
    with pytest.raises(StageFailed):
        backend.compile(_wide_model(tmp_path, "fp32", channels=256, layers=1), EngineOptions(batch=int(beyond)))
    model = small_model(tmp_path)
    with backend.compile(model, EngineOptions()) as engine:
        np.testing.assert_allclose(engine.run(IMAGES)["logits"], _on_cpu(model, IMAGES), rtol=1e-3, atol=1e-3)
