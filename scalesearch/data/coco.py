"""Read detection data in COCO's format: one JSON file per split, with images, categories and annotations."""

import codecs
import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeGuard

from scalesearch.data.box_faults import Faults, refuse, shown
from scalesearch.data.box_files import SPLIT_ORDER, BoxTree, LabelledBox, LabelledImage, load_boxes
from scalesearch.data.boxes import BOXES
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split_names import SplitName, split_of
from scalesearch.errors import ConfigError
from scalesearch.files import is_file
from scalesearch.values.network_spec import InputSize
from scalesearch.values.session import EARLIER_READING
from scalesearch.values.settings import DataSettings

_PARTS: Final = ("images", "annotations", "categories")
_SNIFFED_BYTES: Final = 1 << 16

Entry = dict[str, Any]


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images and boxes of one JSON file, or of all in a folder or in its folder `annotations`.

    Raises:
        ConfigError: A file is not as expected, or too many images are missing; the text names file and entry.
    """
    tree = read_coco(Path(settings.source).expanduser(), max_missing=settings.max_skipped_fraction)
    return load_boxes(tree, settings, storage=storage, cache_folder=cache_folder)


def read_coco(path: Path, *, max_missing: float = 0.01) -> BoxTree:
    """Read the JSON files of a data set; no image is opened.

    Args:
        path: A file, or a folder with several.
        max_missing: Largest accepted share of images whose file is missing.

    Raises:
        ConfigError: As `load`.
    """
    files = _files(path)
    root = path.parent if path.is_file() else path
    faults, images, missing = Faults(root=str(root)), list[LabelledImage](), list[str]()
    names: dict[int, str] | None = None
    seen = set[Path]()
    for file, split in files:
        document = _document(file, root)
        found = _categories(document, file, root)
        if names is not None and found != names:
            came = f"other ones in {file.name}"
            refuse(str(root), "the same categories in all files", came, str(file), "Give all files the same ones.")
        names = found
        some, lost = _images(document, file, split, sorted(names), faults)
        images += _not_yet(some, seen, file, faults)
        missing += lost
    assert names is not None  # there is at least one file
    if missing:
        total = len(images) + len(missing)
        if len(missing) > max_missing * total:
            came = f"none for {len(missing)} of {total}: {shown(missing)}"
            refuse(str(root), "a file for every image", came, str(files[0][0]), "Put them beside the JSON file.")
        for each in missing:
            faults.add("images whose file is missing, left out", each)
    return BoxTree(
        root=root,
        class_names=tuple(names[number] for number in sorted(names)),
        images=tuple(images),
        fractions=False,
        divided=len(files) > 1,
        faults=faults,
    )


def _files(path: Path) -> list[tuple[Path, SplitName]]:
    """Return the JSON files and the split of each; the images of a single file are all for training."""
    if path.is_file():
        return [(path, "train")]
    folder = path / "annotations" if (path / "annotations").is_dir() else path
    files = sorted(each for each in folder.glob("*.json") if _looks_like_coco(each))
    if len(files) == 1:
        return [(files[0], "train")]
    found = [(file, split) for file in files if (split := _split_of(file))]
    splits = [split for _, split in found]
    if not found or len(set(splits)) < len(splits) or "train" not in splits:
        names = ", ".join(file.name for file in files) or "none"
        remedy = "Name them so, e.g. train.json and val.json, or give one file with --data."
        refuse(str(path), "JSON files for train and, perhaps, val and test", names, str(folder), remedy)
    return sorted(found, key=lambda each: SPLIT_ORDER.index(each[1]))


def _split_of(file: Path) -> SplitName | None:
    return split_of(_bare(file))


def _bare(file: Path) -> str:
    """Return the file's name without its suffix and the words that say what it holds: train2017."""
    return file.stem.replace("instances", "").replace("annotations", "").strip("_-. ")


def _looks_like_coco(file: Path) -> bool:
    """Tell whether a JSON file begins like one of COCO's; it is not read as a whole."""
    try:
        with file.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
    except OSError:
        return False
    return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{" and any(
        f'"{part}"'.encode() in start for part in _PARTS
    )


def _document(file: Path, root: Path) -> dict[str, list[Entry]]:
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        refuse(str(root), "a JSON file that can be read", str(error), str(file), "Check the file.")
    except json.JSONDecodeError as error:
        refuse(str(root), "JSON", error.msg, f"{file}:{error.lineno}", "Mend the file.")
    except (ValueError, RecursionError) as error:  # no text, a number of thousands of digits, lists in lists in lists
        refuse(str(root), "JSON", type(error).__name__, str(file), "Mend the file.")
    lacking = [part for part in _PARTS if not isinstance(document, dict) or not _is_table(document.get(part))]
    if lacking:
        came = f"none for {', '.join(lacking)}"
        refuse(str(root), f"lists of entries for {', '.join(_PARTS)}", came, str(file), "Export it as COCO detection.")
    return dict(document)


def _is_table(part: object) -> bool:
    return isinstance(part, list) and all(isinstance(entry, dict) for entry in part)


def _categories(document: dict[str, list[Entry]], file: Path, root: Path) -> dict[int, str]:
    """Return the name of each category by its number, which may leave gaps."""
    names = dict[int, str]()
    for place, entry in enumerate(document["categories"]):
        number, name, where = entry.get("id"), entry.get("name"), f"{file}: categories[{place}]"
        if not isinstance(number, int) or not isinstance(name, str) or number in names or name in names.values():
            refuse(str(root), "an id and a name that no other has", repr(entry)[:80], where, "Mend the categories.")
        names[number] = name
    if not names:
        refuse(str(root), "categories", "none", str(file), "Add them.")
    return names


