"""What it costs, and what it saves, to read training images from disk instead of holding them in memory.

    python benchmarks/memory_mapped.py

Speed: training images per second of one network on the same images in memory, mapped at the size they are trained at,
and mapped at twice and eight times that size, from which each batch is resized; in turn, round by round, so that what
else runs on the machine hits all of them. The files are small enough for the system to keep them in memory: this is the
price of the way itself, not of a slow disk.

Memory: the peak (VmHWM, Linux) of a process that loads a folder of generated pictures of 1280 x 720 and trains on it
briefly. Images are stored as squares, so of 1280 x 720 the centre 720 x 720 is kept. `auto` trains on 64 px images that
are held in memory, since they are small at that size; `disk` resizes each batch from what is stored. The pictures are
few distinct ones under many names, with their number behind the end of the JPEG, so that no two files are equal.
"""

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.mapped import ImageSource, MappedImages, planes
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, train
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import DataSettings, Machine, MachineSettings

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
BATCH, TRAINED_PX, STORED_PX = 64, 64, 720
CLASSES, DISTINCT = 10, 50


def smooth(seed: int, width: int, height: int) -> Image.Image:
    """A few soft blobs of colour: quick to decode, and no two seeds alike."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def write_pictures(root: Path, count: int) -> None:
    """Write JPEGs of 1280 x 720 into class folders."""
    contents = []
    for seed in range(DISTINCT):
        buffer = io.BytesIO()
        smooth(seed, 1280, 720).save(buffer, "JPEG", quality=80)
        contents.append(buffer.getvalue())
    for label in range(CLASSES):
        (root / f"class{label}").mkdir(parents=True)
    for index in range(count):
        path = root / f"class{index % CLASSES}" / f"{index:06}.jpg"
        path.write_bytes(contents[index % DISTINCT] + index.to_bytes(4, "big"))


def mapped(folder: Path, images: int, side_px: int) -> MappedImages:
    """Random images in a mapped file, trained on at `TRAINED_PX`."""
    path = folder / f"{side_px}.npy"
    file = np.lib.format.open_memmap(path, "w+", np.uint8, (images, side_px, side_px, 3))
    random = np.random.default_rng(0)
    for start in range(0, images, 64):
        file[start : start + 64] = random.integers(0, 256, file[start : start + 64].shape, np.uint8)
    file.flush()
    return MappedImages(np.load(path, mmap_mode="r")).at(TRAINED_PX)


def network_of(classes: int) -> Network:
    """The network that is trained."""
    return build(scale(base_spec("resnet_small"), Scaling(), resolution_px=TRAINED_PX, num_classes=classes))


def speed(images: int, steps: int, rounds: int) -> None:
    """Print training images/s of every way."""
    machine, network = probe_machine(MachineSettings(device="cpu")), network_of(CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        same = mapped(Path(folder), images, TRAINED_PX)
        ways: dict[str, torch.Tensor | ImageSource] = {
            "in memory": planes(same[:]),
            f"mapped at {TRAINED_PX} px": planes(same),
            f"mapped at {2 * TRAINED_PX} px": planes(mapped(Path(folder), images, 2 * TRAINED_PX)),
            f"mapped at {8 * TRAINED_PX} px": planes(mapped(Path(folder), images, 8 * TRAINED_PX)),
        }
        labels = torch.arange(images) % CLASSES
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, source in ways.items():
                spent = train_some(network, source, labels, machine, steps)
                if number > 0:  # the first round warms up
                    seconds[name].append(spent)
    print(f"resnet_small at {TRAINED_PX} px, batch {BATCH}, {images} images, {machine}")
    print(f"{'':20} {'images/s':>9} {'ratio':>6}   (median of {rounds} rounds of {steps} steps)")
    base = statistics.median(seconds["in memory"])
    for name, spents in seconds.items():
        middle = statistics.median(spents)
        print(f"{name:20} {steps * BATCH / middle:9.0f} {base / middle:6.2f}")


def train_some(
    network: Network, images: torch.Tensor | ImageSource, labels: torch.Tensor, machine: Machine, steps: int
) -> float:
    """Train and return the seconds that it took, its own set-up included."""
    started = time.perf_counter()
    train(network, images, labels, Recipe(steps=steps, batch_size=BATCH), machine, mean=MEAN, std=STD, seed=0)
    return time.perf_counter() - started


def peak_bytes() -> int:
    """The most memory that this process has had at once (getrusage would count its parent's, too)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def load_and_train(root: Path, cache: Path, memory: str, steps: int) -> None:
    """Load the pictures, train briefly and print what it took: this is a process of its own."""
    machine, network = Machine(device="cpu", threads=2, bf16=False, channels_last=True), network_of(CLASSES)
    train_some(
        network, torch.zeros(64, 3, TRAINED_PX, TRAINED_PX, dtype=torch.uint8), torch.zeros(64).long(), machine, 2
    )
    before, started = peak_bytes(), time.perf_counter()
    settings = DataSettings(source=str(root), memory=memory)  # type: ignore[arg-type]
    data = load_dataset(settings, LABEL_SOURCES, storage_px=STORED_PX, cache_folder=cache)
    loaded_s = time.perf_counter() - started
    loaded = peak_bytes()
    for note in data.notes:
        print(note)
    started = time.perf_counter()
    small = data.at(TRAINED_PX)
    resized_s = time.perf_counter() - started
    labels = small.train.targets.tensor()
    train_some(network, planes(small.train.images), labels, machine, steps)
    images = sum(len(part) for part in (data.train, data.val, data.calibration, data.test))
    print(
        f"{memory}: {images} images of {STORED_PX} px ({images * STORED_PX**2 * 3 / 1e9:.2f} GB), loaded in "
        f"{loaded_s:.0f} s, {TRAINED_PX} px {'on disk' if small.on_disk else 'in memory'} in {resized_s:.0f} s, "
        f"then {steps} steps of {BATCH};\n"
        f"  peak {peak_bytes() / 1e9:.2f} GB, of which {before / 1e9:.2f} GB before loading, "
        f"{loaded / 1e9:.2f} GB after it"
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="pictures of 1280 x 720")
    parser.add_argument("--steps", type=int, default=20, help="per round, and of the short training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=3, metavar=("PICTURES", "CACHE", "MEMORY"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.child:
        root, cache, memory = told.child
        load_and_train(Path(root), Path(cache), memory, told.steps)
        return
    speed(1024, told.steps, told.rounds)
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder) / "pictures", told.images)
        for memory in ("disk", "auto"):  # the first one decodes, the second one finds the file
            places = [f"{folder}/pictures", f"{folder}/cache", memory]
            subprocess.run([sys.executable, __file__, "--steps", str(told.steps), "--child", *places], check=True)


if __name__ == "__main__":
    main()
