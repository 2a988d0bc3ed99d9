"""Read detection data in Pascal VOC's format: one XML file for each image."""

import math
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from scalesearch.data.box_faults import Faults, refuse, shown, text_lines
from scalesearch.data.box_files import BoxTree, LabelledBox, LabelledImage, load_boxes
from scalesearch.data.boxes import BOXES
from scalesearch.data.litter import SUFFIXES, is_in_litter
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split_names import SplitName, split_of
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

_LABELS: Final = ("Annotations", "annotations", "labels", "xmls")
_IMAGES: Final = ("JPEGImages", "images", "Images", "imgs")
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_COLUMN: Final = re.compile(r"\s+(?:-?1|0)$")
_ENCODING: Final = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']""")
_DIGITS: Final = 9
"""A side of an image with more digits than this is no side."""
_NamedBox = tuple[str, LabelledBox]


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images and boxes of a folder with `Annotations/*.xml`.

    Raises:
        ConfigError: A file is not as expected, or too many images have no label or no file; the text names the file.
    """
    tree = read_voc(Path(settings.source).expanduser(), max_missing=settings.max_skipped_fraction)
    return load_boxes(tree, settings, storage=storage, cache_folder=cache_folder)


def read_voc(root: Path, *, max_missing: float = 0.01) -> BoxTree:
    """Read all XML files of a folder; no image is opened.

    Args:
        root: The folder.
        max_missing: Largest accepted share of labels whose image is missing.

    Raises:
        ConfigError: As `load`.
    """
    labels, pictures_in = _folder(root, _LABELS), _folder(root, _IMAGES)
    paths = list(_pictures(pictures_in))
    splits = _splits(root, {name for path in paths for name in (path.stem, _with_folders(path, pictures_in))})
    pictures, files = _paired(root, pictures_in, paths, labels, listed=splits)
    faults = Faults(root=str(root))
    read = {name: _labels(file, faults) for name, file in files.items()}
    names = tuple(sorted({name for boxes, _ in read.values() for name, _ in boxes}))
    missing = [f"{name}.xml" for name in read if name not in pictures]
    if len(missing) > max_missing * max(len(read), 1):
        came = f"none for {len(missing)} of {len(read)}: {shown(missing)}"
        refuse(str(root), "an image for every XML file", came, str(labels), "Put them into JPEGImages or images.")
    for each in missing:
        faults.add("files of labels without an image, left out", str(labels / each))
    from_zero = any(side == 0 for boxes, _ in read.values() for _, box in boxes for side in box.sides[:2])
    images = list[LabelledImage]()
    for name, path in sorted(pictures.items()):
        split = splits.get(name) or splits.get(_with_folders(path, pictures_in))
        if splits and split is None:
            faults.add("images that no split lists, left out", str(path))
            continue
        boxes, declared = read.get(name, ((), None))
        if name not in read:
            faults.add("images without a file of labels, taken for background", str(path))
        mine = tuple(_counted(box, names.index(label), from_zero=from_zero) for label, box in boxes)
        images.append(LabelledImage(path=path, split=split or "train", boxes=mine, declared=declared))
    note = "from 0, since some are 0" if from_zero else "from 1, as VOC does"
    return BoxTree(
        root=root,
        class_names=names,
        images=tuple(images),
        fractions=False,
        divided=bool(splits),
        faults=faults,
        notes=(f"data {root}: VOC boxes count pixels {note}",),
    )


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    found = next((root / name for name in names if (root / name).is_dir()), None)
    return found or root


def _paired(
    root: Path, pictures_in: Path, paths: Sequence[Path], labels: Path, *, listed: Iterable[str]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the XML files, each by the name that pairs them.

    That is the name of the file without its suffix. Where images in several folders share one, it is the name with
    these folders, as in film7/0012, by which lists of splits must name them, and their XML files lie in such folders.

    Args:
        root: The data set, for messages.
        pictures_in: The folder of the images.
        paths: The images.
        labels: The folder of the XML files.
        listed: The names that lists of splits give.

    Raises:
        ConfigError: Two images or two XML files have one name, or a name may mean several images.
    """
    shared = {stem for stem, count in Counter(path.stem for path in paths).items() if count > 1}
    files = sorted(path for path in labels.rglob("*.xml") if not is_in_litter(path, labels))
    pictures, found = _named(paths, pictures_in, shared, root), _named(files, labels, shared, root)
    without = {Path(name).name for name in pictures if name not in found}  # stems of images that have no XML file
    unclear = next(
        (name for name in (*found, *listed) if name in shared and (name not in pictures or name in {*found} & without)),
        None,
    )
    if unclear is not None:
        came = f"{unclear} for {shown([str(path) for path in paths if path.stem == unclear])}"
        remedy = f"Put each XML file into a folder below {labels} named like its image's, and list such names."
        refuse(str(root), "one image for each name", came, "XML files or lists", remedy)
    return pictures, found


