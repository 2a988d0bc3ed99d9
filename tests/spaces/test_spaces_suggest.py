from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest

from scalesearch.errors import ConfigError
from scalesearch.spaces.asking import index_name
from scalesearch.spaces.axes import CONDITIONS, OptunaChoice, default_value, largest_value, plain_axis_names
from scalesearch.spaces.suggest import (
    candidate_of,
    candidate_value,
    cheapest,
    for_target,
    random_candidates,
    suggest,
    trial_parameters,
    usual,
    without_effect,
)
from scalesearch.spaces.trunks import trunk_scaling
from scalesearch.values.candidate import Candidate, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.space import Axis, Choice, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Target


def make_space(axes: dict[str, Axis | Sequence[Any] | Any]) -> SearchSpace:
    def axis(value: Any) -> Axis:
        if isinstance(value, Choice | Range):
            return value
        return Choice(values=tuple(value) if isinstance(value, list) else (value,))

    named = tuple(NamedAxis(name=name, axis=axis(value)) for name, value in axes.items())
    return SearchSpace(name="s", network="n", resolution_px=64, axes=named)


# One axis of every kind, conditional ones ahead of what they depend on.
FULL = make_space(
    {
        "quantization.clip_percentile": [99.9, 99.99, 99.999],
        "quantization.calibration_images": [64, 128, 256],
        "quantization.calibration": ["minmax", "percentile"],
        "quantization.precision": ["fp32", "fp16", "int8"],
        "training.retrain_steps": [30, 60],
        "training.branch_fraction": [0.25, 0.5],
        "training.schedule": ["cosine", "wsd"],
        "training.muon_learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "training.optimizer": ["muon", "adamw"],
        "training.distill_temperature": [2, 4],
        "training.distill_weight": [0, 0.5],
        "training.steps": Range(low=100, high=300, step=100),
        "training.flip": [True, False],
        "pruning.channel_fraction": [0, 0.25, 0.5],
        "scaling.width": Range(low=0.5, high=1.5),
        "scaling.depth": Range(low=0.5, high=2.1, step=0.5),
        "scaling.resolution": [0.375, 0.5, 0.75, 1],
        "scaling.kernel": [1.0, 1.67],
        "scaling.stages.2.width": [0.5, 0.75, 1.0],
        "scaling.stages.3.depth": 2,
    }
)


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def asked_of(space: SearchSpace, parameters: dict[str, Any]) -> Candidate:
    return suggest(optuna.trial.FixedTrial(parameters), space)


@pytest.mark.slow
def test_live_fixed_and_frozen_trials_replay_to_the_same_candidate() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(60):
        live = study.ask()
        candidate = suggest(live, FULL)
        frozen = study.tell(live, 1.0)
        assert suggest(frozen, FULL) == candidate == suggest(optuna.trial.FixedTrial(frozen.params), FULL)
        assert trial_parameters(candidate, FULL) == frozen.params
        seen.add(candidate)
    assert len(seen) > 50


@pytest.mark.slow
def test_every_value_of_every_axis_is_reached_and_no_other() -> None:
    candidates = random_candidates(FULL, 300, seed=1)

    def values(name: str) -> set[Any]:
        return {candidate_value(candidate, name) for candidate in candidates}

    assert values("scaling.resolution") == {0.375, 0.5, 0.75, 1.0}
    assert values("scaling.kernel") == {1.0, 1.67}
    assert values("scaling.depth") == {0.5, 1.0, 1.5, 2.0}  # the last step that fits below 2.1
    assert values("training.steps") == {100, 200, 300}
    assert values("training.flip") == {True, False}
    assert values("pruning.channel_fraction") == {0.0, 0.25, 0.5}
    assert values("scaling.stages.2.width") == {0.5, 0.75, 1.0}
    assert values("scaling.stages.3.depth") == {2.0}
    assert all(0.5 <= candidate.scaling.width <= 1.5 for candidate in candidates)
    assert len(values("scaling.width")) == 300
    assert {type(candidate.recipe.steps) for candidate in candidates} == {int}
    assert {type(candidate.pruning.channel_fraction) for candidate in candidates} == {float}


