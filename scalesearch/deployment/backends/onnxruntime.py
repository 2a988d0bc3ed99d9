"""ONNX Runtime on the CPU: compile an ONNX file to a session, run it and time it."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without stubs
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from scalesearch.deployment.backends.base import (
    Backend,
    BackendStatus,
    EngineOptions,
    LayerTime,
    TimingNotes,
)
from scalesearch.deployment.backends.runs import closed, ensure_counts, ensure_images, time_on_host, timed_images
from scalesearch.deployment.cpu import cpu_device
from scalesearch.errors import StageFailed
from scalesearch.plain_text import one_line
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.target import Device

# The bindings raise a different class for each status code, with no common base except Exception. For inputs of a wrong
# shape or type, the binding layer raises ValueError or RuntimeError.
NATIVE_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
_LOG_NOTHING: Final = 4  # ORT's "fatal": its errors reach the user in our exception, so not in stderr as well
_CPU: Final = ("CPUExecutionProvider",)
_IMAGES_A_RUN: Final = 64  # limits the memory of activations when thousands of images are scored
_WARM_RUNS: Final = 5
_PRECISIONS: Final = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}
"""The usual precision name for each of the profiler's names of element types."""

Providers = tuple[str | tuple[str, dict[str, str]], ...]
"""Names of execution providers, some of them with options, in the order of preference."""


class OnnxRuntimeBackend(Backend):
    """A backend that compiles for the CPU of this machine."""

    name: Final = "onnxruntime"

    def probe(self) -> BackendStatus:
        """Report that it is available, as it always is: ONNX Runtime is a core dependency."""
        return BackendStatus(available=True, version=str(ort.__version__))

    def device(self, threads: int) -> Device:
        """Return the CPU's name and the instruction sets by which ONNX Runtime chooses its kernels."""
        return cpu_device(backend=self.name, version=str(ort.__version__), threads=threads)

    def compile(self, model: OnnxModel, options: EngineOptions) -> "OnnxRuntimeEngine":
        """Open a session with every graph optimization on.

        Raises:
            StageFailed: The file is missing or corrupt, or holds an operator that the CPU provider lacks.
        """
        return OnnxRuntimeEngine(open_session(model, options, _CPU), model, options)


class OnnxRuntimeEngine:
    """An open session; see the `Engine` protocol."""

    def __init__(
        self,
        session: ort.InferenceSession,
        model: OnnxModel,
        options: EngineOptions,
        *,
        providers: Providers = _CPU,
        memory: str = "cpu",
    ) -> None:
        """Take an open session.

        Args:
            session: The session.
            model: The model that it was opened from.
            options: How it is timed.
            providers: The execution providers with which a second session like it is opened, for profiling.
            memory: The device in whose memory timed runs keep their images.
        """
        self._providers, self._memory = providers, memory
        self._session: ort.InferenceSession | None = session
        self._path = model.path
        self._batch = options.batch
        self._threads = options.threads
        self._input_name = session.get_inputs()[0].name
        self._output_names = [output.name for output in session.get_outputs()]
        self._image_shape = model.input_shape[1:]
        self._binding: ort.IOBinding | None = None

    @property
    def batch(self) -> int:
        """Number of images in each timed run."""
        return self._batch

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run images (N, C, H, W), a large N in parts of 64.

        Returns:
            Arrays (N, ...) by the names of the outputs.

        Raises:
            StageFailed: The images have another shape or type than the model's input, or the native code failed.
        """
        ensure_images(images, self._image_shape, self._path)
        # An empty input is still run once, so that the outputs have the right shapes.
        starts = range(0, max(len(images), 1), _IMAGES_A_RUN)
        parts = [self._run_once(images[start : start + _IMAGES_A_RUN]) for start in starts]
        return dict(zip(self._output_names, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Return the seconds of each of `count` runs.

        Input and output stay bound, which takes about 8 us less per run than passing the input each time.

        Raises:
            StageFailed: The native code failed.
        """
        session = self._open_session()
        try:
            return time_on_host(partial(session.run_with_iobinding, self._fixed_binding(session)), count)
        except NATIVE_ERRORS as error:
            raise StageFailed(stage="run", reason=_reason(error, self._path)) from error

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Measure the mean time of each node with ONNX Runtime's own profiler, in a second session.

        Raises:
            StageFailed: The native code failed.
        """
        self._open_session()
        images = timed_images(self._batch, self._image_shape)
        with tempfile.TemporaryDirectory() as folder:
            options = session_options(self._threads, self._path)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            try:
                session = ort.InferenceSession(str(self._path), options, providers=list(self._providers))
                for _ in range(runs + _WARM_RUNS):
                    session.run(self._output_names, {self._input_name: images})
                events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            except NATIVE_ERRORS as error:
                raise StageFailed(stage="run", reason=_reason(error, self._path)) from error
        return _layer_times(events, runs)

    def timing_notes(self) -> TimingNotes:
        """Return no notes, since host and device are the same."""
        return TimingNotes()

    def close(self) -> None:
        """Free the session and its threads; calling it again does nothing."""
        self._binding = None
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_session(self) -> ort.InferenceSession:
        if self._session is None:
            raise closed(self._path)
        return self._session

    def _run_once(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        session = self._open_session()
        try:
            outputs = session.run(self._output_names, {self._input_name: images})
        except NATIVE_ERRORS as error:
            raise StageFailed(stage="run", reason=_reason(error, self._path)) from error
        return [np.asarray(output, dtype=np.float32) for output in outputs]

    def _fixed_binding(self, session: ort.InferenceSession) -> ort.IOBinding:
        """Bind the timed images and buffers for the outputs, once."""
        if self._binding is None:
            images = timed_images(self._batch, self._image_shape)
            outputs = self._run_once(images)
            binding = session.io_binding()
            binding.bind_ortvalue_input(self._input_name, self._held(images))
            for name, output in zip(self._output_names, outputs, strict=True):
                binding.bind_ortvalue_output(name, self._held(output))
            self._binding = binding
        return self._binding

    def _held(self, array: NDArray[np.float32]) -> ort.OrtValue:
        """Put the array into the memory where timed runs keep their images."""
        return ort.OrtValue.ortvalue_from_numpy(array, self._memory, 0)


def _layer_times(events: list[dict[str, Any]], runs: int) -> tuple[LayerTime, ...]:
    """Compute each node's mean time over its last `runs` runs; the earlier runs were for warming up."""
    kernels: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kernels.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event)
    return tuple(
        LayerTime(
            name=name,
            kind=str(found[-1]["args"].get("op_name", "")),
            precision=_precision(found[-1]["args"]),
            mean_ms=sum(event["dur"] for event in found[-runs:]) / runs / 1e3,
        )
        for name, found in kernels.items()
    )


