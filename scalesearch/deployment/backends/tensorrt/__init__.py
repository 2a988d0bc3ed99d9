"""TensorRT and TensorRT for RTX as backends: the same code for two libraries with the same API."""

import contextlib
from pathlib import Path

from scalesearch.deployment.backends.base import Backend, BackendStatus, Engine, EngineOptions
from scalesearch.deployment.backends.runs import ensure_counts
from scalesearch.deployment.backends.tensorrt.library import TITLES, Flavour, load, probe
from scalesearch.deployment.backends.tensorrt.plans import PlanStore, engine_folder, plan_key
from scalesearch.deployment.devices import gpu_capability, gpu_device, gpu_name
from scalesearch.errors import MissingBackendError
from scalesearch.values.identity import content_hash
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import Device


class TensorRtBackend(Backend):
    """A backend that builds and opens engines on the NVIDIA GPU of this machine."""

    def __init__(self, flavour: Flavour, *, folder: Path | None = None) -> None:
        """Set the folder that keeps engines and timing caches (default: the user's cache); no library is loaded yet."""
        self._flavour: Flavour = flavour
        self._folder = folder or engine_folder()

    @property
    def name(self) -> str:
        """The backend's key in the registry."""
        return self._flavour

    def probe(self) -> BackendStatus:
        """Tell whether the library, a driver and a GPU are here; never raises."""
        return probe(self._flavour)

    def device(self, threads: int) -> Device:
        """Return the GPU's name and compute capability.

        Raises:
            MissingBackendError: There is no usable library or GPU.
        """
        status = self._usable()
        return gpu_device(backend=self.name, version=status.version, threads=threads)

    def compile(self, model: OnnxModel, options: EngineOptions) -> Engine:
        """Open an engine of the file, taken from the store if this program has built the same one before.

        Raises:
            MissingBackendError: There is no usable library or GPU.
            StageFailed: TensorRT refuses the file or cannot build it.
        """
        from scalesearch.deployment.backends.tensorrt.engine import TensorRtEngine

        plan = self.plan(model, options)
        return TensorRtEngine(load(self._flavour), plan, model, options)

    def plan(self, model: OnnxModel, options: EngineOptions) -> bytes:
        """Return the serialized engine of the file, which fits only this GPU and this version of the library.

        Raises:
            MissingBackendError: There is no usable library or GPU.
            StageFailed: TensorRT refuses the file or cannot build it.
        """
        from scalesearch.deployment.backends.tensorrt.builder import build_plan

        self._usable()
        ensure_counts(options)
        library = load(self._flavour)
        gpu = f"{gpu_name()} sm_{gpu_capability()}"
        named = f"{self._flavour} {library.version}"
        key = plan_key(onnx_sha256=model.sha256, library=named, gpu=gpu, batch=options.batch, settings=options.tensorrt)
        store = PlanStore(self._folder)
        plan = store.load(key)
        if plan is None:
            largest = max(options.batch, options.tensorrt.max_batch)
            smallest = 1 if options.tensorrt.max_batch else options.batch
            build = build_plan(
                library,
                model.path,
                options.tensorrt,
                batches=(smallest, options.batch, largest),
                timing_cache=self._folder / f"timing-{content_hash(named, gpu)}.bin",
            )
            plan = build.plan
            with contextlib.suppress(OSError):  # a full or read-only disk: the engine is built again the next time
                store.save(key, plan)
        return plan

    def _usable(self) -> BackendStatus:
        status = self.probe()
        if not status.available:
            raise MissingBackendError(status.reason)
        return status


def tensorrt_backend() -> Backend:
    """Make the backend of TensorRT."""
    return TensorRtBackend("tensorrt")


def tensorrt_rtx_backend() -> Backend:
    """Make the backend of TensorRT for RTX."""
    return TensorRtBackend("tensorrt_rtx")


__all__ = ["TITLES", "TensorRtBackend", "tensorrt_backend", "tensorrt_rtx_backend"]
