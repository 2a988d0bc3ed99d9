"""Does brief training rank networks as long training does? Two recipes at equal CPU time, on one real data set.

    python benchmarks/rank_fidelity.py --data DIR --to rank_fidelity.jsonl --workers 2

Sixteen networks of the space `resnet_small`, eight of them at 48 px and differing in width, depth and kernel only, are
trained briefly (as a search does: the default recipe's steps, scored on validation images) and long (six times the
steps, scored on test images). Declared before the first run:

* brief arms: muon and adamw, two seeds each. adamw gets as many more steps as make its CPU time over all networks
  equal to muon's, found by a calibration that is kept with the results. The rates are the best of those tried for each
  by brief validation accuracy on three of the networks (muon 0.01-0.08 with 0.002-0.032 beside it; adamw 0.002-0.016).
* truth of a network: the mean of its long test accuracies, first within each optimizer and then over the two, so that
  neither arm is judged by its own optimizer alone. Each optimizer trains every network long with its own rate from one
  seed; muon trains nine of the networks from a second one. Per-optimizer truths are printed too.
* added after the first run: the same on the brief trainings' validation images. What is asked for is whether brief
  training ranks as long training does; where the test images are of another kind (other shops), the truth above also
  asks whether validation images rank as test images do, and the two answers must be told apart.
* the numbers to beat without any training: sorting by MACs, and by resolution.
* the ceiling: how well one long training ranks as another does.

Every finished training is a line of the results file; the same command continues where it was stopped, and prints the
report alone once all is there.
"""

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from brief_training import tensors
from numpy.typing import NDArray

from scalesearch.data import Dataset, load_dataset
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.values.candidate import OptimizerName, Recipe, Scaling
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import DataSettings, Machine

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

