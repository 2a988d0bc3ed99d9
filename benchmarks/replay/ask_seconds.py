"""How long does a sampler think when many trials are stored? Seconds of one ask, by sampler and number of trials.

    PYTHONPATH=benchmarks python -m replay.ask_seconds --trials 100 1000 5000

The stored trials are random candidates of the default space with made-up values (`replay.synthetic`), kept in memory:
a database on disk adds its own time. Asked is the sampler's proposal alone; `growth` also plans its best candidates,
which took 0.16 s each in resnet_small and 0.24 s in mobilenet_small, beside other work.
"""

import argparse
import time
import warnings
from collections.abc import Sequence

import numpy as np
import optuna

from replay.samplers import BOTORCH, OptunaSearch, missing
from replay.session import Replay
from replay.shapes import shape_of, table_space
from replay.synthetic import accuracy, latency_ms, synthetic_lines
from replay.table import table_of
from scalesearch.analysis.belief import Observation
from scalesearch.search.costs import in_trainings
from scalesearch.search.growth import propose
from scalesearch.spaces.suggest import random_candidates, suggest, trial_parameters
from scalesearch.values.candidate import Candidate

OPTUNA = ("random", "nsga2", "tpe", "gp", BOTORCH)


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


def growth_seconds(candidates: Sequence[Candidate], asks: int) -> list[float]:
    """Return the seconds of each of several proposals of the program's own sampler, without plans."""
    random = np.random.default_rng(0)
    observed = []
    for candidate in candidates:
        shape, precision = shape_of(candidate), candidate.quantization.precision
        score = accuracy(shape, precision, 240) + float(random.normal(0, 0.01))
        observed.append(Observation(candidate=candidate, score=score, p50_ms=latency_ms(shape, precision)))
    found, cost = list[float](), in_trainings(table_space(), candidates)
    for seed in range(asks):
        started_s = time.perf_counter()
        propose(table_space(), observed, running=(), cost=cost, is_open=lambda _: True, seed=seed)
        found.append(time.perf_counter() - started_s)
    return found


def main() -> None:
    """Print the seconds of one ask: the median of several."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 5000], help="stored trials")
    parser.add_argument("--asks", type=int, default=5, help="of which the median is printed")
    parser.add_argument("--samplers", nargs="+", choices=[*OPTUNA, "growth"], default=[*OPTUNA, "growth"])
    told = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(f"{'sampler':10}" + "".join(f"{f'{count} trials':>14}" for count in told.trials))
    for name in told.samplers:
        if why := missing(name):
            print(f"{name}: left out, {why}")
            continue
        cells = list[str]()
        for count in told.trials:
            if name == "growth":
                seconds = growth_seconds(stored_candidates(count), told.asks)
            else:
                seconds = optuna_seconds(name, stored_candidates(count), told.asks)
            cells.append(f"{np.median(seconds):>12.3f} s")
        print(f"{name:10}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