def _precision(arguments: dict[str, Any]) -> str:
    """Return the precision of the first typed input, which the profiler lists as [{"float": [1, 3, 64, 64]}, ...]."""
    kinds = [kind for entry in arguments.get("input_type_shape", []) for kind in entry]
    return _PRECISIONS.get(kinds[0], kinds[0]) if kinds else ""


def open_session(model: OnnxModel, options: EngineOptions, providers: Providers) -> ort.InferenceSession:
    """Open a session with every graph optimization on.

    Raises:
        StageFailed: The file is missing or corrupt, holds an operator that the providers lack, or is too large for
            their memory.
    """
    ensure_counts(options)
    try:
        how = session_options(options.threads, model.path)
        return ort.InferenceSession(str(model.path), how, providers=list(providers))
    except NATIVE_ERRORS as error:
        raise StageFailed(stage="compile", reason=_reason(error, model.path)) from error


def session_options(threads: int, file: Path) -> ort.SessionOptions:
    """Return the options of all our sessions: all optimizations, a fixed number of threads, no spinning and no log.

    A file in TensorRT's style is an exception: it is run without optimizations.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_DISABLE_ALL if _is_in_tensorrts_style(file) else level.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_NOTHING
    # Candidate and reference are open at the same time and run in turn: a thread pool that spins while idle would take
    # the cores from the one that is being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _is_in_tensorrts_style(file: Path) -> bool:
    """Tell whether the file has fp8, or 8-bit values with half-precision scales, as TensorRT's files do.

    ONNX Runtime 1.32 rewrites such graphs wrongly and refuses some. Its WeightBiasQuantization casts bias / (scales) to
    fp16, which overflows: on a trained network's fp8 file, agreement with fp32 fell from 0.995 to 0.33. ClipQuantFusion
    refuses some graphs. Without optimizations they are slow but correct; they are only scored here and never timed.
    """
    try:
        graph = onnx.load(file, load_external_data=False).graph
    except (OSError, DecodeError):  # the session gives a better message
        return False
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    scales = {node.input[1] for node in graph.node if node.op_type == "DequantizeLinear"}
    halves = any(kinds.get(name) == onnx.TensorProto.FLOAT16 for name in scales)
    return halves or onnx.TensorProto.FLOAT8E4M3FN in kinds.values()


def _reason(error: Exception, file: Path) -> str:
    return f"ONNX Runtime on {file.name}: {one_line(str(error))}"
