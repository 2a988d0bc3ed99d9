"""Does the choice of channels matter? Every pruning criterion, after the same brief retraining, chance among them.

    python benchmarks/pruning_criteria.py --data DIR --to FOLDER

Each network is trained once per seed, as a search does, and kept; each criterion, scope and fraction starts from those
weights, cuts, and retrains with the same steps, images and seed. The table gives accuracy on the test images, mean and
standard deviation over the seeds, and the lead over chance, taken within each seed so that the seed's own luck leaves
it. "cut" is accuracy on the validation images before retraining. `global` ranks the channels of all layers together:
its networks differ in MACs between criteria, so its rows compare by accuracy and MACs both.

Every finished retraining is a line of FOLDER/results.jsonl; the same command continues where it was stopped, and prints
the table alone once all is there.
"""

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from brief_training import tensors

from scalesearch.compression.importance import Evidence
from scalesearch.compression.prune import prune
from scalesearch.data import LABEL_SOURCES, Dataset, ImageSplit, load_dataset, to_input
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, judged, score, train
from scalesearch.training.weights import KeptTraining, WeightStore, weights_key
from scalesearch.values.candidate import Criterion, Pruning, PruningScope, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import DataSettings, Machine

NETWORKS = ("resnet_small", "mobilenet_small")
RESOLUTION_PX = 48
FRACTIONS = (0.3, 0.5)
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
SCOPES: tuple[PruningScope, ...] = get_args(PruningScope)
CHANNEL_MULTIPLE = 8
TAYLOR_IMAGES = 256
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One retraining: equal jobs have equal results, so a line of the results file answers for it."""

    network: str
    scope: PruningScope
    fraction: float
    criterion: Criterion
    seed: int


class Bench:
    """The data, the trained bases and the results, all in one folder."""

    def __init__(self, dataset: Dataset, folder: Path, recipe: Recipe) -> None:
        self._data = dataset.at(RESOLUTION_PX)
        self._recipe = recipe
        self._weights = WeightStore(folder / "weights")
        self._file = folder / "results.jsonl"
        self._identity = {"data": dataset.fingerprint, "resolution_px": RESOLUTION_PX, "recipe": asdict(recipe)}
        self._begin()

    def run(self, job: Job) -> dict[str, Any]:
        """The job's line, kept: accuracies before and after the retraining, and MACs."""
        base, kept = self._base(job.network, job.seed)
        calibration = self._data.calibration
        images = to_input(calibration.images[:TAYLOR_IMAGES], mean=self._data.mean, std=self._data.std)
        batch = judged(torch.from_numpy(images), calibration.targets[:TAYLOR_IMAGES].tensor())
        pruning = Pruning(channel_fraction=job.fraction, criterion=job.criterion, scope=job.scope)
        cut = prune(base, pruning, channel_multiple=CHANNEL_MULTIPLE, evidence=Evidence(batch=batch, seed=job.seed))
        retrained = self._train(cut, job.seed, self._recipe.retrain_steps)
        line = {
            **asdict(job),
            "base_val": kept.float_score,
            "base_test": self._score(base, self._data.test),
            "cut_val": self._score(cut, self._data.val),
            "val": self._score(retrained, self._data.val),
            "test": self._score(retrained, self._data.test),
            "base_macs": formula_cost(base).macs,
            "macs": formula_cost(cut).macs,
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return line

    def done(self) -> dict[Job, dict[str, Any]]:
        """The lines of the results file, by job; one torn by a kill is not there."""
        names = tuple(Job.__dataclass_fields__)
        lines = [
            line for line in map(_parsed, self._file.read_text(encoding="utf-8").splitlines()) if "network" in line
        ]
        return {Job(**{name: line[name] for name in names}): line for line in lines}

    def _begin(self) -> None:
        """The first line says what the results are of; a torn last line is closed."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        if not text:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._identity) + "\n", encoding="utf-8")
        elif _parsed(text.splitlines()[0]) != self._identity:
            raise SystemExit(f"{self._file} was begun with other data or another recipe: give another --to")
        elif not text.endswith("\n"):
            self._file.write_text(text + "\n", encoding="utf-8")

    def _base(self, name: str, seed: int) -> tuple[Network, KeptTraining]:
        spec = base_spec(name)
        scaling = Scaling(resolution=RESOLUTION_PX / spec.resolution_px)
        classes = len(self._data.class_names)
        spec = scale(spec, scaling, resolution_px=spec.resolution_px, num_classes=classes)
        network = build(spec, dropout=self._recipe.dropout, seed=seed)
        key = weights_key(spec, self._recipe, self._data.fingerprint, seed)
        kept = self._weights.load(key, network.module)
        if kept is None:
            network = self._train(network, seed, self._recipe.steps)
            kept = KeptTraining(
                float_score=self._score(network, self._data.val),
                train_s=0.0,
                final_loss=0.0,
                losses=(),
                steps=self._recipe.steps,
                safe_recipe_used=False,
            )
            self._weights.save(key, network.module, kept)
        network.module.eval()
        return network, kept

    def _train(self, network: Network, seed: int, steps: int) -> Network:
        images, labels = tensors(self._data.train)
        mean, std = self._data.mean, self._data.std
        recipe = replace(self._recipe, steps=steps)
        return train(network, images, labels, recipe, MACHINE, mean=mean, std=std, seed=seed).network

    def _score(self, network: Network, part: ImageSplit) -> float:
        return score(network, *tensors(part), MACHINE, mean=self._data.mean, std=self._data.std)


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return parsed


def plan(seeds: int) -> list[Job]:
    """All jobs, `uniform` first, so that a run that is stopped has whole rows."""
    return [
        Job(network=network, scope=scope, fraction=fraction, criterion=criterion, seed=seed)
        for scope in SCOPES
        for seed in range(seeds)
        for network in NETWORKS
        for fraction in FRACTIONS
        for criterion in CRITERIA
    ]


def report(done: dict[Job, dict[str, Any]]) -> Iterable[str]:
    """The table, in points, of what is there."""
    for network in NETWORKS:
        bases = {job.seed: line for job, line in done.items() if job.network == network}
        if not bases:
            continue
        yield f"\n{network} at {RESOLUTION_PX} px, unpruned: {_spread([line['base_test'] for line in bases.values()])}"
        yield f"{'scope':8} {'channels':>8} {'criterion':10} {'seeds':>5} {'MACs':>5} {'cut':>12} {'test':>12} {'val':>12} {'lead over chance':>17}"  # noqa: E501
        for scope in SCOPES:
            for fraction in FRACTIONS:
                yield from _rows(done, network, scope, fraction)


def _rows(done: dict[Job, dict[str, Any]], network: str, scope: PruningScope, fraction: float) -> Iterable[str]:
    def of(criterion: Criterion) -> dict[int, dict[str, Any]]:
        wanted = (network, scope, fraction, criterion)
        return {
            job.seed: line
            for job, line in done.items()
            if (job.network, job.scope, job.fraction, job.criterion) == wanted
        }

    chance = of("random")
    for criterion in CRITERIA:
        lines = of(criterion)
        if not lines:
            continue
        leads = [line["test"] - chance[seed]["test"] for seed, line in lines.items() if seed in chance]
        lead = "-" if criterion == "random" or not leads else _spread(leads, sign="+")
        macs = np.mean([line["macs"] / line["base_macs"] for line in lines.values()])
        columns = [_spread([line[name] for line in lines.values()]) for name in ("cut_val", "test", "val")]
        yield (
            f"{scope:8} {'-' + format(fraction, '.0%'):>8} {criterion:10} {len(lines):5d} {macs:5.0%} "
            f"{columns[0]:>12} {columns[1]:>12} {columns[2]:>12} {lead:>17}"
        )


def _spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation over the seeds, in points."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return f"{100 * np.mean(values):{sign}.1f} ± {100 * deviation:.1f}"


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of images, train/CLASS/*.jpg")
    parser.add_argument("--to", type=Path, required=True, help="folder for results and bases, continued if there")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=240, help="of the bases")
    parser.add_argument("--retrain-steps", type=int, default=60)
    parser.add_argument("--val-fraction", type=float, default=0.3)
    told = parser.parse_args()

    recipe = Recipe(steps=told.steps, retrain_steps=told.retrain_steps, schedule="cosine")
    settings = DataSettings(source=told.data, val_fraction=told.val_fraction)
    bench = Bench(load_dataset(settings, LABEL_SOURCES, storage_px=RESOLUTION_PX), told.to, recipe)
    jobs = plan(told.seeds)
    left = [job for job in jobs if job not in bench.done()]
    for number, job in enumerate(left, start=1):
        line = bench.run(job)
        accuracies = f"cut {100 * line['cut_val']:.1f}, val {100 * line['val']:.1f}, test {100 * line['test']:.1f}"
        what = f"{job.network} {job.scope} {job.fraction:.0%} {job.criterion} seed {job.seed}"
        print(f"{number}/{len(left)} {what}: {accuracies}", flush=True)
    wanted = set(jobs)
    print("\n".join(report({job: line for job, line in bench.done().items() if job in wanted})))


if __name__ == "__main__":
    main()
