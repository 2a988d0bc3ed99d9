"""The searches that are compared, by name: each is asked for a place in the table and told what is observed there.

Optuna's samplers are made by the program's own `make_sampler`, and `growth` proposes by the program's own `propose`.
All are asked by the rules of a run: the cheapest candidate first, a random start, random draws after four candidates
in a row that taught nothing, and an end after twenty in a row that needed no training (another precision of a trained
network counts a fifth). All choose from the whole space. A combination above the limit of MACs is told as a run tells
it, and costs nothing. In a thinned table, the nearest network that is there stands in, and the sampler is told the
parameters of that one. Only `growth-table-only` and `exact-macs` choose among the networks of the table alone, which
spares them the networks that stand in: where the table is thinned, do not compare them with the others.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable
from typing import Any, Final, Protocol

import optuna
from optuna.trial import TrialState

from replay.session import InARow, Observed, Replay
from replay.shapes import shape_of, table_space
from replay.stand_ins import StandIns
from replay.strategy import GrowthSearch, ProposedSearch
from replay.table import Table
from scalesearch.analysis.baselines import DRAWS_ITS_START, RANDOM_START
from scalesearch.host import computing_threads
from scalesearch.search.samplers import make_sampler
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.settings import SamplerName

BOTORCH: Final = "botorch"
LIMIT: Final = "max_macs"


class Search(Protocol):
    """One search on a table."""

    def ask(self, replay: Replay) -> int | None:
        """Return the place of the next point in the table; None if the search is at its end."""

    def tell(self, place: int, observed: Observed) -> None:
        """Learn what was observed at the place that was asked for last."""


class OptunaSearch:
    """One of Optuna's samplers on a table.

    Args:
        table: The table.
        seed: Of all random numbers.
        name: The program's name of the sampler, or `botorch`.
    """

    def __init__(self, table: Table, seed: int, *, name: str) -> None:
        self._table, self._seed, self._name = table, seed, name
        self._space = table_space()
        self._stand_ins = StandIns(table)
        with _quiet():
            self.study = optuna.create_study(directions=["maximize", "minimize"])
            """Kept in memory."""
        self.study.enqueue_trial(trial_parameters(cheapest(self._space), self._space))
        self._trial: optuna.Trial | None = None
        self._stands_in = -1
        self._number, self._in_a_row = 0, InARow()

    def ask(self, replay: Replay) -> int | None:
        """Return the place of the sampler's next candidate that is within the limits; None at the end of the search."""
        while not self._in_a_row.ended:
            trial, candidate = self._next()
            if self._stand_ins.is_rejected(candidate):
                self._reject(trial, candidate)
                continue
            self._trial, self._stands_in = trial, -1
            own = self._stand_ins.own(candidate)
            if own is not None:
                return own
            self._stands_in = self._stand_ins.nearest(candidate)
            return self._stands_in
        return None

    def tell(self, place: int, observed: Observed) -> None:
        """Tell Optuna; a candidate that another stands in for fails, and the other is added with its parameters."""
        assert self._trial is not None, "expected a candidate from `ask` first"
        values = [observed.score, observed.p50_ms]
        if self._stands_in == place:
            self._add(self._trial, place, values)
            self.study.tell(self._trial, state=TrialState.FAIL)
        else:
            self._trial.set_constraint(LIMIT, self._excess(place))
            self.study.tell(self._trial, values)
        self._in_a_row.add(observed)

    def skip_start(self) -> None:
        """Let the sampler itself be asked from now on, as if the random start were over."""
        self._number = max(self._number, round(RANDOM_START["gp"]))

    def _next(self) -> tuple[optuna.Trial, Candidate]:
        with _quiet(), computing_threads(1):
            self.study.sampler = self._sampler()
            trial = self.study.ask()
            candidate = suggest(trial, self._space)
        self._number += 1
        return trial, candidate

    def _sampler(self) -> optuna.samplers.BaseSampler:
        name: Any = self._name
        start = name not in DRAWS_ITS_START and self._number < RANDOM_START.get(name, RANDOM_START["gp"])
        if start or self._in_a_row.by_chance(name):
            name = "random"
        number = len(self.study.get_trials(deepcopy=False))
        if name == BOTORCH:
            from optuna_integration import BoTorchSampler  # type: ignore[import-not-found]

            return BoTorchSampler(seed=hash((self._seed, number)) % 2**32)  # type: ignore[no-any-return]
        chosen: SamplerName = name
        return make_sampler(chosen, seed=self._seed, trial=number, workers=1)

    def _reject(self, trial: optuna.Trial, candidate: Candidate) -> None:
        limit = self._space.limits.max_macs or math.inf
        trial.set_constraint(LIMIT, self._table.macs[shape_of(candidate)] / limit - 1)
        self.study.tell(trial, state=TrialState.PRUNED)
        self._in_a_row.add_rejected()

    def _excess(self, place: int) -> float:
        return self._table.points[place].macs / (self._space.limits.max_macs or math.inf) - 1

    def _add(self, asked: optuna.Trial, place: int, values: list[float]) -> None:
        """Add a finished trial with the parameters of the network at `place`, and what the sampler noted at `asked`."""
        point, frozen = self._table.points[place], self.study.trials[asked.number]
        parameters = trial_parameters(point.shape.candidate(steps=240, precision=point.precision), self._space)
        added = optuna.trial.create_trial(
            params=parameters,
            distributions={name: frozen.distributions[name] for name in parameters},
            values=values,
            system_attrs=frozen.system_attrs,
            constraints={LIMIT: self._excess(place)},
        )
        self.study.add_trial(added)


class _quiet(warnings.catch_warnings):  # noqa: N801  (used as a function)
    """Keep Optuna from telling of each trial, and of what is experimental."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)


def _optuna(name: str) -> Callable[[Table, int], Search]:
    return lambda table, seed: OptunaSearch(table, seed, name=name)


SEARCHES: Final[dict[str, Callable[[Table, int], Search]]] = {
    "random": _optuna("random"),
    "nsga2": _optuna("nsga2"),
    "tpe": _optuna("tpe"),
    "gp": _optuna("gp"),
    BOTORCH: _optuna(BOTORCH),
    "growth": lambda table, seed: ProposedSearch(table, seed),
    "growth-seconds": lambda table, seed: ProposedSearch(table, seed, by_time=True),
    "growth-cut-start": lambda table, seed: ProposedSearch(table, seed, uncut=False),
    "growth-spread": lambda table, seed: ProposedSearch(table, seed, spread=True),
    "growth-start-10": lambda table, seed: ProposedSearch(table, seed, start=10),
    "growth-table-only": lambda table, seed: ProposedSearch(table, seed, table_only=True),
    "exact-macs": lambda table, seed: GrowthSearch(table, seed),
    "exact-macs-spread": lambda table, seed: GrowthSearch(table, seed, spread=True),
    "exact-macs-timed": lambda table, seed: GrowthSearch(table, seed, measured=True),
}


def missing(name: str) -> str:
    """Return why a search cannot run here, in words; empty if it can."""
    needed = ("botorch", "optuna_integration") if name == BOTORCH else ()
    absent = [package for package in needed if importlib.util.find_spec(package) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""
