"""What is surely too slow costs no training."""

from dataclasses import replace
from pathlib import Path

import pytest
from fake_evaluators import make_latency
from parent_studies import SPACE, colours, opened

import scalesearch
from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.chain.timer import Timer
from scalesearch.config import parse_space
from scalesearch.deployment.backends.base import Engine
from scalesearch.errors import CandidateRejected
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling
from scalesearch.values.latency import Latency
from scalesearch.values.session import Session

LIMIT_MS = 2.0
LIMITED = {**SPACE, "limits": {"max_latency_ms": LIMIT_MS}}
CANDIDATE = Candidate(scaling=Scaling(width=0.5), recipe=Recipe(optimizer="adamw", steps=4, batch_size=16))


@pytest.fixture(scope="module")
def opened_session(tmp_path_factory: pytest.TempPathFactory, brief_calm: None) -> Session:
    folder = tmp_path_factory.mktemp("outlook")
    colours(folder / "colours.npz", 3, seed=0)
    return opened(folder / "study", folder / "colours.npz", space=LIMITED)


class Clock:
    """Gives the engines that are timed these latencies, and notes with which bounds."""

    def __init__(self, *latencies: Latency) -> None:
        self.left, self.bounds = list(latencies), list[tuple[float, float]]()

    def __call__(self, engine: Engine, *, exact_ms: tuple[float, float], brief: bool = False) -> Latency:
        self.bounds.append(exact_ms)
        return self.left.pop(0)


@pytest.fixture
def session(opened_session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    settings = replace(opened_session.settings, twins=False)
    return replace(opened_session, settings=settings)


def evaluator(session: Session, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> TrialEvaluator:
    monkeypatch.setattr(Timer, "time", lambda self, engine, **bounds: clock(engine, **bounds))
    return TrialEvaluator(session)


def evaluate(evaluator: TrialEvaluator, session: Session, candidate: Candidate, stages: list[str]) -> float:
    """Return the latency of the candidate's record."""
    plan = Planner(session)(candidate)
    return evaluator.evaluate(plan, trial=0, report=stages.append).latency.p50_ms


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_untrained_network_that_is_surely_too_slow_is_rejected_once_for_all_its_recipes(
    precision: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, stages = Clock(make_latency(1.1 * LIMIT_MS, 0.05)), list[str]()
    study = evaluator(session, clock, monkeypatch)
    candidate = replace(CANDIDATE, quantization=Quantization(precision=precision))  # type: ignore[arg-type]
    for steps in (4, 5):  # the second is answered without a measurement
        other = replace(candidate, recipe=replace(candidate.recipe, steps=steps))
        with pytest.raises(CandidateRejected, match=r"max_latency_ms: untrained, it takes 2\.2 ms") as verdict:
            evaluate(study, session, other, stages)
        assert verdict.value.limit == "max_latency_ms" and verdict.value.excess == pytest.approx(0.1)
        assert "above 2 with a probability of over 99.9 %" in str(verdict.value)
    assert clock.bounds == [(LIMIT_MS, LIMIT_MS)]
    assert "train" not in stages
    assert not list((session.folder / "models").glob("*")) and not list((session.folder / "weights").glob("*.s*"))


@pytest.mark.slow
def test_what_may_be_fast_enough_is_trained_and_then_timed_as_ever(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubtful, trained = make_latency(1.01 * LIMIT_MS, 0.05), make_latency(1.3, 0.01)
    clock, stages = Clock(doubtful, trained), list[str]()
    study = evaluator(session, clock, monkeypatch)
    candidate = replace(CANDIDATE, pruning=Pruning(channel_fraction=0.25))
    assert evaluate(study, session, candidate, stages) == 1.3
    assert stages.index("untrained") < stages.index("train")
    assert not list((session.folder / "models").glob("*untrained*"))

    clock.left.append(make_latency(1.2, 0.01))
    assert evaluate(study, session, candidate, stages) == 1.2, "its weights are there: it is not timed untrained"


@pytest.mark.slow
def test_what_only_the_trained_weights_decide_is_not_judged_before(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, stages = Clock(make_latency(9.0, 0.01)), list[str]()
    study = evaluator(session, clock, monkeypatch)
    candidate = replace(CANDIDATE, pruning=Pruning(channel_fraction=0.25, scope="global"))
    assert evaluate(study, session, candidate, stages) == 9.0
    assert "untrained" not in stages


def test_a_study_without_that_limit_times_nothing_untrained(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = replace(session.space.limits, max_latency_ms=None)
    free = replace(session, space=replace(session.space, limits=limits))
    clock, stages = Clock(make_latency(9.0, 0.01)), list[str]()
    recipe = replace(CANDIDATE.recipe, steps=6)
    evaluate(evaluator(free, clock, monkeypatch), free, replace(CANDIDATE, recipe=recipe), stages)
    assert "untrained" not in stages


def test_one_candidate_by_hand_is_trained_though_it_is_too_slow(
    opened_session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, stages = Clock(make_latency(9.0, 0.01)), list[str]()
    monkeypatch.setattr(Timer, "time", lambda self, engine, **bounds: clock(engine, **bounds))
    candidate = replace(CANDIDATE, recipe=replace(CANDIDATE.recipe, steps=7))
    space, folder = parse_space(LIMITED, name="s", origin="s.toml"), opened_session.folder
    record = scalesearch.evaluate(candidate, space, opened_session.settings, folder=folder, report=stages.append)
    assert (record.state, record.feasible) == ("complete", False)
    assert "train" in stages and "untrained" not in stages
