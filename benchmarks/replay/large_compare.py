"""Samplers side by side on the space of `replay.large`, and stages scaled alike against stages by themselves.

    export PYTHONPATH=benchmarks
    python -m replay.make_table --data DIR --large 260 --steps 240 --seeds 0 --to large.jsonl
    python -m replay.make_table --data DIR --large 260 --steps 240 --seeds 0 --to large.jsonl --latency
    python -m replay.large_compare large.jsonl --seeds 20

The rule, written down before any run:

* A search sees the fit's accuracy with the noise of a training seed (`NOISE_SD`: one part is shared by the candidates
  of a trunk, one is each network's own) and its latency with that of a process. It is judged by the fit without noise.
* Value, minutes and trainings are those of `replay.compare_samplers`: the hypervolume of all that it observed as a
  fraction of the best possible, the front of 50,000 random candidates and of all that any search found.
* No search is told the reference point of that hypervolume.
* `global` chooses among the candidates whose stages are scaled alike (4 resolutions, 5 widths, 2 depths, 2 kernels; the
  stem stays as it is in both), all others among all candidates.
* All are asked by the rules of a run, as in `replay.samplers`: what has too many MACs is told as such and costs
  nothing, four candidates in a row that taught nothing are followed by random draws, and twenty end the search.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna

from replay.compare_samplers import cell, reached
from replay.large import Surrogate, known_of
from replay.lines import read_lines
from replay.session import InARow, Observed
from replay.shapes import Shape, large_space, shape_of
from scalesearch.analysis.baselines import DRAWS_ITS_START, RANDOM_START
from scalesearch.analysis.belief import Observation
from scalesearch.analysis.front import Point, hypervolume, undominated
from scalesearch.search.costs import in_trainings
from scalesearch.search.growth import propose
from scalesearch.search.samplers import make_sampler
from scalesearch.spaces.moves import drawn
from scalesearch.spaces.suggest import cheapest, suggest, trial_parameters
from scalesearch.values.candidate import Candidate, Pruning, Scaling
from scalesearch.values.settings import SamplerName
from scalesearch.values.space import SearchSpace

NOISE_SD: Final = (0.009, 0.005)
"""Standard deviations of the accuracy by a trunk's seed and by a network's own: together 1.02 points, as in the table
of grocery42."""
LATENCY_NOISE: Final = 0.006
FIXED_S: Final = 1.4
"""Quantization, score and timing of a point: the median of the table of grocery42, in int8 and in fp32."""
LIMIT: Final = "max_macs"
FRONT_DRAWS: Final = 50_000


class LargeReplay:
    """Answers a search by the fit, with noise, and counts what it would have cost.

    Args:
        surrogate: The fit.
        limit_macs: Candidates above it are refused.
        seed: Of the noise.
    """

    def __init__(self, surrogate: Surrogate, limit_macs: float, seed: int) -> None:
        self._surrogate, self._limit_macs, self._seed = surrogate, limit_macs, seed
        self.observed: dict[Candidate, Observed] = {}
        self.truth: dict[Candidate, tuple[float, float]] = {}
        """Of what was observed: (accuracy, milliseconds) without noise."""
        self._trunks, self._networks = set[str](), set[Shape]()
        self.seconds, self.at = 0.0, list[tuple[int, float]]()
        """`at` has (trainings, seconds) after each observation."""

    @property
    def trainings(self) -> int:
        """Number of networks trained so far."""
        return len(self._networks)

    def excess(self, candidate: Candidate) -> float:
        """Return by how much the candidate's MACs exceed the limit, as a part of it; above 0, it is refused."""
        return float(np.exp(self._surrogate.tell([self._in_table(candidate)])["log_macs"][0])) / self._limit_macs - 1

    def evaluate(self, candidate: Candidate) -> Observed:
        """Train, score and time a candidate, or return what is known of it."""
        if candidate in self.observed:
            return replace(self.observed[candidate], charged=False, repeated=True)
        there = self._in_table(candidate)
        told = {name: float(each[0]) for name, each in self._surrogate.tell([there]).items()}
        shape = shape_of(there)
        trunk = shape.trunk.name
        charged = shape not in self._networks
        if trunk not in self._trunks:
            self.seconds += math.exp(told["log_trunk_s"])
        if charged:
            self.seconds += math.exp(told["log_branch_s"])
        self.seconds += FIXED_S
        self._trunks.add(trunk)
        self._networks.add(shape)
        score = told["val"] + NOISE_SD[0] * self._noise(trunk) + NOISE_SD[1] * self._noise(shape.name)
        own = f"{shape.name} {candidate.quantization.precision}"
        ms = math.exp(told["log_ms"] + LATENCY_NOISE * self._noise(f"{own} ms"))
        found = Observed(score=score, p50_ms=ms, charged=charged)
        self.observed[candidate] = found
        self.truth[candidate] = (told["val"], math.exp(told["log_ms"]))
        self.at.append((self.trainings, self.seconds))
        return found

    def _in_table(self, candidate: Candidate) -> Candidate:
        """Return the candidate of the large space that is meant."""
        return candidate

    def _noise(self, name: str) -> float:
        """Return a standard normal number that belongs to this name in this replay."""
        return float(np.random.default_rng([self._seed, *name.encode()]).standard_normal())


