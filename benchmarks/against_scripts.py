"""`scalesearch run` against what a user would do by hand, at equal wall time, on one data set.

    python benchmarks/against_scripts.py --data DIR --to FOLDER --minutes 10 --seeds 0 1 2
    python benchmarks/against_scripts.py --to FOLDER --report

Searches:

* scalesearch: `scalesearch run --max-time M` as it is shipped (more of its settings: `--set`);
* nsga2, random: an ordinary training script whose networks Optuna chooses from the same axes (rivals/plain_script.py);
* compound: the same script with EfficientNet's compound scaling, a grid of phi;
* grid: the same script with the grid of width x resolution that MobileNet's authors print.

Each search runs alone, one after the other; each seed begins with another one. All have the same images in folders and
one thread for each worker. A script counts its minutes from the start of its process, and ends the training that runs
when they are over; `run` counts from its first candidate (and what it trained before it: nothing, as it is shipped),
and begins none that would end later. The report tells the
minutes that each really took, and what each had found at equal times. At the end, all fronts of a seed are
timed in turn in one process, and scored on test images that no search has used. A search that has ended is not run
again; an interrupted one begins anew. All of it wants a machine that does nothing else.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rivals.comparing import OURS, SHARES, Search, turns, volume
from rivals.folders import DATA, write_splits
from rivals.fronts import Handed, course_of, our_front, script_front
from rivals.judging import REFERENCE, judged, write_reference
from rivals.shapes import SIDE_PX
from rivals.tables import report

from scalesearch.execution.stopping import interrupted_by_sigterm

RIVALS = ("nsga2", "random", "compound", "grid")
SETUP, ENDED = "setup.json", "ended.json"


def main() -> None:
    """Run what is missing, then print the report."""
    told = read_arguments()
    if not told.report:
        prepare(told)
        with interrupted_by_sigterm():  # then the search that runs is stopped, too
            for seed, arm in turns((OURS, *told.rivals), told.seeds):
                search(told, arm, seed)
    elif (file := told.to / SETUP).exists():
        setup = json.loads(file.read_text(encoding="utf-8"))
        told.minutes, told.seeds, told.rivals = setup["minutes"], setup["seeds"], setup["rivals"]
    print_report(told)


def read_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs", help="a folder of images, or any source of the program")
    parser.add_argument("--to", type=Path, required=True, help="folder of data, searches and judgements")
    parser.add_argument("--minutes", type=float, default=10.0, help="wall time of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rivals", nargs="+", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--workers", type=int, default=1, help="of scalesearch, and as many threads of a script")
    parser.add_argument("--val-fraction", type=float, default=0.0, help="pool train and val, and split them anew")
    parser.add_argument("--updates", type=int, default=620, help="of each training of a script, of 32 images")
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True, help="mirror images in scripts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of scalesearch")
    parser.add_argument("--latencies-ms", type=float, nargs="+", default=[0.03, 0.1, 0.3], help="in the report")
    parser.add_argument("--report", action="store_true", help="print the report of what is there, and run no search")
    return parser.parse_args()


def prepare(told: argparse.Namespace) -> None:
    """Write images and reference engine, or check that what is there was made with the same settings.

    Raises:
        SystemExit: It was made with others.
    """
    fixed = ("data", "minutes", "workers", "val_fraction", "updates", "flip", "set")
    asked, file = {name: getattr(told, name) for name in fixed}, told.to / SETUP
    stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in fixed:
        if stored and stored[name] != asked[name]:
            raise SystemExit(
                f"{told.to} was made with {name} = {stored[name]!r}, and {asked[name]!r} is asked for.\n"
                "Give the same settings to continue it, or another folder (--to)."
            )
    told.to.mkdir(parents=True, exist_ok=True)
    if not (told.to / DATA).exists():
        counts = write_splits(told.data, told.to / DATA, val_fraction=told.val_fraction, storage_px=SIDE_PX)
        print("images:", ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)
    if not (told.to / REFERENCE).exists():
        classes = sum(folder.is_dir() for folder in (told.to / DATA / "train").iterdir())
        write_reference(told.to / DATA, told.to / REFERENCE, classes)
    seeds = sorted({*stored.get("seeds", []), *told.seeds})
    rivals = [rival for rival in RIVALS if rival in (*stored.get("rivals", []), *told.rivals)]
    file.write_text(json.dumps({**asked, "seeds": seeds, "rivals": rivals}, indent=1), encoding="utf-8")


def folder_of(to: Path, arm: str, seed: int) -> Path:
    """Return the folder of one search."""
    return to / f"{arm}-{seed}"


def ended(folder: Path) -> Path:
    """Return the file beside a search's folder that says that it has ended, and how long it took."""
    return folder.with_name(f"{folder.name}.{ENDED}")


