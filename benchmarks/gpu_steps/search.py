"""A whole search: training on this device, measuring on the CPU, and on the GPU where a library runs there."""

import json
import subprocess
import sys
import time

import pandas as pd

from gpu_steps import Day
from scalesearch.deployment.backends import BACKENDS, get_backend
from scalesearch.deployment.targets import TARGETS


def run(day: Day) -> None:
    """Put down trials, seconds and the front of a search for each chip that can be measured here."""
    targets = ["cpu"]
    if day.device == "cuda":
        works = {name for name in BACKENDS if get_backend(name).probe().available}
        targets += [
            name
            for name, target in TARGETS.items()
            if target.backend in works - {"onnxruntime", "openvino"} and not target.compute_capability
        ]
    for target in targets:
        _search(day, target)


def _search(day: Day, target: str) -> None:
    budget, steps = (2, 20) if day.quick or day.device == "cpu" else (12, 240)
    folder = day.folder / f"study_{target}"
    command = [sys.executable, "-m", "scalesearch", "run", "--budget", str(budget), "--to", str(folder), "--json"]
    command += ["--target", target, "--set", f"machine.device={day.device}", "--set", f"training.steps={steps}"]
    started_s = time.perf_counter()
    with (day.folder / f"search_{target}.log").open("w", encoding="utf-8") as log:
        code = subprocess.run([*command, "--fresh"], stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    day.put(f"{target}: run --budget {budget}, s", time.perf_counter() - started_s, f"exit code {code}")
    if code:
        log_text = (day.folder / f"search_{target}.log").read_text(encoding="utf-8")
        day.put(f"{target}: said", log_text[-300:])
        sys.exit(f"the search for {target} ended with {code}")
    trials = pd.read_csv(folder / "trials.csv")
    day.put(f"{target}: trials", json.dumps(trials["state"].value_counts().to_dict()))
    front = pd.read_csv(folder / "front.csv")
    for row in front.to_dict("records"):
        day.put(f"{target}: front, trial {row['trial']}", f"{100 * row['top1']:.1f} % at {row['p50_ms']:.4g} ms")