def searched(replay: LargeReplay, space: SearchSpace, name: SamplerName, *, seed: int, trainings: int) -> float:
    """Let a sampler search until so many networks are trained; return the seconds that an ask took in the mean.

    The first candidate is the cheapest one, and a random start follows, uncut for `growth`, as in a run.

    Args:
        replay: What answers.
        space: The space that it chooses from.
        name: The sampler.
        seed: Of all random numbers.
        trainings: How many networks are trained.
    """
    study = optuna.create_study(directions=["maximize", "minimize"])
    asked, in_a_row, spent_s, random = 0, InARow(), 0.0, np.random.default_rng([seed, 4])
    while replay.trainings < trainings and not in_a_row.ended:
        began = time.perf_counter()
        start = asked < RANDOM_START.get(name, RANDOM_START["gp"]) and name not in DRAWS_ITS_START
        by_chance = start or in_a_row.by_chance(name)
        queued: Candidate | None = None
        if asked == 0:
            queued = cheapest(space)
        elif name == "growth" and start:
            queued = replace(drawn(space, random), pruning=Pruning())
        elif name == "growth" and not by_chance:
            queued = _proposed(replay, space, seed * 100_003 + asked)
        if queued:
            study.enqueue_trial(trial_parameters(queued, space))
        kind: SamplerName = "random" if by_chance or name == "growth" else name
        study.sampler = make_sampler(kind, seed=seed, trial=asked, workers=1)
        trial = study.ask()
        candidate = suggest(trial, space)
        spent_s, asked = spent_s + time.perf_counter() - began, asked + 1
        excess = replay.excess(candidate)
        trial.set_constraint(LIMIT, excess)
        if excess > 0:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            in_a_row.add_rejected()
            continue
        seen = replay.evaluate(candidate)
        study.tell(trial, [seen.score, seen.p50_ms])
        in_a_row.add(seen)
    return spent_s / asked


def _proposed(replay: LargeReplay, space: SearchSpace, seed: int) -> Candidate | None:
    """Return what `growth` proposes: as in a run, by a hypervolume of its own."""
    observed = [
        Observation(candidate=candidate, score=each.score, p50_ms=each.p50_ms)
        for candidate, each in replay.observed.items()
    ]
    return propose(
        space, observed, running=(), cost=in_trainings(space, replay.observed), seed=seed,
        is_open=lambda each: each not in replay.observed and replay.excess(each) <= 0,
    )  # fmt: skip


def alike(space: SearchSpace) -> SearchSpace:
    """Return the space of the candidates whose stages are scaled alike, with the axes of the first stage for all."""
    renamed = {f"scaling.stages.1.{name}": f"scaling.{name}" for name in ("width", "depth", "kernel")}
    kept = [each for each in space.axes if each.name not in renamed.values()]
    axes = (
        replace(each, name=renamed.get(each.name, each.name))
        for each in kept
        if each.name in renamed or not each.name.startswith("scaling.stages.")
    )
    return replace(space, axes=tuple(axes))


def by_stages(candidate: Candidate) -> Candidate:
    """Return the candidate of the large space whose stages are these; only its stem is that of width 1."""
    own = candidate.scaling
    if own.stages:
        return candidate
    shape = shape_of(candidate)
    stages = ((own.width, own.depth, own.kernel),) * 3
    shape = replace(shape, width=1.0, depth=1.0, kernel=1.0, stages=stages)
    scaling: Scaling = shape.candidate(steps=candidate.recipe.steps).scaling
    return replace(candidate, scaling=scaling)


