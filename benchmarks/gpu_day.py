"""Run everything that only a GPU can show, in one command that needs no network and writes into one folder alone.

Every step runs in a child process with a time limit, most valuable first. Its rows are on the disk as soon as they are
known, and `results.json` and `results.md` are written anew after every step: a crash, a hang or the end of the machine
costs what was not reached and nothing else.

    python benchmarks/gpu_day.py --to gpu_day --quick --minutes 3         # a first look: the first five steps, small
    python benchmarks/gpu_day.py --to gpu_day --minutes 9                 # all of it
    python benchmarks/gpu_day.py --to here --device cpu --quick           # rehearse on a machine without a GPU
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from gpu_steps import STEPS, Day, Step, run_step

GRACE_S: Final = 5.0
"""Between asking a child to stop and killing it."""
LEAST_S: Final = 10.0
"""A step is not started with less time than this left."""
LOG_LINES: Final = 3
"""Of a failed step's log, shown in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one step went."""

    step: str
    fate: str
    """`done`, `failed`, `hung` (ran past its limit), or `skipped` (no time was left)."""
    seconds: float
    why: str = ""


def main() -> int:
    """Run the steps; 0 if every one of them ended well."""
    asked = read_arguments()
    folder: Path = asked.to.resolve()
    day = Day(device=asked.device, folder=folder, quick=asked.quick)
    if asked.child:
        run_step(asked.module, replace(day, step=asked.child))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    deadline_s = time.monotonic() + 60 * asked.minutes
    outcomes: list[Outcome] = []
    for step in chosen_steps(asked.steps, quick=asked.quick):
        outcome = run_in_child(step, day, left_s=deadline_s - time.monotonic())
        outcomes = [*outcomes, outcome]
        write_results(day, outcomes)
        print(f"{outcome.step:12} {outcome.fate:8} {outcome.seconds:6.1f} s  {outcome.why}", flush=True)
    print(f"figures: {folder / 'results.md'}")
    return 0 if all(outcome.fate == "done" for outcome in outcomes) else 1


def read_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("gpu_day"), help="folder for results, logs and caches")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu rehearses without a GPU")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats, the first five steps")
    parser.add_argument("--minutes", type=float, default=14.0, help="all steps together")
    parser.add_argument("--steps", default="", help=f"some of: {', '.join(step.name for step in STEPS)}")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--module", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen_steps(names: str, *, quick: bool) -> tuple[Step, ...]:
    """Give the steps named, in their usual order; without names all of them, or the first look's."""
    wanted = [name for name in names.split(",") if name]
    unknown = sorted(set(wanted) - {step.name for step in STEPS})
    if unknown:
        sys.exit(
            f"--steps: no step is called {', '.join(unknown)}. There are: {', '.join(step.name for step in STEPS)}"
        )
    if wanted:
        return tuple(step for step in STEPS if step.name in wanted)
    return tuple(step for step in STEPS if step.first_look or not quick)


def run_in_child(step: Step, day: Day, *, left_s: float) -> Outcome:
    """Run a step in a process group of its own, and end the group when the step's time is up."""
    if left_s < LEAST_S:
        return Outcome(step=step.name, fate="skipped", seconds=0.0, why="no time left")
    limit_s = min(step.limit_s, left_s)
    day.rows_file(step.name).unlink(missing_ok=True)
    module = step.module or f"gpu_steps.{step.name}"
    command = [sys.executable, __file__, "--child", step.name, "--module", module]
    command += ["--to", str(day.folder), "--device", day.device, *(["--quick"] if day.quick else [])]
    started_s = time.monotonic()
    log = day.folder / f"{step.name}.log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(day.folder),
            start_new_session=True,
        )
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(child)
    seconds = time.monotonic() - started_s
    if code is None:
        return Outcome(step=step.name, fate="hung", seconds=seconds, why=f"stopped after {limit_s:.0f} s")
    if code:
        named = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Outcome(step=step.name, fate="failed", seconds=seconds, why=f"{named}: {last_lines(log)}")
    return Outcome(step=step.name, fate="done", seconds=seconds)


def end_group(child: "subprocess.Popen[bytes]") -> None:
    """Stop the child and all that it started; whatever does not listen is killed."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, stop)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def environment(folder: Path) -> Mapping[str, str]:
    """Give the child's environment: every cache and temporary file goes into the folder, nothing asks a network."""
    places = {
        "XDG_CACHE_HOME": "cache",
        "TMPDIR": "temporary",
        "CUDA_CACHE_PATH": "cache/cuda",
        "TRITON_CACHE_DIR": "cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
        "MPLCONFIGDIR": "cache/matplotlib",
        "HYPOTHESIS_STORAGE_DIRECTORY": "cache/hypothesis",
    }
    for place in places.values():
        (folder / place).mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parents[1]
    paths = [str(root), str(root / "tests" / "deployment"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **{name: str(folder / place) for name, place in places.items()},
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "HF_HUB_OFFLINE": "1",
    }


def last_lines(log: Path) -> str:
    """Give the end of a log in one line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-LOG_LINES:])[:400]


def write_results(day: Day, outcomes: Sequence[Outcome]) -> None:
    """Write results.json and results.md from what the steps have put down so far."""
    rows = {outcome.step: day.rows(outcome.step) for outcome in outcomes}
    document = {"device": day.device, "quick": day.quick, "steps": [asdict(each) for each in outcomes], "rows": rows}
    (day.folder / "results.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    lines = [f"# GPU day, device {day.device}{', quick' if day.quick else ''}", ""]
    for outcome in outcomes:
        lines += [f"## {outcome.step}: {outcome.fate} in {outcome.seconds:.1f} s", ""]
        lines += [f"{outcome.why}", ""] if outcome.why else []
        lines += ["| what | value | note |", "|---|---|---|"] if rows[outcome.step] else []
        lines += [f"| {row['what']} | {row['value']} | {row['note']} |" for row in rows[outcome.step]]
        lines.append("")
    (day.folder / "results.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
