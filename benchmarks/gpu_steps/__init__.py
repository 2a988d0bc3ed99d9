"""The steps of a GPU day: one module each, loaded in the child process that runs it."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Where a day's figures go, and how large its steps are."""

    device: str
    """`cuda`, or `cpu` to rehearse."""
    folder: Path
    quick: bool
    step: str = ""
    """The step that is running, in its own process."""

    def put(self, what: str, value: object, note: str = "") -> None:
        """Write down one figure of the running step at once, and print it into the step's log."""
        row = {"what": what, "value": _rounded(value), "note": note}
        with self.rows_file(self.step).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{what}: {row['value']} {note}", flush=True)

    def rows_file(self, step: str) -> Path:
        """Give the file of a step's rows."""
        return self.folder / f"{step}.jsonl"

    def rows(self, step: str) -> list[dict[str, object]]:
        """Read what a step has put down; a line that a kill cut short is left out."""
        rows: list[dict[str, object]] = []
        path = self.rows_file(step)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: its module has a function `run(day)`."""

    name: str
    limit_s: float
    first_look: bool = True
    """Also part of `--quick`."""
    module: str = ""
    """Where it is; empty: in this folder, under its name."""


STEPS: Final = (
    Step(name="inventory", limit_s=60),
    Step(name="training", limit_s=150),
    Step(name="throughput", limit_s=150),
    Step(name="clock", limit_s=180),
    Step(name="rtx", limit_s=120),
    Step(name="tests", limit_s=240, first_look=False),
    Step(name="search", limit_s=300, first_look=False),
    Step(name="tasks", limit_s=240, first_look=False),
)


def run_step(module: str, day: Day) -> None:
    """Run a step in this process, by the name of its module."""
    importlib.import_module(module).run(day)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