class AlikeReplay(LargeReplay):
    """Answers for candidates whose stages are scaled alike, which it takes for those of the large space."""

    def _in_table(self, candidate: Candidate) -> Candidate:
        return by_stages(candidate)


NAMES: Final = ("random", "nsga2", "tpe", "gp", "growth")


def compare(
    surrogate: Surrogate, space: SearchSpace, names: Sequence[str], seeds: int, trainings: int
) -> Iterator[str]:
    """Yield the lines of the comparison."""
    limit = space.limits.max_macs or math.inf
    random = np.random.default_rng(7)
    pool = [drawn(space, random) for _ in range(FRONT_DRAWS)]
    told = surrogate.tell(pool)
    fits = np.exp(told["log_macs"]) <= limit
    truths = list(zip(told["val"][fits].tolist(), np.exp(told["log_ms"][fits]).tolist(), strict=True))
    reference = (float(told["val"][fits].min()), float(np.exp(told["log_ms"][fits]).max()))
    runs = list[dict[str, Any]]()
    for name in names:
        for seed in range(seeds):
            replay = (AlikeReplay if name == "global" else LargeReplay)(surrogate, limit, seed)
            own = alike(space) if name == "global" else space
            sampler: SamplerName = "growth" if name == "global" else name  # type: ignore[assignment]
            ask_s = searched(replay, own, sampler, seed=seed, trainings=trainings)
            runs.append({"sampler": name, "seed": seed, "replay": replay, "ask_s": ask_s})
    front = undominated([*truths, *(each for run in runs for each in run["replay"].truth.values())], lambda each: each)
    best = hypervolume(front, reference)
    worst = f"{reference[0]:.3f}, {reference[1]:.3f} ms"
    yield f"best possible front: {len(front)} points, hypervolume {best:.4f} beyond {worst}"
    yield f"{'sampler':10}{'final %':>22}{'trainings to 95 %':>20}{'to 99 %':>20}{'minutes to 95 %':>22}{'ask, s':>8}"
    for name in names:
        mine = [run for run in runs if run["sampler"] == name]
        grown = [_grown(run["replay"], reference, best) for run in mine]
        final = [100 * each["share"][-1] for each in grown]
        cells = [cell(final, ".1f")]
        cells += [cell([reached(each, target)[0] for each in grown], ".0f") for target in (0.95, 0.99)]
        cells.append(cell([reached(each, 0.95)[1] for each in grown], ".1f"))
        asked = np.mean([run["ask_s"] for run in mine])
        yield f"{name:10}{cells[0]:>22}{cells[1]:>20}{cells[2]:>20}{cells[3]:>22}{asked:>8.3f}"


def _grown(replay: LargeReplay, reference: Point, best: float) -> dict[str, list[float]]:
    """Return the growth of a search in the form that `compare_samplers.reached` reads."""
    truths = list(replay.truth.values())
    shares = [
        hypervolume(undominated(truths[: end + 1], lambda each: each), reference) / best for end in range(len(truths))
    ]
    return {
        "share": shares,
        "trainings": [float(count) for count, _ in replay.at],
        "minutes": [seconds / 60 for _, seconds in replay.at],
    }


def main() -> None:
    """Print the errors of the fit, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="file of replay.make_table --large, packed or not")
    parser.add_argument("--steps", type=int, default=240, help="length of the trainings")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each sampler")
    parser.add_argument("--trainings", type=int, default=100, help="of one search")
    parser.add_argument("--samplers", nargs="+", choices=[*NAMES, "global"], default=[*NAMES, "global"])
    told = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, known = large_space(), known_of(read_lines(told.table), told.steps)
    surrogate = Surrogate(space, known)
    off = surrogate.held_out()
    print(
        f"{len(known.candidates)} points of {len(set(known.trunks))} trunks; trunks left out: accuracy off by "
        f"{100 * off['val']:.2f} points, latency by {100 * off['log_ms']:.1f} %, MACs by {100 * off['log_macs']:.1f} "
        f"%, trunk by {100 * off['log_trunk_s']:.0f} % and branch by {100 * off['log_branch_s']:.0f} % of its seconds",
        flush=True,
    )
    for line in compare(surrogate, space, told.samplers, told.seeds, told.trainings):
        print(line, flush=True)


if __name__ == "__main__":
    main()
