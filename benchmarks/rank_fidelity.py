"""Does a brief training rank networks as a long one does? 24 networks, 8 of them cut, recipe by recipe.

    python benchmarks/rank_fidelity.py --data DIR --to rank_fidelity.jsonl --steps 240 480 --flip off on

Sixteen dense networks of the space `resnet_small` (two of them of width 1.5, wider than the space's widest), eight of
them at 48 px, and eight that are cut from four of these (25 and 50 % of the channels, by the size of their weights)
are trained by the program's own trunk and branch: briefly by each recipe, scored on validation images as a search
scores them, and long (1,920 updates, cut and branched in the same way), twice, from seeds that the brief trainings do
not use. `--cosine` adds the recipe of before: cosine, and 60 more updates after a cut.

`--task detection` and `--task segmentation` do the same with 14 networks of the task's default space, six of them cut,
and the space's own recipe: `--steps 240` (detection 300) beside `--long-steps 1440` (1800), six times as long.

`--widths cut` reaches each width below the widest of the space by a cut of the trunk of that one (`scaling.width_by`),
in brief and in long trainings.

Printed for each recipe, with the ceiling (one long training against the other) beside it:

* Spearman between the brief scores and the mean of the two long ones: over all networks, over those of 48 px, and over
  the dense ones; both scored on the same validation images, so that the images are not what is asked about. The same
  with the long trainings scored on the test images is printed below.
* gap: mean of brief less long, in points; by how many points it grows with each doubling of the resolution, of the
  width (what a cut leaves of it) and of the MACs; and the mean gap of the dense networks less that of the cut ones.
  All are 0 for a recipe that is fair.
* CPU seconds of all brief trainings, each counted as if it alone had been trained.

Every finished training is a line of the results file; the same command continues where it was stopped, and prints the
report alone once all is there. Weights are kept beside the results, since a longer trunk continues a shorter one.
"""

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from worker_processes import end_with_parent

from scalesearch.chain.examples import tensors
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.config import load_run
from scalesearch.data import Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.spaces.suggest import candidate_with
from scalesearch.study.session import open_session
from scalesearch.tasks.hooks import score_torch
from scalesearch.tasks.registry import sources_of, task_for
from scalesearch.training.answers import answers
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling, ScheduleName
from scalesearch.values.candidate import Way as WidthBy
from scalesearch.values.network import Network
from scalesearch.values.session import Session

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

SPACE, BASE_PX, FIXED_PX = "resnet_small", 64, 48
LONG_STEPS, LONG_SEEDS = 1920, (1000, 1001)
SCENE_BASE_PX = 96
"""Height that resolution multiplier 1 stands for in the default spaces of detection and segmentation; 160 wide."""
BOOTSTRAPS = 4000
WIDEST = 1.25
"""The largest width of `resnet_small`, from whose trunk smaller widths are cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One network of the space, cut or not."""

    resolution_px: int
    width: float = 1.0
    depth: float = 1.0
    kernel: float = 1.0
    cut: float = 0.0
    width_by: WidthBy = "scratch"

    @property
    def name(self) -> str:
        """Short and unique."""
        cut = f" -{100 * self.cut:.0f}%" if self.cut else ""
        by = " from wide" if self.width_by == "cut" else ""
        return f"{self.resolution_px}px w{self.width:g} d{self.depth:g} k{self.kernel:g}{by}{cut}"

    @property
    def trunk(self) -> "Shape":
        """What stands for its trunk: networks of one trunk are trained by one process, one after the other."""
        return replace(self, cut=0.0, width=max(self.width, WIDEST) if self.width_by == "cut" else self.width)

    def candidate(self, recipe: Recipe, base_px: int = BASE_PX) -> Candidate:
        """The network as a candidate of the space, whose resolution multiplier 1 stands for `base_px`."""
        scaling = Scaling(
            resolution=self.resolution_px / base_px,
            width=self.width,
            depth=self.depth,
            kernel=self.kernel,
            width_by=self.width_by,
        )
        return Candidate(scaling=scaling, pruning=Pruning(channel_fraction=self.cut), recipe=recipe)


