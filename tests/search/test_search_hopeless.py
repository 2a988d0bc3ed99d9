"""Networks that failed, or were too slow untrained, are not tried again in another length or calibration."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.search.hopeless import Hopeless
from scalesearch.values.candidate import Candidate, Precision
from scalesearch.values.record import MeasuredTrial, StageTime, TrialRecord

TIMED = (StageTime(stage="untrained", seconds=1.0),)


def changed(
    candidate: Candidate,
    *,
    steps: int = 240,
    precision: Precision = "fp32",
    images: int = 64,
    qat_steps: int = 0,
    keep_float: int = 0,
) -> Candidate:
    quantization = replace(
        candidate.quantization,
        precision=precision,
        calibration_images=images,
        qat_steps=qat_steps,
        keep_float=keep_float,
    )
    return replace(candidate, recipe=replace(candidate.recipe, steps=steps), quantization=quantization)


@pytest.fixture
def record(make_record: Callable[..., MeasuredTrial]) -> TrialRecord:
    """Return the trial of a network in int8."""
    one = make_record(0).without_measurement()
    return replace(one, key="k", candidate=changed(one.candidate, precision="int8"))


def test_a_training_that_failed_twice_is_of_every_precision_and_length(record: TrialRecord) -> None:
    once = replace(record, state="failed", reason="train: out of memory")
    assert record.candidate not in Hopeless([once]), "it may be chance"
    longer = replace(once, trial=1, candidate=changed(record.candidate, steps=480, precision="fp32"))
    failed = Hopeless([once, longer])
    assert record.candidate not in Hopeless([once, longer, replace(record, trial=2, state="complete", reason="")])
    assert record.candidate not in Hopeless([once, replace(once, trial=1, same_as=0)]), "a repeat is no second failure"
    assert changed(record.candidate, steps=960, precision="fp16", images=8) in failed
    wider = replace(record.candidate, scaling=replace(record.candidate.scaling, width=1.25))
    assert wider not in failed
    other = replace(record.candidate, recipe=replace(record.candidate.recipe, learning_rate=0.123))
    assert other not in failed, "another recipe may work"


@pytest.mark.parametrize("stage", ["wait", "begin", "device lock", "result", "latency", "quality", "bug"])
def test_what_is_no_fault_of_the_network_closes_nothing(record: TrialRecord, stage: str) -> None:
    lost = [replace(record, trial=trial, state="failed", reason=f"{stage}: killed") for trial in range(3)]
    assert record.candidate not in Hopeless(lost)


def test_simulated_rounding_that_fails_is_of_that_rounding_alone(record: TrialRecord) -> None:
    rounded = changed(record.candidate, precision="int8", qat_steps=60)
    for reason in ("qat: loss not finite", "retrain: out of memory"):
        failed = Hopeless([replace(record, state="failed", candidate=rounded, reason=reason)])
        assert changed(record.candidate, precision="int8", qat_steps=60, steps=960) in failed
        assert changed(record.candidate, precision="int8") not in failed
        assert changed(record.candidate, precision="fp32") not in failed


def test_a_cut_that_fails_is_of_every_precision(record: TrialRecord) -> None:
    failed = Hopeless([replace(record, state="failed", reason="prune: nothing is left")])
    assert changed(record.candidate, steps=960, precision="fp16") in failed


def test_a_failed_compilation_is_of_one_precision(record: TrialRecord) -> None:
    failed = Hopeless([replace(record, state="failed", reason="compile: no kernel")])
    assert changed(record.candidate, steps=960, precision="int8", images=8) in failed
    assert changed(record.candidate, precision="fp32") not in failed


def test_a_network_that_was_timed_and_too_slow_stays_so(record: TrialRecord) -> None:
    slow = Hopeless([replace(record, state="rejected", stages=TIMED)])
    again = replace(record.candidate, recipe=replace(record.candidate.recipe, learning_rate=0.123))
    assert changed(again, steps=960, precision="int8", images=8) in slow
    assert changed(record.candidate, precision="fp32") not in slow
    assert changed(record.candidate, precision="int8", keep_float=1) not in slow, "its layers in float take other times"
    assert record.candidate not in Hopeless([replace(record, state="rejected", stages=())])


def test_complete_trials_and_those_without_a_key_tell_nothing(record: TrialRecord) -> None:
    assert record.candidate not in Hopeless([replace(record, state="complete")])
    assert record.candidate not in Hopeless([replace(record, state="failed", key="", reason="train: killed")])
