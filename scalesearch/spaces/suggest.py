"""Make candidates from a search space, by a trial's suggestions or at random, and turn them back into parameters."""

import functools
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from scalesearch.errors import ConfigError
from scalesearch.spaces.asking import TrialLike, ask, asking_order, first_value, index_name, offers, ordered_values
from scalesearch.spaces.axes import (
    CONDITIONS,
    READ_BY,
    OptunaChoice,
    Value,
    axis_of,
    default_value,
    field_of,
    field_type,
    fixed_value,
    plain_axis_names,
    stage_of,
)
from scalesearch.spaces.trunks import BY_AXES, is_below_largest
from scalesearch.values.candidate import Candidate, LossWeights, Pruning, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.space import Choice, NamedAxis, Range, SearchSpace
from scalesearch.values.target import Target


def suggest(trial: TrialLike, space: SearchSpace) -> Candidate:
    """Return the candidate that `trial` stands for: sampled by a live trial, or replayed by a fixed or frozen one.

    An axis with only one value is applied without asking. An axis that has no effect on this candidate (see
    `axes.CONDITIONS`) is not asked and keeps its default. The same holds for an axis that says how a size is reached
    (from scratch or by a cut) if the size is the largest of the space.
    """
    return _candidate(space, lambda named: ask(trial, named))


def candidate_with(values: Mapping[str, Value], space: SearchSpace) -> Candidate:
    """Return the candidate of the space with these values by axis name, as far as they have an effect.

    An axis that is not named takes its default; one with a single value takes that.
    """

    def value_of(named: NamedAxis) -> Value:
        return values[named.name] if named.name in values else default_value(named.name)

    return _candidate(space, value_of)


def _candidate(space: SearchSpace, value_of: Callable[[NamedAxis], Value]) -> Candidate:
    """Return the candidate whose sampled axes that have an effect have these values; the others keep their defaults."""
    chosen = dict(_defaults())
    for named in asking_order(space.axes):
        fixed = fixed_value(named)
        if fixed is not None:
            chosen[named.name] = fixed
        elif _has_effect(named.name, chosen, space):
            chosen[named.name] = value_of(named)
    return candidate_of(chosen)


@functools.cache
def _defaults() -> Mapping[str, Value]:
    """Return the default of every axis but those of stages, by name."""
    return {name: default_value(name) for name in plain_axis_names()}


def _has_effect(name: str, chosen: Mapping[str, Value], space: SearchSpace) -> bool:
    """Tell whether an axis matters to a candidate with these values of the axes before it."""
    if name in BY_AXES and not is_below_largest(space.axes, chosen, BY_AXES[name]):
        return False
    return name not in CONDITIONS or CONDITIONS[name](chosen)


def candidate_of(chosen: Mapping[str, Value]) -> Candidate:
    """Return the candidate with these values by dotted name; values that are not named keep their default."""

    def part(group: str) -> dict[str, Any]:
        """Return the values of one group by field name."""
        return {field_of(n.rpartition(".")[2]): v for n, v in chosen.items() if n.rpartition(".")[0] == group}

    return Candidate(
        scaling=replace(Scaling(), **part("scaling"), stages=_stages(chosen)),
        pruning=replace(Pruning(), **part("pruning")),
        quantization=replace(Quantization(), **part("quantization")),
        recipe=replace(Recipe(), **part("training"), loss_weights=LossWeights(**part("training.loss_weights"))),
    )


def _stages(chosen: Mapping[str, Value]) -> tuple[StageScaling, ...]:
    """Return one entry for every stage up to the last one that is named.

    Stages before it that are not named keep a multiplier of 1.
    """
    by_stage: dict[int, dict[str, Any]] = {}
    for name, value in chosen.items():
        if stage := stage_of(name):
            by_stage.setdefault(stage[0], {})[stage[1]] = value
    return tuple(StageScaling(**by_stage.get(number, {})) for number in range(1, max(by_stage, default=0) + 1))


def for_target(space: SearchSpace, target: Target) -> SearchSpace:
    """Return the space without the precisions and the sparsity that the target cannot run.

    A target without kernels for 2:4 sparsity keeps only the values `none` and `unstructured` of `pruning.sparsity`.

    Raises:
        ConfigError: If no value of an axis is left.
    """
    space = _kept_values(space, "quantization.precision", frozenset(target.precisions), target)
    if not target.sparsity_2_4:
        space = _kept_values(space, "pruning.sparsity", frozenset({"none", "unstructured"}), target)
    return space


def _kept_values(space: SearchSpace, name: str, allowed: Set[str], target: Target) -> SearchSpace:
    axis = axis_of(space.axes, name)
    asked = axis.values if isinstance(axis, Choice) else (default_value(name),)
    kept = tuple(value for value in asked if value in allowed)
    if not kept:
        msg = (
            f"search space {space.name!r} asks for {name} {', '.join(map(str, asked))}, of which target "
            f"{target.name!r} runs none; it runs {', '.join(sorted(allowed))}"
        )
        raise ConfigError(msg)
    if kept == asked:
        return space
    axes = tuple(replace(named, axis=Choice(values=kept)) if named.name == name else named for named in space.axes)
    return replace(space, axes=axes)


def random_candidates(space: SearchSpace, n: int, seed: int) -> tuple[Candidate, ...]:
    """Draw `n` candidates at random, in memory.

    The same seed gives the same candidates; the same candidate may be drawn more than once.
    """
    import optuna  # takes 0.4 s, and only the commands that sample need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        optuna.logging.set_verbosity(verbosity)
    return tuple(suggest(study.ask(), space) for _ in range(n))