def test_numbers_are_asked_as_numbers_and_only_names_as_categories() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(60):
        suggest(study.ask(), FULL)
    kinds = {name: dist for trial in study.trials for name, dist in trial.distributions.items()}
    categorical = {
        name for name, dist in kinds.items() if isinstance(dist, optuna.distributions.CategoricalDistribution)
    }
    assert categorical == {
        "quantization.precision",
        "quantization.calibration",
        "training.optimizer",
        "training.schedule",
        "training.flip",
    }
    assert kinds[index_name("scaling.resolution")] == optuna.distributions.IntDistribution(0, 3)
    assert kinds["scaling.kernel"] == optuna.distributions.FloatDistribution(1.0, 1.67, step=0.67)
    assert kinds["training.retrain_steps"] == optuna.distributions.IntDistribution(30, 60, step=30)
    assert kinds["training.muon_learning_rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert "scaling.stages.3.depth" not in kinds  # fixed


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        ({"training.retrain_steps": 800}, ["training.retrain_steps has no effect with training.schedule = 'wsd'"]),
        ({"training.retrain_steps": 800, "training.schedule": "cosine"}, []),
        ({"training.retrain_steps": 800, "training.schedule": ["cosine", "wsd"]}, []),
        ({"training.branch_fraction": 0.2, "training.steps": 10}, []),
        (
            {"training.branch_fraction": 0.2, "training.schedule": "cosine"},
            ["training.branch_fraction has no effect with training.schedule = 'cosine': it belongs to 'wsd'."],
        ),
        ({"scaling.width_by": ["scratch", "cut"], "scaling.width": [0.5, 1.0]}, []),
        ({"scaling.width_by": "cut", "scaling.stages.2.width": [0.5, 1.0]}, []),
        ({"scaling.width_by": "scratch", "scaling.width": 0.5}, []),
        (
            {"scaling.width_by": "cut", "scaling.width": 0.5, "scaling.depth": [1.0, 2.0]},
            ["scaling.width_by has no effect: the space has one width alone, and nothing is cut to it."],
        ),
    ],
)
def test_axes_that_change_nothing_are_told(axes: dict[str, Any], told: list[str]) -> None:
    lines = without_effect(make_space(axes))

    assert len(lines) == len(told)
    assert all(line.startswith(start) for line, start in zip(lines, told, strict=True))


class Recorder:
    """A trial that answers the first choice, or what it is told to, and remembers the questions."""

    def __init__(self, **answers: OptunaChoice) -> None:
        self.answers = {name.replace("__", "."): value for name, value in answers.items()}
        self.names: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[OptunaChoice]) -> OptunaChoice:
        self.names.append(name)
        return self.answers.get(name, choices[0])

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.names.append(name)
        value = self.answers.get(name, low)
        assert isinstance(value, float)
        return value

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.names.append(name)
        return low


@pytest.mark.parametrize(
    ("answers", "conditional"),
    [
        ({"training__optimizer": "adamw"}, set()),
        ({}, {"training.muon_learning_rate"}),
        ({"quantization__precision": "fp16", "training__optimizer": "adamw"}, set()),
        (
            {"quantization__precision": "int8", "training__optimizer": "adamw"},
            {"quantization.calibration", "quantization.calibration_images"},
        ),
        (
            {
                "quantization__precision": "int8",
                "quantization__calibration": "percentile",
                "training__optimizer": "adamw",
            },
            {"quantization.calibration", "quantization.calibration_images", "quantization.clip_percentile"},
        ),
        (
            {"pruning__channel_fraction": 0.5, "training__optimizer": "adamw"},
            {"training.retrain_steps"},
        ),
        (
            {"pruning__channel_fraction": 0.5, "training__optimizer": "adamw", "training__schedule": "wsd"},
            {"training.branch_fraction"},
        ),
        (
            {"training__optimizer": "adamw", "training__distill_weight": 0.5},
            {"training.distill_temperature"},
        ),
    ],
    ids=["none", "muon", "fp16", "int8 minmax", "int8 percentile", "retrained", "branch", "distilled"],
)
def test_conditional_axes_are_asked_where_they_mean_something(
    answers: dict[str, OptunaChoice], conditional: set[str]
) -> None:
    trial = Recorder(**answers)
    candidate = suggest(trial, FULL)
    asked = {name.removesuffix(".index") for name in trial.names}
    assert asked & set(CONDITIONS) == conditional
    for name in set(CONDITIONS) - conditional:  # equal work is an equal candidate
        assert candidate_value(candidate, name) == default_value(name)


