"""Which confirmed runs may share a front: by updates, by passes, by how many times longer than the search's."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.analysis.confirmed_lengths import of_one_length, recipe_updates
from scalesearch.values.candidate import Recipe, ScheduleName
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def trial(make_record: MakeRecord) -> Callable[..., MeasuredTrial]:
    """A trial with that recipe."""

    def make(number: int, *, steps: int = 300, batch_size: int = 64, retrain_steps: int = 0) -> MeasuredTrial:
        record = make_record(number)
        schedule: ScheduleName = "cosine" if retrain_steps else "wsd"
        recipe = Recipe(steps=steps, batch_size=batch_size, retrain_steps=retrain_steps, schedule=schedule)
        return replace(
            record,
            candidate=replace(record.candidate, recipe=recipe),
            training=replace(record.training, steps=steps + retrain_steps),
        )

    return make


def _run(record: MeasuredTrial, steps: int, seed: int = 1) -> ConfirmedRun:
    return ConfirmedRun(
        trial=record.trial, seed=seed, steps=steps, train_s=1.0, float_score=0.9, validation=record.quality,
        test=record.quality, latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recipes", "steps"),
    [
        ([{"steps": 240}, {"steps": 480}], [2000, 2000]),  # --steps 2000
        ([{"steps": 240}, {"steps": 480}], [1920, 3840]),  # eight times the search's
        ([{"batch_size": 32}, {"batch_size": 64}], [1263, 632]),  # --epochs 40 over 1010 images
        ([{}, {"retrain_steps": 60}], [2400, 2880]),  # eight times, one of them retrained after pruning
    ],
)
def test_what_one_request_trains_is_of_one_length(
    trial: Callable[..., MeasuredTrial], recipes: list[dict[str, int]], steps: list[int]
) -> None:
    records = [trial(number, **recipe) for number, recipe in enumerate(recipes)]
    runs = tuple(_run(record, length) for record, length in zip(records, steps, strict=True))
    found = of_one_length(runs, records, records)
    assert found.runs == runs and not found.left_out


def test_the_updates_of_a_recipe_are_those_without_the_retraining(trial: Callable[..., MeasuredTrial]) -> None:
    assert recipe_updates(trial(0, retrain_steps=60), 2880) == 2400
    assert recipe_updates(trial(0), 2400) == 2400


def test_most_members_of_the_front_decide_then_most_trials_then_the_longer(
    trial: Callable[..., MeasuredTrial],
) -> None:
    records = [trial(number) for number in range(5)]
    short, long = [_run(record, 500) for record in records], [_run(record, 2000) for record in records]
    found = of_one_length((*long[:1], *short[1:3]), records, records)
    assert [run.trial for run in found.runs] == [1, 2] and found.left_out == (long[0],)
    found = of_one_length((*long[:1], *short[1:3]), records, records[:1])  # only trial 0 is on the front
    assert found.runs == (long[0],)
    found = of_one_length((*short[:1], *long[1:2], *long[3:4]), records, records[:2])  # trial 3 is off the front
    assert [run.trial for run in found.runs] == [1, 3]
    found = of_one_length((*long[:1], *short[1:2]), records, records)
    assert found.runs == (long[0],)


def test_seeds_do_not_count_twice_and_trials_without_results_stay(trial: Callable[..., MeasuredTrial]) -> None:
    records = [trial(number) for number in range(3)]
    seeds = [_run(records[0], 500, seed) for seed in range(1, 6)]
    gone = _run(trial(9), 77)
    found = of_one_length((*seeds, _run(records[1], 2000), _run(records[2], 2000), gone), records, records)
    assert [run.trial for run in found.runs] == [1, 2, 9] and found.left_out == tuple(seeds)
    assert of_one_length((gone,), records, records).runs == (gone,)
