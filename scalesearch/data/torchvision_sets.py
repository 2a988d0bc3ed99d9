"""Torchvision's data sets by name, which torchvision downloads on the user's machine."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from scalesearch.data.cache import Arrays, cached_arrays, content_key, require_splits
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.facts import ImageFact, ImageFacts, as_arrays, from_arrays, gathered, require_facts
from scalesearch.data.memory import require_memory
from scalesearch.data.source import Source, SourceData
from scalesearch.data.targets import LABELS, Labels
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.data.decode import Reading

Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchvisionSet:
    """A class of torchvision.datasets, and the arguments that give its train, val and test images."""

    class_name: str
    train: Arguments
    val: Arguments | None = None
    test: Arguments | None = None
    note: str = ""
    """What the user should know about its splits; shown as a warning."""


def _flagged(class_name: str) -> TorchvisionSet:
    return TorchvisionSet(class_name=class_name, train={"train": True}, test={"train": False})


def _two(class_name: str, *, train: str = "train", note: str = "") -> TorchvisionSet:
    return TorchvisionSet(class_name=class_name, train={"split": train}, test={"split": "test"}, note=note)


def _three(class_name: str) -> TorchvisionSet:
    return TorchvisionSet(class_name=class_name, train={"split": "train"}, val={"split": "val"}, test={"split": "test"})


_GTSRB_NOTE = (
    "data gtsrb: train holds up to 30 frames of each physical sign, and validation images are drawn from the same "
    "frames, so validation accuracy is higher than test accuracy will be"
)

SETS: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "cifar10": _flagged("CIFAR10"),
        "cifar100": _flagged("CIFAR100"),
        "dtd": _three("DTD"),
        "eurosat": TorchvisionSet(class_name="EuroSAT", train={}),
        "fashion-mnist": _flagged("FashionMNIST"),
        "fgvc-aircraft": _three("FGVCAircraft"),
        "flowers102": _three("Flowers102"),
        "food101": _two("Food101"),
        "gtsrb": _two("GTSRB", note=_GTSRB_NOTE),
        "kmnist": _flagged("KMNIST"),
        "mnist": _flagged("MNIST"),
        "oxford-iiit-pet": _two("OxfordIIITPet", train="trainval"),
        "stl10": _two("STL10"),
        "svhn": _two("SVHN"),
    }
)


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load a named data set, which is downloaded if it is not there, decoded once and kept in `cache_folder`.

    Raises:
        MissingBackendError: If torchvision is not installed.
        ConfigError: If the download fails or the files are damaged.
    """
    from scalesearch.data.decode import DECODER_VERSION, Reading

    name = settings.source.lower().replace("_", "-")
    kind = SETS[name]
    root = Path(settings.download_folder).expanduser() if settings.download_folder else cache_folder / "downloads"
    reading = Reading(size=storage, window=settings.window, fit=settings.framing)
    key = content_key(_version(), DECODER_VERSION, name, reading)
    arrays = cached_arrays(
        cache_folder,
        f"torchvision-{key}",
        partial(_read, name, kind, root, reading),
        whole=partial(_require_whole, kind=kind, size=storage),
    )
    return SourceData(
        name=name,
        class_names=tuple(json.loads(arrays["class_names"].tobytes())),
        train=_split(arrays, "train"),
        val=_split(arrays, "val") if kind.val is not None else None,
        test=_split(arrays, "test") if kind.test is not None else None,
        warnings=(kind.note,) if kind.note else (),
    )


def _require_whole(arrays: Arrays, *, kind: TorchvisionSet, size: InputSize) -> None:
    """Check that stored arrays are what `_read` makes.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as expected.
    """
    names = json.loads(arrays["class_names"].tobytes())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = "class names that are no texts"
        raise ValueError(msg)
    splits = {split: None for split in ("train", "val", "test") if getattr(kind, split) is not None}
    require_splits(arrays, splits, size=size, classes=len(names))
    for split in splits:
        require_facts(arrays, len(arrays[f"{split}_labels"]), f"{split}_")


def _version() -> str:
    return str(_torchvision().__version__)


def _torchvision() -> Any:
    try:
        import torchvision
        import torchvision.datasets
    except ImportError as error:
        msg = (
            f"data: this data set is read by torchvision, which is not installed ({error}).\n"
            f"Install it: pip install 'scalesearch[datasets]'\n"
            f"Or use --data signs, a folder or an .npz file, which need nothing more."
        )
        raise MissingBackendError(msg) from error
    return torchvision


def _read(name: str, kind: TorchvisionSet, root: Path, reading: "Reading") -> Arrays:
    parts = {split: getattr(kind, split) for split in ("train", "val", "test")}
    opened = {split: _open(name, kind, arguments, root) for split, arguments in parts.items() if arguments is not None}
    total = sum(len(images) for images in opened.values())
    require_memory(images=total, size=reading.size, where=f"data {name}")
    arrays: dict[str, Any] = {}
    for split, images in opened.items():
        arrays[f"{split}_images"], arrays[f"{split}_labels"], facts = _decode(name, images, reading)
        arrays |= {f"{split}_{key}": value for key, value in as_arrays(facts).items()}
    highest = max(int(arrays[f"{split}_labels"].max()) for split in opened)
    class_names = getattr(opened["train"], "classes", None) or [str(index) for index in range(highest + 1)]
    arrays["class_names"] = np.frombuffer(json.dumps([str(each) for each in class_names]).encode(), np.uint8)
    return arrays


def _open(name: str, kind: TorchvisionSet, arguments: Arguments, root: Path) -> Any:
    maker = getattr(_torchvision().datasets, kind.class_name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        return maker(root=str(root), download=True, **arguments)
    except (OSError, RuntimeError, EOFError, ValueError) as error:  # URLError is an OSError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        msg = (
            f"data {name}: expected torchvision to download it to {root}, came: {reason}.\n"
            f"Check the network and the free space, delete what is there by half, or set data.download_folder to "
            f"a folder that already holds it.\n"
            f"Without a network: --data signs, a folder or an .npz file."
        )
        raise ConfigError(msg) from error


def _decode(name: str, images: Any, reading: "Reading") -> tuple[Any, Any, ImageFacts]:
    from scalesearch.data.decode import UNREADABLE, read_image

    pixels = np.empty((len(images), *reading.size.sides, 3), np.uint8)
    facts: list[ImageFact] = []
    labels = np.empty(len(images), np.int64)
    for index in range(len(images)):
        try:
            image, labels[index] = images[index]
            pixels[index], fact = read_image(image, reading)
            facts.append(fact)
        except UNREADABLE as error:
            msg = f"data {name}: image {index} cannot be read: {error}.\nDelete the download and let it come anew."
            raise ConfigError(msg) from error
    return pixels, labels, gathered(facts)


def _split(arrays: Arrays, split: str) -> ImageSplit:
    return ImageSplit(
        images=arrays[f"{split}_images"].astype(np.uint8, copy=False),
        targets=Labels(arrays[f"{split}_labels"].astype(np.int64, copy=False)),
        facts=from_arrays(arrays, f"{split}_"),
    )


SOURCE = Source(kind="torchvision", targets=LABELS, load=load, names=tuple(SETS), least_classes=2)