@pytest.mark.parametrize(
    ("precision", "steps", "asked"), [("int8", 60, False), ("int8", 0, True), ("fp8", 0, True), ("fp16", 0, False)]
)
def test_biases_are_corrected_only_where_no_updates_simulate_rounding(precision: str, steps: int, asked: bool) -> None:
    """A stored candidate of an earlier version, which corrected them after such updates, is replayed without it."""
    axes = {
        "quantization.precision": [precision],
        "quantization.bias_correction": [False, True],
        "quantization.qat_steps": [0, 60],
    }
    space = make_space(axes)
    stored = Candidate(
        quantization=Quantization(precision=precision, qat_steps=steps, bias_correction=True)  # type: ignore[arg-type]
    )
    parameters = trial_parameters(stored, space)
    assert ("quantization.bias_correction" in parameters) == asked
    assert asked_of(space, {"quantization.bias_correction": True, **parameters}).quantization.bias_correction == asked


def test_a_fixed_axis_is_applied_and_not_asked() -> None:
    # Even a conditional one: a constant cannot make equal candidates unequal.
    space = make_space(
        {"scaling.width": [0.5], "quantization.clip_percentile": 99.9, "scaling.depth": Range(low=2, high=2)}
    )
    trial = Recorder()
    candidate = suggest(trial, space)
    assert trial.names == []
    assert candidate == Candidate(
        scaling=Scaling(width=0.5, depth=2.0), quantization=Quantization(clip_percentile=99.9)
    )


def test_an_empty_space_gives_the_default_candidate() -> None:
    assert suggest(Recorder(), make_space({})) == Candidate() == candidate_of({})


def test_stages_are_numbered_from_one_and_those_between_keep_one() -> None:
    candidate = candidate_of({"scaling.stages.1.width": 0.5, "scaling.stages.3.kernel": 1.67, "training.steps": 50})
    assert candidate.scaling.stages == (StageScaling(width=0.5), StageScaling(), StageScaling(kernel=1.67))
    assert candidate.recipe == Recipe(steps=50)
    assert candidate_value(candidate, "scaling.stages.3.kernel") == 1.67
    assert candidate_value(candidate, "scaling.stages.4.kernel") == 1.0


def test_the_order_of_a_list_does_not_matter_to_what_is_asked() -> None:
    spaces = [make_space({"scaling.width": values}) for values in ([2.0, 0.5, 1.0], [0.5, 1.0, 2.0])]
    for index, width in enumerate((0.5, 1.0, 2.0)):
        assert {asked_of(space, {"scaling.width.index": index}).scaling.width for space in spaces} == {width}