def _images(
    document: dict[str, list[Entry]], file: Path, split: SplitName, numbers: Sequence[int], faults: Faults
) -> tuple[list[LabelledImage], list[str]]:
    """Return the images with their boxes, and the places of images whose file is missing.

    A file that is listed under several ids is one image, with the boxes of all of them.
    """
    found = dict[Any, tuple[Path, Entry]]()
    missing, lost = list[str](), set[Any]()
    folders = _image_folders(file, split)
    for place, entry in enumerate(document["images"]):
        number, name, where = entry.get("id"), entry.get("file_name"), f"{file}: images[{place}]"
        if not _is_id(number) or not isinstance(name, str) or not name or number in found or number in lost:
            refuse(faults.root, "an id that no other has, and a file_name", repr(entry)[:80], where, "Mend the images.")
        path = next((folder / name for folder in folders if is_file(folder / name)), None)
        if path is None:
            missing.append(f"{name} of {where}")
            lost.add(number)
            continue
        found[number] = path, entry
    boxes = _boxes(document["annotations"], file, set(found), lost, numbers, faults)
    images = dict[Path, LabelledImage]()
    for number, (path, entry) in found.items():
        mine, plain = tuple(boxes[number]), Path(os.path.normpath(path))
        if (first := images.get(plain)) is None:
            images[plain] = LabelledImage(path=path, split=split, boxes=mine, declared=_declared(entry))
            continue
        faults.add("images that are listed twice, taken as one with the boxes of both", f"{path} in {file}")
        images[plain] = replace(first, boxes=(*first.boxes, *mine))
    return list(images.values()), missing


def _not_yet(images: list[LabelledImage], seen: set[Path], file: Path, faults: Faults) -> list[LabelledImage]:
    """Return the images of a file that no earlier file lists, and add them to `seen`; the others are counted."""
    kept = list[LabelledImage]()
    for image in images:
        plain = Path(os.path.normpath(image.path))
        if plain in seen:
            what = f"images that are listed in two files, the second time left out {EARLIER_READING} in both splits)"
            faults.add(what, f"{image.path} in {file}")
            continue
        seen.add(plain)
        kept.append(image)
    return kept


def _image_folders(file: Path, split: SplitName) -> tuple[Path, ...]:
    """Return the folders in which the files of images are looked for.

    COCO's own instances_train2017.json has them in train2017/ beside its folder.
    """
    near = (file.parent, file.parent.parent)
    usual = (
        folder
        for base in near
        for folder in (base, base / "images", base / "images" / split, base / split, base / file.stem)
    )
    return (*usual, *(folder for base in near for folder in (base / _bare(file), base / "images" / _bare(file))))


def _declared(entry: Entry) -> tuple[int, int] | None:
    width, height = entry.get("width"), entry.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _boxes(
    annotations: list[Entry], file: Path, known: set[Any], lost: set[Any], numbers: Sequence[int], faults: Faults
) -> defaultdict[Any, list[LabelledBox]]:
    """Return the boxes by the number of their image."""
    place_of: dict[Any, int] = {number: place for place, number in enumerate(numbers)}
    boxes = defaultdict[Any, list[LabelledBox]](list)
    for place, entry in enumerate(annotations):
        where, image = f"{file}: annotations[{place}]", entry.get("image_id")
        if image is not None and not _is_id(image):
            refuse(faults.root, "an image_id as a number or a text", repr(image)[:80], where, "Mend the annotation.")
        if image in lost:
            continue
        if image not in known:
            faults.add("annotations of an image that is not listed, left out", where)
            continue
        box, label = entry.get("bbox"), entry.get("category_id")
        if not _is_id(label) or label not in place_of:
            came = repr(label)[:80]
            refuse(faults.root, "a category_id that is listed", came, where, "Mend it, or add the category.")
        if not _is_box(box):
            came = f"bbox = {box!r}"[:80]
            refuse(faults.root, "bbox as [left, top, width, height] in pixels", came, where, "Mend the annotation.")
        left, top, width, height = (float(side) for side in box)
        boxes[image].append(
            LabelledBox(
                sides=(left, top, left + width, top + height),
                label=place_of[label],
                where=where,
                ignored=bool(entry.get("iscrowd", 0)) or bool(entry.get("ignore", 0)),
            )
        )
    return boxes


def _is_id(value: object) -> "TypeGuard[int | float | str]":
    return isinstance(value, int | float | str)


def _is_box(box: object) -> "TypeGuard[list[float]]":
    return isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))


def _is_finite(side: object) -> bool:
    if not isinstance(side, int | float) or isinstance(side, bool):
        return False
    try:
        return math.isfinite(side)
    except OverflowError:  # a whole number beyond the largest float
        return False


def takes(path: Path) -> bool:
    """Tell whether the path is a JSON file in COCO's format, or a folder with such files, also in `annotations`."""
    if path.is_file():
        return path.suffix == ".json" and _looks_like_coco(path)
    try:
        return path.is_dir() and any(_looks_like_coco(file) for file, _ in _files(path))
    except ConfigError:
        return False


SOURCE = Source(
    kind="COCO",
    targets=BOXES,
    load=load,
    takes_path=takes,
    path_words="a COCO .json file, or a folder with annotations/*.json",
    layout="COCO: annotations/train.json and val.json, and the images in images/, images/train/ or beside them.",
    least_classes=1,
)
