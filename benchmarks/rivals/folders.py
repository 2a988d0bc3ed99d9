"""Write a data set's splits as folders, so that the program and the scripts search and test with the same images."""

import shutil
from collections import Counter
from pathlib import Path

from PIL import Image

from scalesearch.data import LABEL_SOURCES, ImageSplit, load_splits, plain_source
from scalesearch.values.settings import DataSettings

DATA = "data"
"""Name of the folder inside the benchmark's folder; it holds train/CLASS/, val/CLASS/ and test/CLASS/."""


def write_splits(source: str, to: Path, *, val_fraction: float, storage_px: int) -> dict[str, int]:
    """Write train, val and test of a source to the folder `to`, and return the number of images in each.

    Files of a folder are copied as they are; images of other sources are written as PNG with sides of `storage_px`.
    Files that the program leaves out (unreadable ones, copies) are left out for everybody.

    Raises:
        ConfigError: There is no such source, or it cannot be read.
    """
    settings = DataSettings(source=source, val_fraction=val_fraction)
    data, (train, val, calibration, test), _ = load_splits(settings, LABEL_SOURCES, storage_px=storage_px)
    root, partial = Path(plain_source(source)).expanduser(), to.with_name(f"{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    counts = Counter[str]()
    # The program sets calibration images aside from the training images by itself; the scripts train on all of them.
    for name, part in (("train", train), ("train", calibration), ("val", val), ("test", test)):
        _write(part, partial / name, data.class_names, root, first=counts[name])
        counts[name] += len(part)
    partial.replace(to)
    return dict(counts)


def _write(part: ImageSplit, to: Path, class_names: tuple[str, ...], root: Path, *, first: int) -> None:
    for place, label in enumerate(part.targets.tensor().tolist()):
        folder = to / class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        # Numbered, since files of pooled splits may have equal names.
        if part.names is not None:
            file = root / str(part.names[place])
            shutil.copyfile(file, folder / f"{first + place:06d}_{file.name}")
        else:
            Image.fromarray(part.images[place]).save(folder / f"{first + place:06d}.png")
