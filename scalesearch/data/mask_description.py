"""What files next to the masks say about them: class names, colour tables, and the folders of images and masks."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scalesearch.data.mask_reading import Colours
from scalesearch.data.split_names import SPLITS, SplitName, misread_names
from scalesearch.errors import ConfigError
from scalesearch.files import is_folder

_MOST_CLASSES: Final = 255

_Line = tuple[str, tuple[int, int, int] | None]
"""A class's name, and its colour if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The contents of a data.yaml; fields that it does not give are empty."""

    names: tuple[str, ...] = ()
    colours: Colours | None = None
    folders: tuple[tuple[SplitName, Path], ...] = ()
    masks_dir: str = ""
    notes: tuple[str, ...] = ()


def described_in(root: Path, path: Path) -> Described:
    """Read data.yaml, where there is one.

    Raises:
        ConfigError: It cannot be read, holds something else, or the path of a split leads to no folder.
    """
    file = (
        path
        if path.is_file()
        else next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)
    )
    if file is None:
        return Described()
    import yaml

    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # yaml raises ValueError for odd dates
        message = f"data {file}: expected a data.yaml, came {(str(error).splitlines() or [''])[0]}.\nMend the file."
        raise ConfigError(message) from None
    if not isinstance(document, dict):
        message = f"data {file}: expected keys such as train, val and names, came {type(document).__name__}."
        raise ConfigError(message)
    notes = list[str]()
    folders = tuple(_folders(document, root, file, notes))
    return Described(
        names=_names(document.get("names"), file),
        colours=_colour_list(document.get("colors", document.get("colours", document.get("palette"))), file),
        folders=folders,
        masks_dir=str(document.get("masks_dir") or ""),
        notes=tuple(notes),
    )


def _base(root: Path, given: object) -> Path:
    base = (root / str(given)) if given else root
    return base if is_folder(base) else root


def _folders(document: dict[Any, Any], root: Path, file: Path, notes: list[str]) -> Iterator[tuple[SplitName, Path]]:
    """Yield the folder of images of each split that the document names; none if it names no split.

    Images to test on are often left out of what is handed on, so a folder of them that is not there is noted only.
    """
    base = _base(root, document.get("path"))
    given = {"train": document.get("train"), "val": document.get("val") or document.get("valid")}
    given["test"] = document.get("test")
    if any(given.values()) and not given["train"]:
        came = ", ".join(split for split, each in given.items() if each)
        message = f"data {file}: expected the key train beside those of other splits, came {came} alone.\nAdd it."
        raise ConfigError(message)
    for split in SPLITS:
        if given[split]:
            try:
                yield split, _folder_of(base, root, given[split], split, file)
            except ConfigError as error:
                if split != "test":
                    raise
                notes.append(f"{str(error).splitlines()[0]} Test images are taken from the others")


def _folder_of(base: Path, root: Path, given: object, split: SplitName, file: Path) -> Path:
    """Return the folder of images of a split; its path starts from `path` or from the root."""
    # Roboflow writes `../train/images` for a folder that is beside the file.
    starts = (base / given, root / given, root / given.removeprefix("../")) if isinstance(given, str) else ()
    for folder in starts:
        if is_folder(folder):
            return Path(os.path.normpath(folder))
    message = (
        f"data {file}: expected one folder of images for {split}, came {given!r:.60}, which is none.\n"
        "Mend the path; it starts from `path`, or from the folder of the file."
    )
    raise ConfigError(message)


def _names(given: object, file: Path) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, dict) and sorted(given) == list(range(len(given))):
        given = [given[place] for place in range(len(given))]
    if isinstance(given, list):
        if misread := misread_names(given):
            message = f"data {file}: expected names as texts, came {misread[0]!r}, as YAML reads it.\nPut it in quotes."
            raise ConfigError(message)
        return _checked(tuple(map(str, given)), file)
    message = f"data {file}: expected names as a list, or by numbers from 0 without a gap, came {str(given)[:60]}."
    raise ConfigError(message)


def _checked(names: tuple[str, ...], file: Path) -> tuple[str, ...]:
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice or not 0 < len(names) <= _MOST_CLASSES or not all(names):
        came = f"{twice[0]!r} twice" if twice else f"{len(names)} names, {names.count('')} of them empty"
        message = f"data {file}: expected 1 to {_MOST_CLASSES} different names of classes, came {came}."
        raise ConfigError(message)
    return names


def _colour_list(given: object, file: Path) -> Colours | None:
    if given is None:
        return None
    entries = [given[place] for place in sorted(given)] if isinstance(given, dict) else given
    try:
        assert isinstance(entries, list)
        return {(int(red), int(green), int(blue)): place for place, (red, green, blue) in enumerate(entries)}
    except (TypeError, ValueError, AssertionError):
        message = f"data {file}: expected colors as a list of [red, green, blue], one a class, came {str(given)[:60]}."
        raise ConfigError(message) from None


def classes_of(root: Path, described: Described) -> tuple[tuple[str, ...], Colours | None]:
    """Return the names of the classes and the class of each colour, from the first file that lists them.

    Raises:
        ConfigError: Names and colours stand in two files, which name other classes.
    """
    names, colours = described.names, described.colours
    for name in ("class_dict.csv", "label_colors.txt", "classes.txt"):
        if (names and (colours or name == "classes.txt")) or not (root / name).is_file():
            continue
        found = list(_lines(root / name))
        if not found:
            continue
        if all(colour for _, colour in found):
            rows = {colour: place for place, (_, colour) in enumerate(found) if colour}
            colours = colours or (_by_name(names, found, root / name) if names else rows)
        names = names or _checked(tuple(text for text, _ in found), root / name)
    return names, colours


def _by_name(names: tuple[str, ...], found: Sequence[_Line], file: Path) -> Colours:
    """Return the class of each colour of a file with names, whose lines may be in another order than these names."""
    for written in (str, str.casefold):  # Road and road are one, unless both are names of classes
        places = {written(name): place for place, name in enumerate(names)}
        if len(places) == len(names) and {written(text) for text, _ in found} == set(places):
            return {colour: places[written(text)] for text, colour in found if colour}
    others = sorted({text for text, _ in found} ^ set(names))
    message = (
        f"data {file}: expected the {len(names)} classes that another file names already, came {len(found)} of which "
        f"not all are the same: {', '.join(others)[:60]}.\nGive both files the same names."
    )
    raise ConfigError(message)


def _lines(file: Path) -> Iterator[_Line]:
    """Yield name and colour of each line: `name`, `name,r,g,b` below a header line, or `r g b name`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"data {file}: expected a class in each line, came {error}."
        raise ConfigError(message) from None
    for row in csv.reader(text.splitlines()):
        line = " ".join(part.strip() for part in row).strip()
        if not line or [part.strip().lower() for part in row[1:4]] == ["r", "g", "b"]:
            continue
        first = re.fullmatch(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)", line)
        last = re.fullmatch(r"(\S.*?)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})", line)
        if first:
            yield first[4].strip(), (int(first[1]), int(first[2]), int(first[3]))
        elif last:
            yield last[1], (int(last[2]), int(last[3]), int(last[4]))
        else:
            yield line, None
