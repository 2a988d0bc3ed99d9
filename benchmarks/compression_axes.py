"""Does searching compression together with scaling pay, and does trunk and branch? Searches side by side at equal time.

    python benchmarks/compression_axes.py --data DIR --to FOLDER --minutes 8 --seeds 0 1 2 --workers 2
    python benchmarks/compression_axes.py --to FOLDER --report

Arms, each an ordinary `scalesearch run` that ends by its wall time (`--max-time`):

* with: the whole space: a trunk, and branches that are dense, cut or zeroed, in every precision. The sampler of this
  arm, and of the others unless they name one, is TPE;
* branches: the whole space, drawn uncut at first; networks near the front are then tried with the next larger and
  smaller cut, too;
* without: the same space with nothing to prune and fp32 alone;
* growth, growth-without: the same two with the sampler `growth`;
* lengths: 240, 480 or 960 updates, as the sampler `growth` decides; the front is of 960;
* lengths-cut, lengths-either: as lengths, but smaller widths are cut from the widest trunk (`scaling.width_by`),
  or, of each network, either that or trained from scratch, as the sampler decides;
* lengths-depth-cut, lengths-kernel-cut: as lengths, but blocks are left out of the deepest trunk (`scaling.depth_by`),
  or kernels are cropped from the largest ones (`scaling.kernel_by`);
* lengths-flip: as lengths, with `training.flip = "auto"`, whose training before the search is part of the time;
* growth-stages: width, depth and kernel of each of the three stages by itself, in resnet_small;
* neck-width, neck-all: what neck and heads, or a decoder, follow (`scaling.neck_follows`): the width alone, or
  depth and kernel, too (`--task segmentation --spaces resnet_scene`, or detection with resnet_scene_boxes);
* before: the whole space by the recipe of before: 240 updates by the schedule cosine, and 60 more after a cut.

For every space the arms of one seed follow each other, in an order that rotates with the seed. Compared are
hypervolumes of the fronts (score times ln(latency), see analysis/front.py) of what was on disk at equal times, as means
over the seeds with standard deviations; of the last front also as it was evaluated after the search, on test images
and re-timed, with all its members (what a user has who ships it as it is; what was begun in time and ended later is in
it); and the difference to one arm (`--than`), seed by seed. A search that was interrupted begins anew; one that
ended after other minutes is refused. All of it wants a machine that does nothing else.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scalesearch.analysis.front import hypervolume, pareto_front, point
from scalesearch.analysis.paid import paid_lines
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.views.words import shape_text

SCALING_ONLY = ("pruning.channel_fraction=[0.0]", 'quantization.precision=["fp32"]')
TPE = ("sampler=tpe",)
LENGTHS = "training.steps=[240,480,960]"
STAGES = (
    *(f"scaling.{axis}=1.0" for axis in ("width", "depth", "kernel")),
    *(f"scaling.stages.{stage}.width=[0.5, 0.75, 1.0, 1.25]" for stage in (1, 2, 3)),
    *(f"scaling.stages.{stage}.depth=[1.0, 2.0]" for stage in (1, 2, 3)),
    *(f"scaling.stages.{stage}.kernel=[1.0, 1.67]" for stage in (1, 2, 3)),
)
"""The axes of resnet_small, each stage by itself: 4 ^ 3 widths, 2 ^ 3 depths and 2 ^ 3 kernels at each resolution."""
ARMS: dict[str, tuple[str, ...]] = {
    "with": TPE,
    "branches": (*TPE, "branches=true"),
    "without": (*TPE, *SCALING_ONLY),
    "growth": ("sampler=growth",),
    "growth-without": ("sampler=growth", *SCALING_ONLY),
    "lengths": ("sampler=growth", LENGTHS),
    "lengths-without": ("sampler=growth", LENGTHS, *SCALING_ONLY),
    "lengths-cut": ("sampler=growth", LENGTHS, 'scaling.width_by="cut"'),
    "lengths-either": ("sampler=growth", LENGTHS, 'scaling.width_by=["scratch", "cut"]'),
    "lengths-depth-cut": ("sampler=growth", LENGTHS, 'scaling.depth_by="cut"'),
    "lengths-kernel-cut": ("sampler=growth", LENGTHS, 'scaling.kernel_by="cut"'),
    "lengths-flip": ("sampler=growth", LENGTHS, "training.flip=auto"),
    "growth-stages": ("sampler=growth", *STAGES),
    "neck-width": ("sampler=growth", "scaling.neck_follows=width"),
    "neck-all": ("sampler=growth", "scaling.neck_follows=all"),
    "before": (*TPE, "training.schedule=cosine", "training.steps=240"),
}
ALIKE = {"resnet_small": "training.steps=480"}
"""How long an arm that does not say so trains, in a space whose own default leaves that to the search."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the wall time of a search: when hypervolumes are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search: its records, and when each of them was on disk, in seconds since the first trial began."""

    space: str
    arm: str
    seed: int
    records: tuple[TrialRecord, ...]
    done_s: dict[int, float]
    test_hypervolume: float

    def front_at(self, seconds: float) -> tuple[MeasuredTrial, ...]:
        """Return the front of what was on disk by then."""
        return pareto_front(record for record in self.records if self.done_s[record.trial] <= seconds)

    def hypervolume_at(self, seconds: float) -> float:
        """Return the hypervolume of that front."""
        return hypervolume(map(point, self.front_at(seconds)))


