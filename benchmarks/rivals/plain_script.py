"""What a user would write by hand: train, validate, export and time small networks until the time is up.

    PYTHONPATH=benchmarks python -m rivals.plain_script --data DIR --to DIR --way nsga2 --minutes 10

An ordinary training script: torchvision's ImageFolder with flips, AdamW with OneCycleLR, validation accuracy, export to
ONNX, the median latency of ONNX Runtime. Nothing of this project's training, export or measurement is used, only its
network builder, so that the networks are the same. `--way` says who chooses them: Optuna's NSGA-II or random sampler
over the default space's axes, compound scaling, or a grid of width x resolution. As with Optuna's own `timeout`, the
training that runs when the time is up still ends and counts. Each network becomes a line of trials.jsonl.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import optuna
import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from rivals.script_trials import ScriptTrial, add_trial
from rivals.shapes import AXES, Shape, compound_shapes, grid_shapes
from scalesearch.tasks.classification.pieces import build

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, RATE, WEIGHT_DECAY = 32, 0.002, 0.05
POPULATION = 8
"""Of NSGA-II. There is time for some tens of trainings; with Optuna's default of 50 all of them would be random."""
WARM_RUNS, TIMED_RUNS = 50, 300
WAYS = ("nsga2", "random", "compound", "grid")
Loader = DataLoader[tuple[Tensor, Tensor]]


class SplitFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """ImageFolder with the classes of the training folder, also where a split lacks images of some."""

    def __init__(self, data: Path, split: str, transform: object) -> None:
        """Read the split `data/split`; classes are the folders of `data/train`."""
        self._data = data
        super().__init__(str(data / split), transform, allow_empty=True)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the class names, sorted, and their numbers."""
        names = sorted(folder.name for folder in (self._data / "train").iterdir() if folder.is_dir())
        return names, {name: number for number, name in enumerate(names)}


def shown_as(side_px: int, *, flip: bool) -> object:
    """Return the usual torchvision transforms to normalised square tensors (3, side, side)."""
    mirrored = [transforms.RandomHorizontalFlip()] if flip else []
    square = [transforms.Resize(side_px), transforms.CenterCrop(side_px)]
    return transforms.Compose([*square, *mirrored, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def train(module: nn.Module, loader: Loader, updates: int) -> None:
    """Train by AdamW for so many updates, with a rate that rises and falls once."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=updates)
    module.train()
    done = 0
    while done < updates:
        for images, labels in loader:
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(module(images), labels))
            optimizer.step()
            schedule.step()
            done += 1
            if done == updates:
                return


def count_correct(module: nn.Module, loader: Loader) -> int:
    """Return how many images the module, in evaluation mode, answers right."""
    module.eval()
    with torch.no_grad():
        return sum(int((module(images).argmax(1) == labels).sum()) for images, labels in loader)


def export(module: nn.Module, side_px: int, to: Path) -> None:
    """Write the module as ONNX: `image` (batch, 3, side, side) to `logits` (batch, classes)."""
    example = torch.zeros(2, 3, side_px, side_px)
    torch.onnx.export(
        module.eval(),
        (example,),
        to,
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )


def median_ms(file: Path, side_px: int) -> float:
    """Return the median milliseconds of one image with one thread of ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    image, times_ms = np.zeros((1, 3, side_px, side_px), np.float32), []
    for _ in range(WARM_RUNS + TIMED_RUNS):
        began = time.perf_counter()
        session.run(None, {"image": image})
        times_ms.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times_ms[WARM_RUNS:])


class Script:
    """Trains one network after the other, and keeps what came out.

    Args:
        asked: The command line.
    """

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked, self._done = asked, dict[object, ScriptTrial]()
        self._began_s = psutil.Process().create_time()
        self.classes = len(SplitFolder(asked.data, "train", None).classes)

    @property
    def left_s(self) -> float:
        """Seconds until the time is up, counted from the start of the process."""
        return 60.0 * float(self._asked.minutes) - (time.time() - self._began_s)

    def trial_of(self, shape: Shape) -> ScriptTrial:
        """Return the trial of a network: trained now, or the one that was made before of the same network."""
        spec = shape.spec(self.classes)
        if spec not in self._done:
            self._done[spec] = self._run(shape)
            add_trial(self._asked.to, self._done[spec])
        return self._done[spec]

    @property
    def trained(self) -> int:
        """Number of networks so far."""
        return len(self._done)

    def _run(self, shape: Shape) -> ScriptTrial:
        asked, number, spec = self._asked, len(self._done), shape.spec(self.classes)
        side_px, module = spec.resolution_px, build(spec, seed=1000 * asked.seed + number).module
        began = time.monotonic()
        train(module, self._loader("train", side_px, flip=asked.flip), asked.updates)
        train_s = time.monotonic() - began
        val = self._loader("val", side_px, flip=False)
        correct, file = count_correct(module, val), asked.to / f"trial_{number:04d}.onnx"
        export(module, side_px, file)
        ms = median_ms(file, side_px)
        return ScriptTrial(
            number=number,
            name=shape.name,
            side_px=side_px,
            correct=correct,
            images=len(val.dataset),  # type: ignore[arg-type]  # torch's Dataset need not have a length
            ms=ms,
            file=file.name,
            ended_s=time.time() - self._began_s,
            train_s=train_s,
        )

    def _loader(self, split: str, side_px: int, *, flip: bool) -> Loader:
        images = SplitFolder(self._asked.data, split, shown_as(side_px, flip=flip))
        training = split == "train"
        return DataLoader(
            images,
            BATCH,
            shuffle=training,
            drop_last=training and len(images) >= BATCH,
            num_workers=self._asked.loader_workers,
            persistent_workers=training and self._asked.loader_workers > 0,
        )


def optimize(script: Script, sampler: optuna.samplers.BaseSampler) -> None:
    """Let Optuna choose from the axes until the time is up, or until every network was trained."""
    networks = {
        Shape(**dict(zip(AXES, values, strict=True))).spec(script.classes)
        for values in itertools.product(*AXES.values())
    }

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        chosen = {name: float(trial.suggest_categorical(name, values)) for name, values in AXES.items()}
        found = script.trial_of(Shape(**chosen))
        if script.trained == len(networks):
            trial.study.stop()
        return found.correct / found.images, found.ms

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, timeout=max(1.0, script.left_s))


def main() -> None:
    """Search in one of the ways until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds train/CLASS/ and val/CLASS/")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=620)
    parser.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--loader-workers", type=int, default=0, help="processes that load images beside it")
    asked = parser.parse_args()
    asked.to.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    script = Script(asked)
    if asked.way in ("nsga2", "random"):
        samplers = optuna.samplers
        nsga2 = samplers.NSGAIISampler(population_size=POPULATION, seed=asked.seed)
        optimize(script, nsga2 if asked.way == "nsga2" else samplers.RandomSampler(seed=asked.seed))
        return
    for shape in compound_shapes() if asked.way == "compound" else grid_shapes():
        if script.left_s <= 0:
            break
        script.trial_of(shape)


if __name__ == "__main__":
    main()
