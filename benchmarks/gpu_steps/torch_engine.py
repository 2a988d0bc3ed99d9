"""A torch module as an engine of the `Engine` protocol, so that a GPU's clock can be judged without TensorRT."""

import time
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scalesearch.deployment.backends.base import LayerTime, TimingNotes
from scalesearch.deployment.backends.tensorrt.cuda_clock import CudaClock


class TorchEngine:
    """The module on its device, with a fixed input; on a GPU timed by `CudaClock`, on a CPU by the host's clock."""

    def __init__(
        self, module: nn.Module, image_shape: tuple[int, ...], *, device: str, batch: int, graph: bool
    ) -> None:
        """Take a module in eval mode and the shape (C, H, W) of its images."""
        self._module = module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        self._batch = batch
        images = np.random.default_rng(0).standard_normal((batch, *image_shape), dtype=np.float32)
        self._fixed = torch.from_numpy(images).to(device).contiguous(memory_format=torch.channels_last)
        self._clock: CudaClock | None = None
        if device == "cuda":
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own signature lacks types
            self._clock = CudaClock(self.enqueue, stream=stream, graph=graph)

    @torch.inference_mode()
    def enqueue(self) -> None:
        """Hand one run to the device."""
        self._module(self._fixed)

    @property
    def batch(self) -> int:
        """Images in each timed run."""
        return self._batch

    @property
    def captured(self) -> bool:
        """Whether timed runs are replays of a captured graph."""
        return self._clock is not None and self._clock.captured

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of images (N, C, H, W)."""
        answers: NDArray[np.float32] = self._module(torch.from_numpy(images).to(self._device)).float().cpu().numpy()
        return answers

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds of each of `count` runs, by the device's own clock."""
        if self._clock is not None:
            return self._clock.time_runs(count)
        times_s = []
        for _ in range(count):
            started_s = time.perf_counter()
            self.enqueue()
            times_s.append(time.perf_counter() - started_s)
        return tuple(times_s)

    def timing_notes(self) -> TimingNotes:
        """Enqueue time and doubts of the timed runs."""
        return self._clock.notes() if self._clock is not None else TimingNotes()

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Give no layers: this engine is for its clock."""
        return ()

    def close(self) -> None:
        """Let go of the module."""
        self._clock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