BASE, BASE_PX, FIXED_PX = "resnet_small", 64, 48
LONG_FACTOR = 6
CALIBRATION_STEPS = 12
SCORING_STEPS = 20  # scoring 3,366 images forward costs about as much as this many steps of 64 forward and back
BOOTSTRAPS = 4000
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
OPTIMIZERS: tuple[OptimizerName, ...] = ("muon", "adamw")
RECIPES: dict[OptimizerName, Recipe] = {
    "muon": replace(Recipe(), optimizer="muon", learning_rate=0.016, muon_learning_rate=0.04),
    "adamw": replace(Recipe(), optimizer="adamw", learning_rate=0.008),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One network of the space, and whether its truth is trained from a second seed."""

    resolution_px: int
    width: float
    depth: float
    kernel: float
    second_seed: bool = False

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{self.resolution_px}px w{self.width:g} d{self.depth:g} k{self.kernel:g}"


SHAPES = (
    Shape(resolution_px=48, width=0.5, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=48, width=0.5, depth=2, kernel=1, second_seed=True),
    Shape(resolution_px=48, width=0.5, depth=1, kernel=1.67, second_seed=True),
    Shape(resolution_px=48, width=0.75, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=48, width=0.75, depth=2, kernel=1),
    Shape(resolution_px=48, width=1, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=48, width=1, depth=1, kernel=1.67),
    Shape(resolution_px=48, width=1.5, depth=1, kernel=1),
    Shape(resolution_px=24, width=1, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=24, width=0.5, depth=2, kernel=1.67, second_seed=True),
    Shape(resolution_px=32, width=0.5, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=32, width=1, depth=1, kernel=1),
    Shape(resolution_px=32, width=1.5, depth=1, kernel=1),
    Shape(resolution_px=32, width=0.5, depth=2, kernel=1.67),
    Shape(resolution_px=64, width=0.5, depth=1, kernel=1, second_seed=True),
    Shape(resolution_px=64, width=1, depth=1, kernel=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training: equal jobs have equal results, so a line of the results file answers for it."""

    network: str
    arm: str
    optimizer: OptimizerName
    steps: int
    seed: int


# ---- training, in worker processes ------------------------------------------------------------------------------

_data: list[Dataset] = []  # one per worker process, filled once by `_load`


def _load(settings: DataSettings) -> None:
    _data.append(load_dataset(settings, storage_px=max(shape.resolution_px for shape in SHAPES)))


def _spec(shape: Shape, num_classes: int) -> NetworkSpec:
    scaling = Scaling(
        resolution=shape.resolution_px / BASE_PX, width=shape.width, depth=shape.depth, kernel=shape.kernel
    )
    return scale(base_spec(BASE), scaling, resolution_px=BASE_PX, num_classes=num_classes)


def _recipe(job: Job) -> Recipe:
    return replace(RECIPES[job.optimizer], steps=job.steps)


def run(job: Job) -> dict[str, Any]:
    """The job's line: CPU seconds of training, accuracies on validation and on test images."""
    shape = next(shape for shape in SHAPES if shape.name == job.network)
    data = _data[0].at(shape.resolution_px)
    # The seed of the first weights differs between brief and long: the truth must not share the brief run's luck.
    seed = job.seed + (1000 if job.arm == "long" else 0)
    network = build(_spec(shape, len(data.class_names)), seed=seed)
    started = time.process_time()
    trained = train(
        network, *tensors(data.train), _recipe(job), MACHINE, mean=data.mean, std=data.std, seed=seed
    )  # fmt: skip
    cpu_s = time.process_time() - started
    val, test = (
        score(trained.network, *tensors(part), MACHINE, mean=data.mean, std=data.std) for part in (data.val, data.test)
    )
    return {**asdict(job), "cpu_s": cpu_s, "val": val, "test": test, "safe_recipe_used": trained.safe_recipe_used}


def calibrate() -> dict[str, dict[str, float]]:
    """CPU seconds of one step of every network, by optimizer: the least of three short trainings."""
    seconds: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        data = _data[0].at(shape.resolution_px)
        network = build(_spec(shape, len(data.class_names)))
        for optimizer in OPTIMIZERS * 3:
            job = Job(network=shape.name, arm="", optimizer=optimizer, steps=CALIBRATION_STEPS, seed=0)
            started = time.process_time()
            train(network, *tensors(data.train), _recipe(job), MACHINE, mean=data.mean, std=data.std, seed=0)
            spent = (time.process_time() - started) / CALIBRATION_STEPS
            row = seconds.setdefault(shape.name, {})
            row[optimizer] = min(spent, row.get(optimizer, math.inf))
    return seconds


# ---- what to train, and the results file ------------------------------------------------------------------------


def plan(brief_steps: int, seconds: dict[str, dict[str, float]]) -> list[Job]:
    """All jobs: brief ones first, then the first long ones, then their second seeds; the slowest first in each."""
    totals = {optimizer: sum(row[optimizer] for row in seconds.values()) for optimizer in OPTIMIZERS}
    steps = {"muon": brief_steps, "adamw": round(brief_steps * totals["muon"] / totals["adamw"])}
    slowest_first = sorted(SHAPES, key=lambda shape: -seconds[shape.name]["muon"])
    brief = [
        Job(network=shape.name, arm="brief", optimizer=optimizer, steps=steps[optimizer], seed=seed)
        for seed in (0, 1)
        for shape in slowest_first
        for optimizer in OPTIMIZERS
    ]
    long = [
        Job(network=shape.name, arm="long", optimizer=optimizer, steps=LONG_FACTOR * brief_steps, seed=seed)
        for seed in (0, 1)
        for shape in slowest_first
        for optimizer in OPTIMIZERS
        if seed == 0 or (shape.second_seed and optimizer == "muon")
    ]
    return brief + long


class Results:
    """The lines of the results file; the first says what the run is about and must not change."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self._path = path
        self._lines = [line for line in map(_parsed, _lines(path)) if line]
        if self._lines and self._lines[0] != identity:
            message = f"{path} was begun with {self._lines[0]}, not {identity}: give another --to"
            raise SystemExit(message)
        if not self._lines:
            self.add(identity)

    def add(self, line: dict[str, Any]) -> None:
        """Append one line, on disk when this returns; a line torn by a kill before is closed first."""
        self._lines.append(line)
        torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n") and self._path.stat().st_size > 0
        with self._path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def calibration(self) -> dict[str, dict[str, float]] | None:
        """The kept calibration, if there is one."""
        return next((line["calibration"] for line in self._lines if "calibration" in line), None)

    def of(self, jobs: Iterable[Job]) -> dict[Job, dict[str, Any]]:
        """The lines of those jobs that are done."""
        names = tuple(Job.__dataclass_fields__)
        done = {tuple(line[name] for name in names): line for line in self._lines if "arm" in line}
        keys = {job: tuple(getattr(job, name) for name in names) for job in jobs}
        return {job: done[key] for job, key in keys.items() if key in done}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed


def predicted_cpu_s(jobs: Iterable[Job], seconds: dict[str, dict[str, float]]) -> float:
    """CPU seconds that the jobs will take, scoring included, by the calibration."""
    return sum((job.steps + SCORING_STEPS) * seconds[job.network][job.optimizer] for job in jobs)


# ---- the report -------------------------------------------------------------------------------------------------


def spearman(first: Array, second: Array) -> Array:
    """Rank correlation along the last axis, ties averaged; NaN where one side is constant."""
    one, other = (rank - rank.mean(axis=-1, keepdims=True) for rank in (_ranks(first), _ranks(second)))
    scale_of_both = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    products: Array = (one * other).sum(axis=-1)
    return products / np.where(scale_of_both > 0, scale_of_both, math.nan)


def _ranks(values: Array) -> Array:
    left, right = values[..., :, None], values[..., None, :]
    ranks: Array = (left > right).sum(axis=-1) + 0.5 * (left == right).sum(axis=-1)
    return ranks


def slope(xs: Array, ys: Array) -> float:
    """Least-squares slope of ys over xs."""
    return float(np.polyfit(xs, ys, 1)[0])


def cell(statistic: Callable[[Indices], Array], count: int, form: str = "7.2f") -> str:
    """A statistic of networks (by index, along the last axis) with its 95 % bootstrap interval, as a table's cell."""
    value = float(statistic(np.arange(count)))
    if math.isnan(value):
        return "-"
    drawn = statistic(np.random.default_rng(0).integers(0, count, (BOOTSTRAPS, count)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{value:{form}} [{low:5.2f}, {high:5.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Every number of the networks, one array each, in the order of SHAPES; accuracies in points."""

    brief: dict[tuple[OptimizerName, int], Array]
    """By optimizer and seed, on validation images: what a search sees."""
    brief_test: dict[OptimizerName, Array]
    """Mean over seeds, on test images: what the gap to the truth is taken from."""
    long: dict[tuple[OptimizerName, int], Array]
    """By optimizer and seed; NaN where not trained."""
    truth: Array
    truth_val: Array
    """As `truth`, but on the validation images that the brief trainings are scored on."""
    macs: Array
    resolution_px: Array


def tabulate(done: dict[Job, dict[str, Any]], num_classes: int) -> Table:
    """The results as arrays."""

    def column(arm: str, optimizer: OptimizerName, seed: int, key: str) -> Array:
        found = {
            job.network: 100 * line[key]
            for job, line in done.items()
            if (job.arm, job.optimizer, job.seed) == (arm, optimizer, seed)
        }
        return np.array([found.get(shape.name, math.nan) for shape in SHAPES])

    pairs = [(optimizer, seed) for optimizer in OPTIMIZERS for seed in (0, 1)]
    long = {pair: column("long", *pair, "test") for pair in pairs}
    long_val = {pair: column("long", *pair, "val") for pair in pairs}
    return Table(
        brief={pair: column("brief", *pair, "val") for pair in pairs},
        brief_test={
            optimizer: np.mean([column("brief", optimizer, seed, "test") for seed in (0, 1)], axis=0)
            for optimizer in OPTIMIZERS
        },
        long=long,
        truth=_truth(long),
        truth_val=_truth(long_val),
        macs=np.array([formula_cost(build(_spec(shape, num_classes))).macs for shape in SHAPES], dtype=float),
        resolution_px=np.array([shape.resolution_px for shape in SHAPES], dtype=float),
    )


def _truth(long: dict[tuple[OptimizerName, int], Array]) -> Array:
    """Mean over the optimizers, each the mean of its seeds."""
    of_optimizer = [np.nanmean(np.stack([long["muon", 0], long["muon", 1]]), axis=0), long["adamw", 0]]
    mean: Array = np.mean(of_optimizer, axis=0)
    return mean


def report(table: Table, done: dict[Job, dict[str, Any]]) -> list[str]:
    """The lines to print."""
    fixed = np.array([shape.resolution_px == FIXED_PX for shape in SHAPES])
    groups = {f"all {len(SHAPES)}": np.ones(len(SHAPES), dtype=bool), f"{FIXED_PX} px, {fixed.sum()}": fixed}
    lines = ["", *_networks(table), "", "Spearman with the truth [95 % bootstrap over networks]", _heading(groups)]
    for optimizer in OPTIMIZERS:
        seeds = [table.brief[optimizer, seed] for seed in (0, 1)]
        lines.append(_row(f"brief {optimizer}, one seed (mean of 2)", seeds, table.truth, groups))
        for other in OPTIMIZERS:
            lines.append(_row(f"  against {other}'s truth alone", seeds, table.long[other, 0], groups))
    lines.append(_row("sort by MACs", [table.macs], table.truth, groups))
    lines.append(_row("sort by resolution", [table.resolution_px], table.truth, groups))
    lines += ["", "The same, long training scored on the brief ones' validation images", _heading(groups)]
    for optimizer in OPTIMIZERS:
        seeds = [table.brief[optimizer, seed] for seed in (0, 1)]
        lines.append(_row(f"brief {optimizer}, one seed (mean of 2)", seeds, table.truth_val, groups))
    lines.append(_row("sort by MACs", [table.macs], table.truth_val, groups))
    lines.append(_row("sort by resolution", [table.resolution_px], table.truth_val, groups))
    lines.append(_row("long training, on the test images", [table.truth], table.truth_val, groups))
    lines += ["", "brief muon minus brief adamw, Spearman", _heading(groups), _difference(table, groups)]
    lines += ["", "ceiling: one long training against another", _heading(groups)]
    lines.append(_row("muon, adamw", [table.long["muon", 0]], table.long["adamw", 0], groups))
    second = ~np.isnan(table.long["muon", 1])
    seconds = {f"{second.sum()} networks": second, f"{FIXED_PX} px, {(second & fixed).sum()}": second & fixed}
    lines += [_heading(seconds), _row("muon, two seeds", [table.long["muon", 0]], table.long["muon", 1], seconds)]
    spread = float(np.nanstd(table.long["muon", 0] - table.long["muon", 1]) / math.sqrt(2))
    lines.append(f"standard deviation of one long training over seeds: {spread:.2f} points")
    return [*lines, "", *_gaps(table, done)]


def _heading(groups: dict[str, NDArray[np.bool_]]) -> str:
    return f"{'':36}" + "".join(f"{name:>26}" for name in groups)


def _row(name: str, scores: list[Array], truth: Array, groups: dict[str, NDArray[np.bool_]]) -> str:
    """Mean Spearman of the scores with the truth, within each group."""

    def within(members: NDArray[np.bool_]) -> str:
        def mean(index: Indices) -> Array:
            return _mean_spearman([values[members] for values in scores], truth[members], index)

        return cell(mean, int(members.sum()))

    return f"{name:36}" + "".join(f"{within(members):>26}" for members in groups.values())


def _difference(table: Table, groups: dict[str, NDArray[np.bool_]]) -> str:
    """Lead of brief muon over brief adamw, on the same networks in every draw."""

    def within(members: NDArray[np.bool_]) -> str:
        def lead(index: Indices) -> Array:
            muon, adamw = (
                _mean_spearman([table.brief[name, seed][members] for seed in (0, 1)], table.truth[members], index)
                for name in OPTIMIZERS
            )
            return muon - adamw

        return cell(lead, int(members.sum()), form="+7.2f")

    return f"{'':36}" + "".join(f"{within(members):>26}" for members in groups.values())


def _mean_spearman(scores: list[Array], truth: Array, index: Indices) -> Array:
    mean: Array = np.mean([spearman(values[index], truth[index]) for values in scores], axis=0)
    return mean


def _networks(table: Table) -> list[str]:
    lines = [f"{'network':20} {'MMACs':>6} {'truth':>6}   long muon   long adamw   brief muon   brief adamw  (points)"]
    for place in np.argsort(table.truth):
        pairs = [
            "/".join(f"{values[optimizer, seed][place]:.1f}" for seed in (0, 1)).replace("/nan", "").rjust(12)
            for values in (table.long, table.brief)
            for optimizer in OPTIMIZERS
        ]
        truth, mmacs = table.truth[place], table.macs[place] / 1e6
        lines.append(f"{SHAPES[place].name:20} {mmacs:6.1f} {truth:6.1f} {' '.join(pairs)}")
    return lines


def _gaps(table: Table, done: dict[Job, dict[str, Any]]) -> list[str]:
    lines = ["gap = brief - long, both on test, points per doubling (negative punishes large networks)"]
    lines.append(
        f"{'':14} {'steps':>6} {'CPU s':>7} {'safe':>5} {'mean gap':>9} {'per MACs':>9} {'per resolution':>15}"
    )
    for optimizer in OPTIMIZERS:
        runs = {job: line for job, line in done.items() if (job.arm, job.optimizer) == ("brief", optimizer)}
        gap = table.brief_test[optimizer] - table.truth
        lines.append(
            f"brief {optimizer:8} {next(iter(runs)).steps:6d} {sum(line['cpu_s'] for line in runs.values()) / 2:7.0f} "
            f"{sum(line['safe_recipe_used'] for line in runs.values()):5d} {gap.mean():9.1f} "
            f"{slope(np.log2(table.macs), gap):9.2f} {slope(np.log2(table.resolution_px), gap):15.2f}"
        )
    return lines


def main() -> None:
    """Train what is missing, then print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, train/CLASS/*.jpg")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time, one thread each")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="of the brief trainings")
    parser.add_argument("--val-fraction", type=float, default=0.3)
    parser.add_argument("--predict", action="store_true", help="calibrate and say how long it will take, no more")
    told = parser.parse_args()

    settings = DataSettings(source=told.data, val_fraction=told.val_fraction)
    _load(settings)
    results = Results(
        told.to,
        {
            "data": _data[0].fingerprint,
            "steps": told.steps,
            "recipes": {name: asdict(recipe) for name, recipe in RECIPES.items()},
        },
    )
    if results.calibration() is None:
        results.add({"calibration": calibrate()})
    seconds = results.calibration() or {}
    jobs = plan(told.steps, seconds)
    left = [job for job in jobs if job not in results.of(jobs)]
    minutes = predicted_cpu_s(left, seconds) / 60
    clock = f"{minutes:.0f} CPU minutes, {minutes / told.workers:.0f} by the clock"
    print(f"{len(left)} of {len(jobs)} trainings left: {clock}", flush=True)
    if told.predict:
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        told.workers, mp_context=context, initializer=_load, initargs=(settings,)
    ) as pool:
        try:
            for number, finished in enumerate(
                concurrent.futures.as_completed([pool.submit(run, job) for job in left]), start=1
            ):
                line = finished.result()
                results.add(line)
                print(f"{number}/{len(left)} {line['arm']} {line['optimizer']} {line['network']}: "
                      f"val {100 * line['val']:.1f}, test {100 * line['test']:.1f}, {line['cpu_s']:.0f} s")  # fmt: skip
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    done = results.of(jobs)
    print("\n".join(report(tabulate(done, len(_data[0].class_names)), done)))


if __name__ == "__main__":
    main()
