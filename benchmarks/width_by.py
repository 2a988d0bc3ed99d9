"""A width from scratch, or cut from the trunk of the widest network? Accuracy after equal updates, and the cost.

    python benchmarks/width_by.py --data DIR --to width_by.jsonl --set data.val_fraction=0.3

Networks of the space `resnet_small` of widths 0.5, 0.75 and 1.0, at 32 and 48 px, of depth 1 and 2, are trained by the
program's own trunk and branch in two ways: from scratch, and cut from the trunk of width 1.25 (`scaling.width_by`). A
third way, `--ways scratch cut both`, cuts the width and the depth from one trunk of width 1.25 and depth 2.

Printed: validation top-1 of each network in percent, the mean over seeds with its least and most, and by how much the
cut is better; the same as a mean over networks of each width; the rank correlation of the ways; and the CPU seconds of
each way. Cut networks are charged with their own branch, and the trunk is a line of its own.

Every finished training is a line of the results file; the same command continues where it was stopped.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rank_fidelity import Job, Results, Shape, spearman

from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES
from scalesearch.data.finding import load_study_data
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.study.session import open_session
from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.session import Session
from scalesearch.values.training_length import trunk_steps

SPACE, WIDEST, WIDTHS, SIDES_PX, DEPTHS = "resnet_small", 1.25, (0.5, 0.75, 1.0), (32, 48), (1.0, 2.0)
WAYS: Mapping[str, tuple[str, ...]] = {"scratch": (), "cut": ("width",), "both": ("width", "depth")}
SHAPES = tuple(
    Shape(resolution_px=side_px, depth=depth, width=width)
    for side_px, depth, width in itertools.product(SIDES_PX, DEPTHS, WIDTHS)
)
TRUNKS = tuple(
    Shape(resolution_px=side_px, depth=depth, width=WIDEST) for side_px, depth in itertools.product(SIDES_PX, DEPTHS)
)


def candidate(shape: Shape, way: str, recipe: Recipe) -> Candidate:
    """The shape as a candidate that is reached in this way."""
    plain = shape.candidate(recipe)
    by: dict[str, Any] = {f"{name}_by": "cut" for name in WAYS[way]}
    return replace(plain, scaling=replace(plain.scaling, **by))


def order(ways: Iterable[str], seeds: Iterable[int]) -> list[tuple[Shape, str, int]]:
    """What to train: seed by seed; the widest networks first, whose trunks the cuts need."""
    asked = [way for way in ways if way != "scratch"]
    return [
        (shape, way, seed)
        for seed in seeds
        for shape, way in (
            *((shape, "widest") for shape in TRUNKS),
            *((shape, way) for shape in SHAPES for way in ("scratch", *asked)),
        )
    ]


def trained(session: Session, shape: Shape, way: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one network, or what is missing of it, and return its line of the results."""
    started = time.process_time()
    seeded = replace(session, settings=replace(session.settings, seed=seed))
    recipe = Recipe(steps=steps)
    plan = Planner(seeded)(candidate(shape, "scratch" if way == "widest" else way, recipe))
    data = load_study_data(session, LABEL_SOURCES).at(plan.spec.input_size)
    loaded = time.process_time()
    shrunk = Shrinker(seeded, DeviceLock(MEASURED_DEVICE))(plan, data, StageClock())
    return {
        **asdict(Job(network=shape.name, way=way, seed=seed)),
        "val": shrunk.training.float_score,
        "cpu_s": time.process_time() - loaded,
        "loading_s": loaded - started,
        "new_steps": shrunk.training.new_steps,
        "steps": shrunk.training.steps,
        "macs": plan.cost.macs,
        "trunk_macs": plan.begun[1].macs,
    }