def search(told: argparse.Namespace, arm: str, seed: int) -> None:
    """Run one search from its beginning; do nothing if it has ended before."""
    folder = folder_of(told.to, arm, seed)
    if ended(folder).exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    # With several cores a script gives one to the loading of images.
    loading, threads = int(told.workers > 1), max(1, told.workers - 1)
    if arm == OURS:
        command = ["scalesearch", "run", "--max-time", f"{round(60 * told.minutes)}s", "--workers", str(told.workers)]
        for setting in ("machine.threads=1", *told.set):
            command += ["--set", setting]
        threads = 1
    else:
        command = ["rivals.plain_script", "--way", arm, "--minutes", str(told.minutes), "--updates", str(told.updates)]
        command += ["--threads", str(threads), "--loader-workers", str(loading)]
        command += ["--flip" if told.flip else "--no-flip"]
    command += ["--data", str(told.to / DATA), "--seed", str(seed), "--to", str(folder)]
    print(f"{arm}, seed {seed}: {told.minutes:g} min", flush=True)
    cache = folder.with_name(f"{folder.name}.cache")  # empty: every search decodes the images itself
    began, clock_s = time.time(), time.monotonic()
    with folder.with_name(f"{folder.name}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run(
            [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, env=environment(threads, cache)
        ).returncode
    whole_s = time.monotonic() - clock_s
    shutil.rmtree(cache, ignore_errors=True)
    if code:
        raise SystemExit(
            f"{arm}, seed {seed}, ended with code {code}: see {log.name}. The same command begins it anew."
        )
    ended(folder).write_text(json.dumps({"began": began, "whole_s": whole_s}), encoding="utf-8")


def environment(threads: int, cache: Path) -> dict[str, str]:
    """Return the variables of a search's process: threads of every library, a cache folder, where the scripts are."""
    here = str(Path(__file__).resolve().parent)
    paths = [here, str(Path(here).parent), os.environ.get("PYTHONPATH", "")]
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    found = os.pathsep.join(path for path in paths if path)
    return {**os.environ, **counts, "XDG_CACHE_HOME": str(cache.resolve()), "PYTHONPATH": found}


def print_report(told: argparse.Namespace) -> None:
    """Judge the seeds whose searches have ended, unless that is done, and print the tables.

    Raises:
        SystemExit: Nothing has ended there.
    """
    searches = [one for seed in told.seeds for one in searches_of(told, seed)]
    if not searches:
        raise SystemExit(f"{told.to} holds no search that has ended: run this without --report first.")
    setup = json.loads((told.to / SETUP).read_text(encoding="utf-8"))
    print(", ".join(f"{name} {value}" for name, value in setup.items()), end="\n\n")
    print(report(searches, told.latencies_ms, minutes=told.minutes))


def searches_of(told: argparse.Namespace, seed: int) -> list[Search]:
    """Return the searches of one seed that have ended, with the members of their fronts judged together."""
    there = {arm: folder_of(told.to, arm, seed) for arm in (OURS, *told.rivals)}
    there = {arm: folder for arm, folder in there.items() if ended(folder).exists()}
    handed = [one for arm, folder in there.items() for one in handed_over(folder, arm, seed)]
    members = judged(handed, told.to, seed) if handed else []
    found = list[Search]()
    for arm, folder in there.items():
        times = json.loads(ended(folder).read_text(encoding="utf-8"))
        course = course_of(folder, arm, began=times["began"])
        found.append(
            Search(
                arm=arm,
                seed=seed,
                trainings=course.trainings,
                last_s=course.last_s,
                whole_s=times["whole_s"],
                volumes=tuple(volume(course.points_by(60 * told.minutes * share)) for share in SHARES),
                members=tuple(member for member in members if member.arm == arm),
            )
        )
    return found


def handed_over(folder: Path, arm: str, seed: int) -> tuple[Handed, ...]:
    """Return the front of one search."""
    return our_front(folder, seed) if arm == OURS else script_front(folder, arm, seed)


if __name__ == "__main__":
    main()
