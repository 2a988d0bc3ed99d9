"""ONNX Runtime on the CPU: compile an ONNX file to a session, run it and time it."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from scalesearch.deployment.backends.base import (
    Backend,
    BackendStatus,
    EngineOptions,
    LayerTime,
    TimingNotes,
)
from scalesearch.deployment.backends.onnxruntime_session import (
    NATIVE_ERRORS,
    Providers,
    native_reason,
    open_session,
    session_options,
)
from scalesearch.deployment.backends.runs import closed, ensure_images, time_on_host, timed_images
from scalesearch.deployment.devices import cpu_device
from scalesearch.errors import StageFailed
from scalesearch.host import images_at_once
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import Device

_CPU: Final[Providers] = ("CPUExecutionProvider",)
_IMAGES_A_RUN: Final = 64
"""Of small images; it limits the memory of activations when thousands are scored."""
_WARM_RUNS: Final = 5
_PRECISIONS: Final = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}
"""The usual precision name for each of the profiler's names of element types."""


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
        """Run images (N, C, H, W), a large N in parts of 64, or of fewer if the images are large.

        Returns:
            Arrays (N, ...) by the names of the outputs.

        Raises:
            StageFailed: The images have another shape or type than the model's input, or the native code failed.
        """
        ensure_images(images, self._image_shape, self._path)
        size = images_at_once(*self._image_shape[1:], most=_IMAGES_A_RUN)
        # An empty input is still run once, so that the outputs have the right shapes.
        starts = range(0, max(len(images), 1), size)
        parts = [self._run_once(images[start : start + size]) for start in starts]
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
            raise StageFailed(stage="run", reason=native_reason(error, self._path)) from error

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
                raise StageFailed(stage="run", reason=native_reason(error, self._path)) from error
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
            raise StageFailed(stage="run", reason=native_reason(error, self._path)) from error
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
