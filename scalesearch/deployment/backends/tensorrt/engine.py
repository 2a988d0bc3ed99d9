"""An open TensorRT engine: buffers, stream, events and graphs come from torch, the plan from TensorRT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.deployment.backends.base import EngineOptions, LayerTime, TimingNotes
from scalesearch.deployment.backends.runs import closed, ensure_images, timed_images
from scalesearch.deployment.backends.tensorrt.cuda_clock import CudaClock
from scalesearch.deployment.backends.tensorrt.layers import inspected
from scalesearch.deployment.backends.tensorrt.library import Library, logger_of
from scalesearch.errors import StageFailed
from scalesearch.plain_text import one_line
from scalesearch.values.network import OnnxModel

_STAGE: Final = "run"


class TensorRtEngine:
    """A deserialized plan with its execution context; see the `Engine` protocol.

    Input images and outputs are float32; narrower types occur only inside the graph.
    """

    def __init__(self, library: Library, plan: bytes, model: OnnxModel, options: EngineOptions) -> None:
        """Open the plan on the current GPU.

        Raises:
            StageFailed: TensorRT refuses the plan, or there is too little memory for its context or the batch.
        """
        trt = library.trt
        self._library = library
        self._path: Path = model.path
        self._image_shape = model.input_shape[1:]
        self._options = options
        library.messages.take()
        self._runtime = trt.Runtime(logger_of(library))
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._failure("does not load its engine")  # noqa: EM101
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise self._failure("has too little memory for the engine's context")  # noqa: EM101
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        (self._input_name,) = (n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT)
        outputs = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own signature lacks types
        self._largest = max(options.batch, options.tensorrt.max_batch)
        try:
            self._images = torch.zeros((self._largest, *self._image_shape), device="cuda")
            self._outputs = {
                name: torch.zeros((self._largest, *tuple(self._engine.get_tensor_shape(name))[1:]), device="cuda")
                for name in outputs
            }
        except torch.OutOfMemoryError as error:
            reason = f"the GPU has too little memory for a batch of {self._largest} of {model.path.name}"
            raise StageFailed(_STAGE, reason) from error
        self._clock: CudaClock | None = None

    @property
    def batch(self) -> int:
        """Number of images in each timed run."""
        return self._options.batch

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run images (N, C, H, W) in parts of the engine's largest batch.

        A short part is filled up to that batch.

        Returns:
            Arrays (N, ...) by the names of the outputs.

        Raises:
            StageFailed: The images have another shape or type than the model's input, or TensorRT failed.
        """
        self._ensure_open()
        ensure_images(images, self._image_shape, self._path)
        size = self._largest
        answers = {
            name: np.empty((len(images), *buffer.shape[1:]), dtype=np.float32) for name, buffer in self._outputs.items()
        }
        for start in range(0, len(images), size):
            # Copied because one image of a reversed array counts as contiguous, but has a negative stride, which torch
            # refuses.
            part = torch.from_numpy(images[start : start + size].copy())
            with torch.cuda.stream(self._stream):
                self._images[: len(part)].copy_(part)
                self._enqueue(size)
                self._stream.synchronize()
                for name, buffer in self._outputs.items():
                    answers[name][start : start + len(part)] = buffer[: len(part)].cpu().numpy()
        return answers

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Return the GPU seconds of each of `count` runs, on the same seeded images.

        Raises:
            StageFailed: TensorRT failed.
        """
        self._ensure_open()
        if self._clock is None:
            self._clock = self._new_clock()
        return self._clock.time_runs(count)

    def timing_notes(self) -> TimingNotes:
        """Return the enqueue time and the doubts about the timed runs."""
        return self._clock.notes() if self._clock else TimingNotes()

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Measure the mean time of each kernel with a profiler in a separate context.

        Kind and precision of each kernel come from the engine inspector.

        Raises:
            StageFailed: TensorRT failed.
        """
        self._ensure_open()
        trt = self._library.trt
        totals: dict[str, float] = {}

        class Profiler(trt.IProfiler):  # type: ignore[name-defined, misc]  # a class of an untyped module
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                totals[layer_name] = totals.get(layer_name, 0.0) + ms / runs

        context = self._engine.create_execution_context()
        if context is None:
            raise self._failure("has too little memory for a second context")  # noqa: EM101
        profiler = Profiler()
        self._enqueue(self.batch, context)
        context.profiler = profiler
        for _ in range(runs):
            self._enqueue(self.batch, context)
            self._stream.synchronize()
        kinds = inspected(self._inspect())
        return tuple(
            LayerTime(name=name, kind=kinds.get(name, ("", ""))[0], precision=kinds.get(name, ("", ""))[1], mean_ms=ms)
            for name, ms in totals.items()
        )

    def _inspect(self) -> str:
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._library.trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Free context, engine and buffers; calling it again does nothing."""
        self._clock = None
        self._context = self._engine = self._runtime = None
        self._images, self._outputs = torch.empty(0), {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _new_clock(self) -> CudaClock:
        host = torch.from_numpy(timed_images(self.batch, self._image_shape)).pin_memory()
        self._images[: self.batch].copy_(host)
        launch: Callable[[], None] = lambda: self._enqueue(self.batch)  # noqa: E731  (a closure over the bound method)
        if self._options.tensorrt.copies:
            answers = {
                name: torch.empty((self.batch, *buffer.shape[1:])).pin_memory()
                for name, buffer in self._outputs.items()
            }

            def with_copies() -> None:
                self._images[: self.batch].copy_(host, non_blocking=True)
                self._enqueue(self.batch)
                for name, buffer in self._outputs.items():
                    answers[name].copy_(buffer[: self.batch], non_blocking=True)

            launch = with_copies
        return CudaClock(launch, stream=self._stream, graph=self._options.tensorrt.cuda_graph)

    def _enqueue(self, batch: int, context: Any = None) -> None:
        context = context or self._context
        context.set_input_shape(self._input_name, (batch, *self._image_shape))
        context.set_tensor_address(self._input_name, self._images.data_ptr())
        for name, buffer in self._outputs.items():
            context.set_tensor_address(name, buffer.data_ptr())
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise self._failure("failed to run the engine")  # noqa: EM101

    def _ensure_open(self) -> None:
        if self._context is None:
            raise closed(self._path)

    def _failure(self, what: str) -> StageFailed:
        said = self._library.messages.take().errors
        why = f": {one_line(said[0], 200)}" if said else ""
        return StageFailed(_STAGE, f"{self._library.title} {what} of {self._path.name}{why}")
