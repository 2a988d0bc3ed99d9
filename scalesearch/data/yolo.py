"""Read detection data in YOLO's layout: a data.yaml, folders of images, and folders with a text file for each image."""

import os
from pathlib import Path
from typing import Any, Final

from scalesearch.data.box_faults import Faults, refuse, text_lines
from scalesearch.data.box_files import BoxTree, LabelledImage, load_boxes
from scalesearch.data.boxes import BOXES
from scalesearch.data.litter import SUFFIXES, is_in_litter
from scalesearch.data.skipped_files import path_below
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split_names import SplitName, misread_names
from scalesearch.data.yolo_lines import LineReader, keypoint_shape
from scalesearch.files import is_file, is_folder
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

_SPLIT_KEYS: Final[tuple[tuple[str, SplitName], ...]] = (
    ("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"),
)  # fmt: skip


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images and boxes that a data.yaml names, or that of a folder.

    Raises:
        ConfigError: The file or a label is not as expected; the text names file and line.
    """
    path = Path(settings.source).expanduser()
    file = path / "data.yaml" if path.is_dir() else path
    return load_boxes(read_yolo(file), settings, storage=storage, cache_folder=cache_folder)


def read_yolo(file: Path) -> BoxTree:
    """Read a data.yaml and all labels that belong to it; no image is opened.

    Raises:
        ConfigError: As `load`.
    """
    document = _document(file)
    numbers, names = _class_names(document, file)
    root = _root(document, file)
    faults, images = Faults(root=str(root)), list[LabelledImage]()
    reader = LineReader(numbers, keypoint_shape(document, file), faults)
    labels = dict[Path, Path]()
    for key, split in _SPLIT_KEYS:
        for path in _images(document.get(key), root, file, key):
            if path in labels:
                faults.add("images that are listed twice, the second time left out", str(path))
                continue
            labels[path] = label_file(path, file.parent)
            images.append(_labelled(path, labels[path], split, reader))
    reader.count_polygons()
    _count_strays(labels, faults)
    divided = any(image.split != "train" for image in images)
    return BoxTree(root=root, class_names=names, images=tuple(images), fractions=True, divided=divided, faults=faults)


def _document(file: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        refuse(str(file), "a data.yaml that can be read", str(error), str(file), "Check the file.")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        refuse(str(file), "YAML", str(error).splitlines()[0], f"{file}{line}", "Mend the file.")
    except (ValueError, RecursionError) as error:  # yaml raises ValueError for a date such as 2024-02-30
        refuse(str(file), "YAML", (str(error).splitlines() or [""])[0], str(file), "Mend the file.")
    if not isinstance(document, dict) or "names" not in document or "train" not in document:
        remedy = "It needs the keys names and train, and may have path, val, test and nc."
        came = f"the keys {', '.join(map(str, document))}" if isinstance(document, dict) else type(document).__name__
        refuse(str(file), "a table with the keys names and train", came, str(file), remedy)
    return document


def _class_names(document: dict[str, Any], file: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the index into the names for each class number, and the names."""
    given = document["names"]
    if isinstance(given, list):
        given = dict(enumerate(given))
    if not isinstance(given, dict) or not given or not all(isinstance(key, int) and key >= 0 for key in given):
        refuse(str(file), "names as a list, or a table from class numbers", repr(given)[:80], str(file), "Mend names.")
    if misread := misread_names(given.values()):
        refuse(str(file), "names as texts", f"{misread[0]!r}, as YAML reads it", str(file), "Put names in quotes.")
    names = tuple(str(given[key]) for key in sorted(given))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        refuse(str(file), "different names of classes", f"{twice!r} twice", str(file), "Give each class its own name.")
    count = document.get("nc", len(names))
    if count != len(names):
        refuse(str(file), f"nc = {len(names)}, as there are names", f"nc = {count!r}", str(file), "Mend nc or names.")
    return {key: place for place, key in enumerate(sorted(given))}, names