def folder_of(to: Path, space: str, arm: str, seed: int) -> Path:
    """Return the folder of one search's study."""
    return to / f"{space}-{arm}-{seed}"


def search(told: argparse.Namespace, space: str, arm: str, seed: int) -> None:
    """Run one search; do nothing if it has ended.

    Raises:
        SystemExit: It has ended after other minutes.
    """
    folder = folder_of(told.to, space, arm, seed)
    ended = folder.with_suffix(".seconds")
    if ended.exists():
        if (ended_s := float(ended.read_text())) != 60 * told.minutes:
            sys.exit(f"{folder} was searched for {ended_s / 60:g} minutes, not {told.minutes:g}: give another --to")
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "scalesearch", "run", "--space", space, "--data", told.data]
    command += ["--max-time", f"{round(60 * told.minutes)}s", "--workers", str(told.workers), "--to", str(folder)]
    command += ["--task", told.task]
    overrides = (*ARMS[arm], f"seed={seed}")
    if told.val_fraction:
        overrides = (*overrides, f"data.val_fraction={told.val_fraction}")
    if space in ALIKE and not any(each.startswith("training.steps=") for each in overrides):
        overrides = (ALIKE[space], *overrides)
    for override in overrides:
        command += ["--set", override]
    subprocess.run(command, check=True, stdout=sys.stderr)
    ended.write_text(str(60 * told.minutes))


def read(folder: Path, space: str, arm: str, seed: int) -> Search:
    """Read a search back from its study."""
    store = RecordStore(folder)
    records = store.all()
    written = {record.trial: store.path(record.trial).stat().st_mtime for record in records}
    first = min(records, key=lambda record: written[record.trial])
    began = written[first.trial] - sum(stage.seconds for stage in first.stages)
    done_s = {trial: at - began for trial, at in written.items()}
    again = [(score.test.score, score.latency.p50_ms) for score in read_front_scores(folder)]
    return Search(space=space, arm=arm, seed=seed, records=records, done_s=done_s, test_hypervolume=hypervolume(again))


