"""Short trainings, long ones, or both in turn? Searches replayed at equal time, judged by their front at full length.

    export PYTHONPATH=benchmarks
    python -m replay.lengths TABLE --steps 240 480 960 --minutes 5 10 15 20

The rule, written down before any run on a real table:

* Every search ends with a front whose members all stand at the longest length of `--steps`. Its time includes that: a
  search stops when the time that is left is what it takes to lengthen the members of its front, trunk by trunk.
* Minutes are CPU seconds of one worker, as in `replay.compare_samplers`. A longer training of a trunk that was trained
  before costs what it adds, a shorter one is trained anew; its branch is trained anew. A point is timed once.
* The members at full length are observed with the validation accuracy of one seed. What is then undominated is handed
  over, and judged by the truth at full length: the hypervolume as a fraction of the best possible.

The searches; all begin alike and choose by the program's model of accuracy and latency, by a hypervolume of its own as
in a run, and by cost in seconds. All choose among the points of the table alone: that spares them the networks which a
thinned table lacks, but no search more than another:

* flat N: every candidate is trained for N updates;
* halving: candidates start at the shortest length; of every three that stand at a length, the one that lies nearest to
  the front there goes on to the next (asynchronous successive halving, arXiv 1810.05934, by two objectives);
* belief: the length is one of the model's inputs. A training is worth the expected growth of the front *at full
  length*, times the correlation of what it would show with the score at full length (Huang et al. 2006, "Sequential
  kriging optimization using multiple-fidelity evaluations"), divided by its seconds;
* members: the same, and after the beginning, whenever less than a quarter of the seconds went into full length, the
  most promising member of the believed front is brought there. It is what `scalesearch run` does.

For each search a second line tells what stands at full length by then, for a user who stops it without notice.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from replay.compare_samplers import cell
from replay.lines import Line, read_lines
from replay.session import Observed
from replay.shapes import Shape, table_space
from replay.strategy import GROWTH_START, POOL
from replay.table import Seconds, Table, table_of
from scalesearch.analysis.belief import Belief, Features, Observation, depth_below_front
from scalesearch.analysis.front import undominated
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.search.lengths import MEMBERS_SHARE
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import Choice, NamedAxis

Array = NDArray[np.float64]
Work = tuple[int, int]
"""The place of a point in the table, and the number of updates that it is trained for."""

REDUCTION: Final = 3
"""Of so many candidates at a length, one goes on to the next."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lengths:
    """Tables of the same points and seeds, one for each length; shortest first."""

    by_steps: dict[int, Table]

    @property
    def steps(self) -> tuple[int, ...]:
        """The lengths, ascending."""
        return tuple(self.by_steps)

    @functools.cached_property
    def last(self) -> Table:
        """The table of the longest trainings: the truth."""
        return self.by_steps[self.steps[-1]]

    @functools.cached_property
    def candidates(self) -> dict[Work, Candidate]:
        """Every point at every length as a candidate."""
        return {
            (place, steps): point.shape.candidate(steps=steps, precision=point.precision)
            for steps in self.steps
            for place, point in enumerate(self.last.points)
        }


def read_lengths(path: Path, steps: Sequence[int]) -> Lengths:
    """Return the tables of a file for these lengths, of the seeds that all of them have.

    Raises:
        SystemExit: No point has all seeds at a length, or the lengths have different points.
        OSError: The file cannot be read.
    """
    return lengths_of(read_lines(path), steps, name=str(path))


def lengths_of(lines: Sequence[Line], steps: Sequence[int], *, name: str = "the table") -> Lengths:
    """Return the tables of these lines; see `read_lengths`."""
    seeds = set[int]()
    for place, length in enumerate(steps):
        own = {line["seed"] for line in lines if line["kind"] == "accuracy" and line["steps"] == length}
        seeds = own if place == 0 else seeds & own
    kept = [line for line in lines if line["kind"] != "accuracy" or line["seed"] in seeds]
    tables = {length: table_of(kept, length, name=name) for length in sorted(steps)}
    if len({tuple(table.places) for table in tables.values()}) > 1:
        message = f"{name}: expected the same points at {', '.join(map(str, steps))} updates; finish the table first"
        raise SystemExit(message)
    return Lengths(by_steps=tables)


