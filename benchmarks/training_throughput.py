"""Images per second of scalesearch's trainer against a plain PyTorch loop of the same network, as a ratio in one run.

    python benchmarks/training_throughput.py

The plain loop is what a tutorial writes: a Dataset that augments PIL images one by one, a DataLoader, NCHW float32,
AdamW, torch's own number of threads. Both train the same network on the same images in memory (nobody decodes JPEGs),
in turn, round by round, so that what else runs on the machine hits both; the medians are compared.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, train
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import OptimizerName, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine, MachineSettings

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CLASSES, IMAGES, BATCH = 43, 2048, 64


class PillowDataset(Dataset[tuple[Tensor, Tensor]]):
    """Shift, brightness and contrast on one PIL image at a time, then a normalized float tensor."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self._images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self._labels = labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One augmented image (3, H, W) and its label."""
        image = self._images[index]
        reach = round(0.1 * image.width)
        shift = (1, 0, random.randint(-reach, reach), 0, 1, random.randint(-reach, reach))
        image = image.transform(image.size, Image.Transform.AFFINE, shift)
        image = ImageEnhance.Brightness(image).enhance(random.uniform(0.8, 1.2))
        image = ImageEnhance.Contrast(image).enhance(random.uniform(0.8, 1.2))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), self._labels[index]


def batches(loader: DataLoader[tuple[Tensor, Tensor]] | list[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches without end."""
    while True:
        yield from loader


def plain_round(module: nn.Module, source: Iterator[tuple[Tensor, Tensor]], steps: int, threads: int) -> None:
    """The plain loop for some steps."""
    torch.set_num_threads(threads)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.002)
    module.train()
    for _ in range(steps):
        images, labels = next(source)
        optimizer.zero_grad()
        loss = functional.cross_entropy(module(images), labels, label_smoothing=0.1)
        torch.autograd.backward(loss)
        optimizer.step()


def our_round(
    network: Network, data: tuple[Tensor, Tensor], optimizer: OptimizerName, steps: int, machine: Machine
) -> None:
    """`train` for some steps, its own set-up included."""
    recipe = Recipe(optimizer=optimizer, learning_rate=0.002, batch_size=BATCH)
    train(network, *data, replace(recipe, steps=steps), machine, mean=MEAN, std=STD, seed=0)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet_small")
    parser.add_argument("--resolution-px", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loader-workers", type=int, default=0, help="num_workers of the plain loop's DataLoader")
    told = parser.parse_args()

    side = told.resolution_px
    noise = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=noise)
    labels = torch.randint(0, CLASSES, (IMAGES,), generator=noise)
    network = build(scale(base_spec(told.network), Scaling(), resolution_px=side, num_classes=CLASSES))
    default_threads = torch.get_num_threads()
    machine = probe_machine(MachineSettings(device="cpu"))
    loader = DataLoader(PillowDataset(images, labels), BATCH, shuffle=True, num_workers=told.loader_workers)
    plain, ready = batches(loader), batches([next(iter(loader))])
    contestants: dict[str, Callable[[], None]] = {
        "plain loop": lambda: plain_round(network.module, plain, told.steps, default_threads),
        "plain loop, our threads": lambda: plain_round(network.module, plain, told.steps, machine.threads),
        "plain loop, one batch again and again": lambda: plain_round(
            network.module, ready, told.steps, default_threads
        ),
        "scalesearch, adamw": lambda: our_round(network, (images, labels), "adamw", told.steps, machine),
        "scalesearch, muon": lambda: our_round(network, (images, labels), "muon", told.steps, machine),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(told.rounds + 1):
        for name, contestant in contestants.items():
            started = time.perf_counter()
            contestant()
            if number > 0:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)

    print(f"{told.network} at {side} px, batch {BATCH}, torch's default threads {default_threads}, ours: {machine}")
    print(f"{'':40} {'images/s':>9} {'ratio':>6}   (median of {told.rounds} rounds of {told.steps} steps)")
    base = statistics.median(seconds["plain loop"])
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        print(f"{name:40} {told.steps * BATCH / middle:9.0f} {base / middle:6.2f}")


if __name__ == "__main__":
    main()
