"""Samplers side by side on a table of trained networks: many seeds each, in trainings and in replayed minutes.

    export PYTHONPATH=benchmarks
    python -m replay.compare_samplers TABLE --steps 240 --to compared.jsonl
    python -m replay.compare_samplers TABLE --steps 240 --to compared.jsonl --report

The rule, written down before any run on a real table:

* A search sees the validation accuracy of one seed and the latency of one process (`replay.session`). It is judged by
  the truth: mean test accuracy over the seeds, mean latency over the processes.
* Its value is the hypervolume of all points that it has observed, over accuracy and the logarithm of the latency, as a
  fraction of that of the best possible front. Reference point: the lowest true accuracy and the longest true latency of
  the table. What it would hand over, the front of its own noisy observations, is judged in the same way at its end.
* A training is a network that was not trained before; its second precision and repeats are none. A search ends after
  `--trainings` of them (at most all networks of the table), or when it proposes nothing new any more.
* Minutes are CPU seconds of one worker: trunks (once a search), branches, exports, quantization, scores, timing. The
  seconds that a sampler thinks are not among them; they are printed beside.
* No search is told the reference point, nor which networks a thinned table has (`replay.samplers`).
* Targets: the median over the seeds of TPE's value at its last training, the same of NSGA-II, and 95 % and 99 % of
  the best possible, since 100 trainings may be most of a table. A search has reached a target at its first training
  with at least that value. Median and quartiles count searches that never reach it as infinitely long.
* The seeds of the noise are the seeds of the search, so all samplers meet the same luck.

Every finished search is a line of `--to`; the same command continues where it was stopped.
"""

import argparse
import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replay.lines import append
from replay.samplers import SEARCHES, missing
from replay.session import Replay
from replay.table import Table, read_table

Run = dict[str, Any]
FIXED = (0.95, 0.99)
"""Targets that do not depend on a sampler, as fractions of the best possible hypervolume."""


def search(table: Table, name: str, seed: int, trainings: int) -> Run:
    """Return one finished search as a line: its growth by trainings and minutes, and the seconds that it thought."""
    replay, made = Replay(table, seed), SEARCHES[name](table, seed)
    asked_s, asks = 0.0, 0
    while True:
        started_s = time.perf_counter()
        place = made.ask(replay)
        asked_s, asks = asked_s + time.perf_counter() - started_s, asks + 1
        if place is None:
            break
        shape = table.points[place].shape
        if replay.trainings >= trainings and not replay.is_trained(shape):
            break
        made.tell(place, replay.evaluate(place))
    return {
        "sampler": name,
        "seed": seed,
        "trainings": [each.trainings for each in replay.grown],
        "minutes": [round(each.seconds / 60, 4) for each in replay.grown],
        "share": [round(each.share, 6) for each in replay.grown],
        "handed_over": round(replay.handed_over(), 6),
        "ask_s": round(asked_s / asks, 5),
    }


def reached(run: Run, target: float) -> tuple[float, float]:
    """Return the trainings and minutes at which a search first has the target; infinite if it never has."""
    for trainings, minutes, share in zip(run["trainings"], run["minutes"], run["share"], strict=True):
        if share >= target:
            return trainings, minutes
    return math.inf, math.inf


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return median and quartiles; each is one of the values, so that infinite ones do no harm."""
    ordered = sorted(values)
    low, middle, high = (ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)] for q in (0.25, 0.5, 0.75))
    return middle, low, high


def cell(values: Sequence[float], form: str) -> str:
    """Write the median and, in brackets, the quartiles."""
    middle, low, high = (f"{each:{form}}" if math.isfinite(each) else "never" for each in quartiles(values))
    return f"{middle} ({low}-{high})"


def targets_of(by_name: dict[str, list[Run]]) -> dict[str, float]:
    """Return the values to reach, by their names: the final values of two samplers where they ran, and fixed ones."""
    rivals: list[str] = [name for name in ("tpe", "nsga2") if name in by_name]
    ends = {f"{name} at its end": quartiles([run["share"][-1] for run in by_name[name]])[0] for name in rivals}
    return ends | {f"{100 * value:g} % of the best": value for value in FIXED}


def report(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of the comparison, samplers in the order of `SEARCHES`."""
    by_name = {name: [run for run in runs if run["sampler"] == name] for name in SEARCHES}
    by_name = {name: each for name, each in by_name.items() if each}
    targets = targets_of(by_name)
    yield "median (quartiles) over the seeds; final value and front handed over in % of the best possible"
    yield f"{'sampler':15}{'seeds':>6}{'final':>24}{'handed over':>24}{'ask, s':>10}"
    for name, each in by_name.items():
        final, handed = ([100 * value for value in found] for found in _ends(each))
        asked_s = np.mean([run["ask_s"] for run in each])
        yield f"{name:15}{len(each):>6}{cell(final, '.1f'):>24}{cell(handed, '.1f'):>24}{asked_s:>10.3f}"
    for place, (unit, form) in enumerate((("trainings", ".0f"), ("minutes", ".1f"))):
        yield ""
        yield f"{unit + ' to':15}" + "".join(f"{name:>24}" for name in targets)
        yield f"{'':15}" + "".join(f"{f'{100 * value:.2f} %':>24}" for value in targets.values())
        for name, each in by_name.items():
            cells = (cell([reached(run, value)[place] for run in each], form) for value in targets.values())
            yield f"{name:15}" + "".join(f"{cell:>24}" for cell in cells)


def _ends(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    """Return the final values, and those of the fronts handed over."""
    return [run["share"][-1] for run in runs], [run["handed_over"] for run in runs]


def identity(path: Path, steps: int, trainings: int) -> dict[str, Any]:
    """Return what the searches of a file have in common: the table's content and the rule's numbers."""
    return {"table": hashlib.sha256(path.read_bytes()).hexdigest(), "steps": steps, "trainings": trainings}


def read_runs(path: Path, about: dict[str, Any]) -> list[Run]:
    """Return the searches of a file; an empty list where there is none, which is then begun.

    Raises:
        SystemExit: The file was begun with another table or other numbers.
    """
    lines = list[Run]()
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # a kill tore it
    if lines and lines[0] != about:
        message = f"{path} was begun with {lines[0]}, not {about}: give another --to"
        raise SystemExit(message)
    if not lines:
        append(path, [about])
    return lines[1:]


def main() -> None:
    """Replay what is missing, then print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="file of replay.make_table, packed or not")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--steps", type=int, default=240, help="length of the trainings")
    parser.add_argument("--trainings", type=int, default=100, help="of one search")
    parser.add_argument("--seeds", type=int, default=20, help="searches of each sampler")
    parser.add_argument("--samplers", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--report", action="store_true", help="print the comparison of what is there, replay nothing")
    told = parser.parse_args()
    table = read_table(told.table, told.steps)
    trainings = min(told.trainings, table.networks)
    runs = read_runs(told.to, identity(told.table, told.steps, trainings))
    done = {(run["sampler"], run["seed"]) for run in runs}
    for name in () if told.report else told.samplers:
        if why := missing(name):
            print(f"{name}: left out, {why}")
            continue
        for seed in range(told.seeds):
            if (name, seed) not in done:
                run = search(table, name, seed, trainings)
                append(told.to, [run])
                runs.append(run)
                print(
                    f"{name} {seed}: {100 * run['share'][-1]:.2f} % after {run['trainings'][-1]} trainings", flush=True
                )
    print("\n".join(report(runs)))


if __name__ == "__main__":
    main()