def test_a_value_off_by_a_rounding_error_is_the_listed_one() -> None:
    # 0.1 + 2 * 0.1 is 0.30000000000000004
    space = make_space({"scaling.width": [0.1, 0.2, 0.3, 0.4]})
    widths = {candidate.scaling.width for candidate in random_candidates(space, 60, seed=0)}
    assert widths == {0.1, 0.2, 0.3, 0.4}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (
            {"scaling.widht": [0.5, 1.0]},
            "unknown axis 'scaling.widht' in the search space: did you mean 'scaling.width'",
        ),
        ({"scaling.stages": [1]}, "unknown axis 'scaling.stages'"),
        ({"scaling.stages.0.width": [1]}, "unknown axis 'scaling.stages.0.width'"),
        ({"scaling.stages.1.colour": [1]}, "unknown axis 'scaling.stages.1.colour'"),
        ({"hats": [1]}, "unknown axis 'hats' in the search space: axes are scaling.resolution"),
        ({"quantization.precision": ["int4"]}, "expected one of 'fp32', 'fp16', 'bf16', 'int8', 'fp8', got 'int4'"),
        ({"training.steps": [10.5]}, r"axis 'training.steps': expected a whole number, got 10.5 \(float\)"),
        ({"training.steps": [float("inf")]}, "expected a whole number, got inf"),
        ({"scaling.width": ["wide"]}, r"expected a number, got 'wide' \(str\)"),
        ({"scaling.width": [True]}, r"expected a number, got True \(bool\)"),
        ({"training.flip": [1]}, r"expected true or false, got 1 \(int\)"),
    ],
)
def test_what_no_candidate_can_hold_is_said_by_name(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        suggest(Recorder(), make_space(axes))


def test_every_plain_axis_can_be_named() -> None:
    values = {name: default_value(name) for name in plain_axis_names()}
    assert candidate_of(values) == Candidate()
    assert {"scaling.resolution", "pruning.channel_fraction", "training.learning_rate"} <= set(values)
    assert "scaling.stages" not in values


CPU = Target(name="cpu", backend="onnxruntime", precisions=("fp32", "int8"))


def test_for_target_removes_precisions_that_the_chip_does_not_run() -> None:
    kept = for_target(FULL, CPU)
    assert {candidate.quantization.precision for candidate in random_candidates(kept, 60, seed=0)} == {"fp32", "int8"}
    assert [named.name for named in kept.axes] == [named.name for named in FULL.axes]
    assert for_target(kept, CPU) is kept


def test_for_target_says_so_where_none_is_left() -> None:
    half = make_space({"quantization.precision": ["fp16"]})
    with pytest.raises(ConfigError, match=r"'s' asks for quantization.precision fp16, of which target 'cpu' runs none"):
        for_target(half, CPU)
    with pytest.raises(ConfigError, match=r"asks for quantization\.precision fp32"):  # the default
        for_target(make_space({}), replace(CPU, precisions=("int8",)))


def test_random_candidates_are_seeded() -> None:
    assert random_candidates(FULL, 5, seed=3) == random_candidates(FULL, 5, seed=3)
    assert random_candidates(FULL, 5, seed=3) != random_candidates(FULL, 5, seed=4)


def test_the_largest_value_of_an_axis_is_found_or_that_of_the_default() -> None:
    largest = {
        name: largest_value(FULL.axes, name) for name in ("training.steps", "scaling.resolution", "training.flip")
    }
    assert largest == {"training.steps": 300, "scaling.resolution": 1, "training.flip": 1}
    assert largest_value((), "training.steps") == Recipe().steps and largest_value((), "training.flip") == 0
    undecided = make_space({"training.flip": Choice(values=("auto",))})
    assert largest_value(undecided.axes, "training.flip") == 1


def test_the_usual_candidate_has_defaults_where_the_axes_offer_them() -> None:
    space = make_space(
        {
            "training.loss": ["bce", "focal"],
            "training.loss_weights.box": [2.5, 5.0],
            "training.label_smoothing": Range(low=0.0, high=0.05),
            "training.class_weights": "root",
            "training.flip": Choice(values=("auto",)),
            "scaling.width": [0.5, 2.0],
        }
    )
    recipe = usual(space).recipe
    assert (recipe.loss, recipe.loss_weights.box, recipe.label_smoothing) == ("bce", 5.0, 0.0)
    assert (recipe.class_weights, recipe.flip, recipe.steps) == ("root", False, Recipe().steps)
    assert usual(space).scaling.width == 0.5


BY_CUT = make_space(
    {
        "scaling.width_by": ["scratch", "cut"],
        "scaling.depth_by": "cut",
        "scaling.width": [0.5, 0.75, 1.25],
        "scaling.depth": Range(low=1.0, high=2.2, step=0.5),
        "scaling.stages.2.width": [0.5, 1.0],
        "training.schedule": ["wsd", "cosine"],
    }
)


def test_how_a_size_is_reached_is_asked_only_below_the_largest_and_with_a_trunk() -> None:
    for candidate in random_candidates(BY_CUT, 100, seed=0):
        largest = candidate.scaling.width == 1.25 and candidate.scaling.stages[1].width == 1.0
        asked = trial_parameters(candidate, BY_CUT)
        assert ("scaling.width_by" in asked) == (not largest and candidate.recipe.schedule == "wsd")
        assert "scaling.depth_by" not in asked  # fixed
        assert asked_of(BY_CUT, asked) == candidate
    assert {candidate.scaling.width_by for candidate in random_candidates(BY_CUT, 100, seed=0)} == {"scratch", "cut"}
    assert cheapest(BY_CUT).scaling.width_by == "scratch"  # the first one listed


def test_the_trunk_has_the_largest_multipliers_of_what_is_cut() -> None:
    narrow = Scaling(width=0.5, depth=1.0, resolution=0.5, stages=(StageScaling(depth=0.5), StageScaling(width=0.5)))
    assert trunk_scaling(BY_CUT, narrow) is narrow
    wide = (StageScaling(depth=0.5), StageScaling(width=1.0))
    assert trunk_scaling(BY_CUT, replace(narrow, width_by="cut")) == replace(
        narrow, width_by="cut", width=1.25, stages=wide
    )
    # the last step of the range; no axis says how deep stage 1 can be, nor how large kernels
    all_cut = replace(narrow, width_by="cut", depth_by="cut", kernel_by="cut")
    assert trunk_scaling(BY_CUT, all_cut) == replace(all_cut, width=1.25, depth=2.0, stages=wide)
    outside = Scaling(width=3.0, width_by="cut")  # wider than anything in the space
    assert trunk_scaling(BY_CUT, outside) == replace(outside, stages=(StageScaling(), StageScaling()))
