"""Evaluators that need no torch: worker processes import them from here, by pickle."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from scalesearch.errors import CandidateRejected, ConfigError, StageFailed
from scalesearch.execution.worker import Rivals
from scalesearch.values.candidate import Candidate, Quantization
from scalesearch.values.latency import Latency
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec
from scalesearch.values.plan import Plan
from scalesearch.values.quality import Quality
from scalesearch.values.record import Cost, Gain, LimitUse, MeasuredTrial, TrainingResult, TrialRecord
from scalesearch.values.space import Choice, Limits, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Device

DEVICE = Device(name="fake", backend="fake", backend_version="1", threads=1)


def make_space(widths: int = 8, *, max_macs: int | None = None, max_latency_ms: float | None = None) -> SearchSpace:
    """`widths` x 3 x (fp32, fp16, int8 with 2 calibrations) candidates; widths above 0.5 only where > 1."""
    return SearchSpace(
        name="fake",
        network="fake",
        resolution_px=64,
        axes=(
            NamedAxis(name="quantization.calibration", axis=Choice(values=("minmax", "percentile"))),
            NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "fp16", "int8"))),
            NamedAxis(name="scaling.width", axis=Range(low=0.25, high=0.25 * widths, step=0.25)),
            NamedAxis(name="scaling.resolution", axis=Choice(values=(0.5, 0.75, 1.5))),
        ),
        limits=Limits(max_macs=max_macs, max_latency_ms=max_latency_ms),
    )


def macs_of(candidate: Candidate) -> int:
    return int(1000 * candidate.scaling.width**2 * candidate.scaling.resolution**2)


@dataclass(frozen=True)
class FakePlanner:
    """Plans whose key is the candidate itself."""

    max_macs: int | None = None
    full_updates: int = 0

    def __call__(self, candidate: Candidate) -> Plan:
        macs = macs_of(candidate)
        spec = NetworkSpec(
            name="fake",
            resolution_px=int(64 * candidate.scaling.resolution),
            num_classes=10,
            stem=StemSpec(channels=8, kernel=3, stride=1),
            stages=(StageSpec(block="basic", depth=1, channels=8, kernel=3, stride=1),),
            head=HeadSpec(),
        )
        cost = Cost(macs=macs, params=macs)
        limits = (LimitUse(limit="max_macs", excess=macs / self.max_macs - 1),) if self.max_macs else ()
        key = hashlib.sha256(repr(candidate).encode()).hexdigest()
        return Plan(
            candidate=candidate,
            spec=spec,
            dense_cost=cost,
            cost=cost,
            key=key,
            weights_key=key,
            shape_key=hashlib.sha256(repr(replace(candidate, quantization=Quantization())).encode()).hexdigest(),
            pruning=candidate.pruning,
            full_updates=self.full_updates,
            limits=limits,
        )


@dataclass(frozen=True)
class TrunkPlanner(FakePlanner):
    """All cuts of a network share its trunk."""

    def __call__(self, candidate: Candidate) -> Plan:
        trunk = hashlib.sha256(repr(candidate.scaling).encode()).hexdigest()
        return replace(super().__call__(candidate), trunk_key=trunk)


def good_record(plan: Plan, trial: int, *, top1: float | None = None) -> TrialRecord:
    """A complete record: accuracy saturates with the cost, latency grows with it, int8 costs a point."""
    scaling, precision = plan.candidate.scaling, plan.candidate.quantization.precision
    size = scaling.width * scaling.resolution
    top1 = 0.9 - 0.3 / (1 + 2 * size) - (0.01 if precision == "int8" else 0.0) if top1 is None else top1
    p50_ms = (0.2 + size**2) * (0.5 if precision == "int8" else 1.0)
    return MeasuredTrial(
        trial=trial,
        key=plan.key,
        state="complete",
        candidate=plan.candidate,
        charged=True,
        spec=plan.spec,
        cut_from=plan.cut_from,
        cost=plan.cost,
        quality=make_quality(top1),
        latency=make_latency(p50_ms),
        device=DEVICE,
        limits=plan.limits,
        size_bytes=1000,
        onnx_sha256="",  # unknown: any file passes for it
        network_sha256="1" * 64,
        training=TrainingResult(
            float_score=0.5,
            train_s=1.0,
            retrain_s=0.0,
            steps=1,
            safe_recipe_used=False,
            weights_reused=False,
            final_loss=1.0,
        ),
    )


def make_quality(top1: float, half: float = 0.01) -> Quality:
    return Quality(
        score=top1,
        score_low=top1 - half,
        score_high=top1 + half,
        images=100,
    )


def make_latency(p50_ms: float, half: float = 0.01) -> Latency:
    return Latency(
        p50_ms=p50_ms,
        p50_low_ms=p50_ms * (1 - half),
        p50_high_ms=p50_ms * (1 + half),
        raw_p50_ms=p50_ms,
        raw_p90_ms=p50_ms,
        raw_p99_ms=p50_ms,
        raw_min_ms=p50_ms,
        reference_p50_ms=1.0,
        ratio=p50_ms,
        runs=100,
        batch=1,
        stable=True,
    )


@dataclass
class Fake:
    """Does to trial N what `fates` says, else answers well after `seconds`; notes what it evaluated in `journal`."""

    fates: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    journal: Path | None = None
    no_gain: str = ""

    def evaluate(self, plan: Plan, *, trial: int, report: Callable[[str], None], rivals: Rivals = ()) -> TrialRecord:
        report("train")
        if self.journal:
            with self.journal.open("a") as file:
                file.write(f"{trial} {os.getpid()} {plan.key} {json.dumps(rivals)}\n")
        time.sleep(self.seconds)
        report("export")
        record = FATES[self.fates.get(trial, "good")](plan, trial)
        return replace(record, gains=_gains(record, self.no_gain)) if self.no_gain else record


def _gains(record: TrialRecord, no_gain: str) -> tuple[Gain, ...]:
    precision = record.candidate.quantization.precision
    if precision == "fp32":
        return ()
    speedup = 1.0 if precision == no_gain else 2.0
    return (
        Gain(
            step="precision",
            what=precision,
            speedup=speedup,
            speedup_low=speedup - 0.01,
            speedup_high=speedup + 0.01,
            score_change=-0.01,
        ),
    )


@dataclass(frozen=True)
class MakeFake:
    """The picklable factory of `Fake`; `start` is a fate of the start-up."""

    fates: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0
    journal: Path | None = None
    start: str = ""
    no_gain: str = ""
    """This precision brings nothing, every other one twice the speed."""

    def __call__(self) -> Fake:
        if self.start == "config error":
            msg = "no such folder: images"
            raise ConfigError(msg)
        if self.start == "bug":
            msg = "start-up bug"
            raise ValueError(msg)
        if self.start == "exit":
            os._exit(3)
        if self.start == "hang":
            time.sleep(100)
        return Fake(dict(self.fates), self.seconds, self.journal, self.no_gain)


def _segfault(plan: Plan, trial: int) -> TrialRecord:
    os.kill(os.getpid(), signal.SIGSEGV)
    return good_record(plan, trial)


def _killed(plan: Plan, trial: int) -> TrialRecord:
    os.kill(os.getpid(), signal.SIGKILL)
    return good_record(plan, trial)


def _exit(plan: Plan, trial: int) -> TrialRecord:
    sys.stderr.write("cannot go on\n")
    sys.stderr.flush()
    os._exit(7)


def _hang(plan: Plan, trial: int) -> TrialRecord:
    subprocess.Popen(["sleep", "345.6"])
    time.sleep(100)
    return good_record(plan, trial)


def _wait(plan: Plan, trial: int) -> TrialRecord:
    """Take longer than any test, which kills the worker instead."""
    time.sleep(100)
    return good_record(plan, trial)


def _raises(error: Exception) -> Callable[[Plan, int], TrialRecord]:
    def fate(plan: Plan, trial: int) -> TrialRecord:
        raise error

    return fate


class _Unpicklable(TrialRecord):
    def __reduce__(self) -> str:
        msg = "cannot pickle this"
        raise TypeError(msg)


def _unpicklable(plan: Plan, trial: int) -> TrialRecord:
    return _Unpicklable(trial=trial, key=plan.key, state="complete", candidate=plan.candidate, charged=True)


FATES: dict[str, Callable[[Plan, int], TrialRecord]] = {
    "good": good_record,
    "sibling": lambda plan, trial: replace(good_record(plan, trial), charged=False),
    "segfault": _segfault,
    "killed": _killed,
    "exit": _exit,
    "hang": _hang,
    "wait": _wait,
    "unpicklable": _unpicklable,
    "stage failed": _raises(StageFailed("export", "parity 0.3 above 1e-3")),
    "too large": _raises(CandidateRejected("file of 9 MB over the limit")),
    "out of memory": _raises(MemoryError()),
    "disk full": _raises(OSError(errno.ENOSPC, "No space left on device")),
    "config error": _raises(ConfigError("the data set is gone")),
    "bug": _raises(KeyError("no such thing")),
    "nan": lambda plan, trial: good_record(plan, trial, top1=float("nan")),
}
