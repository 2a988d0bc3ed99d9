"""Times the same network without a compression step, to tell what that step brought."""

from collections.abc import Callable
from dataclasses import replace

from scalesearch.chain.deploy import Deployed, Deployer
from scalesearch.chain.gains import TwinStore, gain
from scalesearch.chain.planner import layer_shapes
from scalesearch.chain.stages import StageClock
from scalesearch.chain.timer import Timer
from scalesearch.data import Dataset
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.values.candidate import Pruning
from scalesearch.values.identity import content_hash
from scalesearch.values.latency import Latency
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.record import Gain, StepScore
from scalesearch.values.session import Session

_UNPRUNED = Pruning()
_ROUGHLY = (0.0, 0.0)
"""Range in which a latency must be exact: none, since a rough latency is enough for a twin."""


class Twins:
    """Compares each compression step of a trial with the same network without that step.

    A twin's latency depends on its shape and not on its weights, so each shape is timed once per study: as a twin, to
    `latency.coarse_half_width`, or as a trial in fp32. An adaptive study needs all gains, so the twins of every trial
    are timed. Otherwise only those of trials near the front are timed, and other trials use the twins already known.
    """

    def __init__(self, session: Session, lock: DeviceLock, deploy: Deployer, timer: Timer) -> None:
        self._of_all = session.settings.adaptive
        self._lock, self._deploy, self._timer = lock, deploy, timer
        self._known = TwinStore(session.folder)

    def gains(
        self,
        plan: Plan,
        work: Deployed,
        measured: tuple[Latency, tuple[StepScore, ...]],
        data: Dataset,
        stages: StageClock,
        *,
        near: bool,
    ) -> tuple[Gain, ...]:
        """Return what each compression step brought, as far as its twin is known or worth timing.

        The pruned network is compared with the dense one, both in fp32, then the precision with fp32. After updates
        that simulate rounding, the score in fp32 is that of the network without such updates, if one was trained.

        Args:
            plan: The trial's plan.
            work: Its networks and files.
            measured: Its latency, and its scores step by step.
            data: The study's images at the network's resolution.
            stages: Announces the stage `twin`.
            near: Whether the trial is near the front.
        """
        (latency, steps), found = measured, list[Gain]()
        precision, timed = plan.candidate.quantization.precision, near or self._of_all
        same = _key(plan, work.shrunk.network, plan.pruning.sparsity)
        as_fp32: Latency | None = latency
        if precision != "fp32":
            as_fp32 = self._twin(same, lambda: work.float_model, stages, timed=timed, pruning=plan.pruning)
        else:
            self._known.latency(same, lambda: latency, coarse=latency.coarse)
        if plan.pruning.any:
            key = _key(plan, work.shrunk.dense, "none")
            dense = self._twin(key, lambda: self._deploy.dense_file(work, data), stages, timed=timed)
            whole = work.shrunk.dense_score
            change = None if whole is None else work.shrunk.training.float_score - whole
            if dense and as_fp32:
                what = plan.pruning.label
                found.append(
                    gain("pruning", what, without=dense, having=as_fp32, score_change=change, coarse=latency.coarse)
                )
        if precision != "fp32" and as_fp32:
            before: float | None = next(step.score for step in steps if step.step == "onnx_fp32")
            if plan.candidate.quantization.aware_steps:  # its own fp32 file has the weights that rounding trained
                before = self._deploy.float_score(plan)
            change = None if before is None else steps[-1].score - before
            what = plan.candidate.quantization.label
            found.append(
                gain("precision", what, without=as_fp32, having=latency, score_change=change, coarse=latency.coarse)
            )
        return tuple(found)

    def _twin(
        self,
        key: str,
        file: Callable[[], OnnxModel],
        stages: StageClock,
        *,
        timed: bool,
        pruning: Pruning = _UNPRUNED,
    ) -> Latency | None:
        """Return the fp32 latency of a network to compare with; None if it is not known and is not to be `timed`.

        `pruning` is what was done to the network: zeros that it made are computed by the same kernels as the trial's.
        """

        def measure() -> Latency:
            with stages.held(self._lock.busy()), stages("twin"):
                engine = self._timer.compile(file(), pruning)
            with engine, stages.held(self._lock.quiet()), stages("twin"):
                return self._timer.time(engine, exact_ms=_ROUGHLY, brief=True)

        return self._known.latency(key, measure, coarse=True) if timed else self._known.stored(key)


def _key(plan: Plan, network: Network, sparsity: str) -> str:
    """Return what the fp32 latency of a network depends on: its structure, shape, image size and sparsity."""
    spec = replace(plan.spec, name="")
    return content_hash(spec, layer_shapes(network), plan.spec.input_size.sides, sparsity)