SHAPES = (
    Shape(resolution_px=48, width=0.5),
    Shape(resolution_px=48, width=0.5, depth=2),
    Shape(resolution_px=48, width=0.5, kernel=1.67),
    Shape(resolution_px=48, width=0.75),
    Shape(resolution_px=48, width=0.75, depth=2),
    Shape(resolution_px=48),
    Shape(resolution_px=48, cut=0.25),
    Shape(resolution_px=48, cut=0.5),
    Shape(resolution_px=48, kernel=1.67),
    Shape(resolution_px=48, width=1.5),
    Shape(resolution_px=48, width=1.5, cut=0.25),
    Shape(resolution_px=48, width=1.5, cut=0.5),
    Shape(resolution_px=24),
    Shape(resolution_px=24, width=0.5, depth=2, kernel=1.67),
    Shape(resolution_px=32, width=0.5),
    Shape(resolution_px=32),
    Shape(resolution_px=32, cut=0.25),
    Shape(resolution_px=32, cut=0.5),
    Shape(resolution_px=32, width=1.5),
    Shape(resolution_px=32, width=0.5, depth=2, kernel=1.67),
    Shape(resolution_px=64, width=0.5),
    Shape(resolution_px=64),
    Shape(resolution_px=64, cut=0.25),
    Shape(resolution_px=64, cut=0.5),
)

