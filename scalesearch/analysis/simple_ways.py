"""What simpler ways than a search would have found, as a model of the study's trials expects.

These are the baselines that a user has in mind: networks by chance, a grid of width x resolution (MobileNet, arXiv
1704.04861), and compound scaling (EfficientNet, arXiv 1905.11946). None of their networks has to be trained: the model
expects a score and a latency of each. The study's own trials are judged by the same model, so that luck in their
measurements does not count for them.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from scalesearch.analysis.belief import Belief, Observation, at_length, within_limits
from scalesearch.analysis.front import Point, hypervolume
from scalesearch.spaces.asking import offers, ordered_values
from scalesearch.spaces.axes import Value, default_value, field_type, typed
from scalesearch.spaces.moves import drawn, free_axes
from scalesearch.spaces.suggest import candidate_with
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import NamedAxis, Range, SearchSpace

RESOLUTION, WIDTH, DEPTH = "scaling.resolution", "scaling.width", "scaling.depth"
PRECISION: Final = "quantization.precision"
GROWTH_BY_PHI: Final = {DEPTH: 1.2, WIDTH: 1.1, RESOLUTION: 1.15}
"""By how much each multiplier grows with a step of phi: EfficientNet, section 3.3."""
_PHIS: Final = tuple(step / 2 for step in range(-16, 17))
_SPREAD: Final = 5
"""Number of values that a grid takes from a range without steps."""
_MOST: Final = 8
"""Most values of an axis that a grid takes."""
_POOL: Final = 300
_SETS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleWay:
    """One simpler way, and what the model expects of it."""

    name: str
    networks: int
    """Number of networks that it trains, each deployed in every precision of the space."""
    hypervolume: float
    """In parts of that of the study's trials."""
    score: float | None
    """The best score with no more than the given latency, as a fraction; None where none is as fast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleWays:
    """What the model expects of the study's trials and of simpler ways."""

    at_ms: float
    """The latency up to which scores are compared: what the model expects of the study's knee, in ms."""
    score: float
    """The best score that the model expects of a trial with no more than that latency."""
    ways: tuple[SimpleWay, ...]
    by_chance: int = 0
    """Number of networks by chance that would be a fair rival. If there is no such way, too few were found: the space
    is small, or its limits leave little of it."""


def simple_ways(space: SearchSpace, belief: Belief, *, knee: Candidate, seed: int = 0) -> SimpleWays | None:
    """Return what simpler ways would have found; None where the space leaves them no choice.

    Args:
        space: The search space.
        belief: The model of the study's trials.
        knee: The knee of the study's front.
        seed: Of the networks by chance.
    """
    random = np.random.default_rng(seed)
    length = _full_length(belief)
    count = _trained(belief.observations, length)
    most = max(_POOL, 2 * count)
    by_chance = _pool(space, belief, (drawn(space, random) for _ in range(2 * most)), length)[:most]
    listed = {
        "width x resolution": _pool(space, belief, _grid(space), length),
        "compound scaling": _pool(space, belief, _compound(space), length),
    }
    observed = [each for each in belief.observations if each.candidate.recipe.steps >= belief.full_updates]
    own = [each.candidate for each in observed if each.feasible]
    judge = _Judge(belief, (*own, knee, *itertools.chain(*by_chance, *itertools.chain(*listed.values()))))
    at_ms = judge.points([knee])[0][1]
    ours = judge.volume(own)
    if not ours:
        return None
    fast_enough = space.limits.max_latency_ms or math.inf
    ways = []
    if len(by_chance) > count:
        sets = [random.choice(len(by_chance), count, replace=False) for _ in range(_SETS)]
        drawn_ones = [list(itertools.chain(*(by_chance[place] for place in places))) for places in sets]
        scores = [found for each in drawn_ones if (found := judge.best(each, at_ms)) is not None]
        ways.append(
            SimpleWay(
                name="by chance",
                networks=count,
                hypervolume=float(np.mean([judge.volume(each, fast_enough) for each in drawn_ones])) / ours,
                score=float(np.mean(scores)) if scores else None,
            )
        )
    for name, networks in listed.items():
        candidates = list(itertools.chain(*networks))
        if len(networks) > 1:
            ways.append(
                SimpleWay(
                    name=name,
                    networks=len(networks),
                    hypervolume=judge.volume(candidates, fast_enough) / ours,
                    score=judge.best(candidates, at_ms),
                )
            )
    if not ways:
        return None
    score = judge.best([*own, knee], at_ms)
    assert score is not None  # the knee is as fast as itself
    return SimpleWays(at_ms=at_ms, score=score, ways=tuple(ways), by_chance=count)