def orders(arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Yield (seed, arm), the arms of each seed beginning with another one."""
    for turn, seed in enumerate(seeds):
        shift = turn % len(arms)
        yield from ((seed, arm) for arm in (*arms[shift:], *arms[:shift]))


def mean_and_spread(values: Sequence[float], digits: int = 3, *, sign: str = "") -> str:
    """Write a mean and, in brackets, the standard deviation."""
    spread = f" ({statistics.stdev(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{sign}.{digits}f}{spread}"


def report(searches: Sequence[Search], minutes: float, than: str) -> None:
    """Print, space by space: hypervolumes at equal times, differences seed by seed, fronts, and what paid.

    Args:
        searches: The searches.
        minutes: Wall time of each.
        than: The arm that the others are compared with.
    """
    for space in dict.fromkeys(each.space for each in searches):
        here = [each for each in searches if each.space == space]
        print(f"\n{space}: hypervolume, mean over the seeds (standard deviation), by minutes of wall time")
        times = " | ".join(f"{share * minutes:.1f} min" for share in SHARES)
        print(f"| arm | seeds | {times} | test images | trials an hour | charged an hour | best % | fastest ms |")
        print("|---" * (len(SHARES) + 7) + "|")
        for arm in dict.fromkeys(each.arm for each in here):
            print(row(arm, [each for each in here if each.arm == arm], minutes))
        differences(here, minutes, than)
        for each in here:
            points = ", ".join(f"{100 * s:.1f} % {ms:.3f} ms" for s, ms in map(point, each.front_at(60 * minutes)))
            print(f"front of {space} {each.arm}, seed {each.seed}: {points}")
        print(f"{space}: what paid, over all seeds of the arm `{than}`")
        print(*paid_lines(record for each in here if each.arm == than for record in each.records), sep="\n")


def row(arm: str, searches: Sequence[Search], minutes: float) -> str:
    """Return the table's line of one arm."""
    fronts = [[point(member) for member in each.front_at(60 * minutes)] for each in searches]
    hours = [max(each.done_s.values()) / 3600 for each in searches]
    pairs = list(zip(searches, hours, strict=True))
    columns = [mean_and_spread([each.hypervolume_at(60 * minutes * share) for each in searches]) for share in SHARES]
    columns += [
        mean_and_spread([each.test_hypervolume for each in searches]),
        mean_and_spread([len(each.records) / hour for each, hour in pairs], 0),
        mean_and_spread([sum(record.charge for record in each.records) / hour for each, hour in pairs], 0),
        mean_and_spread([100 * max(score for score, _ in front) for front in fronts], 1),
        mean_and_spread([min(ms for _, ms in front) for front in fronts]),
    ]
    return f"| {arm} | {len(searches)} | {' | '.join(columns)} |"


def differences(searches: Sequence[Search], minutes: float, than: str) -> None:
    """Print what the arm `than` has more than each other one, seed by seed, at the end."""
    ends = {(each.arm, each.seed): each.hypervolume_at(60 * minutes) for each in searches}
    for arm in dict.fromkeys(each.arm for each in searches if each.arm != than):
        more = [ends[than, seed] - volume for (of, seed), volume in ends.items() if of == arm and (than, seed) in ends]
        if more:
            each = ", ".join(f"{value:+.3f}" for value in more)
            print(f"{than} less {arm}, seed by seed: {each}; mean {mean_and_spread(more, sign='+')}")


def draw(searches: Sequence[Search], minutes: float, to: Path) -> None:
    """Draw hypervolume against minutes, a panel for each space: thin lines are single seeds, thick ones their means."""
    from matplotlib.figure import Figure

    spaces = list(dict.fromkeys(each.space for each in searches))
    figure = Figure(figsize=(7.0 * len(spaces), 5.0), layout="constrained")
    times = np.linspace(0, minutes, 181)
    for panel, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        here = [each for each in searches if each.space == space]
        for number, arm in enumerate(dict.fromkeys(each.arm for each in here)):
            curves = [[each.hypervolume_at(60 * at) for at in times] for each in here if each.arm == arm]
            colour = f"C{number}"
            for curve in curves:
                panel.plot(times, curve, color=colour, linewidth=0.7, alpha=0.5, drawstyle="steps-post")
            label = f"{arm}, {len(curves)} seeds"
            panel.plot(times, np.mean(curves, axis=0), color=colour, linewidth=2.2, drawstyle="steps-post", label=label)
        panel.set(title=space, xlabel="minutes of wall time", ylabel="hypervolume")
        panel.set_ylim(bottom=0.75 * max(each.hypervolume_at(60 * minutes) for each in here))
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right")
    figure.savefig(to, dpi=110)


def write_trials(searches: Sequence[Search], to: Path) -> None:
    """Write a line of CSV for each complete trial: what it is, its numbers, and when it was on disk."""
    with to.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(
            (
                "space",
                "arm",
                "seed",
                "trial",
                "done_s",
                "charge",
                "score",
                "p50_ms",
                "macs",
                "network",
                "pruning",
                "precision",
                "updates",
                "full_updates",
            )
        )
        for each in searches:
            for record in each.records:
                if record.within_limits and record.spec and record.same_as is None:
                    score, p50_ms = point(record)
                    what = (f"{record.spec.input_size}, {shape_text(record)}", record.candidate.pruning.label)
                    done = (record.trial, f"{each.done_s[record.trial]:.1f}", f"{record.charge:.3f}")
                    numbers = (f"{score:.4f}", f"{p50_ms:.5f}", record.cost.macs if record.cost else "")
                    which = (each.space, each.arm, each.seed)
                    updates = record.candidate.recipe.steps
                    length = (updates, record.full_updates or updates)
                    lines.writerow((*which, *done, *numbers, *what, record.candidate.quantization.label, *length))


def main() -> None:
    """Run what is missing, then print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs")
    parser.add_argument("--task", default="classification")
    parser.add_argument("--to", type=Path, required=True, help="folder of the studies")
    parser.add_argument("--spaces", nargs="+", default=["resnet_small", "mobilenet_small"])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=["with", "without"])
    parser.add_argument("--than", choices=list(ARMS), default="with", help="the arm that the others are compared with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=8.0, help="wall time of each search")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--val-fraction", type=float, default=0.0)
    parser.add_argument("--csv", type=Path, help="also write every complete trial to this file")
    parser.add_argument(
        "--picture", type=Path, help="also draw hypervolume against minutes into this file (.png, .svg)"
    )
    parser.add_argument("--report", action="store_true", help="print the report of what is there, and run nothing")
    told = parser.parse_args()
    if not told.report:
        for space in told.spaces:
            for seed, arm in orders(told.arms, told.seeds):
                search(told, space, arm, seed)
    keys = [(space, arm, seed) for space in told.spaces for seed in told.seeds for arm in ARMS]
    there = [(folder_of(told.to, *key), key) for key in keys]
    searches = [read(folder, *key) for folder, key in there if folder.with_suffix(".seconds").exists()]
    if told.picture:
        draw(searches, told.minutes, told.picture)
    if told.csv:
        write_trials(searches, told.csv)
    report(searches, told.minutes, told.than)


if __name__ == "__main__":
    main()
