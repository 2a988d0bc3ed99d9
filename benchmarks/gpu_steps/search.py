"""A whole search: training on this device, measuring on the CPU, and on the GPU where a library runs there."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from gpu_steps import Day
from scalesearch.deployment.backends import BACKENDS, get_backend
from scalesearch.deployment.targets import TARGETS


def run(day: Day) -> None:
    """Put down trials, seconds and front of a search for each chip that can be measured here, and an exported plan."""
    budget, steps = (2, 20) if day.quick or day.device == "cpu" else (12, 240)
    for target in ("cpu", *gpu_targets(day)):
        front = search(day, target, ["--target", target, "--budget", str(budget)], steps=steps)
        if target != "cpu":
            _export(day, target, trial=int(front["trial"].iloc[0]))


def gpu_targets(day: Day) -> list[str]:
    """Return the targets that time on this machine's GPU by libraries that run here; none in a rehearsal."""
    if day.device != "cuda":
        return []
    works = {name for name in BACKENDS if get_backend(name).probe().available}
    return [
        name
        for name, target in TARGETS.items()
        if target.backend in works - {"onnxruntime", "openvino"} and not target.compute_capability
    ]


def search(day: Day, name: str, options: list[str], *, steps: int) -> pd.DataFrame:
    """Run one search in a process of its own, put down how it ended, and return its front.

    Args:
        day: The day.
        name: Begins every figure, and is part of the study's name.
        options: Of `scalesearch run`, beside device, length and folder.
        steps: Updates of each candidate.

    Raises:
        SystemExit: The search failed.
    """
    folder = study_folder(day, name)
    command = [sys.executable, "-m", "scalesearch", "run", *options, "--to", str(folder), "--json", "--fresh"]
    command += ["--set", f"machine.device={day.device}", "--set", f"training.steps={steps}"]
    _command(day, f"{name}: run {' '.join(options)}", command, day.folder / f"search_{name}.log")
    trials = pd.read_csv(folder / "trials.csv")
    day.put(f"{name}: trials", json.dumps(trials["state"].value_counts().to_dict()))
    front = pd.read_csv(folder / "front.csv")
    columns = [str(name) for name in front.columns]
    score = columns[columns.index("on_front") + 1]
    for _, row in front.iterrows():
        day.put(f"{name}: front, trial {row['trial']}", f"{score} {100 * row[score]:.1f} % at {row['p50_ms']:.4g} ms")
    return front


def study_folder(day: Day, name: str) -> Path:
    """Return where the study of a search is kept."""
    return day.folder / f"study_{name}"


def _export(day: Day, target: str, *, trial: int) -> None:
    """Export a member of the front with its compiled plan, and put down the plan's size."""
    to = day.folder / f"export_{target}"
    shutil.rmtree(to, ignore_errors=True)
    command = [sys.executable, "-m", "scalesearch", "export", str(study_folder(day, target)), "--trial", str(trial)]
    command += ["--format", "tensorrt", "--to", str(to)]
    _command(day, f"{target}: export --format tensorrt", command, day.folder / f"export_{target}.log")
    day.put(f"{target}: model.engine, bytes", sum(each.stat().st_size for each in to.rglob("model.engine")))


def _command(day: Day, what: str, command: list[str], log: Path) -> None:
    started_s = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    day.put(f"{what}, s", time.perf_counter() - started_s, f"exit code {code}")
    if code:
        day.put(f"{what}: said", log.read_text(encoding="utf-8")[-300:])
        sys.exit(f"{what} ended with {code}")
