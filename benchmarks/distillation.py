"""Does it pay to learn from the fine-tuned parent's answers? Children of one parent, with and without, at equal time.

    python benchmarks/distillation.py --data DIR --to distillation.jsonl --space efficientnet_lite0 --parent pretrained
    python benchmarks/distillation.py --data DIR --to small.jsonl --children 0.5,1,1 1,1,1 --set training.steps=240

Without `--parent` one is made first: the space's base network, wider and deeper, trained by this program and exported.
Every child (width, depth and resolution as multipliers) is trained by the program's own trunk and branch, by the
space's first recipe: without a teacher; with each weight and temperature; and once more without a teacher for as many
more updates as the CPU seconds of the teacher would have bought. These are all seconds of its answers, though a study
pays them once for all of its candidates, and what a distilled update takes longer. Seeds are of the children's
trainings; the parent is one.

Printed are validation and test scores in percent, for each child the mean over the seeds, and each seed's difference
from training without a teacher at equal time. Every training is a line of the results file; the same command continues
where it was stopped, and prints alone what is there.
"""

import argparse
import json
import math
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.examples import tensors
from scalesearch.chain.inheritance import Starter
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.chain.teacher import Teacher
from scalesearch.config import load_run
from scalesearch.data import Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.export.folder import write_export
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.spaces.suggest import cheapest
from scalesearch.study.session import open_session
from scalesearch.tasks.hooks import score_torch
from scalesearch.tasks.registry import get_task
from scalesearch.training.answers import answers
from scalesearch.values.candidate import Candidate, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

PARENT_SCALING = Scaling(width=1.5, depth=2.0)
TEACHER, PLAIN, LONGER = "teacher", "no teacher", "no teacher, equal time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A network of the space, by multipliers."""

    width: float
    depth: float
    resolution: float

    @classmethod
    def of(cls, text: str) -> "Child":
        """Read `width,depth,resolution`."""
        width, depth, resolution = map(float, text.split(","))
        return cls(width=width, depth=depth, resolution=resolution)

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"w{self.width:g} d{self.depth:g} r{self.resolution:g}"

    def candidate(self, recipe: Recipe) -> Candidate:
        """The child as a candidate."""
        scaling = Scaling(width=self.width, depth=self.depth, resolution=self.resolution)
        return Candidate(scaling=scaling, recipe=recipe)


class Results:
    """The lines of the results file by child, arm and seed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = (line for line in text.splitlines(keepends=True) if line.endswith("\n"))  # a kill may tear the last
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole]
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")

    def find(self, child: str, arm: str, seed: int) -> dict[str, Any] | None:
        """The line of a training; None if it is still to be done."""
        wanted = {"child": child, "arm": arm, "seed": seed}
        return next((line for line in self.lines if wanted.items() <= line.items()), None)

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        """Append a line, on disk when this returns."""
        self.lines.append(line)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(line, flush=True)
        return line


class Bench:
    """One study whose children are trained."""

    def __init__(self, session: Session, results: Results) -> None:
        self.session, self.results = session, results
        self.task, self.dataset = (task := get_task(session.settings.task)), load_study_data(session, task.sources())
        self.lock = DeviceLock(MEASURED_DEVICE)

    def teacher(self, *, flip: bool) -> dict[str, Any]:
        """Fine-tune the parent and find its answers; return their CPU seconds and the parent's scores."""
        known = self.results.find(TEACHER, TEACHER, 0)
        if known:
            return known
        starter = Starter(self.session, self.lock)
        network = starter.parent(print)
        started = time.process_time()
        Teacher(self.session, self.lock, starter.parent).ready(Recipe(distill_weight=1.0, flip=flip))
        spent_s = time.process_time() - started
        val, test = self.scores(network, self.dataset.at(network.spec.input_size))
        line = {"child": TEACHER, "arm": TEACHER, "seed": 0, "cpu_s": spent_s, "val": val, "test": test}
        return self.results.add(line)

    def scores(self, network: Network, data: Dataset) -> tuple[float, float]:
        """The scores on validation and test images."""
        found = []
        for split in (data.val, data.test):
            images, targets = tensors(split)
            given = answers(network, images, self.session.machine, mean=data.mean, std=data.std)
            found.append(score_torch(self.task, self.task.make_metric(data.class_names), given, targets))
        return found[0], found[1]

    def train(self, child: Child, arm: str, seed: int, recipe: Recipe) -> dict[str, Any]:
        """Train a child unless that is done; return its line."""
        known = self.results.find(child.name, arm, seed)
        if known:
            return known
        session = replace(self.session, settings=replace(self.session.settings, seed=seed))
        plan = Planner(session)(child.candidate(recipe))
        data = self.dataset.at(plan.spec.input_size)
        started = time.process_time()
        shrunk = Shrinker(session, self.lock)(plan, data, StageClock())
        spent_s = time.process_time() - started
        val, test = self.scores(shrunk.network, data)
        line = {"child": child.name, "arm": arm, "seed": seed, "steps": recipe.steps, "cpu_s": spent_s}
        made = shrunk.training.new_steps or recipe.steps
        return self.results.add({**line, "step_s": spent_s / made, "macs": plan.cost.macs, "val": val, "test": test})


