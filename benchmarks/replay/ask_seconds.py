"""How long does a sampler think when many trials are stored? Seconds of one ask, by sampler and number of trials.

    PYTHONPATH=benchmarks python -m replay.ask_seconds --trials 100 1000 5000

The stored trials are random candidates of the default space with made-up values (`replay.synthetic`), kept in memory:
a database on disk adds its own time. Optuna's samplers are asked where all candidates are trained alike.

`growth` is asked as a run asks it in the default space as it is shipped: candidates are trained by unlike lengths, of
which the stored ones have about the shares that the searches of `benchmarks/results/compression_axes_lengths_*.csv`
had; the processor runs fp32 and int8; one of two workers trains a candidate while the other asks; the budget has room
for more, the time is not limited, nor is the latency, so that nothing was timed untrained. Counted is the
proposal with its costs. A run also plans the best candidates, which took 0.16 s each in resnet_small and 0.24 s in
mobilenet_small, beside other work.

Each ask has one trial more than the one before. Printed is the median, and in brackets the longest: of `growth`, that
is one which tunes the model anew, as the first ask of a run that goes on with a study always does.
"""

import argparse
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import optuna

from replay.samplers import BOTORCH, OptunaSearch, missing
from replay.session import Replay
from replay.shapes import PRECISIONS, SECONDS_AT_240, SPACE, shape_of, table_space
from replay.synthetic import accuracy, latency_ms, macs_of, synthetic_lines
from replay.table import table_of
from scalesearch.analysis.belief import Features, Observation
from scalesearch.analysis.log_linear import LogLinear
from scalesearch.config import load_run
from scalesearch.search.costs import Costs, in_trainings, trained_from
from scalesearch.search.growth import propose
from scalesearch.search.lengths import RunRoom
from scalesearch.spaces.moves import drawn
from scalesearch.spaces.suggest import random_candidates, suggest, trial_parameters
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

OPTUNA = ("random", "nsga2", "tpe", "gp", BOTORCH)
SHARES = (0.3, 0.1, 0.6)
"""Of the stored trials that have each length, shortest first."""
ROOM = 100
"""What is left of the budget, in full trainings."""
FIXED_S = 1.5
RAN_S = 5.0
"""For how many seconds the running candidate has run."""


def stored_candidates(count: int) -> list[Candidate]:
    """Return random candidates of the space, with repeats: the space has fewer than there may be trials."""
    return list(random_candidates(table_space(), count, seed=0))


def optuna_seconds(name: str, candidates: Sequence[Candidate], asks: int) -> list[float]:
    """Return the seconds of each of several asks of one of Optuna's samplers."""
    table = table_of(synthetic_lines((240,)), 240)
    search, replay = OptunaSearch(table, 0, name=name), Replay(table, 0)
    _fill(search, candidates)
    found = list[float]()
    for _ in range(asks):
        started_s = time.perf_counter()
        place = search.ask(replay)
        found.append(time.perf_counter() - started_s)
        if place is not None:
            search.tell(place, replay.evaluate(place))
    return found


def _fill(search: OptunaSearch, candidates: Sequence[Candidate]) -> None:
    """Store finished trials in the study of a search, as if it had asked for them."""
    random = np.random.default_rng(0)
    space = table_space()
    asked = search.study.ask()
    suggest(asked, space)
    distributions = search.study.trials[asked.number].distributions
    search.study.tell(asked, [0.5, 1.0])
    for candidate in candidates:
        parameters, shape = trial_parameters(candidate, space), shape_of(candidate)
        precision = candidate.quantization.precision
        values = [accuracy(shape, precision, 240) + random.normal(0, 0.01), latency_ms(shape, precision)]
        own = {name: distributions[name] for name in parameters}
        search.study.add_trial(optuna.trial.create_trial(params=parameters, distributions=own, values=values))
    search.skip_start()


def shipped_space() -> SearchSpace:
    """Return the default space as it is shipped, with the precisions that every processor runs."""
    space = load_run(space=SPACE, overrides=(), flags={})[1]
    return space.with_axis(NamedAxis(name="quantization.precision", axis=Choice(values=PRECISIONS)))


def stored_observations(space: SearchSpace, count: int) -> list[Observation]:
    """Return random candidates of the space within its limit of MACs, in unlike lengths, with made-up values."""
    random, limit = np.random.default_rng(0), space.limits.max_macs or math.inf
    found = list[Observation]()
    while len(found) < count:
        candidate, steps = drawn(space, random), int(random.choice(space.lengths, p=SHARES))
        shape, precision = shape_of(candidate), candidate.quantization.precision
        if macs_of(shape) > limit:
            continue
        found.append(
            Observation(
                candidate=replace(candidate, recipe=replace(candidate.recipe, steps=steps)),
                score=accuracy(shape, precision, steps) + float(random.normal(0, 0.01)),
                p50_ms=latency_ms(shape, precision),
                macs=macs_of(shape),
            )
        )
    return found


def proposed(space: SearchSpace, observed: Sequence[Observation], running: Candidate, seed: int) -> Candidate | None:
    """Return what `growth` proposes while another worker trains a candidate, asked as `search.asking` asks it."""
    lengths, features = space.lengths, Features(space)
    candidates = [each.candidate for each in observed]
    full_s = [(SECONDS_AT_240[0] + SECONDS_AT_240[1] * each.macs / 1e6) * lengths[-1] / 240 for each in observed]
    model = LogLinear(features.of(candidates), full_s)
    seconds = Costs(
        space=space,
        trained=trained_from(candidates, space),
        fixed=FIXED_S,
        training=lambda candidate: float(model.predict(features.of([candidate]))[0]),
        full_updates=lengths[-1],
        running_s={running: RAN_S},
    )
    known = {running, *candidates}
    trainings = replace(in_trainings(space, [running, *candidates], lengths=lengths), in_seconds=seconds)
    return propose(
        space, observed, running=[running], cost=trainings, is_open=lambda each: each not in known, seed=seed,
        lengths=lengths, room=RunRoom(ROOM, math.inf, 2, trainings, None, [running]),
    )  # fmt: skip


def growth_seconds(count: int, asks: int) -> list[float]:
    """Return the seconds of each of several proposals of the program's own sampler, the first with `count` trials."""
    space, found = shipped_space(), list[float]()
    *observed, last = stored_observations(space, count + asks)
    for ask in range(asks):
        started_s = time.perf_counter()
        proposed(space, observed[: count + ask], last.candidate, ask)
        found.append(time.perf_counter() - started_s)
    return found


def main() -> None:
    """Print the seconds of one ask: the median of several, and the longest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], help="stored trials")
    parser.add_argument("--asks", type=int, default=5, help="of which the median and the longest are printed")
    parser.add_argument("--samplers", nargs="+", choices=[*OPTUNA, "growth"], default=[*OPTUNA, "growth"])
    told = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(f"{'sampler':10}" + "".join(f"{f'{count} trials':>22}" for count in told.trials))
    for name in told.samplers:
        if why := missing(name):
            print(f"{name}: left out, {why}")
            continue
        cells = list[str]()
        for count in told.trials:
            if name == "growth":
                seconds = growth_seconds(count, told.asks)
            else:
                seconds = optuna_seconds(name, stored_candidates(count), told.asks)
            cells.append(f"{f'{np.median(seconds):.3f} ({max(seconds):.3f}) s':>22}")
        print(f"{name:10}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
