"""Who proposes candidates where the user leaves that open, and the reason that is given."""

from dataclasses import replace

import pytest

from scalesearch.config import load_run
from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec
from scalesearch.study.sampler import ChosenSampler, chosen_sampler
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings, SamplerName
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

CPU = get_target("cpu")
NAMES = tuple(
    NamedAxis(name=name, axis=Choice(values=values))
    for name, values in {
        "quantization.precision": ("fp32", "fp16", "int8"),
        "quantization.calibration": ("minmax", "percentile", "mse"),
        "pruning.criterion": ("l2", "bn_scale", "taylor"),
        "pruning.scope": ("uniform", "global", "sensitivity"),
    }.items()
)
ORDERED = (
    NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 1.0))),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25))),
    NamedAxis(name="training.optimizer", axis=Choice(values=("muon", "adamw"))),  # two names need no order
)
FIXED = NamedAxis(name="training.batch_size", axis=Choice(values=(32,)))
STEPS = NamedAxis(name="training.steps", axis=Choice(values=(240, 480)))


def space_of(*axes: NamedAxis) -> SearchSpace:
    return SearchSpace(name="mine", network="resnet_small", resolution_px=64, axes=axes)


def chosen(space: SearchSpace, settings: RunSettings | None = None, stored: Session | None = None) -> ChosenSampler:
    return chosen_sampler(settings or RunSettings(), space, base_spec(space.network), CPU, stored)


@pytest.mark.parametrize(
    ("name", "task", "told", "untold"),
    [
        ("resnet_small", "classification", "the first to find the front of a table of resnet_small's", "not compared"),
        ("mobilenet_small", "classification", "ahead of tpe in three live searches of mobilenet_small", "not compared"),
        ("efficientnet_small", "classification", "won in resnet_small as it is shipped", "live"),
        ("resnet_small_compressed", "classification", "samplers were not compared here", "the first to find"),
        ("resnet_scene_boxes", "detection", "samplers were not compared here", "the first to find"),
        ("resnet_small", "detection", "samplers were not compared here", "the first to find"),
    ],
)
def test_in_shipped_spaces_it_is_growth_for_what_was_measured_there_and_no_more(
    name: str, task: str, told: str, untold: str
) -> None:
    settings, space = load_run(space=name, flags={"task": task})
    found = chosen(space, settings)
    assert found.name == "growth"
    assert told in found.line and untold not in found.line


def test_a_larger_space_of_the_same_name_is_not_said_to_be_measured() -> None:
    stages = tuple(f"scaling.stages.{stage}.width=[0.5,1.0,1.5]" for stage in (1, 2, 3))
    settings, space = load_run(space="resnet_small", overrides=stages)
    line = chosen(space, settings).line
    assert "samplers were not compared here; 11 of 12 searched axes are ordered" in line


def test_the_line_counts_ordered_axes_and_says_what_comes_later() -> None:
    settings, space = load_run(space="resnet_small")
    line = chosen(space, settings).line
    assert line.startswith("sampler: growth, the first to find the front of")
    assert "; 8 of 9 searched axes are ordered; " in line
    later = "beyond 1,000 trials it stays, for no other chooses among lengths of training"
    assert line.endswith(f"; {later} (--sampler NAME)")
    settings, space = load_run(space="resnet_small", overrides=("training.steps=480",))
    found = chosen(space, settings)
    assert "; 7 of 8 searched axes are ordered; beyond 1,000 trials tpe goes on, which asks faster (" in found.line


@pytest.mark.parametrize(("names", "sampler"), [(3, "growth"), (4, "tpe")])
def test_where_most_axes_are_names_it_is_tpe(names: int, sampler: str) -> None:
    found = chosen(space_of(*ORDERED, FIXED, *NAMES[:names]))
    assert (found.name, found.gives_way) == (sampler, sampler == "growth")
    assert f"3 of {3 + names} searched axes are ordered" in found.line
    assert ("growth sees no order in lists of names; samplers were not compared here" in found.line) == (names == 4)


def test_only_values_that_the_chip_runs_count() -> None:
    lists = NAMES[1:3]
    several = Choice(values=("fp32", "int8", "fp8"))  # two of them here
    precision = NamedAxis(name="quantization.precision", axis=several)
    assert chosen(space_of(ORDERED[0], precision, *lists)).name == "growth"
    assert chosen(space_of(ORDERED[0], NAMES[0], *lists)).name == "tpe"


def test_it_stays_with_growth_where_it_may_choose_among_lengths() -> None:
    space = space_of(*ORDERED, STEPS, *NAMES, NamedAxis(name="pruning.sparsity", axis=Choice(values=("none",))))
    most = replace(space, axes=(STEPS, *NAMES))
    for asked in (space, most):
        found = chosen(asked)
        assert (found.name, found.gives_way) == ("growth", False)
        assert "no other chooses among lengths" in found.line
    assert chosen(most, RunSettings(lengths="off")).name == "tpe"
    one = replace(most, axes=(NamedAxis(name="training.steps", axis=Choice(values=(240,))), *NAMES))
    assert chosen(one).name == "tpe"


def test_where_nothing_is_searched_no_axes_are_counted() -> None:
    found = chosen(space_of(FIXED))
    assert found.name == "growth" and "axes" not in found.line


def test_what_was_asked_for_is_taken_without_a_word() -> None:
    found = chosen(space_of(*NAMES), RunSettings(sampler="growth"))
    assert (found.name, found.line, found.gives_way) == ("growth", "", False)


def test_a_study_goes_on_with_its_own(session: Session) -> None:
    names = space_of(*NAMES)
    cases: tuple[tuple[SamplerName, bool], ...] = (("gp", False), ("growth", False), ("growth", True))
    for own, gives_way in cases:
        settings = replace(session.settings, sampler=own)
        found = chosen(names, stored=replace(session, settings=settings, sampler_gives_way=gives_way))
        assert (found.name, found.gives_way) == (own, gives_way)
        assert found.line.startswith(f"sampler: {own}, as before")
        assert ("beyond 1,000 trials tpe goes on" in found.line) == gives_way
    settings = replace(session.settings, sampler="growth")
    asked = chosen(names, RunSettings(sampler="tpe"), replace(session, settings=settings, sampler_gives_way=True))
    assert (asked.name, asked.line, asked.gives_way) == ("tpe", "", False)
