"""Which length of brief training, with or without flips, gives the user the best front at equal wall time?

    python benchmarks/rank_fidelity.py --data DIR --to F.jsonl --steps 240 480 --flip off on --long-flip on
    python benchmarks/recipe_choice.py F.jsonl --minutes 5 10 20

Reads what `rank_fidelity.py` has trained: 24 networks of the default space, each by every recipe, and long. The latency
of each network is measured once (fp32, ONNX Runtime, one thread) and kept beside the results. Searches are then
replayed: networks in random order, each for the CPU seconds that its training took (a cut network whose trunk is there
pays its branch alone) and `--fixed-s` for everything else of a trial. What is finished in time is ranked by brief
validation score and latency, as a run ranks it. Seeds that were trained on unlike days, beside unlike work, took unlike
seconds: with `--seconds-of 1 2` those of these seeds count for all, so that every row has the same clock. Printed is
what the user then has, on images that nothing looked at:

* front: the front's own brief networks, by their test scores;
* confirmed: the same members after the long training (test scores, mean of the seeds), for which no time is counted.

A second table counts that time, too: the search ends when the rest of the time is just enough for the long trainings of
its front (`--minutes-together`; from random weights, a cut member pays its branch alone where another one has its
trunk; `--fixed-s` for everything else of a member).

Both as the hypervolume over the logarithm of the latency between the fastest and the slowest network: the mean of the
best test score, in points, over all latencies a user may ask for. The spread is the standard deviation over the seeds
of the brief trainings; with a single seed it is that over the orders. A star marks searches that had nothing left to
train: there the table says what the recipe makes of all networks, not what is best at that time.
"""

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rank_fidelity import LONG_SEEDS, LONG_STEPS, SHAPES, Job, Results, Shape, Way

from scalesearch.analysis.front import hypervolume, undominated
from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.config import load_run
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.targets import get_target
from scalesearch.measurement.calm_time import calm_time
from scalesearch.measurement.cores import wandering
from scalesearch.networks import find_spec
from scalesearch.tasks.classification.pieces import to_onnx
from scalesearch.values.candidate import Recipe
from scalesearch.values.settings import LatencySettings

SPACE = "resnet_small"
FIRST_STEPS = 240
"""The shortest trainings of rank_fidelity.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One network under one recipe and seed; scores as fractions."""

    shape: Shape
    whole_s: float
    """CPU seconds from random weights."""
    branch_s: float
    """CPU seconds where the trunk is there."""
    val: float
    test: float


def latencies_ms(path: Path, classes: int) -> dict[str, float]:
    """Return the calm latency of every network by its name; measured once, then read from `path`."""
    if path.exists():
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return known
    target, (_, space) = get_target("cpu"), load_run(space=SPACE, overrides=(), flags={})
    basis = PlanBasis(base=find_spec(space.network), space=space, target=target, num_classes=classes, seed=0)
    planner, found = Planner(basis), dict[str, float]()
    with tempfile.TemporaryDirectory() as scratch:
        for shape in SHAPES:
            network = planner.cut(shape.candidate(Recipe()))
            network.module.eval()
            images = np.random.default_rng(0).normal(size=(4, 3, *network.spec.input_size.sides)).astype(np.float32)
            model = to_onnx(fold_batchnorm(network), to=Path(scratch) / "m.onnx", check_images=images)
            with get_backend("onnxruntime").compile(model, EngineOptions()) as engine, wandering(1) as move:
                found[shape.name] = calm_time(engine, settings=LatencySettings(), move=move)
            print(f"latency of {shape.name}: {found[shape.name]:.4f} ms", flush=True)
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def trained(
    done: dict[Job, dict[str, float]], way: Way, seed: int, seconds_of: Sequence[int] = ()
) -> tuple[Trained, ...] | None:
    """Return all networks under this recipe and seed; None where one of them is not trained yet.

    Seconds come from the trainings of 240 updates, which alone began with random weights: longer ones go on from their
    trunks. They are scaled by the number of updates.

    Args:
        done: All trainings.
        way: The recipe.
        seed: Of the trainings.
        seconds_of: Seeds whose mean seconds count; those of `seed` itself where none are given or trained.
    """
    found = list[Trained]()
    for shape in SHAPES:
        line = done.get(Job(network=shape.name, way=way.name, seed=seed))
        first = replace(way, steps=FIRST_STEPS).name
        whole, own = (_cpu_s(done, each, first, seed, seconds_of) for each in (replace(shape, cut=0.0), shape))
        if line is None or whole is None or own is None:
            return None
        longer = way.steps / FIRST_STEPS
        whole_s = branch_s = whole * longer
        if shape.cut:  # by the cosine it is cut after the whole training, by trunk and branch before the branch
            branch_s = own * longer
            whole_s = branch_s + whole_s * (1 if way.schedule == "cosine" else 1 - Recipe().branch_fraction)
        found.append(Trained(shape=shape, whole_s=whole_s, branch_s=branch_s, val=line["val"], test=line["test"]))
    return tuple(found)


