"""What files next to the masks say about them: class names, colour tables, and the folders of images and masks."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scalesearch.data.mask_colours import ColourTable, by_name, colour_table
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
    colours: ColourTable | None = None
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
        colours=colour_table(document.get("colors", document.get("colours", document.get("palette"))), file),
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


def classes_of(root: Path, described: Described) -> tuple[tuple[str, ...], Colours | None, tuple[str, ...]]:
    """Return the names of the classes, the class of each colour, and notes, from the first file that lists them.

    Raises:
        ConfigError: Names and colours stand in two places, which name other classes; or two classes have one colour.
    """
    names, table, colours = described.names, described.colours, None
    for name in ("class_dict.csv", "label_colors.txt", "classes.txt"):
        if (names and (table or colours or name == "classes.txt")) or not (root / name).is_file():
            continue
        found = _lines(root / name)
        if not found:
            continue
        names = names or _checked(tuple(text for text, _ in found), root / name)
        coloured = [(text, colour) for text, colour in found if colour]
        if len(coloured) == len(found) and not (table or colours):
            colours = by_name(names, coloured, root / name)
    if table:
        colours = table.colours(names)
        return names, colours, table.notes(colours)
    return names, colours, ()


def _lines(file: Path) -> list[_Line]:
    """Return name and colour of each line: `name`, `name,r,g,b` below a header line, or `r g b name`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"data {file}: expected a class in each line, came {error}."
        raise ConfigError(message) from None
    rows = [row for row in csv.reader(text.splitlines()) if any(part.strip() for part in row)]
    rows = [row for row in rows if [part.strip().lower() for part in row[1:4]] != ["r", "g", "b"]]
    lines = [_line(row) for row in rows]
    if len(lines) > 1 and _may_be_header(rows[0]) and not lines[0][1] and all(colour for _, colour in lines[1:]):
        del lines[0]
    return lines


def _line(row: Sequence[str]) -> _Line:
    line = " ".join(part.strip() for part in row).strip()
    if first := re.fullmatch(r"(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})\s+(\S.*)", line):
        return first[4].strip(), (int(first[1]), int(first[2]), int(first[3]))
    if last := re.fullmatch(r"(\S.*?)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})", line):
        return last[1], (int(last[2]), int(last[3]), int(last[4]))
    return line, None


def _may_be_header(row: Sequence[str]) -> bool:
    """Tell whether a line without a colour may name columns; a single word is a class that lacks its colour."""
    words = " ".join(row).split()
    columns = max(sum(bool(part.strip()) for part in row), len(words) - 2)  # `R G B Name` has one part, four words
    return columns > 1 and not any(word.isdecimal() for word in words)
