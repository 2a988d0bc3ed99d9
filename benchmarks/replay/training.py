"""Trains the networks of one trunk, in a worker process: the lines of accuracy for the table."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from worker_processes import end_with_parent

from replay.lines import Line
from replay.shapes import Shape
from scalesearch.chain.deploy import Deployed, Deployer
from scalesearch.chain.planner import Planner
from scalesearch.chain.scorer import Scorer
from scalesearch.chain.stages import StageClock
from scalesearch.data import Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.tasks.registry import get_task
from scalesearch.values.network import OnnxModel
from scalesearch.values.plan import Plan
from scalesearch.values.session import Session

DIGITS: Final = 6
TRAINING_STAGES: Final = ("train", "prune", "retrain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Work of one worker: all networks of one trunk, at one length, from one seed."""

    shapes: tuple[Shape, ...]
    steps: int
    seed: int


_held: list[tuple[Session, Dataset]] = []
"""One entry in a worker process, made once by `load`."""


def load(session: Session) -> None:
    """Read the images of the session: the initializer of a worker process."""
    end_with_parent()
    _held.append((session, load_study_data(session, get_task(session.settings.task).sources())))


def groups(trunks: Sequence[Shape], shapes: Sequence[Shape], steps: Sequence[int], seeds: Sequence[int]) -> list[Group]:
    """Return all work in the order in which it is done: seed by seed, shorter trunks before those that continue them.

    So the first seed of all networks is complete early, and a search can be replayed on it.
    """
    return [
        Group(shapes=tuple(shape for shape in shapes if shape.trunk == trunk), steps=length, seed=seed)
        for seed in seeds
        for length in sorted(steps)
        for trunk in trunks
    ]


def train_group(group: Group) -> list[Line]:
    """Return the lines of a group: each network in fp32 and int8, scored on validation and test images.

    Cut networks are trained first: their training is told as trunk and branch, and the dense network's as a whole. The
    seconds of the trunk are then taken off those of the dense network. A stored trunk tells the seconds that it took.
    """
    session, dataset = _held[0]
    session = replace(session, settings=replace(session.settings, seed=group.seed))
    task, lock = get_task(session.settings.task), DeviceLock(MEASURED_DEVICE)
    planner, deploy = Planner(session), Deployer(session, task, lock, None)
    score = Scorer(task, session.data, threads=1)
    lines, trunk_s = list[Line](), 0.0
    for shape in sorted(group.shapes, key=lambda each: -each.cut):
        plan = planner(shape.candidate(steps=group.steps, precision="int8"))
        data = dataset.at(plan.spec.input_size)
        clock = StageClock(paused_s=lambda: lock.paused_s)
        with tempfile.TemporaryDirectory() as scratch, lock.busy():
            started_s, started_cpu_s = time.perf_counter() - lock.paused_s, time.process_time()
            work = deploy(plan, data, Path(scratch) / "m.onnx", clock)
            cpu_s = time.process_time() - started_cpu_s
            spent_s = time.perf_counter() - lock.paused_s - started_s
            training = work.shrunk.training
            if shape.cut:
                trunk_s, branch_s = training.train_s, training.retrain_s
            else:
                trunk_s = trunk_s or training.train_s * (1 - plan.branch_updates / group.steps)
                branch_s = max(0.0, training.train_s - trunk_s)
            seconds = {
                "trunk_s": trunk_s,
                "branch_s": branch_s,
                "cpu_share": min(1.0, cpu_s / spent_s),
                **{f"{name}_s": _stage_s(clock, name) for name in ("prune", "export", "quantize")},
            }
            lines += _scored(group, shape, work, data, score, seconds)
    return lines


def _stage_s(clock: StageClock, name: str) -> float:
    return sum(each.seconds for each in clock.times if each.stage == name)


def _scored(
    group: Group, shape: Shape, work: Deployed, data: Dataset, score: Scorer, seconds: dict[str, float]
) -> list[Line]:
    """Return the network's line in each precision."""
    lines, training = list[Line](), work.shrunk.training
    files: dict[str, OnnxModel] = {"fp32": work.float_model, "int8": work.model}
    for precision, model in files.items():
        started_s = time.perf_counter()
        val = score.onnx_score(model, data.val)
        score_s = time.perf_counter() - started_s
        line: Line = {
            "kind": "accuracy",
            "network": shape.name,
            "precision": precision,
            "steps": group.steps,
            "seed": group.seed,
            "val": val,
            "test": score.onnx_score(model, data.test),
            **seconds,
            "score_s": score_s,
            "safe_recipe_used": training.safe_recipe_used,
        }
        if precision == "fp32":
            curves = [[curve.steps, *curve.losses] for curve in training.loss_curves]
            line |= {"float_val": training.float_score, "losses": [[_rounded(loss) for loss in c] for c in curves]}
        lines.append({name: _rounded(value) for name, value in line.items()})
    return lines


def _rounded(value: object) -> object:
    return round(value, DIGITS) if isinstance(value, float) else value


def network_line(shape: Shape, plan: Plan) -> Line:
    """Return what is known about a network before any training."""
    return {
        "kind": "network",
        "network": shape.name,
        "resolution": shape.resolution,
        "depth": shape.depth,
        "width": shape.width,
        "kernel": shape.kernel,
        "cut": shape.cut,
        **({"stages": shape.stages} if shape.stages else {}),
        "macs": plan.cost.macs,
        "params": plan.cost.params,
        "trunk_macs": plan.begun[1].macs,
        "identity": plan.shape_key,
        "rejected": plan.rejected_because,
    }