def _cpu_s(
    done: dict[Job, dict[str, float]], shape: Shape, way: str, seed: int, seconds_of: Sequence[int]
) -> float | None:
    """Return the CPU seconds of a training; None where it is not there."""
    found = (
        [line["cpu_s"] for each in seeds if (line := done.get(Job(network=shape.name, way=way, seed=each)))]
        for seeds in (seconds_of, (seed,))
    )
    return next((statistics.fmean(each) for each in found if each), None)


def confirm_s(front: Sequence[Trained], seconds: dict[Shape, float], fixed_s: float) -> float:
    """Return the seconds in which the members of a front are trained long, one after the other.

    Args:
        front: The members.
        seconds: CPU seconds of the long trainings: of dense networks from random weights, of cut ones their branches.
        fixed_s: Seconds of a member beside its training.
    """
    dense = {member.shape for member in front if not member.shape.cut}
    cut = {member.shape for member in front if member.shape.cut}
    trunks = {replace(shape, cut=0.0) for shape in cut} - dense
    to_branch = 1 - Recipe().branch_fraction
    spent_s = sum(seconds[shape] for shape in (*dense, *cut)) + to_branch * sum(seconds[shape] for shape in trunks)
    return spent_s + fixed_s * len(front)


def together(
    networks: Sequence[Trained], order: Sequence[int], seconds: float, pool: "Pool"
) -> tuple[int, list[Trained]]:
    """Return how many networks a search has after which its front can still be trained long, and that front."""
    best: tuple[int, list[Trained]] = (0, [])
    for count in range(1, len(order) + 1):
        done, front, spent_s = replay(networks, order[:count], seconds, pool.fixed_s, pool.ms)
        if done < count:
            break
        if spent_s + confirm_s(front, pool.long_s, pool.fixed_s) <= seconds:
            best = done, front
    return best


def replay(
    networks: Sequence[Trained], order: Sequence[int], seconds: float, fixed_s: float, ms: dict[str, float]
) -> tuple[int, list[Trained], float]:
    """Return how many networks a search in this order has after so many seconds, its front, and the seconds of these.

    The front is that by brief validation.
    """
    trunks, finished, spent_s = set[Shape](), list[Trained](), 0.0
    for place in order:
        each = networks[place]
        trunk = replace(each.shape, cut=0.0)
        cost_s = fixed_s + (each.branch_s if each.shape.cut and trunk in trunks else each.whole_s)
        if spent_s + cost_s > seconds:
            break
        spent_s += cost_s
        trunks.add(trunk)
        finished.append(each)
    return len(finished), undominated(finished, lambda each: (each.val, ms[each.shape.name])), spent_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All that replays of one results file share."""

    done: dict[Job, dict[str, float]]
    ms: dict[str, float]
    long: dict[str, float]
    """Mean test score after the long trainings, by network; empty while some of them are missing."""
    orders: tuple[tuple[int, ...], ...]
    fixed_s: float
    long_s: dict[Shape, float] = field(default_factory=dict)
    """CPU seconds of the long trainings: of dense networks from random weights, of cut ones their branches."""
    seconds_of: tuple[int, ...] = ()
    """Seeds whose mean seconds count for all; empty if each seed has its own."""

    def mean_best(self, front: Sequence[Trained], score: Callable[[Trained], float]) -> float:
        """Return the best score within a latency, in points, averaged over the logarithm of the latency."""
        fastest_ms, slowest_ms = min(self.ms.values()), max(self.ms.values())
        points = [(score(member), self.ms[member.shape.name]) for member in front]
        return 100 * hypervolume(points, (0.0, slowest_ms)) / math.log(slowest_ms / fastest_ms)


Cells = Callable[["Pool", Sequence[Sequence[Trained]], float], str]
"""Returns the cells of a recipe's networks, by seed, for a time in seconds."""


def rows(pool: Pool, ways: Sequence[Way], minutes: Sequence[float], *, head: str, cells: Cells) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"{'':20}" + "".join(f"{f'{each:g} min':>34}" for each in minutes)
    yield f"{'recipe':20}" + head * len(minutes)
    for way in ways:
        by_seed = [found for seed in range(100) if (found := trained(pool.done, way, seed, pool.seconds_of))]
        if by_seed:
            told = "".join(cells(pool, by_seed, 60 * each) for each in minutes)
            yield f"{way.name:20}{told}   {len(by_seed)} seed{'s' * (len(by_seed) > 1)}"


