"""Times a network before it is trained, so that one that is surely too slow costs no training."""

import contextlib
from pathlib import Path
from statistics import NormalDist
from typing import Final

from scalesearch.chain.deploy import Deployer
from scalesearch.chain.gains import TwinStore
from scalesearch.chain.planner import layer_shapes
from scalesearch.chain.stages import StageClock
from scalesearch.chain.timer import Timer
from scalesearch.data import Dataset
from scalesearch.errors import CandidateRejected, StageFailed
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.values.identity import content_hash
from scalesearch.values.latency import Latency
from scalesearch.values.network import Network
from scalesearch.values.plan import Plan
from scalesearch.values.quality import Z_975
from scalesearch.values.session import Session
from scalesearch.values.space import LATENCY_LIMIT

FOLDER: Final = "untrained"


class Outlook:
    """Rejects plans whose networks are surely slower than the space's `max_latency_ms`, by timing them untrained.

    Latency does not depend on the weights, but on shape and precision. A study without that limit times nothing here.
    Each shape and precision is timed once per study.
    """

    def __init__(self, session: Session, lock: DeviceLock, deploy: Deployer, timer: Timer) -> None:
        self._limit_ms = session.space.limits.max_latency_ms
        self._lock, self._deploy, self._timer = lock, deploy, timer
        self._known = TwinStore(session.folder, FOLDER)

    def check(self, plan: Plan, data: Dataset, path: Path, stages: StageClock) -> None:
        """Time the plan's network untrained, and reject the plan if the network is surely too slow.

        Nothing is timed without a latency limit, if the latency may change by training, or if the weights are stored.

        Args:
            plan: The candidate's plan.
            data: The study's images at the network's resolution, for the ranges of its activations.
            path: Where the trial's file will be. The untrained network's file is put next to it, and then removed.
            stages: Announces the stage `untrained`.

        Raises:
            CandidateRejected: The whole 95 % interval of the latency lies above the limit.
        """
        if self._limit_ms is None or not _is_told(plan) or self._deploy.is_trained(plan):
            return
        with stages("untrained"):
            network = self._deploy.untrained(plan)
        key = content_hash(layer_shapes(network), plan.spec.input_size.sides, plan.candidate.quantization.precision)
        with contextlib.suppress(StageFailed):  # the trained network may work, or fail for a clearer reason
            latency = self._known.latency(key, lambda: self._timed(network, plan, data, path, stages), coarse=True)
            if latency.p50_low_ms > self._limit_ms:
                reason = (
                    f"{LATENCY_LIMIT}: untrained, it takes {latency.p50_ms:.3g} ms ({latency.p50_low_ms:.3g} to "
                    f"{latency.p50_high_ms:.3g}), above {self._limit_ms:g} with a probability of "
                    f"{_words(_probability_above(latency, self._limit_ms))}"
                )
                raise CandidateRejected(reason, limit=LATENCY_LIMIT, excess=latency.p50_ms / self._limit_ms - 1)

    def _timed(self, network: Network, plan: Plan, data: Dataset, path: Path, stages: StageClock) -> Latency:
        file = path.with_suffix(".untrained.onnx")
        try:
            with stages("untrained"):
                model = self._deploy.untrained_file(network, plan.candidate.quantization, data, file)
                engine = self._timer.compile(model)
            with engine, stages.held(self._lock.quiet()), stages("untrained"):
                limit_ms = self._limit_ms or 0.0  # it is enough to know whether the latency is above it
                return self._timer.time(engine, exact_ms=(limit_ms, limit_ms))
        finally:
            file.unlink(missing_ok=True)


def _is_told(plan: Plan) -> bool:
    """Tell whether an untrained network is as fast as the trained one will be.

    It is not if the shape, the zeros or the choice of layers that stay in float depend on the trained weights.
    """
    pruning, quantization = plan.pruning, plan.candidate.quantization
    return not pruning.shape_follows_weights and pruning.sparsity == "none" and quantization.float_layers == 0


def _probability_above(latency: Latency, limit_ms: float) -> float:
    """Return the probability that the latency is above the limit, for a normal distribution with its interval."""
    deviation_ms = (latency.p50_high_ms - latency.p50_low_ms) / (2 * Z_975)
    return 1 - NormalDist(latency.p50_ms, deviation_ms).cdf(limit_ms) if deviation_ms > 0 else 1.0


def _words(probability: float) -> str:
    return "over 99.9 %" if probability > 0.999 else f"{100 * probability:.1f} %"