def report(done: Mapping[Job, Mapping[str, Any]], ways: list[str], seeds: list[int]) -> Iterable[str]:
    """The lines to print, of the networks for which all ways and seeds are there."""

    def column(shape: Shape, way: str, key: str = "val") -> list[float]:
        return [done[Job(network=shape.name, way=way, seed=seed)][key] for seed in seeds]

    ready = [
        shape
        for shape in SHAPES
        if all(Job(network=shape.name, way=way, seed=seed) in done for way in ways for seed in seeds)
    ]
    asked = [way for way in ways if way != "scratch"]
    yield f"{len(ready)} of {len(SHAPES)} networks, seeds {seeds}; validation top-1 in %, mean (least-most)"
    yield f"{'network':20} {'MMACs':>6} {'scratch':>18}" + "".join(f"{way:>18} {'gain':>6}" for way in asked)
    for shape in ready:
        plain = column(shape, "scratch")
        line = f"{shape.name:20} {column(shape, 'scratch', 'macs')[0] / 1e6:6.2f} {_cell(plain):>18}"
        for way in asked:
            line += f"{_cell(column(shape, way)):>18} {100 * _gain(column(shape, way), plain):+6.1f}"
        yield line
    for way in asked:
        yield ""
        groups = {f"width {width:g}": [shape for shape in ready if shape.width == width] for width in WIDTHS}
        for name, members in {**groups, "all": ready}.items():
            gains = [
                100 * (one - other)
                for shape in members
                for one, other in zip(column(shape, way), column(shape, "scratch"), strict=True)
            ]
            if len(gains) > 1:
                error = statistics.stdev(gains) / len(gains) ** 0.5
                yield f"{way} less scratch, {name}: {statistics.fmean(gains):+.1f} +- {error:.1f} points ({len(gains)})"
        if len(ready) > 2:
            ours, theirs = (
                np.array([statistics.fmean(column(shape, each)) for shape in ready]) for each in (way, "scratch")
            )
            yield f"Spearman of {way} with scratch over {len(ready)} networks: {float(spearman(ours, theirs)):.2f}"
    yield ""
    yield "CPU seconds, mean over seeds (own: without a trunk that another network trained)"
    for shape in ready:
        spent = [f"{way} {statistics.fmean(column(shape, way, 'cpu_s')):.1f}" for way in ways]
        yield f"{shape.name:20} {', '.join(spent)}"
    share = trunk_steps(Recipe(steps=240)) / 240
    whole = [
        shape for shape in TRUNKS if all(Job(network=shape.name, way="widest", seed=seed) in done for seed in seeds)
    ]
    for shape in whole:
        spent_s = statistics.fmean(column(shape, "widest", "cpu_s"))
        score = _cell(column(shape, "widest"))
        yield f"{shape.name:20} {spent_s:.1f}, of which the trunk {share * spent_s:.1f}; top-1 {score}"
    if len(ready) == len(SHAPES) and len(whole) == len(TRUNKS):
        for way in ("scratch", *(["cut"] if "cut" in ways else [])):  # `both` has trunks of its depth alone
            spent_s = sum(statistics.fmean(column(shape, way, "cpu_s")) for shape in SHAPES)
            wide_s = sum(statistics.fmean(column(shape, "widest", "cpu_s")) for shape in TRUNKS)
            trunks = "" if way == "scratch" else f" ({spent_s + share * wide_s:.0f} with the trunks)"
            yield f"all narrower networks, {way}: {spent_s:.0f} s{trunks}; with the widest {spent_s + wide_s:.0f} s"


def _cell(values: list[float]) -> str:
    mean, low, high = (100 * number for number in (statistics.fmean(values), min(values), max(values)))
    return f"{mean:.1f} ({low:.1f}-{high:.1f})"


def _gain(ours: list[float], theirs: list[float]) -> float:
    return statistics.fmean(ours) - statistics.fmean(theirs)


def main() -> None:
    """Train what is missing, then print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs", help="as of `scalesearch run --data`")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--steps", type=int, default=240, help="updates of every network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--ways", choices=[*WAYS], nargs="+", default=["scratch", "cut"])
    parser.add_argument("--set", action="append", default=[], help="settings, e.g. data.val_fraction=0.3")
    parser.add_argument("--report", action="store_true", help="print the report of what is there, and train nothing")
    told = parser.parse_args()

    overrides = ("machine.threads=1", "machine.bf16=off", *told.set)
    settings, space = load_run(space=SPACE, overrides=overrides, flags={"data.source": told.data})
    folder = told.to.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(settings, space, folder, say=print)
    identity = {"data": session.data.fingerprint, "val_images": session.data.val_images, "steps": told.steps}
    results = Results(told.to, identity)
    ways = list(dict.fromkeys(["scratch", *told.ways]))
    for shape, way, seed in [] if told.report else order(ways, told.seeds):
        if Job(network=shape.name, way=way, seed=seed) in results.done():
            continue
        line = trained(session, shape, way, seed, told.steps)
        results.add(line)
        print(f"{way} {shape.name} seed {seed}: {100 * line['val']:.1f} %, {line['cpu_s']:.0f} s", flush=True)
    print("\n".join(report(results.done(), ways, told.seeds)))


if __name__ == "__main__":
    main()