class Session:
    """Answers a search out of the tables and counts the seconds that this would have cost.

    Args:
        lengths: The tables.
        seed: Of the draws: a training seed for each trunk, and a process for each point.
    """

    def __init__(self, lengths: Lengths, seed: int) -> None:
        self.lengths = lengths
        table, random = lengths.last, np.random.default_rng(seed)
        trunks = sorted({point.shape.trunk.name for point in table.points})
        self._seed_of = dict(zip(trunks, random.integers(0, table.val.shape[1], len(trunks)).tolist(), strict=True))
        self._process_of = random.integers(0, table.latency_ms.shape[1], len(table.points))
        self.observed: dict[Work, Observed] = {}
        """In the order in which it was observed."""
        self.seconds = 0.0

    def seconds_of(self, work: Sequence[Work]) -> float:
        """Return the seconds that this work would add, done in this order."""
        trunks, branches, scored, timed = self._done()
        spent_s = 0.0
        for place, steps in work:
            shape, cost = self.lengths.last.points[place].shape, self._cost(place, steps)
            if (place, steps) in scored:
                continue
            if steps not in trunks.setdefault(shape.trunk, set()):
                shorter = max((each for each in trunks[shape.trunk] if each < steps), default=0)
                spent_s += max(0.0, cost.trunk - (self._cost(place, shorter).trunk if shorter else 0.0))
                trunks[shape.trunk].add(steps)
            spent_s += (cost.branch if (shape, steps) not in branches else 0.0) + cost.score
            spent_s += cost.timing if place not in timed else 0.0
            branches.add((shape, steps))
            scored.add((place, steps))
            timed.add(place)
        return spent_s

    def do(self, work: Work) -> None:
        """Train, score and time a point."""
        self.seconds += self.seconds_of([work])
        self.observed[work] = self.look(work)

    def look(self, work: Work) -> Observed:
        """Return what a search would observe."""
        place, steps = work
        table = self.lengths.by_steps[steps]
        score = float(table.val[place, self._seed_of[table.points[place].shape.trunk.name]])
        ms = float(self.lengths.last.latency_ms[place, self._process_of[place]])
        return Observed(score=score, p50_ms=ms, charged=work not in self.observed)

    def to_finish(self, places: Sequence[int]) -> list[Work]:
        """Return the work that brings these points to the longest length."""
        return [(place, self.lengths.steps[-1]) for place in places]

    @property
    def standing(self) -> float:
        """The share of the best hypervolume of what was observed at the longest length."""
        return self.handed_over([place for place, steps in self.observed if steps == self.lengths.steps[-1]])

    def handed_over(self, places: Sequence[int]) -> float:
        """Return the share of the best hypervolume of what remains of these points at the longest length."""
        seen = {place: self.look((place, self.lengths.steps[-1])) for place in places}
        shown = undominated(places, lambda place: (seen[place].score, seen[place].p50_ms))
        return self.lengths.last.share(shown)

    def _cost(self, place: int, steps: int) -> Seconds:
        return self.lengths.by_steps[steps].seconds[place]

    def _done(self) -> tuple[dict[Shape, set[int]], set[tuple[Shape, int]], set[Work], set[int]]:
        """Return the lengths of each trunk, the branches, the points and the timed places that are there."""
        trunks = dict[Shape, set[int]]()
        for place, steps in self.observed:
            trunks.setdefault(self.lengths.last.points[place].shape.trunk, set()).add(steps)
        branches = {(self.lengths.last.points[place].shape, steps) for place, steps in self.observed}
        return trunks, branches, set(self.observed), {place for place, _ in self.observed}


class Strategy(Protocol):
    """A search over points and lengths."""

    def ask(self, session: Session) -> Work | None:
        """Return what to do next; None if nothing is left."""

    def front(self, session: Session) -> list[int]:
        """Return the points that it would lengthen and hand over if it ended now."""