def _cells(pool: Pool, by_seed: Sequence[Sequence[Trained]], seconds: float) -> str:
    """Return networks trained, hypervolume of the front with its spread, and that of the front confirmed."""
    counts, briefs, longs = list[float](), list[list[float]](), list[float]()
    for networks in by_seed:
        replays = [replay(networks, order, seconds, pool.fixed_s, pool.ms) for order in pool.orders]
        counts.append(statistics.fmean(count for count, _, _ in replays))
        briefs.append([pool.mean_best(front, lambda member: member.test) for _, front, _ in replays])
        if pool.long:
            longs += [pool.mean_best(front, lambda member: pool.long[member.shape.name]) for _, front, _ in replays]
    means = [statistics.fmean(each) for each in briefs]
    spread = statistics.stdev(means) if len(means) > 1 else statistics.stdev(briefs[0])
    count = statistics.fmean(counts)
    out = "*" if count > 0.95 * len(SHAPES) else " "
    confirmed = f"{statistics.fmean(longs):.1f}" if longs else "-"
    return f"{count:>9.1f}{out}{statistics.fmean(means):>7.1f} ±{spread:<3.1f}{confirmed:>11}"


def _cells_together(pool: Pool, by_seed: Sequence[Sequence[Trained]], seconds: float) -> str:
    """Return networks searched, members confirmed, and the hypervolume of the confirmed front with its spread."""
    counts, members, means, spreads = list[float](), list[float](), list[float](), list[float]()
    for networks in by_seed:
        replays = [together(networks, order, seconds, pool) for order in pool.orders]
        found = [pool.mean_best(front, lambda member: pool.long[member.shape.name]) for _, front in replays]
        counts.append(statistics.fmean(count for count, _ in replays))
        members.append(statistics.fmean(len(front) for _, front in replays))
        means.append(statistics.fmean(found))
        spreads.append(statistics.stdev(found))
    spread = statistics.stdev(means) if len(means) > 1 else spreads[0]
    out = "*" if statistics.fmean(counts) > 0.95 * len(SHAPES) else " "
    value = f"{statistics.fmean(means):.1f} ±{spread:.1f}"
    return f"{statistics.fmean(counts):>9.1f}{out}{statistics.fmean(members):>9.1f}{value:>15}"


def long_seconds(done: dict[Job, dict[str, float]], long: Way, seconds_of: Sequence[int]) -> dict[Shape, float]:
    """Return the CPU seconds of the long trainings by the clock of the brief ones; empty where it is not known.

    Those of dense networks are from random weights, those of cut ones of their branches.
    """
    first = replace(long, steps=FIRST_STEPS).name
    found = {shape: _cpu_s(done, shape, first, 0, seconds_of) for shape in SHAPES}
    known = {shape: each * long.steps / FIRST_STEPS for shape, each in found.items() if each is not None}
    return known if len(known) == len(SHAPES) else {}


def long_scores(done: dict[Job, dict[str, float]], long: Way) -> dict[str, float]:
    """Return the mean test score after the long trainings by network; empty unless all networks have them."""
    found = dict[str, float]()
    for shape in SHAPES:
        lines = [done.get(Job(network=shape.name, way=long.name, seed=seed)) for seed in LONG_SEEDS]
        if not all(lines):
            return {}
        found[shape.name] = statistics.fmean(line["test"] for line in lines if line)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results file of rank_fidelity.py")
    parser.add_argument("--classes", type=int, default=10, help="number of classes, for the latencies")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 10, 20], help="wall time of the searches")
    parser.add_argument(
        "--minutes-together", type=float, nargs="*", default=[7, 10, 15, 20], help="of search and confirmation"
    )
    parser.add_argument("--fixed-s", type=float, default=6.0, help="seconds of a trial beside its training")
    parser.add_argument(
        "--seconds-of",
        type=int,
        nargs="+",
        default=[],
        help="seeds whose mean seconds count for all (default: its own)",
    )
    parser.add_argument("--orders", type=int, default=300, help="random orders that are replayed")
    parser.add_argument("--long-flip", choices=["off", "on"], default="on", help="of the long trainings")
    told = parser.parse_args()
    lines = [json.loads(line) for line in told.results.read_text(encoding="utf-8").splitlines() if line.strip()]
    done = Results(told.results, lines[0]).done()
    ms = latencies_ms(told.results.with_suffix(".latency.json"), told.classes)
    ways = [
        Way(steps=steps, flip=flip, schedule=schedule)
        for schedule in ("cosine", "wsd")
        for steps in (240, 360, 480, 720, 960, 1000)
        for flip in (False, True)
    ]
    random, long = np.random.default_rng(0), Way(steps=LONG_STEPS, flip=told.long_flip == "on")
    pool = Pool(
        done=done,
        ms=ms,
        long=long_scores(done, long),
        long_s=long_seconds(done, long, told.seconds_of),
        orders=tuple(tuple(random.permutation(len(SHAPES)).tolist()) for _ in range(told.orders)),
        fixed_s=told.fixed_s,
        seconds_of=tuple(told.seconds_of),
    )
    head = f"{'networks':>10}{'front':>12}{'confirmed':>12}"
    for row in rows(pool, ways, told.minutes, head=head, cells=_cells):
        print(row)
    if pool.long and pool.long_s and told.minutes_together:
        print("\nsearch and confirmation of its front within one time:")
        head = f"{'searched':>10}{'members':>9}{'confirmed':>15}"
        for row in rows(pool, ways, told.minutes_together, head=head, cells=_cells_together):
            print(row)


if __name__ == "__main__":
    main()
