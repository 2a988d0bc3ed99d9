"""Candidates drawn and moved without Optuna stay in the space, and reach all of it."""

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import optuna
import pytest

from scalesearch import load_space
from scalesearch.spaces.moves import drawn, moved
from scalesearch.spaces.suggest import candidate_value, suggest, trial_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace

AXES = (
    NamedAxis(name="scaling.resolution", axis=Choice(values=(0.375, 0.5, 1.0))),
    NamedAxis(name="scaling.width", axis=Range(low=0.5, high=1.25, step=0.25)),
    NamedAxis(name="training.learning_rate", axis=Range(low=1e-4, high=1e-1, log=True)),
    NamedAxis(name="training.batch_size", axis=Range(low=8, high=64, log=True)),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.5))),
    NamedAxis(name="pruning.criterion", axis=Choice(values=("l2", "taylor"))),
    NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8", "fp16"))),
)
SPACE = SearchSpace(name="own", network="resnet_small", resolution_px=64, axes=AXES)


def walk(space: SearchSpace, steps: int) -> Iterator[tuple[Candidate, Candidate]]:
    random = np.random.default_rng(0)
    candidate = drawn(space, random)
    for _ in range(steps):
        following = moved(candidate, space, random)
        yield candidate, following
        candidate = following


def seen(candidates: list[Candidate], name: str) -> set[object]:
    return {candidate_value(candidate, name) for candidate in candidates}


@pytest.mark.parametrize("way", ["drawn", "moved"])
def test_every_value_is_reached_and_no_other(way: str) -> None:
    random = np.random.default_rng(1)
    found = [drawn(SPACE, random) for _ in range(300)] if way == "drawn" else [after for _, after in walk(SPACE, 600)]
    assert seen(found, "scaling.resolution") == {0.375, 0.5, 1.0}
    assert seen(found, "scaling.width") == {0.5, 0.75, 1.0, 1.25}
    assert seen(found, "quantization.precision") == {"fp32", "int8", "fp16"}
    rates = seen(found, "training.learning_rate")
    assert all(1e-4 <= float(str(rate)) <= 1e-1 for rate in rates)
    assert min(rates, key=lambda rate: float(str(rate))) < 1e-3 < max(rates, key=lambda rate: float(str(rate)))  # type: ignore[operator]
    assert all(isinstance(size, int) and 8 <= size <= 64 for size in seen(found, "training.batch_size"))


def test_a_move_changes_one_axis_by_one_step() -> None:
    names = [named.name for named in AXES if named.name != "pruning.criterion"]
    for before, after in walk(SPACE, 200):
        changed = [name for name in names if candidate_value(before, name) != candidate_value(after, name)]
        assert len(changed) <= 1
        if changed == ["scaling.resolution"]:
            assert {before.scaling.resolution, after.scaling.resolution} != {0.375, 1.0}


def test_an_axis_without_effect_keeps_its_default() -> None:
    candidates = [after for _, after in walk(SPACE, 300)]
    whole = [each for each in candidates if each.pruning.channel_fraction == 0]
    assert seen(whole, "pruning.criterion") == {"l2"}
    assert seen([each for each in candidates if each not in whole], "pruning.criterion") == {"l2", "taylor"}


def test_given_values_are_not_drawn() -> None:
    random = np.random.default_rng(2)
    assert seen([drawn(SPACE, random, {"scaling.width": 0.75}) for _ in range(20)], "scaling.width") == {0.75}


def test_whole_numbers_are_reached_evenly_and_by_single_steps() -> None:
    axes = (
        NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.25, 0.5))),
        NamedAxis(name="pruning.rounds", axis=Range(low=1, high=4)),
        NamedAxis(name="training.batch_size", axis=Range(low=2, high=64, log=True)),
    )
    space = replace(SPACE, axes=axes)
    random = np.random.default_rng(0)
    rounds = [drawn(space, random).pruning.rounds for _ in range(2000)]
    assert all(400 < rounds.count(value) < 600 for value in (1, 2, 3, 4))
    moves = list(walk(space, 600))
    assert {abs(after.pruning.rounds - before.pruning.rounds) for before, after in moves} == {0, 1}
    assert seen([after for _, after in moves], "pruning.rounds") == {1, 2, 3, 4}
    changed = [before != after for before, after in moves]
    assert sum(changed) > 400


def test_a_stepped_range_whose_first_step_is_beyond_its_end_keeps_its_only_number() -> None:
    axes = (
        NamedAxis(name="scaling.width", axis=Range(low=0.5, high=1.0, step=0.75)),
        NamedAxis(name="training.batch_size", axis=Range(low=32, high=40, step=16)),
        NamedAxis(name="scaling.resolution", axis=Choice(values=(0.5, 1.0))),
    )
    space = replace(SPACE, axes=axes)
    candidates = [after for _, after in walk(space, 60)]
    assert [seen(candidates, named.name) for named in axes] == [{0.5}, {32}, {0.5, 1.0}]
    # Trials are still asked for it, so that those of stored studies replay.
    assert trial_parameters(candidates[0], space)["scaling.width"] == 0.5


UNUSUAL = (
    NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8"))),
    NamedAxis(name="quantization.calibration", axis=Choice(values=("percentile", "mse"))),
    NamedAxis(name="quantization.qat_steps", axis=Choice(values=(20, 40))),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.5))),
    NamedAxis(name="pruning.criterion", axis=Choice(values=("taylor", "bn_scale"))),
    NamedAxis(name="scaling.stages.2.width", axis=Range(low=0.5, high=1.5, step=0.25)),
)


@pytest.mark.parametrize("name", ["resnet_small", "mobilenet_small", "resnet_small_compressed", "unusual"])
def test_optuna_replays_what_is_drawn_and_moved(name: str) -> None:
    space = replace(SPACE, axes=UNUSUAL) if name == "unusual" else load_space(name)
    candidates = [after for _, after in walk(space, 150)]
    for candidate in candidates:
        trial = optuna.trial.FixedTrial(trial_parameters(candidate, space))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Optuna warns of a value that is not on the axis
            assert suggest(trial, space) == candidate
    if name == "unusual":
        int8 = [each for each in candidates if each.quantization.precision == "int8"]
        assert seen(int8, "quantization.qat_steps") == {20, 40}