class Start:
    """The first points of every search: the cheapest uncut one, then others that are uncut, by chance."""

    def __init__(self, lengths: Lengths, seed: int) -> None:
        points = lengths.last.points
        cheapest = min(range(len(points)), key=lambda place: (points[place].shape.cut > 0, points[place].macs))
        order = np.random.default_rng([seed, 2]).permutation(len(points)).tolist()
        others = [place for place in order if place != cheapest and not points[place].shape.cut]
        self.places = [cheapest, *others][:GROWTH_START]


class Flat:
    """Trains every candidate for the same number of updates.

    Args:
        lengths: The tables.
        seed: Of all random numbers.
        steps: That number.
    """

    def __init__(self, lengths: Lengths, seed: int, *, steps: int) -> None:
        self._lengths, self._steps = lengths, steps
        self._start = Start(lengths, seed).places
        self._random = np.random.default_rng([seed, 3])

    def ask(self, session: Session) -> Work | None:
        """Return what to do next; None if every point was observed."""
        while self._start:
            work = (self._start.pop(0), self._steps)
            if work not in session.observed:
                return work
        return self.new(session)

    def new(self, session: Session) -> Work | None:
        """Return the point that is expected to enlarge the front of this length most for its seconds."""
        open_places = [
            place for place in range(len(self._lengths.last.points)) if (place, self._steps) not in session.observed
        ]
        if not open_places:
            return None
        pool = [(place, self._steps) for place in self._random.permutation(open_places)[:POOL].tolist()]
        own = {work: seen for work, seen in session.observed.items() if work[1] == self._steps}
        belief = Belief(table_space(), observations(self._lengths, own))
        candidates = [self._lengths.candidates[work] for work in pool]
        growth = belief.growth(candidates, belief.reference(candidates))
        return pool[int(np.argmax(growth / expected_seconds(session, pool)))]

    def front(self, session: Session) -> list[int]:
        """Return the front of what was observed at this length."""
        own = {place: seen for (place, steps), seen in session.observed.items() if steps == self._steps}
        return undominated(list(own), lambda place: (own[place].score, own[place].p50_ms))


class Halving(Flat):
    """Starts short, and lengthens one of every three that stand at a length: the one nearest to the front there."""

    def __init__(self, lengths: Lengths, seed: int) -> None:
        super().__init__(lengths, seed, steps=lengths.steps[0])

    def ask(self, session: Session) -> Work | None:
        """Return a candidate that may go on, the longest first; else a new one at the shortest length."""
        rungs = self._lengths.steps
        for rung, following in reversed(list(itertools.pairwise(rungs))):
            here = {place: seen for (place, steps), seen in session.observed.items() if steps == rung}
            there = {place for place, steps in session.observed if steps == following}
            if len(here) // REDUCTION > len(there):
                places = list(here)
                scores = np.array([here[place].score for place in places])
                log_ms = np.log([here[place].p50_ms for place in places])
                order = np.argsort(depth_below_front(scores, log_ms), kind="stable")
                left = [places[at] for at in order if places[at] not in there]
                if left:
                    return left[0], following
        return super().ask(session)

    def front(self, session: Session) -> list[int]:
        """Return the front by the longest training of each point, compared with those of that length alone.

        A point is left out if another one that is at least as fast has a higher score at a length that both have.
        """
        by_place: dict[int, dict[int, Observed]] = {}
        for (place, steps), seen in session.observed.items():
            by_place.setdefault(place, {})[steps] = seen

        def beaten(place: int) -> bool:
            return any(_beats(other, by_place[place]) for at, other in by_place.items() if at != place)

        return [place for place in by_place if not beaten(place)]


def _beats(one: dict[int, Observed], other: dict[int, Observed]) -> bool:
    steps = max(set(one) & set(other))
    mine, its = one[steps], other[steps]
    return mine.p50_ms <= its.p50_ms and mine.score > its.score


