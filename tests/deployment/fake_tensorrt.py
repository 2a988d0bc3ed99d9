"""A TensorRT and a GPU that are not there: they do on the CPU what the real ones do, and insist on being asked rightly.

`FakeGpu` takes the place of the parts of `torch.cuda` that the engines use, with a clock that moves by what kernels
cost. `FakeTensorRt` takes the module's place: its engine multiplies images by a matrix. Every rule whose breach would
crash or be wrong on a GPU is an assertion here.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

IMAGE_SHAPE = (3, 8, 8)
CLASSES = 4
WEIGHTS = np.random.default_rng(0).normal(size=(192, CLASSES)).astype(np.float32)


def expected_logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a fake engine answers."""
    logits: NDArray[np.float32] = images.reshape(len(images), -1) @ WEIGHTS
    return logits


class FakeGpu:
    """Device memory, streams, events and graphs of torch, kept on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.costs_s: list[float] = [1e-3]
        """Of one run after the other, over and over."""
        self.capturable = True
        self.runs = 0
        self.replays = 0
        self.memory: dict[int, torch.Tensor] = {}
        """Device tensors by their address."""
        self._recorded: list[Callable[[], None]] | None = None
        self.current: Any = None
        real_zeros = torch.zeros

        def zeros(shape: Any, *, device: str) -> torch.Tensor:
            assert device == "cuda"
            tensor = real_zeros(shape)
            self.memory[tensor.data_ptr()] = tensor
            return tensor

        monkeypatch.setattr(torch, "zeros", zeros)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        gpu = self
        monkeypatch.setattr(torch.cuda, "Stream", lambda: FakeStream())
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: _FakeEvent(gpu, enable_timing))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: _FakeGraph(gpu))
        monkeypatch.setattr(torch.cuda, "stream", self._stream)
        monkeypatch.setattr(torch.cuda, "graph", self._capture)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Fake GPU")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))

    def launch(self, work: Callable[[], None]) -> None:
        """Run a kernel now, or record it while a graph is captured."""
        if self._recorded is not None:
            self._recorded.append(work)
        else:
            self.execute(work)

    def execute(self, work: Callable[[], None]) -> None:
        work()
        self.now_s += self.costs_s[self.runs % len(self.costs_s)]
        self.runs += 1

    @property
    def capturing(self) -> bool:
        return self._recorded is not None

    @contextlib.contextmanager
    def _stream(self, stream: Any) -> Iterator[None]:
        assert isinstance(stream, FakeStream)
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def _capture(self, graph: "_FakeGraph", *, stream: Any) -> Iterator[None]:
        assert isinstance(stream, FakeStream)
        self._recorded = []
        try:
            yield
            if not self.capturable:
                raise RuntimeError("CUDA error: operation not permitted\n when stream is capturing")
            graph.work = self._recorded
        finally:
            self._recorded = None


class FakeStream:
    """Not the default stream, whose handle is 0."""

    cuda_stream = 4711

    def synchronize(self) -> None: ...


class _FakeEvent:
    def __init__(self, gpu: FakeGpu, enable_timing: bool) -> None:
        assert enable_timing
        self._gpu = gpu
        self._at_s: float | None = None

    def record(self, stream: FakeStream) -> None:
        assert isinstance(stream, FakeStream)
        self._at_s = self._gpu.now_s

    def elapsed_time(self, end: "_FakeEvent") -> float:
        assert self._at_s is not None
        assert end._at_s is not None
        return 1e3 * (end._at_s - self._at_s)


class _FakeGraph:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.work: list[Callable[[], None]] = []

    def replay(self) -> None:
        assert self.work, "replayed before it was captured"
        self._gpu.replays += 1
        for work in self.work:
            self._gpu.execute(work)


class FakeTensorRt:
    """The module. `fails` holds the steps that shall fail: build, deserialize, context, second context, execute."""

    __version__ = "11.4.0.106"

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

    class IProfiler: ...

    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="tf32", SPARSE_WEIGHTS="sparse weights")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.fails: set[str] = set()
        self.logger: Any = None
        self.configs: list[Any] = []
        """One for every build."""

    def fail(self, step: str) -> bool:
        """Whether this step fails; if so, the logger is told first, as the real one is."""
        if step in self.fails:
            self.logger.log(self.ILogger.Severity.ERROR, f"[native.cpp::{step}] Error Code 2:\n OutOfMemory ({step})")
        return step in self.fails

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        assert logger is self.logger
        return _FakeBuilder(self)

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        assert logger is self.logger
        return SimpleNamespace(parse_from_file=lambda path: True)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        assert logger is self.logger
        return _FakeRuntime(self)


class _FakeBuilder:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def create_network(self, flags: int) -> Any:
        assert flags == 1 << self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        image = SimpleNamespace(name="image", shape=(-1, *IMAGE_SHAPE))
        return SimpleNamespace(num_inputs=1, get_input=lambda index: image)

    def create_builder_config(self) -> "_FakeConfig":
        return _FakeConfig()

    def create_optimization_profile(self) -> "_FakeOptimizationProfile":
        return _FakeOptimizationProfile()

    def build_serialized_network(self, network: Any, config: "_FakeConfig") -> bytes | None:
        assert config.profiles, "a dynamic batch without a profile"
        if self._trt.fail("build"):
            return None
        self._trt.configs.append(config)
        return b"plan of a fake engine"


class _FakeOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}

    def set_shape(self, name: str, least: Any, best: Any, largest: Any) -> None:
        assert least <= best <= largest
        self.shapes[name] = (least, best, largest)


class _FakeTimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"."


class _FakeConfig:
    def __init__(self) -> None:
        self.flags = {"tf32"}  # on by default in the real one
        self.limits: dict[str, int] = {}
        self.profiles: list[_FakeOptimizationProfile] = []
        self.caches: list[bytes] = []
        self.builder_optimization_level = 3
        self.profiling_verbosity = "layer names only"

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size_bytes: int) -> None:
        self.limits[pool] = size_bytes

    def add_optimization_profile(self, profile: _FakeOptimizationProfile) -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, content: bytes) -> _FakeTimingCache:
        return _FakeTimingCache(content)

    def set_timing_cache(self, cache: _FakeTimingCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.caches.append(cache.content)
        return not cache.content.startswith(b"of another version")


class _FakeRuntime:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt

    def deserialize_cuda_engine(self, plan: bytes) -> "_FakeEngine | None":
        if plan != b"plan of a fake engine" or self._trt.fail("deserialize"):
            return None
        return _FakeEngine(self._trt)


class _FakeEngine:
    num_io_tensors = 2

    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self._contexts = 0

    def get_tensor_name(self, index: int) -> str:
        return ("logits", "image")[index]

    def get_tensor_mode(self, name: str) -> str:
        return {"image": "input", "logits": "output"}[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {"image": (-1, *IMAGE_SHAPE), "logits": (-1, CLASSES)}[name]

    def create_execution_context(self) -> "_FakeContext | None":
        self._contexts += 1
        return (
            None if self._trt.fail("context" if self._contexts == 1 else "second context") else _FakeContext(self._trt)
        )

    def create_engine_inspector(self) -> Any:
        layers = {"Layers": [{"Name": "conv", "LayerType": "correlation", "Inputs": [{"Format/Datatype": "Half"}]}]}
        inspector = SimpleNamespace(execution_context=None)

        def information(form: str) -> str:
            assert form == "json"
            assert inspector.execution_context is not None
            return json.dumps(layers)

        inspector.get_engine_information = information
        return inspector


class _FakeContext:
    def __init__(self, trt: FakeTensorRt) -> None:
        self._trt = trt
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "image"
        assert shape[1:] == IMAGE_SHAPE
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address in self._trt.gpu.memory, "no address of the device"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == FakeStream.cuda_stream, "the default stream, or none of ours"
        assert self._addresses.keys() == {"image", "logits"}, "run before every tensor has its address"
        assert self._shapes.keys() == {"image"}, "run before the batch is known"
        if self._trt.fail("execute") or (self._trt.gpu.capturing and self._trt.fail("captured execute")):
            return False
        images, logits = (self._trt.gpu.memory[self._addresses[name]] for name in ("image", "logits"))
        count = self._shapes["image"][0]
        assert count <= len(images)

        def kernel() -> None:
            logits[:count] = torch.from_numpy(expected_logits(images[:count].numpy()))

        self._trt.gpu.launch(kernel)
        if self.profiler is not None:
            for name, ms in (("conv", 0.75), ("reformat", 0.25)):
                self.profiler.report_layer_time(name, ms)
        return True
