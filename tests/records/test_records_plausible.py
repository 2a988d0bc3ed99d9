"""Stored numbers that no measurement gives are named; those of a diverged training are let be."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from scalesearch.records.plausible import impossible
from scalesearch.values.quality import ClassDetail
from scalesearch.values.record import MeasuredTrial

CHANGES: dict[str, Callable[[Any], Any]] = {
    "latency.p50_ms = -0.5": lambda r: replace(r, latency=replace(r.latency, p50_ms=-0.5)),
    "latency.raw_p99_ms = inf": lambda r: replace(r, latency=replace(r.latency, raw_p99_ms=math.inf)),
    "latency.ratio = 0.0": lambda r: replace(r, latency=replace(r.latency, ratio=0.0)),
    "quality.score = 1.000001": lambda r: replace(r, quality=replace(r.quality, score=1.000001)),
    "quality.score = 1.5": lambda r: replace(r, quality=replace(r.quality, score=1.5)),
    "quality.score = nan": lambda r: replace(r, quality=replace(r.quality, score=math.nan)),
    "cost.params = -3": lambda r: replace(r, cost=replace(r.cost, params=-3)),
    "size_bytes = a number of about": lambda r: replace(r, size_bytes=10**400),
    "trial = -1": lambda r: replace(r, trial=-1),
    "candidate.scaling.width = inf": lambda r: replace(
        r, candidate=replace(r.candidate, scaling=replace(r.candidate.scaling, width=math.inf))
    ),
}


@pytest.mark.parametrize("words", CHANGES)
def test_an_impossible_number_is_named_with_its_place(words: str, make_record: Callable[..., MeasuredTrial]) -> None:
    assert impossible(CHANGES[words](make_record(0))).startswith(words)


def test_a_fraction_that_rounding_put_above_one_is_possible(make_record: Callable[..., MeasuredTrial]) -> None:
    record = make_record(0)
    first, *others = record.quality.classes
    detail = ClassDetail(
        macro_precision=1.0, macro_recall=1.0, classes=(replace(first, average_precision=1.0000000000000002), *others)
    )
    assert impossible(replace(record, quality=replace(record.quality, score=1 + 1e-12, detail=detail))) == ""


def test_a_whole_record_and_a_diverged_training_are_possible(make_record: Callable[..., MeasuredTrial]) -> None:
    record = make_record(0)
    assert impossible(record) == ""
    assert record.training is not None
    assert impossible(replace(record, training=replace(record.training, final_loss=math.nan))) == ""
