"""Compile a study's files, and time the engines in turn with the reference engine."""

import math

from scalesearch.compression.pattern_2_4 import as_in_file
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import Engine, EngineOptions
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.latency import measure_latency
from scalesearch.values.candidate import Pruning
from scalesearch.values.latency import Latency
from scalesearch.values.network import OnnxModel
from scalesearch.values.session import Session, reference_path

_UNPRUNED = Pruning()


class Timer:
    """Builds the engines of one study, all alike, and times them one after the other.

    Args:
        session: The study: its target, how engines are built and timed, and its reference engine.
    """

    def __init__(self, session: Session) -> None:
        self.backend = get_backend(session.target.backend)
        self._latency, self._tensorrt = session.settings.latency, session.settings.tensorrt
        self._calm_ms = self._calmest_ms = session.reference_calm_ms
        self._reference_file = reference_path(session.folder)
        self._reference: Engine | None = None

    def compile(self, model: OnnxModel, pruning: Pruning = _UNPRUNED) -> Engine:
        """Return the engine of a file; sparse kernels are allowed where the pruning made weights for them in it."""
        tensorrt = self._tensorrt.for_pruning(as_in_file(pruning, model.path))
        options = EngineOptions(threads=self._latency.threads, batch=self._latency.batch, tensorrt=tensorrt)
        return self.backend.compile(model, options)

    def open_reference(self) -> Engine:
        """Compile and return the reference engine, which `time` compares with; call this before it."""
        self._reference = self.compile(onnx_model(self._reference_file))
        return self._reference

    def time(self, engine: Engine, *, exact_ms: tuple[float, float] = (0.0, math.inf), brief: bool = False) -> Latency:
        """Return the latency of the engine: its ratio to the reference engine, times that engine's calm time.

        Args:
            engine: The engine.
            exact_ms: Range in which the latency must be known exactly.
            brief: Whether timing also ends where more time would hardly make the latency more exact.
        """
        assert self._reference is not None
        with wandering(self._latency.threads) as move:
            latency = measure_latency(
                engine,
                self._reference,
                settings=self._latency,
                reference_calm_ms=self._calm_ms,
                calmest_ms=self._calmest_ms,
                exact_ms=exact_ms,
                brief=brief,
                move=move,
            )
        self._calmest_ms = min(self._calmest_ms, latency.reference_lowest_ms or math.inf)
        return latency