def ends_short(space: SearchSpace) -> tuple[str, ...]:
    """Return a line for each stepped range whose upper end lies between two steps and is therefore never asked."""
    return tuple(
        f"{named.name}: steps of {axis.step:g} from {axis.low:g} end at {axis.last:g}, so high = {axis.high:g} is "
        f"never asked; write high = {axis.last:g}, or a step that meets it."
        for named in space.axes
        if isinstance(axis := named.axis, Range) and axis.last != axis.high
    )


def without_effect(space: SearchSpace) -> tuple[str, ...]:
    """Return a line for each axis that changes nothing.

    These are training axes that the space's schedule does not read, and cuts to a size of which there is only one.
    """
    axis = axis_of(space.axes, "training.schedule")
    schedules: tuple[Value, ...] = (default_value("training.schedule"),)
    if isinstance(axis, Choice):
        schedules = axis.values
    single = tuple(
        f"{named.name} has no effect: the space has one {BY_AXES[named.name]} alone, and nothing is cut to it."
        for named in space.axes
        if named.name in BY_AXES and named.axis != _FROM_SCRATCH and not _has_sizes(space, BY_AXES[named.name])
    )
    return single + tuple(
        f"{named.name} has no effect with training.schedule = {' or '.join(map(repr, schedules))}: it belongs to "
        f"{' or '.join(map(repr, sorted(set(READ_BY[named.name]))))}."
        for named in space.axes
        if named.name in READ_BY and not set(READ_BY[named.name]) & set(schedules)
    )


_FROM_SCRATCH = Choice(values=("scratch",))


def _has_sizes(space: SearchSpace, multiplier: str) -> bool:
    """Tell whether the space has several values of a multiplier, or of that of a stage."""
    return any(
        fixed_value(named) is None
        for named in space.axes
        if named.name == f"scaling.{multiplier}" or ((stage := stage_of(named.name)) and stage[1] == multiplier)
    )


def cheapest(space: SearchSpace) -> Candidate:
    """Return the candidate with the smallest multipliers and nothing cut; a choice of names takes the first listed."""
    return _candidate(space, first_value)


def usual(space: SearchSpace) -> Candidate:
    """Return the candidate with the default of every axis; its smallest or first value where it has no default."""

    def usual_value(named: NamedAxis) -> Value:
        default = default_value(named.name)
        return default if offers(named, default) else first_value(named)

    return _candidate(space, usual_value)


def uncut_parameters(space: SearchSpace) -> dict[str, OptunaChoice]:
    """Return the Optuna parameter with which no channels are cut; none if the space has no such choice."""
    whole, name = cheapest(space), "pruning.channel_fraction"
    if whole.pruning.channel_fraction > 0:
        return {}
    asked = trial_parameters(whole, space)
    return {key: asked[key] for key in (name, index_name(name)) if key in asked}


def trial_parameters(candidate: Candidate, space: SearchSpace) -> dict[str, OptunaChoice]:
    """Return the Optuna parameters with which a trial replays `candidate`.

    This is the inverse of `suggest`, and is derived from it.
    """
    replay = _Replay(candidate, space)
    suggest(replay, space)
    return replay.asked


def sampled_values(candidate: Candidate, space: SearchSpace) -> dict[str, Value]:
    """Return the candidate's values of the axes that are sampled and have an effect on it, by name."""
    found: dict[str, Value] = {}

    def value_of(named: NamedAxis) -> Value:
        found[named.name] = candidate_value(candidate, named.name)
        return found[named.name]

    _candidate(space, value_of)
    return found


class _Replay:
    """A trial that answers with the values of a candidate and remembers what it was asked."""

    def __init__(self, candidate: Candidate, space: SearchSpace) -> None:
        self.asked: dict[str, OptunaChoice] = {}
        self._answers: dict[str, Value] = {}
        for named in space.axes:
            value = candidate_value(candidate, named.name)
            self._answers[named.name] = value
            self._answers[index_name(named.name)] = _position(named, value)

    def suggest_categorical(self, name: str, choices: Sequence[OptunaChoice]) -> OptunaChoice:
        """Return the candidate's value."""
        self.asked[name] = self._answers[name]
        return self._answers[name]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return the candidate's value."""
        self.asked[name] = self._answers[name]
        return float(self._answers[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Return the candidate's value, or its position in the list."""
        self.asked[name] = self._answers[name]
        return int(self._answers[name])


def _position(named: NamedAxis, value: Value) -> int:
    values = ordered_values(named)
    return min(range(len(values)), key=lambda i: abs(float(values[i]) - float(value)), default=0)


def candidate_value(candidate: Candidate, name: str) -> Value:
    """Return the value that `candidate` has for the axis `name`."""
    return value_reader(name)(candidate)


@functools.cache
def value_reader(name: str) -> Callable[[Candidate], Value]:
    """Return what tells the value that a candidate has for the axis `name`.

    Raises:
        ConfigError: If there is no such axis.
    """
    field_type(name)
    stage = stage_of(name)
    if stage:
        number, leaf = stage
        return lambda candidate: (
            getattr(candidate.scaling.stages[number - 1], leaf) if number <= len(candidate.scaling.stages) else 1.0
        )
    group, *nested, leaf = name.split(".")
    return operator.attrgetter(".".join(["recipe" if group == "training" else group, *nested, field_of(leaf)]))