SCENE_SHAPES = (
    Shape(resolution_px=64, width=0.5),
    Shape(resolution_px=64),
    Shape(resolution_px=64, cut=0.25),
    Shape(resolution_px=64, cut=0.5),
    Shape(resolution_px=96, width=0.5),
    Shape(resolution_px=96, width=0.5, depth=2),
    Shape(resolution_px=96, width=0.5, kernel=1.67),
    Shape(resolution_px=96),
    Shape(resolution_px=96, cut=0.25),
    Shape(resolution_px=96, cut=0.5),
    Shape(resolution_px=128, width=0.5),
    Shape(resolution_px=128),
    Shape(resolution_px=128, cut=0.25),
    Shape(resolution_px=128, cut=0.5),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """The networks that are ranked for one task."""

    space: str
    shapes: tuple[Shape, ...] = SCENE_SHAPES
    base_px: int = SCENE_BASE_PX
    fixed_px: int = SCENE_BASE_PX


OF_TASK = {
    "classification": Networks(space=SPACE, shapes=SHAPES, base_px=BASE_PX, fixed_px=FIXED_PX),
    "detection": Networks(space="resnet_scene_boxes"),
    "segmentation": Networks(space="resnet_scene"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A recipe, as far as it is varied here."""

    steps: int
    flip: bool
    schedule: ScheduleName = "wsd"

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{self.schedule} {self.steps}{' flips' * self.flip}"

    def recipe(self, base: Recipe) -> Recipe:
        """The recipe `base`, this long; the cosine's retraining keeps the share that it had, 60 of 240."""
        return replace(base, steps=self.steps, flip=self.flip, schedule=self.schedule, retrain_steps=self.steps // 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training: equal jobs have equal results, so a line of the results file answers for it."""

    network: str
    way: str
    seed: int


# ---- training, in worker processes ------------------------------------------------------------------------------

_held: list[tuple[Session, Dataset]] = []  # one per worker process, filled once by `_load`


def _load(session: Session) -> None:
    end_with_parent()
    _held.append((session, load_study_data(session, sources_of(session.settings.task))))


def run(shapes: list[Shape], way: Way, seed: int) -> list[dict[str, Any]]:
    """The lines of several networks of one trunk: CPU seconds of what is new, scores on validation and test images."""
    session, dataset = _held[0]
    base_px = OF_TASK[session.settings.task].base_px
    recipe = way.recipe(candidate_with({}, session.space).recipe)
    planner = Planner(replace(session, settings=replace(session.settings, seed=seed)))
    shrink = Shrinker(session, DeviceLock(MEASURED_DEVICE))
    lines = []
    for shape in shapes:
        plan = planner(shape.candidate(recipe, base_px))
        data = dataset.at(plan.spec.input_size)
        started = time.process_time()
        shrunk = shrink(plan, data, StageClock())
        spent_s = time.process_time() - started
        test = _test_score(shrunk.network, data, session)
        lines.append(
            {
                **asdict(Job(network=shape.name, way=way.name, seed=seed)),
                "val": shrunk.training.float_score,
                "test": test,
                "train_s": shrunk.training.train_s + shrunk.training.retrain_s,
                "cpu_s": spent_s,
                "macs": plan.cost.macs,
                "safe_recipe_used": shrunk.training.safe_recipe_used,
            }
        )
    return lines


def _test_score(network: Network, data: Dataset, session: Session) -> float:
    task = task_for(session.settings)
    images, _ = tensors(data.test)
    given = answers(network, images, session.machine, mean=data.mean, std=data.std)
    return score_torch(task, task.make_metric(data.class_names), given, data.test.targets)


# ---- what to train, and the results file ------------------------------------------------------------------------


def groups(
    shapes: Iterable[Shape], ways: Iterable[Way], long: Way, seeds: Iterable[int], long_seeds: Iterable[int]
) -> list[tuple[list[Shape], Way, int]]:
    """The networks of each trunk together, by recipe and seed; brief trainings first, shorter trunks before longer."""
    trunks: dict[Shape, list[Shape]] = {}
    for shape in shapes:
        trunks.setdefault(shape.trunk, []).append(shape)
    brief = [(way, seed) for seed in seeds for way in sorted(ways, key=lambda way: way.steps)]
    return [
        (members, way, seed)
        for way, seed in (*brief, *((long, seed) for seed in long_seeds))
        for members in trunks.values()
    ]


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

    def done(self) -> dict[Job, dict[str, Any]]:
        """The lines by job."""
        names = tuple(Job.__dataclass_fields__)
        return {Job(**{name: line[name] for name in names}): line for line in self._lines if "way" in line}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed


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


def cell(statistic: Callable[[Indices], Array], count: int, form: str = "5.2f") -> str:
    """A statistic of networks (by index, along the last axis) with its 95 % bootstrap interval, as a table's cell."""
    value = float(statistic(np.arange(count)))
    if math.isnan(value):
        return "-"
    drawn = statistic(np.random.default_rng(0).integers(0, count, (BOOTSTRAPS, count)))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return f"{value:{form}} [{low:5.2f}, {high:5.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The numbers of the networks that have all of them, one array each, in one order; scores in points."""

    shapes: tuple[Shape, ...]
    brief: dict[str, list[Array]]
    """By recipe: for each seed, on validation images."""
    train_s: dict[str, list[Array]]
    long: list[Array]
    long_test: list[Array]
    macs: Array


def tabulate(
    shapes: Iterable[Shape],
    done: dict[Job, dict[str, Any]],
    ways: list[Way],
    long: Way,
    seeds: list[int],
    long_seeds: Sequence[int],
) -> Table:
    """The results as arrays, of the networks whose trainings are all done."""
    wanted = [(way.name, seed) for way in ways for seed in seeds] + [(long.name, seed) for seed in long_seeds]
    ready = tuple(
        shape for shape in shapes if all(Job(network=shape.name, way=name, seed=seed) in done for name, seed in wanted)
    )

    def column(way: str, seed: int, key: str, factor: float = 100) -> Array:
        return np.array([factor * done[Job(network=shape.name, way=way, seed=seed)][key] for shape in ready])

    return Table(
        shapes=ready,
        brief={way.name: [column(way.name, seed, "val") for seed in seeds] for way in ways},
        train_s={way.name: [column(way.name, seed, "train_s", 1) for seed in seeds] for way in ways},
        long=[column(long.name, seed, "val") for seed in long_seeds],
        long_test=[column(long.name, seed, "test") for seed in long_seeds],
        macs=column(long.name, long_seeds[0], "macs", 1),
    )


def report(table: Table, fixed_px: int = FIXED_PX) -> list[str]:
    """The lines to print; the networks of `fixed_px` are also ranked among themselves."""
    resolution = np.array([float(shape.resolution_px) for shape in table.shapes])
    width = np.array([shape.width * (1 - shape.cut) for shape in table.shapes])
    dense = np.array([not shape.cut for shape in table.shapes])
    truth: Array = np.mean(table.long, axis=0)
    sets = {
        f"all {len(dense)}": np.ones(len(dense), dtype=bool),
        f"{fixed_px} px, {(resolution == fixed_px).sum()}": resolution == fixed_px,
        f"dense, {dense.sum()}": dense,
    }
    names = [*table.brief]
    lines = [f"{'network':26} {'MMACs':>6} {'long':>11}   " + "  ".join(f"{name:>16}" for name in names)]
    for place in np.argsort(truth):
        pairs = ["/".join(f"{values[place]:.1f}" for values in table.brief[name]).rjust(16) for name in names]
        twice = "/".join(f"{values[place]:.1f}" for values in table.long)
        shape = table.shapes[place].name
        lines.append(f"{shape:26} {table.macs[place] / 1e6:6.2f} {twice:>11}   {'  '.join(pairs)}")
    for title, long in (("validation", table.long), ("test", table.long_test)):
        lines += ["", f"Spearman with the long trainings on {title} images [95 % bootstrap over networks]"]
        lines.append(f"{'':24}" + "".join(f"{name:>22}" for name in sets))
        truth_there: Array = np.mean(long, axis=0)
        for name, runs in table.brief.items():
            lines.append(_row(name, runs, truth_there, sets))
        lines.append(_row("sort by resolution", [resolution], truth_there, sets))
        lines.append(_row("sort by MACs", [table.macs], truth_there, sets))
        if len(long) > 1:
            lines.append(_row("ceiling: long, long", [long[0]], long[1], sets))
    noise = "one seed"
    if len(table.long) > 1:
        noise = f"standard deviation {np.std(table.long[0] - table.long[1]) / math.sqrt(2):.1f} over seeds"
    lines += ["", f"gap = brief less long, points (one long training: {noise})"]
    slopes = f"{'per 2 x px':>11} {'per 2 x width':>14} {'per 2 x MACs':>13}"
    lines.append(f"{'':24} {'mean':>6} {slopes} {'dense less cut':>15} {'CPU s':>7}")
    for name, runs in table.brief.items():
        gap: Array = np.mean(runs, axis=0) - truth
        unlike = gap[dense].mean() - gap[~dense].mean() if (~dense).any() else math.nan
        spent_s = np.mean([values.sum() for values in table.train_s[name]])
        lines.append(
            f"{name:24} {gap.mean():6.1f} {slope(np.log2(resolution), gap):11.1f} {slope(np.log2(width), gap):14.1f} "
            f"{slope(np.log2(table.macs), gap):13.1f} {unlike:15.1f} {spent_s:7.0f}"
        )
    return lines


def _row(name: str, runs: list[Array], truth: Array, sets: dict[str, NDArray[np.bool_]]) -> str:
    """Mean Spearman of the runs with the truth, within each set of networks."""

    def within(members: NDArray[np.bool_]) -> str:
        def mean(index: Indices) -> Array:
            found: Array = np.mean([spearman(values[members][index], truth[members][index]) for values in runs], axis=0)
            return found

        return cell(mean, int(members.sum()))

    return f"{name:24}" + "".join(f"{within(members):>22}" for members in sets.values())


def main() -> None:
    """Train what is missing, then print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as of `scalesearch run --data`")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--task", choices=tuple(OF_TASK), default="classification")
    parser.add_argument(
        "--widths",
        choices=get_args(WidthBy),
        default="scratch",
        help="how smaller widths are reached; own --to for each",
    )
    parser.add_argument("--long-steps", type=int, default=LONG_STEPS, help="updates of the long trainings")
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time, one thread each")
    parser.add_argument("--steps", type=int, nargs="+", default=[240, 480], help="lengths of the brief trainings")
    parser.add_argument("--flip", nargs="+", choices=["off", "on"], default=["off"], help="of the brief trainings")
    parser.add_argument("--long-flip", choices=["off", "on"], default="off", help="of the long trainings")
    parser.add_argument("--cosine", type=int, nargs="*", default=[], help="lengths with the cosine schedule")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the brief trainings")
    parser.add_argument("--long-seeds", type=int, nargs="+", default=list(LONG_SEEDS), help="of the long trainings")
    parser.add_argument("--set", action="append", default=[], help="settings, e.g. data.val_fraction=0.3")
    parser.add_argument("--report", action="store_true", help="print the report of what is there, and train nothing")
    told = parser.parse_args()

    ways = [Way(steps=steps, flip=flip == "on") for steps in told.steps for flip in told.flip]
    ways += [Way(steps=steps, flip=flip == "on", schedule="cosine") for steps in told.cosine for flip in told.flip]
    networks = OF_TASK[told.task]
    shapes = tuple(replace(shape, width_by=told.widths) for shape in networks.shapes)
    long = Way(steps=told.long_steps, flip=told.long_flip == "on")
    overrides = ("machine.threads=1", "machine.bf16=off", *told.set)
    flags = {"data.source": told.data, "task": told.task}
    settings, space = load_run(space=networks.space, overrides=overrides, flags=flags)
    folder = told.to.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(settings, space, folder, say=print)
    results = Results(told.to, {"data": session.data.fingerprint, "val_images": session.data.val_images})
    if not told.report:
        todo = [
            (members, way, seed)
            for members, way, seed in groups(shapes, ways, long, told.seeds, told.long_seeds)
            if any(Job(network=shape.name, way=way.name, seed=seed) not in results.done() for shape in members)
        ]
        print(f"{len(todo)} trunks left", flush=True)
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            told.workers, mp_context=context, initializer=_load, initargs=(session,)
        ) as pool:
            try:
                futures = [pool.submit(run, *group) for group in todo]
                for number, finished in enumerate(concurrent.futures.as_completed(futures), start=1):
                    for line in finished.result():
                        results.add(line)
                        print(
                            f"{number}/{len(todo)} {line['way']} {line['network']}: val {100 * line['val']:.1f}, "
                            f"test {100 * line['test']:.1f}, {line['cpu_s']:.0f} s",
                            flush=True,
                        )
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    table = tabulate(shapes, results.done(), ways, long, told.seeds, told.long_seeds)
    print("\n".join(report(table, networks.fixed_px)))


if __name__ == "__main__":
    main()
