"""Train and time the default space whole, or a stated sample of it: the table on which searches are replayed.

    export PYTHONPATH=benchmarks
    python -m replay.make_table --data DIR --to table.jsonl --plan
    python -m replay.make_table --data DIR --to table.jsonl
    python -m replay.make_table --data DIR --to table.jsonl --latency
    python -m replay.make_table --data DIR --to table.jsonl --pack benchmarks/results/replay_NAME.jsonl.gz

A network is a combination of resolution, depth, width and kernel of `resnet_small` with a cut of 0, 25 or 50 % of the
channels, within the space's limit of MACs; combinations that round to one network count once. Each has two points, in
fp32 and int8 (ranges by minmax alone). All are trained by the program's own trunk and branch, at every length of
`--steps` from every seed of `--seeds`: the networks of a trunk share it, and a longer trunk continues a shorter one.

`--large N` takes N trunks of a larger space instead, in which each stage has a width, a depth and a kernel of its own:
drawn at random, spread over the MACs (`replay.large.sampled`), each uncut and with one of the cuts in turn. Its lengths
are best `--steps 240 --seeds 0`: what is not in the table is then told by a fit (`replay.large`).

`--networks N` keeps N trunks with all their cuts: the corners of the space, then always the trunk that is farthest from
all that are kept. `--plan` lists them with the hours that are expected, and trains nothing.

`--latency` times every point untrained, in two processes one after the other; do it while the machine does nothing
else. Accuracies may be made beside other work: their seconds are counted with the share of the time in which the
worker had a core.

Every finished trunk, and every latency, is on disk at once; the same command goes on where it was stopped. Weights lie
in the folder beside the file and may be removed when all is there.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from replay import timing
from replay.large import CUTS, DRAWN_PER_TRUNK, drawn_trunks, sampled
from replay.lines import Lines, pack
from replay.shapes import (
    PRECISIONS,
    SPACE,
    Shape,
    every_shape,
    expected_s,
    large_space,
    table_space,
    thinned,
    values_of,
)
from replay.training import Group, groups, load, network_line, train_group
from scalesearch.chain.planner import Planner
from scalesearch.config import load_run
from scalesearch.study.session import open_session
from scalesearch.values.session import Session
from scalesearch.values.space import SearchSpace

PROCESSES = (0, 1)
PROGRESS_EVERY = 20


def add_networks(lines: Lines, session: Session, space: SearchSpace, shapes: Sequence[Shape]) -> None:
    """Write a line for every network: its cost, and what refuses it."""
    planner = Planner(replace(session, space=space))
    missing = [shape for shape in shapes if not lines.has("network", shape.name)]
    for number, shape in enumerate(missing, start=1):
        lines.add([network_line(shape, planner(shape.candidate(steps=240)))])
        if number % PROGRESS_EVERY == 0:
            print(f"planned {number} of {len(missing)} networks", flush=True)


def chosen_shapes(lines: Lines, space: SearchSpace, count: int | None) -> tuple[list[Shape], list[Shape]]:
    """Return the trunks and the networks of the table: distinct, within the limits, and thinned to `count` trunks."""
    by_name = {shape.name: shape for shape in every_shape(space)}
    distinct = dict[str, Shape]()
    for line in lines.all:
        if line["kind"] == "network" and not line["rejected"]:
            distinct.setdefault(line["identity"], by_name[line["network"]])
    shapes = list(distinct.values())
    trunks = list(dict.fromkeys(shape.trunk for shape in shapes))
    if count is not None:
        trunks = list(thinned(trunks, count, values_of(space)))
    return trunks, [shape for shape in shapes if shape.trunk in trunks]


def large_shapes(lines: Lines, session: Session, count: int) -> tuple[list[Shape], list[Shape]]:
    """Return the trunks and the networks of the table of the large space, after planning what it is chosen from."""
    space = large_space()
    drawn = drawn_trunks(space, DRAWN_PER_TRUNK * count)
    add_networks(lines, session, space, drawn)
    planned = {line["network"]: line for line in lines.all if line["kind"] == "network"}
    trunks = sampled([shape for shape in drawn if not planned[shape.name]["rejected"]], planned, count)
    shapes = [each for number, trunk in enumerate(trunks) for each in (trunk, replace(trunk, cut=CUTS[number % 2]))]
    add_networks(lines, session, space, shapes)
    return trunks, shapes


def describe(lines: Lines, trunks: Sequence[Shape], shapes: Sequence[Shape], told: argparse.Namespace) -> None:
    """Print the design, and the hours that it is expected to take."""
    networks = {line["network"]: line for line in lines.all if line["kind"] == "network"}
    rejected = sum(bool(line["rejected"]) for line in networks.values())
    macs = {shape: networks[shape.name]["macs"] for shape in shapes}
    trunk_macs = {trunk: networks[trunk.name]["macs"] for trunk in trunks}
    hours = expected_s(macs, trunk_macs, told.steps, len(told.seeds)) / 3600
    print(f"{len(networks)} networks planned, {rejected} above the limits; the table takes {len(trunks)} trunks")
    print(f"{len(shapes)} networks, {len(PRECISIONS) * len(shapes)} points, steps {told.steps}, seeds {told.seeds}")
    print(f"expected: {hours:.1f} core hours of training (fitted to an earlier run), exports and scores not counted")


def train_missing(lines: Lines, session: Session, todo: Sequence[Group], workers: int) -> None:
    """Train what is missing, in worker processes with one thread each."""
    print(f"{len(todo)} groups left", flush=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=load, initargs=(session,)
    ) as pool:
        try:
            futures = [pool.submit(train_group, group) for group in todo]
            for number, finished in enumerate(concurrent.futures.as_completed(futures), start=1):
                made = finished.result()
                lines.add(made)
                scores = ", ".join(f"{100 * line['val']:.1f}" for line in made if line["precision"] == "fp32")
                print(f"{number}/{len(todo)} {made[-1]['network']}, {made[-1]['steps']}: val {scores}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def time_missing(lines: Lines, session: Session, shapes: Sequence[Shape]) -> None:
    """Time what is missing, in one fresh process after the other."""
    context = multiprocessing.get_context("spawn")
    for process in PROCESSES:
        todo = [
            (shape, precision)
            for shape, precision in timing.in_order(shapes, process)
            if not lines.has("latency", shape.name, precision, process)
        ]
        print(f"process {process}: {len(todo)} latencies left", flush=True)
        if not todo:
            continue
        with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=context, initializer=timing.load, initargs=(session, process)
        ) as pool:
            for shape, precision in todo:
                line = pool.submit(timing.time_network, shape, precision).result()
                lines.add([line])
                print(f"{shape.name} {precision}: {line['p50_ms']:.4f} ms", flush=True)


def command_line(arguments: Sequence[str]) -> str:
    """Return the command with the last part of every path alone: where a machine keeps its data is nobody's concern."""
    return " ".join(["python -m replay.make_table", *(Path(each).name if "/" in each else each for each in arguments)])


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as of `scalesearch run --data`")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--networks", type=int, help="number of trunks, each with all its cuts (default: all)")
    parser.add_argument("--large", type=int, help="number of trunks of the larger space, in its place")
    parser.add_argument("--steps", type=int, nargs="+", default=[240, 480], help="lengths of the trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the trainings")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings at once, one thread each")
    parser.add_argument("--set", action="append", default=[], help="settings, e.g. data.val_fraction=0.3")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plan", action="store_true", help="print the design and the expected hours, and train nothing")
    what.add_argument("--latency", action="store_true", help="time every point in two processes; train nothing")
    what.add_argument("--pack", type=Path, help="write the file compressed to this path; train nothing")
    return parser.parse_args()


