"""OpenVINO on the CPU: run the same Q/DQ graph that TensorRT takes, with int8 kernels."""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.backends.base import (
    Backend,
    BackendStatus,
    EngineOptions,
    LayerTime,
    TimingNotes,
)
from scalesearch.deployment.backends.runs import closed, ensure_counts, ensure_images, time_on_host, timed_images
from scalesearch.deployment.backends.signal_stack import signal_stack_kept
from scalesearch.deployment.devices import cpu_device
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import MissingBackendError, StageFailed
from scalesearch.plain_text import one_line
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import Device

if TYPE_CHECKING:
    import openvino

_NOT_INSTALLED: Final = (
    "OpenVINO is not installed, so there is nothing here to run target `openvino` with.\n"
    "Install it with: pip install 'scalesearch[openvino]'\n"
    "Without it, --target cpu measures on this CPU by ONNX Runtime."
)


class OpenVinoBackend(Backend):
    """A backend that compiles for the CPU of this machine."""

    name: Final = "openvino"

    def probe(self) -> BackendStatus:
        """Tell whether the package is installed; never raises."""
        if importlib.util.find_spec("openvino") is None:
            return BackendStatus(available=False, version="", reason=_NOT_INSTALLED)
        return BackendStatus(available=True, version=importlib.metadata.version("openvino"))

    def device(self, threads: int) -> Device:
        """Return the CPU's name and instruction sets.

        Raises:
            MissingBackendError: OpenVINO is not installed.
        """
        version = importlib.metadata.version("openvino") if self.probe().available else _missing()
        return cpu_device(backend=self.name, version=version, threads=threads)

    def compile(self, model: OnnxModel, options: EngineOptions) -> "OpenVinoEngine":
        """Compile the model for the lowest latency, at a fixed batch.

        The engine computes in the types that are in the file. Without a hint to do so, OpenVINO would run an fp32 file
        in bf16 or fp16 where the CPU has it, and the trial would not have the precision that it claims.

        Raises:
            MissingBackendError: OpenVINO is not installed.
            StageFailed: OpenVINO refuses the file.
        """
        if not self.probe().available:
            _missing()
        import openvino

        ensure_counts(options)
        try:
            read_onnx(model.path)  # read first, since OpenVINO's own parser writes to stderr about a damaged file
        except StageFailed as error:
            raise StageFailed(stage="compile", reason=error.reason) from error
        try:
            return OpenVinoEngine(openvino.Core(), model, options)
        except RuntimeError as error:  # the bindings' only error
            raise StageFailed(stage="compile", reason=_reason(error, model.path)) from error


class OpenVinoEngine:
    """A compiled model with one inference request, for timing and for scoring; see the `Engine` protocol."""

    @signal_stack_kept()
    def __init__(self, core: "openvino.Core", model: OnnxModel, options: EngineOptions) -> None:
        self._path = model.path
        self._batch = options.batch
        self._image_shape = model.input_shape[1:]
        self._hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._core = core
        self._model = core.read_model(model.path)
        self._model.reshape([self._batch, *self._image_shape])
        self._request: Any = core.compile_model(self._model, "CPU", self._hints).create_infer_request()
        self._timed_images = timed_images(self._batch, self._image_shape)
        self._bound = False

    @property
    def batch(self) -> int:
        """Number of images in each run."""
        return self._batch

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run images (N, C, H, W) in parts of the engine's batch; a short part is filled up with zeros.

        Returns:
            Arrays (N, ...) by the names of the outputs.

        Raises:
            StageFailed: The images have another shape or type than the model's input, or the native code failed.
        """
        request = self._open()
        ensure_images(images, self._image_shape, self._path)
        self._bound = False
        parts = {
            output.get_any_name(): [np.empty((0, *tuple(output.shape)[1:]), dtype=np.float32)]
            for output in request.model_outputs
        }
        try:
            for start in range(0, len(images), self._batch):
                part = images[start : start + self._batch]
                full = np.zeros((self._batch, *self._image_shape), dtype=np.float32)
                full[: len(part)] = part
                for found, answers in zip(parts.values(), request.infer([full]).values(), strict=True):
                    found.append(np.array(answers[: len(part)], dtype=np.float32))
        except RuntimeError as error:
            raise StageFailed(stage="run", reason=_reason(error, self._path)) from error
        return {name: np.concatenate(found) for name, found in parts.items()}

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Return the seconds of each of `count` runs; the input is set once, before the clock starts.

        Raises:
            StageFailed: The native code failed.
        """
        request = self._open()

        def once() -> None:
            request.start_async()
            request.wait()

        try:
            if not self._bound:
                request.infer([self._timed_images])
                self._bound = True
            return time_on_host(once, count)
        except RuntimeError as error:
            raise StageFailed(stage="run", reason=_reason(error, self._path)) from error

    @signal_stack_kept()
    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Measure the mean time of each executed node with OpenVINO's own counters, in a second compilation.

        Raises:
            StageFailed: The native code failed.
        """
        self._open()
        totals: dict[str, LayerTime] = {}
        try:
            compiled = self._core.compile_model(self._model, "CPU", {**self._hints, "PERF_COUNT": True})
            request = compiled.create_infer_request()
            request.infer([self._timed_images])
            for _ in range(runs):
                request.infer([self._timed_images])
                for node in request.profiling_info:
                    if node.real_time.total_seconds() > 0:
                        before = totals[node.node_name].mean_ms if node.node_name in totals else 0.0
                        totals[node.node_name] = LayerTime(
                            name=node.node_name,
                            kind=f"{node.node_type} {node.exec_type}",
                            precision=_precision(node.exec_type),
                            mean_ms=before + 1e3 * node.real_time.total_seconds() / runs,
                        )
        except RuntimeError as error:
            raise StageFailed(stage="run", reason=_reason(error, self._path)) from error
        return tuple(totals.values())

    def timing_notes(self) -> TimingNotes:
        """Return no notes, since host and device are the same."""
        return TimingNotes()

    @signal_stack_kept()
    def close(self) -> None:
        """Free the compiled model; calling it again does nothing."""
        self._request = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> Any:
        if self._request is None:
            raise closed(self._path)
        return self._request


def _precision(exec_type: str) -> str:
    """Return the precision in a kernel's name such as `brgconv_avx2_I8`.

    The last part of the name is the type that the kernel computes in.
    """
    return {"f32": "fp32", "i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "fp16"}.get(
        exec_type.rpartition("_")[2].lower(), ""
    )


def _missing() -> str:
    raise MissingBackendError(_NOT_INSTALLED)


def _reason(error: Exception, file: Path) -> str:
    return f"OpenVINO on {file.name}: {one_line(str(error))}"