class _Judge:
    """What the model expects of candidates, and how large the front of some of them is."""

    def __init__(self, belief: Belief, candidates: Iterable[Candidate]) -> None:
        every = list(dict.fromkeys(candidates))
        expected = belief.expect(every)
        self._points: dict[Candidate, Point] = {
            candidate: (float(score), math.exp(log_ms))
            for candidate, score, log_ms in zip(every, expected.score[0], expected.log_ms[0], strict=True)
        }
        self._reference = belief.reference(every)

    def points(self, candidates: Iterable[Candidate]) -> list[Point]:
        """Return score and latency of each."""
        return [self._points[each] for each in candidates]

    def volume(self, candidates: Iterable[Candidate], fast_enough_ms: float = math.inf) -> float:
        """Return the hypervolume of those that are fast enough."""
        return hypervolume((each for each in self.points(candidates) if each[1] <= fast_enough_ms), self._reference)

    def best(self, candidates: Iterable[Candidate], at_ms: float) -> float | None:
        """Return the best score with no more than `at_ms`; None without one."""
        return max((score for score, p50_ms in self.points(candidates) if p50_ms <= at_ms), default=None)


def _full_length(belief: Belief) -> int:
    """Return the updates of a whole training: those of the front's members, or else of the longest trial."""
    return belief.full_updates or max(each.candidate.recipe.steps for each in belief.observations)


def _pool(space: SearchSpace, belief: Belief, candidates: Iterable[Candidate], length: int) -> list[list[Candidate]]:
    """Return the networks, each once and in full length, in those precisions in which it probably keeps the limits."""
    networks = list(dict.fromkeys(at_length(each, length).unquantized for each in candidates))
    precisions = [value for named in space.axes if named.name == PRECISION for value in _listed(named)]
    asked: list[dict[str, Value]] = [{PRECISION: value} for value in precisions] or [{}]
    plain = [candidate_with(_plain(space) | each, space).quantization for each in asked]
    every = [replace(each, quantization=one) for each in networks for one in plain]
    kept = dict.fromkeys(within_limits(space, belief.observations, every))
    deployed = ([replace(each, quantization=one) for one in plain] for each in networks)
    within = ([each for each in forms if each in kept] for forms in deployed)
    return [forms for forms in within if forms]


def _trained(observed: Sequence[Observation], length: int) -> int:
    """Return the number of trained networks; one trained in part counts by its share of the full length."""
    longest = dict[Candidate, int]()
    for each in observed:
        network = at_length(each.candidate, length).unquantized
        longest[network] = max(each.candidate.recipe.steps, longest.get(network, 0))
    return max(1, round(sum(min(1.0, updates / length) for updates in longest.values())))


def _grid(space: SearchSpace) -> list[Candidate]:
    """Return every width with every resolution; all else is as in the base network."""
    axes = [named for named in free_axes(space) if named.name in (WIDTH, RESOLUTION)]
    names = [named.name for named in axes]
    return [
        candidate_with(_plain(space) | dict(zip(names, values, strict=True)), space)
        for values in itertools.product(*(_some(_listed(named)) for named in axes))
    ]


def _some(values: Sequence[Value]) -> Sequence[Value]:
    """Return the values of a grid: at most `_MOST`, evenly spread, with both ends."""
    if len(values) <= _MOST:
        return values
    return [values[round(place)] for place in np.linspace(0, len(values) - 1, _MOST)]


def _compound(space: SearchSpace) -> list[Candidate]:
    """Return the networks whose depth, width and resolution grow together, as near as the space has them."""
    axes = [named for named in free_axes(space) if named.name in GROWTH_BY_PHI]
    if len(axes) < 2:
        return []
    return [
        candidate_with(
            _plain(space) | {named.name: _nearest(named, GROWTH_BY_PHI[named.name] ** phi) for named in axes}, space
        )
        for phi in _PHIS
    ]


def _plain(space: SearchSpace) -> dict[str, Value]:
    """Return the values of the base network, or those of the space nearest to them."""
    return {named.name: _nearest(named, default_value(named.name)) for named in free_axes(space)}


def _nearest(named: NamedAxis, wanted: Value) -> Value:
    """Return the value of the axis nearest to the one that is wanted; the first name if it is none of the names."""
    if offers(named, wanted) and not (isinstance(named.axis, Range) and named.axis.step):
        return typed(named.name, wanted)
    if field_type(named.name) not in (int, float):
        return _listed(named)[0]
    return min(_listed(named, ends=float(wanted)), key=lambda value: _ratio(float(value), float(wanted)))


def _ratio(one: float, other: float) -> float:
    """Return how far apart two numbers are, by their ratio where both are above 0."""
    return abs(math.log(one / other)) if one > 0 and other > 0 else abs(one - other)


def _listed(named: NamedAxis, *, ends: float | None = None) -> Sequence[Value]:
    """Return the values of an axis; of a range without steps some, or its end nearest to `ends`."""
    axis = named.axis
    if not isinstance(axis, Range):
        return ordered_values(named) or [typed(named.name, value) for value in axis.values]
    if axis.values:
        return [typed(named.name, value) for value in axis.values]
    if ends is not None:
        return [typed(named.name, min(axis.high, max(axis.low, ends)))]
    spread = np.geomspace if axis.log else np.linspace
    whole = field_type(named.name) is int
    values = [float(value) for value in spread(axis.low, axis.high, _SPREAD)]
    return list(dict.fromkeys(typed(named.name, round(value) if whole else value) for value in values))