def _root(document: dict[str, Any], file: Path) -> Path:
    """Return the folder that the splits' paths start from: `path`, seen from the file, or the file's own folder."""
    given = document.get("path")
    if not given:
        return file.parent
    for root in (Path(str(given)).expanduser(), file.parent / str(given)):
        # An absolute path of another machine, or one below a program's own folder of data sets, leads nowhere here.
        if is_folder(root) and (root.is_absolute() or root == file.parent / str(given)):
            return root
    return file.parent


def _images(given: object, root: Path, file: Path, key: str) -> list[Path]:
    """Return the images of a split: of a folder, of a text file that lists them, or of several of these."""
    if given is None or given == "":
        return []
    if isinstance(given, list):
        return [path for each in given for path in _images(each, root, file, key)]
    place = root / str(given)
    beside = file.parent / str(given).removeprefix("../")
    if not (is_folder(place) or is_file(place)) and (is_folder(beside) or is_file(beside)):
        place = file.parent / str(given).removeprefix("../")  # as Roboflow writes it
    if is_folder(place):
        found = (path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES and not is_in_litter(path, place))
        return sorted(path for path in found if path.is_file())
    if is_file(place) and place.suffix == ".txt":
        lines = (line.strip() for line in text_lines(place, str(root), "a list of images"))
        return [place.parent / line if line.startswith("./") else root / line for line in lines if line]
    return refuse(
        str(root),
        f"a folder of images, or a .txt that lists them, for {key}",
        f"{str(given)!r}, where there is none",
        str(file),
        "Mend the path; it starts from `path`, or from the folder of the file.",
    )


def label_file(image: Path, start: Path) -> Path:
    """Return where the boxes of an image are: the last `images` of its path becomes `labels`, its suffix `.txt`.

    Boxes may also lie beside the image, where its path from data.yaml on has no `images`. A data set that itself lies
    below a folder of that name may have them there or in its `labels`, however its path is typed.

    Args:
        image: The image.
        start: The folder of data.yaml.
    """
    beside = image.with_suffix(".txt")
    for path in (beside, Path(os.path.abspath(beside))):  # noqa: PTH100  (keeps links)
        parts = list(path.parts)
        places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
        if places:
            parts[places[-1]] = "labels"
            labels = Path(*parts)
            in_set = is_file(labels) or "images" in Path(path_below(image, start)).parts[:-1]
            return labels if in_set else beside
    return beside


def _labelled(path: Path, file: Path, split: SplitName, reader: LineReader) -> LabelledImage:
    faults = reader.faults
    if not is_file(file):
        faults.add("images without a file of labels, taken for background", str(path))
        return LabelledImage(path=path, split=split, boxes=())
    lines = text_lines(file, faults.root, "a text file of labels")
    boxes = (reader.box(line.split(), f"{file}:{number}") for number, line in enumerate(lines, 1) if line.strip())
    return LabelledImage(path=path, split=split, boxes=tuple(boxes))


def _count_strays(labels: dict[Path, Path], faults: Faults) -> None:
    """Count label files without an image, in the folders of those of these images."""
    wanted, folders = set(labels.values()), {image.parent for image in labels}
    for folder in sorted({file.parent for file in wanted}):
        if not is_folder(folder) or folder in folders:
            continue  # in a folder that also holds images, any text files may lie
        with os.scandir(folder) as entries:
            stray = sorted(entry.path for entry in entries if entry.name.endswith(".txt"))
        for path in stray:
            if Path(path) not in wanted and Path(path).name != "classes.txt":
                faults.add("files of labels without an image, left out", path)


def takes(path: Path) -> bool:
    """Tell whether the path is a data.yaml, or a folder with one."""
    return (path.suffix in (".yaml", ".yml") and path.is_file()) or (path / "data.yaml").is_file()


SOURCE = Source(
    kind="YOLO",
    targets=BOXES,
    load=load,
    takes_path=takes,
    path_words="a data.yaml, or a folder with one",
    layout="YOLO: data.yaml with names, train and val; images/NAME.jpg and labels/NAME.txt.",
    least_classes=1,
)
