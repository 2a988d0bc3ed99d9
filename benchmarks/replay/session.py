"""One replayed search: what it has observed so far, and what that would have cost."""

from dataclasses import dataclass, replace

import numpy as np

from replay.shapes import Shape
from replay.table import Table
from scalesearch.analysis.front import undominated
from scalesearch.search.asking import BY_CHANCE_AFTER
from scalesearch.search.ledger import FREE_IN_A_ROW, MEASURED
from scalesearch.search.samplers import LEARNS_FROM_REJECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a search is told of a point."""

    score: float
    """Accuracy on validation images, as a fraction, after the training from one seed."""
    p50_ms: float
    """Latency in one process."""
    charged: bool
    """Whether the network had to be trained; it need not be if it was trained before, in this or another precision."""
    repeated: bool = False
    """Whether the point was observed before, so that nothing was done for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """How far a search has come after one more point."""

    trainings: int
    seconds: float
    share: float
    """Hypervolume of all points so far by the truth, as a fraction of the best possible."""


class Replay:
    """Answers a search out of the table.

    Each run draws one seed for each trunk, since the networks of a trunk share what chance did to it, and one process
    for each point. A point that was observed before is answered as before, at no cost.

    Args:
        table: The table.
        seed: Of the draws: equal seeds give equal observations, whatever a search asks first.
    """

    def __init__(self, table: Table, seed: int) -> None:
        self.table = table
        random = np.random.default_rng(seed)
        trunks = sorted({point.shape.trunk.name for point in table.points})
        self._seed_of = dict(zip(trunks, random.integers(0, table.val.shape[1], len(trunks)).tolist(), strict=True))
        self._process_of = random.integers(0, table.latency_ms.shape[1], len(table.points))
        self._trunks, self._networks = set[Shape](), set[Shape]()
        self._timed_untrained = set[int]()
        self.observed: dict[int, Observed] = {}
        """By place in the table, in the order in which they were observed."""
        self.seconds = 0.0
        self.grown: list[Grown] = []

    @property
    def trainings(self) -> int:
        """Number of networks trained so far."""
        return len(self._networks)

    def is_trained(self, shape: Shape) -> bool:
        """Tell whether the network was trained in this search, in whatever precision it is deployed."""
        return shape in self._networks

    def evaluate(self, place: int) -> Observed:
        """Train (if need be), score and time a point; return what the search sees of it."""
        if place in self.observed:
            known = self.observed[place]
            return replace(known, charged=False, repeated=True)
        shape, spent = self.table.points[place].shape, self.table.seconds[place]
        charged = shape not in self._networks
        if shape.trunk not in self._trunks:
            self.seconds += spent.trunk
        if charged:
            self.seconds += spent.branch
        self.seconds += spent.score + spent.timing
        self._trunks.add(shape.trunk)
        self._networks.add(shape)
        score = float(self.table.val[place, self._seed_of[shape.trunk.name]])
        found = Observed(score=score, p50_ms=self.known_ms(place), charged=charged)
        self.observed[place] = found
        share = self.table.share(self.observed)
        self.grown.append(Grown(trainings=self.trainings, seconds=self.seconds, share=share))
        return found

    def time_untrained(self, place: int) -> float:
        """Return the latency of an untrained network in milliseconds; the file and the timing cost their seconds."""
        if place not in self._timed_untrained and place not in self.observed:
            self.seconds += self.table.seconds[place].untrained + self.table.seconds[place].timing
            self._timed_untrained.add(place)
        return self.known_ms(place)

    def known_ms(self, place: int) -> float:
        """Return the latency of a point in this run's process, in milliseconds, at no cost."""
        return float(self.table.latency_ms[place, self._process_of[place]])

    def handed_over(self) -> float:
        """Return the share of the hypervolume, by the truth, of the front that the observations show."""
        places = list(self.observed)
        shown = undominated(places, lambda place: (self.observed[place].score, self.observed[place].p50_ms))
        return self.table.share(shown)


class InARow:
    """How many candidates in a row cost no training, counted as a run counts them (`Ledger.count`)."""

    def __init__(self) -> None:
        self._free, self._repeats = 0.0, 0

    @property
    def ended(self) -> bool:
        """Whether the search ends because of them."""
        return self._free >= FREE_IN_A_ROW

    def by_chance(self, name: str) -> bool:
        """Tell whether the sampler of that name is replaced by a random draw until it is told something new."""
        return (self._repeats if name in LEARNS_FROM_REJECTED else self._free) >= BY_CHANCE_AFTER

    def add_rejected(self) -> None:
        """Count a candidate above a limit."""
        self._free, self._repeats = self._free + 1, 0

    def add(self, observed: Observed) -> None:
        """Count what a candidate showed."""
        self._free = 0.0 if observed.charged else self._free + (1 if observed.repeated else MEASURED)
        self._repeats = self._repeats + 1 if observed.repeated else 0