class ByBelief:
    """The length is an input of the model, and what is worth most a second is done.

    Args:
        lengths: The tables.
        seed: Of all random numbers.
        members: The least part of the seconds that goes into members of the believed front at full length.
    """

    def __init__(self, lengths: Lengths, seed: int, *, members: float = 0.0) -> None:
        self._lengths, self._members, self._members_s = lengths, members, 0.0
        places = Start(lengths, seed).places
        # The cheapest one at every length: so the model sees what a longer training brings.
        self._start = [*((places[0], steps) for steps in lengths.steps), *((each, lengths.steps[0]) for each in places)]
        self._random = np.random.default_rng([seed, 3])
        self._fitted: tuple[int, Belief] | None = None
        steps = NamedAxis(name="training.steps", axis=Choice(values=lengths.steps))
        space = table_space()
        self._space = replace(space, axes=(*(each for each in space.axes if each.name != steps.name), steps))

    def ask(self, session: Session) -> Work | None:
        """Return what to do next; None if every point was observed at the longest length."""
        work = self._chosen(session)
        if work is not None and work[1] == self._lengths.steps[-1]:
            self._members_s += session.seconds_of([work])
        return work

    def _chosen(self, session: Session) -> Work | None:
        while self._start:
            work = self._start.pop(0)
            if work not in session.observed:
                return work
        last = self._lengths.steps[-1]
        if self._members_s < self._members * session.seconds:
            pool = [(place, last) for place in self.front(session) if (place, last) not in session.observed]
            if pool:
                return self._best(session, pool)
        open_places = [
            place for place in range(len(self._lengths.last.points)) if (place, last) not in session.observed
        ]
        if not open_places:
            return None
        places = self._random.permutation(open_places)[:POOL].tolist()
        works = [(place, steps) for steps in self._lengths.steps for place in places]
        return self._best(session, [work for work in works if work not in session.observed])

    def _best(self, session: Session, pool: Sequence[Work]) -> Work:
        candidates, belief = [self._lengths.candidates[work] for work in pool], self._belief(session)
        worth = belief.promise(candidates, belief.reference(candidates)) / expected_seconds(session, pool)
        return pool[int(np.argmax(worth))]

    def front(self, session: Session) -> list[int]:
        """Return the front of what the model believes at the longest length."""
        last, believed = self._lengths.steps[-1], self._belief(session).believed()
        places = list(dict.fromkeys(place for place, _ in session.observed))
        return undominated(places, lambda place: believed[self._lengths.candidates[place, last]])

    def _belief(self, session: Session) -> Belief:
        if self._fitted is None or self._fitted[0] != len(session.observed):
            seen = observations(self._lengths, session.observed)
            self._fitted = len(seen), Belief(self._space, seen, full_updates=self._lengths.steps[-1])
        return self._fitted[1]


def observations(lengths: Lengths, observed: dict[Work, Observed]) -> list[Observation]:
    """Return what was observed as the program's model takes it."""
    return [
        Observation(candidate=lengths.candidates[work], score=seen.score, p50_ms=seen.p50_ms)
        for work, seen in observed.items()
    ]


def expected_seconds(session: Session, pool: Sequence[Work]) -> Array:
    """Return the seconds that each work is expected to take (n,): a fit to those that were done, less what is stored.

    A trunk of L updates costs two thirds of the L updates of a whole training, a branch the other third.
    """
    lengths, done = session.lengths, list(session.observed)
    features = Features(table_space())
    whole = [lengths.by_steps[steps].seconds[place] for place, steps in done]
    per_update = [(each.trunk + each.branch) / steps for each, (_, steps) in zip(whole, done, strict=True)]
    model = LogLinear(features.of([lengths.candidates[work] for work in done]), per_update)
    fixed_s = float(np.median([each.score + each.timing for each in whole]))
    update_s = model.predict(features.of([lengths.candidates[work] for work in pool]))
    trunks, branches, _, timed = session._done()
    found = list[float]()
    for (place, steps), each_s in zip(pool, update_s, strict=True):
        shape = lengths.last.points[place].shape
        stored = max((each for each in trunks.get(shape.trunk, ()) if each <= steps), default=0)
        trunk = (steps - stored) * 2 / 3
        branch = 0.0 if (shape, steps) in branches else steps / 3
        found.append(float(each_s) * (trunk + branch) + fixed_s * (1.0 if place not in timed else 0.5))
    return np.array(found)


