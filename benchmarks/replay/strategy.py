"""What is compared with Optuna's samplers: the program's own `growth` (`ProposedSearch`), and a strategy by exact MACs.

The latter (`GrowthSearch`) has two Gaussian processes and the exact expected growth, and chooses among the points of
the table alone:

* Accuracy is learnt over the positions on the axes (ordered), the precision and the logarithm of the MACs; the
  logarithm of the latency over the same and the logarithm of the parameters. MACs and parameters are exact before any
  training. Kernels are tuned at every fifth observation.
* A pool of 256 candidates that were not observed: 70 % are members of the front with one or two axes moved by a step,
  the others are drawn at random. The one with the largest expected growth of the hypervolume comes next. The front in
  that sum is the model's: posterior means of what was observed, so that a lucky score does not stand in the way. The
  reference lies a tenth of the span beyond the worst that was observed or is expected.
* Its first ten points are those of every sampler (the cheapest dense network, then random ones); or spread over the
  MACs, one random network from each tenth of them.
* With `measured`, the four best of the pool are timed untrained, and the best by those latencies is trained.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from replay.session import InARow, Observed, Replay
from replay.shapes import PRECISIONS, place_in, table_space, values_of
from replay.stand_ins import StandIns
from replay.table import Table
from scalesearch.analysis.baselines import RANDOM_START
from scalesearch.analysis.belief import Features, Observation, depth_below_front
from scalesearch.analysis.expected_growth import expected_growth
from scalesearch.analysis.front import undominated
from scalesearch.analysis.gaussian_process import GaussianProcess, newest_and_best
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.search.costs import Costs, in_trainings, trained_from
from scalesearch.search.growth import propose
from scalesearch.search.samplers import seed_of
from scalesearch.spaces.moves import drawn
from scalesearch.spaces.suggest import cheapest
from scalesearch.values.candidate import Candidate, Pruning

Array = NDArray[np.float64]

POOL: Final = 256
MUTANTS: Final = 0.7
START: Final = 10
GROWTH_START: Final = round(RANDOM_START["growth"])
TUNE_EVERY: Final = 5
TIMED: Final = 4
TIMED_SD: Final = 1e-6
"""Standard deviation of the log latency of a candidate that was timed."""
BEYOND: Final = 0.1


def features_of(table: Table) -> tuple[Array, Array]:
    """Return what accuracy and log latency are learnt from: (points, 7) and (points, 8), each near 0..1."""
    values = values_of(table_space())
    axes = [[*place_in(values, p.shape), PRECISIONS.index(p.precision)] for p in table.points]
    logs = np.log([[p.macs, p.params] for p in table.points])
    span = np.ptp(logs, axis=0)
    logs = (logs - logs.min(axis=0)) / np.where(span > 0, span, 1.0)
    for_latency = np.hstack([np.array(axes, dtype=np.float64), logs])
    return for_latency[:, :-1], for_latency


def neighbours(table: Table) -> list[list[int]]:
    """Return for every point the places of those that differ by one step on one axis, or in the precision alone."""
    values = values_of(table_space())
    at = np.array(
        [
            [*(values[name].index(getattr(point.shape, name)) for name in values), PRECISIONS.index(point.precision)]
            for point in table.points
        ]
    )
    steps = np.abs(at[:, None] - at[None]).sum(axis=2)
    return [np.flatnonzero(row == 1).tolist() for row in steps]


class Model:
    """What is believed of accuracy and log latency after some observations."""

    def __init__(self, features: tuple[int, int]) -> None:
        self._score, self._log_ms = GaussianProcess(features[0]), GaussianProcess(features[1])
        self._fits = 0

    def fit(self, for_score: Array, for_latency: Array, scores: Array, log_ms: Array) -> None:
        """Fit to n observations: features (n, ...), accuracies and log latencies (n,), oldest first."""
        kept = newest_and_best(for_score, depth_below_front(scores, log_ms))
        tune = self._fits % TUNE_EVERY == 0
        self._score.fit(for_score[kept], scores[kept], tune=tune)
        self._log_ms.fit(for_latency[kept], log_ms[kept], tune=tune)
        self._fits += 1

    def scores(self, for_score: Array) -> tuple[Array, Array]:
        """Return means and standard deviations of accuracies."""
        return self._score.predict(for_score)

    def log_ms(self, for_latency: Array) -> tuple[Array, Array]:
        """Return means and standard deviations of log latencies."""
        return self._log_ms.predict(for_latency)


def reference_of(observed: tuple[Array, Array], expected: tuple[Array, Array]) -> tuple[float, float]:
    """Return the worst (score, log latency) of all that was observed or is expected, and a tenth of the span beyond.

    Without the expected ones, a search whose first points are fast would never look at slower ones.
    """
    scores, log_ms = (np.concatenate(pair) for pair in zip(observed, expected, strict=True))
    return float(scores.min() - BEYOND * np.ptp(scores)), float(log_ms.max() + BEYOND * np.ptp(log_ms))


_Item = TypeVar("_Item")


def spread_over(
    items: Iterable[_Item], macs: Callable[[_Item], int], parts: int, random: np.random.Generator
) -> list[_Item]:
    """Return an item by chance from each of so many equal parts of the items, sorted by MACs."""
    ordered = sorted(items, key=macs)
    places = (random.choice(part) for part in np.array_split(np.arange(len(ordered)), parts) if len(part))
    return [ordered[int(place)] for place in places]


class GrowthSearch:
    """The strategy by exact MACs on a table, which chooses among its points alone.

    Args:
        table: The table.
        seed: Of all random numbers.
        spread: Whether the first points are spread over the MACs.
        measured: Whether candidates are timed before one is trained.
    """

    def __init__(self, table: Table, seed: int, *, spread: bool = False, measured: bool = False) -> None:
        self._table, self._measured = table, measured
        self._random = np.random.default_rng([seed, 1])
        self._for_score, self._for_latency = features_of(table)
        self._steps = neighbours(table)
        self._model = Model((self._for_score.shape[1], self._for_latency.shape[1]))
        self._start = self._spread() if spread else self._by_chance()

    def ask(self, replay: Replay) -> int | None:
        """Return the place of the next point in the table; None if all were observed."""
        while self._start:
            place = self._start.pop(0)
            if place not in replay.observed:
                return place
        if len(replay.observed) == len(self._table.points):
            return None
        seen = np.array(list(replay.observed))
        scores = np.array([each.score for each in replay.observed.values()])
        log_ms = np.log([each.p50_ms for each in replay.observed.values()])
        self._model.fit(self._for_score[seen], self._for_latency[seen], scores, log_ms)
        believed = self._model.scores(self._for_score[seen])[0]
        front = list(zip(believed.tolist(), log_ms.tolist(), strict=True))
        pool = self._pool(replay)
        score, latency = self._model.scores(self._for_score[pool]), self._model.log_ms(self._for_latency[pool])
        reference = reference_of((scores, log_ms), (score[0], latency[0]))
        growth = expected_growth(front, reference, score, latency)
        if self._measured:
            best = np.argsort(-growth, kind="stable")[:TIMED]
            timed = np.array([math.log(replay.time_untrained(int(pool[place]))) for place in best])
            exact = (timed, np.full(len(best), TIMED_SD))
            growth = expected_growth(front, reference, (score[0][best], score[1][best]), exact)
            pool = pool[best]
        return int(pool[int(np.argmax(growth))])

    def tell(self, place: int, observed: Observed) -> None:
        """Do nothing: what was observed is read from the replay."""

    def _by_chance(self) -> list[int]:
        points = self._table.points
        first = min(range(len(points)), key=lambda place: (points[place].shape.cut > 0, points[place].macs))
        others = self._random.permutation(len(points)).tolist()
        return [first, *(place for place in others if place != first)][:START]

    def _spread(self) -> list[int]:
        points = self._table.points
        fp32 = [place for place, point in enumerate(points) if point.precision == "fp32"]
        return spread_over(fp32, lambda place: points[place].macs, START, self._random)

    def _pool(self, replay: Replay) -> NDArray[np.int64]:
        """Return up to `POOL` places that were not observed, without repeats."""
        unseen = np.array([place for place in range(len(self._table.points)) if place not in replay.observed])
        if len(unseen) <= POOL:
            return unseen
        seen = replay.observed
        front = undominated(list(seen), lambda place: (seen[place].score, seen[place].p50_ms))
        pool = dict[int, None]()
        for _ in range(round(MUTANTS * POOL)):
            place = front[self._random.integers(len(front))]
            for _ in range(self._random.integers(1, 3)):
                if self._steps[place]:
                    place = self._steps[place][self._random.integers(len(self._steps[place]))]
            if place not in seen:
                pool[place] = None
        for place in self._random.permutation(unseen).tolist():
            if len(pool) >= POOL:
                break
            pool[place] = None
        return np.array(list(pool))


class ProposedSearch:
    """The program's own sampler `growth` on a table, asked as a run asks it: it does not know which networks are there.

    It chooses from the whole space within the limits, by a hypervolume of its own. Where the table lacks a network, the
    nearest one stands in, and is what the search learns of. The network that was asked for is not asked for again, like
    one that fails in a run.

    Args:
        table: The table.
        seed: Of all random numbers.
        uncut: Whether the first points are dense networks.
        by_time: Whether a candidate's cost counts in seconds, not in trainings.
        start: Number of points before the model.
        spread: Whether the first points are spread over the MACs: the cheapest, then one of each part of the rest.
        table_only: Whether the model chooses among the points of the table alone.
    """

    def __init__(
        self,
        table: Table,
        seed: int,
        *,
        uncut: bool = True,
        by_time: bool = False,
        start: int = GROWTH_START,
        spread: bool = False,
        table_only: bool = False,
    ) -> None:
        self._by_time, self._table_only = by_time, table_only
        self._table, self._space, self._seed = table, table_space(), seed
        self._stand_ins, self._in_a_row = StandIns(table), InARow()
        steps = cheapest(self._space).recipe.steps
        self._candidates = [point.shape.candidate(steps=steps, precision=point.precision) for point in table.points]
        self._replaced, self._asked = set[Candidate](), 0
        self._random = np.random.default_rng([seed, 2])
        others = self._spread(start - 1, uncut=uncut) if spread else self._by_chance(start - 1, uncut=uncut)
        self._start = [cheapest(self._space), *others]

    def ask(self, replay: Replay) -> int | None:
        """Return the place of the next candidate that is within the limits; None at the end of the search."""
        while not self._in_a_row.ended:
            candidate = self._next(replay)
            self._asked += 1
            if self._stand_ins.is_rejected(candidate):
                self._in_a_row.add_rejected()
                continue
            own = self._stand_ins.own(candidate)
            if own is not None:
                return own
            self._replaced.add(candidate)
            return self._stand_ins.nearest(candidate)
        return None

    def tell(self, place: int, observed: Observed) -> None:
        """Count what cost no training; the rest of what was observed is read from the replay."""
        self._in_a_row.add(observed)

    def _next(self, replay: Replay) -> Candidate:
        if self._start:
            return self._start.pop(0)
        proposed = None if self._in_a_row.by_chance("growth") else self._proposed(replay)
        return proposed or drawn(self._space, self._random)

    def _proposed(self, replay: Replay) -> Candidate | None:
        observed = [
            Observation(
                candidate=self._candidates[place],
                score=each.score,
                p50_ms=each.p50_ms,
                macs=self._table.points[place].macs,
            )
            for place, each in replay.observed.items()
        ]

        def is_open(candidate: Candidate) -> bool:
            known = candidate in self._replaced or self._stand_ins.own(candidate) in replay.observed
            return not known and not self._stand_ins.is_rejected(candidate)

        return propose(
            self._space, observed, running=(), cost=self._cost(replay, observed), is_open=is_open,
            seed=seed_of(self._seed, self._asked), pool=self._of_table(replay) if self._table_only else (),
        )  # fmt: skip

    def _of_table(self, replay: Replay) -> list[Candidate]:
        """Return up to `POOL` points of the table that were not observed."""
        unseen = [place for place in range(len(self._candidates)) if place not in replay.observed]
        return [self._candidates[place] for place in self._random.permutation(unseen)[:POOL].tolist()]

    def _cost(self, replay: Replay, observed: list[Observation]) -> Costs:
        known = [each.candidate for each in observed]
        if not self._by_time:
            return in_trainings(self._space, known)
        spent = [self._table.seconds[place] for place in replay.observed]
        model = LogLinear(Features(self._space).of(known), [each.trunk + each.branch for each in spent])
        return Costs(
            space=self._space,
            trained=trained_from(known, self._space),
            fixed=float(np.median([each.score + each.timing for each in spent])),
            training=lambda candidate: float(model.predict(Features(self._space).of([candidate]))[0]),
        )

    def _by_chance(self, count: int, *, uncut: bool) -> list[Candidate]:
        """Return candidates drawn as a run draws them: one twice, or one above a limit, may be among them."""
        found = [drawn(self._space, self._random) for _ in range(count)]
        return [replace(each, pruning=Pruning()) if uncut else each for each in found]

    def _spread(self, count: int, *, uncut: bool) -> list[Candidate]:
        """Return candidates within the limits that are spread over the MACs, in a random order."""
        first, macs = cheapest(self._space), self._table.macs
        kept = [each for each in macs if each not in self._table.rejected and not (uncut and each.cut)]
        steps = first.recipe.steps
        others = [
            (candidate, macs[shape])
            for shape in kept
            for precision in PRECISIONS
            if (candidate := shape.candidate(steps=steps, precision=precision)) != first
        ]
        found = spread_over(others, lambda each: each[1], count, self._random)
        return [found[place][0] for place in self._random.permutation(len(found)).tolist()]