def made_parent(settings: RunSettings, space: SearchSpace, folder: Path, steps: int) -> str:
    """Train and export a network larger than the base; return the export's folder."""
    to = folder / "parent_export"
    if not to.exists():
        (folder / "parent_study").mkdir(parents=True, exist_ok=True)
        session = open_session(settings, space, folder / "parent_study", say=print)
        recipe = replace(Recipe(), steps=steps)
        plan = Planner(session)(Candidate(scaling=PARENT_SCALING, recipe=recipe))
        record = TrialEvaluator(session).evaluate(plan, trial=0, report=print)
        write_export(record, session, to, formats=())
    return str(to)


def arms(recipe: Recipe, weights: list[float], temperatures: list[float]) -> dict[str, Recipe]:
    """The recipes that are compared at equal updates, by name."""
    found = {PLAIN: recipe}
    for weight in weights:
        for temperature in temperatures:
            name = f"weight {weight:g}, T {temperature:g}"
            found[name] = replace(recipe, distill_weight=weight, distill_temperature=temperature)
    return found


def run(bench: Bench, children: list[Child], seeds: list[int], compared: dict[str, Recipe]) -> None:
    """Train what is missing, seed by seed."""
    plain = compared[PLAIN]
    teacher_s = bench.teacher(flip=plain.flip)["cpu_s"]
    for seed in seeds:
        for child in children:
            lines = {arm: bench.train(child, arm, seed, recipe) for arm, recipe in compared.items()}
            step_s = lines[PLAIN]["step_s"]
            slower_s = statistics.median(line["step_s"] for arm, line in lines.items() if arm != PLAIN) - step_s
            more = math.ceil((teacher_s + max(0.0, slower_s) * plain.steps) / step_s)
            bench.train(child, LONGER, seed, replace(plain, steps=plain.steps + more))


def report(results: Results) -> list[str]:
    """The lines to print: children by arms, means over the seeds that have all arms."""
    lines = []
    trained = [line for line in results.lines if line["child"] != TEACHER]
    for line in results.lines:
        if line["child"] == TEACHER:
            lines.append(
                f"parent: validation {100 * line['val']:.1f}, test {100 * line['test']:.1f}; "
                f"its answers took {line['cpu_s']:.1f} CPU s"
            )
    lines.append(
        f"{'child':16} {'arm':24} {'steps':>6} {'CPU s':>6} {'val':>6} {'test':>6}   less equal time: val, test"
    )
    for child in dict.fromkeys(line["child"] for line in trained):
        own = [line for line in trained if line["child"] == child]
        equal = {line["seed"]: line for line in own if line["arm"] == LONGER}
        for arm in dict.fromkeys(line["arm"] for line in own):
            runs = [line for line in own if line["arm"] == arm]
            steps, val, test = (statistics.fmean(line[name] for line in runs) for name in ("steps", "val", "test"))
            spent_s = statistics.fmean(line["steps"] * line["step_s"] for line in runs)  # a trunk may be reused
            against = "  ".join(
                f"{100 * (line['val'] - equal[line['seed']]['val']):+.1f}, "
                f"{100 * (line['test'] - equal[line['seed']]['test']):+.1f}"
                for line in runs
                if line["seed"] in equal and arm != LONGER
            )
            lines.append(
                f"{child:16} {arm:24} {steps:6.0f} {spent_s:6.1f} {100 * val:6.1f} {100 * test:6.1f}   {against}"
            )
    return lines


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as of `scalesearch run --data`")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--space", default="resnet_small")
    parser.add_argument("--parent", default="", help="as of `scalesearch run --parent`; else one is trained")
    parser.add_argument("--parent-updates", type=int, default=1920, help="of the parent that is trained")
    parser.add_argument("--children", type=Child.of, nargs="+", default=[Child.of("0.5,0.5,1"), Child.of("1,1,1")])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5, 0.9])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[2.0, 4.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--set", action="append", default=[], help="settings, e.g. training.steps=120")
    parser.add_argument("--report", action="store_true", help="print the table of what is there, and train nothing")
    told = parser.parse_args()

    told.to.parent.mkdir(parents=True, exist_ok=True)
    results = Results(told.to)
    if not told.report:
        overrides = ("machine.threads=1", "machine.bf16=off", *told.set)
        settings, space = load_run(space=told.space, overrides=overrides, flags={"data.source": told.data})
        if len(space.lengths) > 1:
            parser.error(
                f"{space.name} trains by unlike lengths: give one, as in --set training.steps={space.lengths[0]}"
            )
        settings = replace(settings, target="cpu", twins=False)
        folder = told.to.with_suffix("")
        parent = told.parent or made_parent(settings, space, folder, told.parent_updates)
        (folder / "study").mkdir(parents=True, exist_ok=True)
        session = open_session(replace(settings, parent=parent), space, folder / "study", say=print)
        compared = arms(cheapest(session.space).recipe, told.weights, told.temperatures)
        run(Bench(session, results), told.children, told.seeds, compared)
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