def _named(paths: Sequence[Path], folder: Path, shared: set[str], root: Path) -> dict[str, Path]:
    """Return the files by their stems, or by `_with_folders` where several images share that stem."""
    found = dict[str, Path]()
    for path in paths:
        name = _with_folders(path, folder) if path.stem in shared else path.stem
        if name in found:
            remedy = "Rename or remove one of them."
            refuse(str(root), "a name of its own for every file", f"{name} twice", f"{found[name]} and {path}", remedy)
        found[name] = path
    return found


def _with_folders(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _pictures(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not is_in_litter(path, folder):
            yield path


def _splits(root: Path, known: Container[str]) -> dict[str, SplitName]:
    """Return the split of each image that ImageSets/Main lists, by the image's name; empty if there are no lists.

    Without a list for training, images that `trainval` lists and `val` does not are for training. A name may have
    blanks. A last column of 1, -1 or 0, as lists of one class have, is no part of it, unless the whole line is one of
    the `known` names.
    """
    files = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    lists = [(file, split) for file in files if (split := split_of(file.stem))]  # cat_train.txt lists one class
    both = [file for file in files if file.stem == "trainval"]
    if all(split != "train" for _, split in lists):
        lists += [(file, "train") for file in both]
    splits = dict[str, SplitName]()
    for file, split in lists:
        for number, line in enumerate(text_lines(file, str(root), "a list of images"), 1):
            name = line.strip()
            name = name if name in known else _COLUMN.sub("", name)
            if not name or (file in both and splits.get(name) == "val"):
                continue
            if splits.setdefault(name, split) != split:
                came = f"{name} in {split} and {splits[name]}"
                refuse(str(root), "every image in one split", came, f"{file}:{number}", "Mend the lists.")
    return splits


def _labels(file: Path, faults: Faults) -> tuple[tuple[_NamedBox, ...], tuple[int, int] | None]:
    """Return the boxes of a file with the names of their classes, and the image size that the file states."""
    try:
        root = _parsed(file.read_bytes())
    except OSError as error:
        refuse(faults.root, "an XML file that can be read", str(error), str(file), "Check the file.")
    except ElementTree.ParseError as error:
        refuse(faults.root, "XML", str(error), f"{file}:{error.position[0]}", "Mend or remove the file.")
    except (LookupError, ValueError) as error:
        remedy = "Save it in UTF-8, and declare that in its first line."
        refuse(faults.root, "XML in the encoding that it declares", str(error)[:120], str(file), remedy)
    boxes = tuple(
        _box(entry, f"{file}: object {number}", faults) for number, entry in enumerate(root.findall("object"), 1)
    )
    size = [root.findtext(f"size/{side}", "").strip() for side in ("width", "height")]
    told = all(side.isdecimal() and len(side) <= _DIGITS for side in size)
    return boxes, (int(size[0]), int(size[1])) if told else None


def _parsed(data: bytes) -> ElementTree.Element:
    """Return the root of an XML document in any encoding that Python knows.

    Raises:
        ElementTree.ParseError: It is no XML.
        LookupError: It declares an encoding that Python does not know.
        ValueError: It is not in the encoding that it declares.
    """
    try:
        return ElementTree.fromstring(data)
    except ValueError:  # the parser itself reads none that have characters of several bytes, such as GBK
        declared = _ENCODING.match(data)
        if declared is None:
            raise
        return ElementTree.fromstring(data.decode(declared[1].decode("ascii")))


def _box(entry: ElementTree.Element, where: str, faults: Faults) -> _NamedBox:
    name = entry.findtext("name", "").strip()
    texts = [entry.findtext(f"bndbox/{corner}", "") for corner in _CORNERS]
    try:
        left, top, right, bottom = (float(text) for text in texts)
    except ValueError:
        left = top = right = bottom = math.nan
    if not name or not all(map(math.isfinite, (left, top, right, bottom))):
        came = f"name {name!r} and bndbox {', '.join(texts)}"
        refuse(faults.root, "a name, and a bndbox with four numbers", came, where, "Mend the object.")
    difficult = entry.findtext("difficult", "0").strip() == "1"
    return name, LabelledBox(sides=(left, top, right, bottom), label=0, where=where, ignored=difficult)


def _counted(box: LabelledBox, label: int, *, from_zero: bool) -> LabelledBox:
    """Return the box with its class, and its edges counted from 0 with the last ones exclusive.

    VOC counts pixels from 1 and includes the last one. With `from_zero`, the edges are as wanted already.
    """
    left, top, right, bottom = box.sides
    sides = (left, top, right, bottom) if from_zero else (left - 1, top - 1, right, bottom)
    return replace(box, sides=sides, label=label)


def takes(path: Path) -> bool:
    """Tell whether the path is a folder with XML files of labels."""
    if not path.is_dir():
        return False
    folder = _folder(path, _LABELS)
    return next(folder.glob("*.xml" if folder == path else "**/*.xml"), None) is not None


SOURCE = Source(
    kind="Pascal VOC",
    targets=BOXES,
    load=load,
    takes_path=takes,
    path_words="a folder with Annotations/*.xml",
    layout="Pascal VOC: Annotations/NAME.xml, JPEGImages/NAME.jpg and, perhaps, ImageSets/Main/train.txt.",
    least_classes=1,
)