def main() -> None:
    """Do what is missing of what was asked for."""
    told = parsed()
    if told.pack:
        print(f"{told.pack}: {pack(told.to, told.pack):,} bytes")
        return
    overrides = ("machine.threads=1", "machine.bf16=off", *told.set)
    settings, _ = load_run(space=SPACE, overrides=overrides, flags={"data.source": told.data})
    space, folder = large_space() if told.large else table_space(), told.to.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(settings, space, folder, say=print)
    about = {
        "data": session.data.fingerprint,
        "val_images": session.data.val_images,
        "test_images": session.data.test_images,
        "space": f"{space.name}, by stages" if told.large else space.name,
        "classes": len(session.data.class_names),
        "device": asdict(session.device),
        "command": command_line(sys.argv[1:]),
    }
    lines = Lines(told.to, about)
    if told.large:
        trunks, shapes = large_shapes(lines, session, told.large)
    else:
        add_networks(lines, session, space, every_shape(space))
        trunks, shapes = chosen_shapes(lines, space, told.networks)
    describe(lines, trunks, shapes, told)
    if told.latency:
        time_missing(lines, session, shapes)
    elif not told.plan:
        todo = [
            group
            for group in groups(trunks, shapes, told.steps, told.seeds)
            if not all(
                lines.has("accuracy", shape.name, precision, group.steps, group.seed)
                for shape in group.shapes
                for precision in PRECISIONS
            )
        ]
        train_missing(lines, session, todo, told.workers)


if __name__ == "__main__":
    main()
