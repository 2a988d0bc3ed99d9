"""How long a worker waits for the device that it shares with others."""

from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.chain import evaluate
from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.execution.local_pool import WorkerPool
from scalesearch.measurement.device_lock import DEFAULT_TIMEOUT_S
from scalesearch.values.session import Session
from scalesearch.values.settings import LatencySettings, StageLimits


@pytest.mark.parametrize(("workers", "train_s"), [(1, 1800.0), (8, 1800.0), (4, 600.0)])
def test_a_worker_waits_for_all_others_to_measure_but_not_until_it_counts_as_hung(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, train_s: float
) -> None:
    limits, slow = StageLimits(train_s=train_s), LatencySettings(max_s=120.0)
    settings = replace(session.settings, workers=workers, stage_limits=limits, latency=slow)
    monkeypatch.setattr(evaluate, "load_study_data", lambda *_: None)
    evaluator = TrialEvaluator(replace(session, settings=settings), measures=False)

    pool = WorkerPool(lambda: evaluator, workers=workers, limits=limits, log_folder=tmp_path)
    assert workers * slow.max_s < evaluator._lock.timeout_s < pool._limit_s("wait")


def test_a_worker_waits_no_less_than_a_single_process(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = replace(session.settings, stage_limits=StageLimits(train_s=10.0))
    monkeypatch.setattr(evaluate, "load_study_data", lambda *_: None)
    evaluator = TrialEvaluator(replace(session, settings=brief), measures=False)
    assert evaluator._lock.timeout_s == DEFAULT_TIMEOUT_S