@dataclass(frozen=True, slots=True)
class Course:
    """Shares of the best hypervolume in the course of a search, one for each limit of seconds, ascending."""

    handed_over: tuple[float, ...]
    """Of the front that it hands over if it knows the limit; 0 where not even one candidate could be finished."""
    standing: tuple[float, ...]
    """Of what it has brought to full length by then without knowing of a limit."""


def replayed(
    lengths: Lengths, make: Callable[[Lengths, int], Strategy], seed: int, limits_s: Sequence[float]
) -> Course:
    """Return what a search has by each limit of seconds."""
    session, strategy = Session(lengths, seed), make(lengths, seed)
    handed_over, standing = [0.0] * len(limits_s), [0.0] * len(limits_s)
    limits, ended = sorted(limits_s), 0
    """`ended` is the number of limits at which the search would have stopped by now."""
    while session.seconds <= limits[-1]:
        work = strategy.ask(session)
        if work is None:
            break
        session.do(work)
        front = strategy.front(session)
        ended_s = session.seconds + session.seconds_of(session.to_finish(front))
        now, whole = session.handed_over(front), session.standing
        while ended < len(limits) and ended_s > limits[ended]:
            ended += 1
        handed_over[ended:] = [now] * (len(limits) - ended)
        standing = [whole if session.seconds <= limit_s else was for limit_s, was in zip(limits, standing, strict=True)]
    return Course(tuple(handed_over), tuple(standing))


def strategies(lengths: Lengths) -> dict[str, Callable[[Lengths, int], Strategy]]:
    """Return the searches by name."""

    def flat(steps: int) -> Callable[[Lengths, int], Strategy]:
        return lambda table, seed: Flat(table, seed, steps=steps)

    found: dict[str, Callable[[Lengths, int], Strategy]] = {f"flat {steps}": flat(steps) for steps in lengths.steps}
    return found | {
        "halving": Halving,
        "belief": ByBelief,
        "members": lambda table, seed: ByBelief(table, seed, members=MEMBERS_SHARE),
    }


def report(lengths: Lengths, minutes: Sequence[float], seeds: int, names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each search: median (quartiles) over the seeds, in percent of the best possible."""
    yield f"{len(lengths.last.points)} points; lengths {', '.join(map(str, lengths.steps))}; {seeds} seeds"
    yield f"{'search':12}" + "".join(f"{f'{each:g} min':>22}" for each in minutes) + f"{'thought, s':>12}"
    for name, make in strategies(lengths).items():
        if names and name not in names:
            continue
        began = time.perf_counter()
        rows = [replayed(lengths, make, seed, [60 * each for each in minutes]) for seed in range(seeds)]
        thought_s = (time.perf_counter() - began) / seeds
        for told, shares in ((name, [row.handed_over for row in rows]), ("  standing", [row.standing for row in rows])):
            columns = ([100 * share for share in column] for column in zip(*shares, strict=True))
            cells = [f"{cell(column, '.1f'):>22}" for column in columns]
            yield f"{told:12}{''.join(cells)}" + f"{thought_s:>12.1f}" * (told == name)


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="file of replay.make_table, packed or not")
    parser.add_argument("--steps", type=int, nargs="+", default=[240, 480, 960], help="the lengths")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 15, 20], help="of one worker")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind")
    parser.add_argument("--searches", nargs="+", default=[], help="names of searches (default: all)")
    told = parser.parse_args()
    for line in report(read_lengths(told.table, told.steps), sorted(told.minutes), told.seeds, told.searches):
        print(line, flush=True)


if __name__ == "__main__":
    main()
