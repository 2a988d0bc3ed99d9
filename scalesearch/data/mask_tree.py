"""The shape of a folder of images and masks: which mask belongs to which image, the splits, and the classes' names."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scalesearch.data.litter import SUFFIXES, is_litter
from scalesearch.data.mask_reading import Colours
from scalesearch.data.split_names import SPLITS, SplitName, splits_of
from scalesearch.errors import ConfigError

IMAGES: Final = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
MASKS: Final = ("masks", "mask", "annotations", "labels", "segmentations", "SegmentationClass", "gt", "gtFine")
"""Usual names of the folders of images and of masks, the likeliest first."""
_MASK_ENDINGS: Final = ("", "_mask", "-mask", "_masks", "_seg", "_label", "_labels", "_gt", "_L", "_labelTrainIds")
"""What may stand behind the image's name in that of its mask."""
_MOST_CLASSES: Final = 255
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedFile:
    """An image file and its mask."""

    image: Path
    mask: Path
    split: SplitName


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskTree:
    """All pairs of image and mask below a folder."""

    root: Path
    files: tuple[MaskedFile, ...]
    class_names: tuple[str, ...] = ()
    """Empty where nothing in the folder names them: the masks then say how many there are."""
    colours: Colours | None = None
    divided: bool = False
    """Whether there are split folders; if not, all images are still to be split."""
    missing: tuple[Path, ...] = ()
    """Images without a mask."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What a data.yaml says; what it does not say is empty."""

    names: tuple[str, ...] = ()
    colours: Colours | None = None
    folders: tuple[tuple[SplitName, Path], ...] = ()
    masks_dir: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folders:
    """The folder of images of each split, and how a mask's folder follows from an image's."""

    images: dict[SplitName, Path]
    images_name: str
    masks_name: str
    described: _Described = field(default_factory=_Described)


def holds_masks(path: Path) -> bool:
    """Tell whether it is a folder, or a data.yaml in one."""
    return path.is_dir() or (path.is_file() and path.suffix.lower() in (".yaml", ".yml"))


def scan_masks(path: Path) -> MaskTree:
    """List the images of a folder with their masks, as images/SPLIT/ and masks/SPLIT/, SPLIT/images/ or images/ alone.

    Ultralytics' data.yaml may say where the images of each split are, name the folder of masks (`masks_dir`) and the
    classes. A mask lies where its image would lie if the last folder of the images' name were that of the masks.

    Raises:
        ConfigError: There are no such folders, or no image has a mask.
    """
    root = path if path.is_dir() else path.parent
    found = _folders(root, path)
    names, colours = _classes(root, found.described)
    files, missing, spare = list[MaskedFile](), list[Path](), 0
    for split, folder in found.images.items():
        masks = _masks_below(_beside(folder, found))
        for image in _images_below(folder):
            mask = next(iter(masks.pop(_key(image, folder), ())), None)
            if mask is None:
                missing.append(image)
            else:
                files.append(MaskedFile(image=image, mask=mask, split=split))
        spare += sum(map(len, masks.values()))
    if not files:
        first = next(iter(found.images.values()))
        message = (
            f"data {root}: expected a mask of the same name for each image of {first}, came none in "
            f"{_beside(first, found)}.\n{LAYOUT}"
        )
        raise ConfigError(message)
    notes = [f"data {root}: {spare} masks have no image, e.g. are left from images that were removed"] if spare else []
    return MaskTree(
        root=root,
        files=tuple(files),
        class_names=names,
        colours=colours,
        divided=set(found.images) != {"train"} or bool(found.described.folders),
        missing=tuple(missing),
        notes=tuple(notes),
    )


LAYOUT: Final = (
    "A folder holds images/train/*.jpg and masks/train/*.png (val, test alike), or images/ and masks/ alone."
)


def _folders(root: Path, path: Path) -> _Folders:
    described = _described(root, path)
    children = _subfolders(root)
    if described.folders:
        images = dict(described.folders)
        known = {part for folder in images.values() for part in folder.parts if part in IMAGES}
        return _Folders(
            images=images,
            images_name=next((name for name in IMAGES if name in known), IMAGES[0]),
            masks_name=described.masks_dir or MASKS[0],
            described=described,
        )
    images_name, masks_name = _first(IMAGES, children), described.masks_dir or _first(MASKS, children)
    if images_name and masks_name:
        splits = _splits(root / images_name)
        return _Folders(
            images=splits or {"train": root / images_name},
            images_name=images_name,
            masks_name=masks_name,
            described=described,
        )
    splits = {split: folder for split, folder in _splits(root).items() if _first(IMAGES, _subfolders(folder))}
    for folder in splits.values():
        inner = _subfolders(folder)
        images_name, masks_name = _first(IMAGES, inner), described.masks_dir or _first(MASKS, inner)
    if splits and masks_name:
        images = {split: folder / _first(IMAGES, _subfolders(folder)) for split, folder in splits.items()}
        return _Folders(images=images, images_name=images_name, masks_name=masks_name, described=described)
    shown = ", ".join(f"{name}/" for name in sorted(children)[:5]) or "no folder"
    message = f"data {root}: expected a folder of images and one of masks in it, came {shown}.\n{LAYOUT}"
    raise ConfigError(message)


def _first(names: Sequence[str], children: Iterable[str]) -> str:
    """Return the first of the names that is there, in whatever case it is written; empty if none is."""
    folded = {child.casefold(): child for child in children}
    return next((folded[name.casefold()] for name in names if name.casefold() in folded), "")


def _splits(folder: Path) -> dict[SplitName, Path]:
    named = splits_of(_subfolders(folder))
    found: dict[SplitName, Path] = {}
    for split in SPLITS:
        present = [name for name, each in named.items() if each == split]
        if len(present) > 1:
            message = (
                f"data {folder}: expected one {split} folder, came {' and '.join(present)}.\n"
                "Take one of them away, or join them."
            )
            raise ConfigError(message)
        if present:
            found[split] = folder / present[0]
    return found if "train" in found else {}


def _subfolders(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(each.name for each in folder.iterdir() if each.is_dir() and not is_litter(each)))
    except OSError:
        return ()


def _beside(folder: Path, found: _Folders) -> Path:
    """Return the folder of masks of a folder of images: the last part of the images' name becomes that of the masks."""
    parts = list(folder.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == found.images_name:
            parts[place] = found.masks_name
            return Path(*parts)
    return folder.parent / found.masks_name


def _images_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not any(map(is_litter, _upto(path, folder))) and path.is_file():
            yield path


def _upto(path: Path, folder: Path) -> Iterator[Path]:
    while path != folder:
        yield path
        path = path.parent


def _masks_below(folder: Path) -> dict[str, list[Path]]:
    """Return the masks below a folder by the name that their images have."""
    found = defaultdict[str, list[Path]](list)
    for path in _images_below(folder) if folder.is_dir() else ():
        found[_key(path, folder)].append(path)
    for name, paths in tuple(found.items()):  # photo_mask.png belongs to photo.jpg, where photo.png is not there
        for ending in _MASK_ENDINGS[1:]:
            bare = name.removesuffix(ending)
            if bare != name and bare not in found:
                found[bare] = found.pop(name, paths)
                break
    return found


def _key(path: Path, folder: Path) -> str:
    return os.fspath(path.relative_to(folder).with_suffix(""))


def _described(root: Path, path: Path) -> _Described:
    """Read data.yaml, where there is one.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    file = (
        path
        if path.is_file()
        else next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)
    )
    if file is None:
        return _Described()
    import yaml

    try:
        document: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # yaml raises ValueError for odd dates
        message = f"data {file}: expected a data.yaml, came {(str(error).splitlines() or [''])[0]}.\nMend the file."
        raise ConfigError(message) from None
    if not isinstance(document, dict):
        message = f"data {file}: expected keys such as train, val and names, came {type(document).__name__}."
        raise ConfigError(message)
    base = _base(root, document.get("path"))
    folders = [(split, folder) for split in SPLITS if (folder := _folder_of(base, root, document.get(split)))]
    if folders and folders[0][0] != "train":
        folders = []
    return _Described(
        names=_names(document.get("names"), file),
        colours=_colour_list(document.get("colors", document.get("colours", document.get("palette"))), file),
        folders=tuple(folders),
        masks_dir=str(document.get("masks_dir") or ""),
    )


def _base(root: Path, given: object) -> Path:
    base = (root / str(given)) if given else root
    return base if base.is_dir() else root


def _folder_of(base: Path, root: Path, given: object) -> Path | None:
    for folder in (base / str(given), root / str(given)) if isinstance(given, str) else ():
        if folder.is_dir():
            return Path(os.path.normpath(folder))
    return None


def _names(given: object, file: Path) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, dict) and sorted(given) == list(range(len(given))):
        return _checked(tuple(str(given[place]) for place in range(len(given))), file)
    if isinstance(given, list):
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


def _classes(root: Path, described: _Described) -> tuple[tuple[str, ...], Colours | None]:
    """Return the names of the classes and the class of each colour, as the first file that tells them says."""
    names, colours = described.names, described.colours
    for name in ("class_dict.csv", "label_colors.txt", "classes.txt"):
        if (names and (colours or name == "classes.txt")) or not (root / name).is_file():
            continue
        found = list(_lines(root / name))
        if not found:
            continue
        if all(colour for _, colour in found):
            colours = colours or {colour: place for place, (_, colour) in enumerate(found) if colour}
        names = names or _checked(tuple(text for text, _ in found), root / name)
    return names, colours


def _lines(file: Path) -> Iterator[tuple[str, tuple[int, int, int] | None]]:
    """Yield name and colour of each line: `name`, `name,r,g,b` below a head, or `r g b name`."""
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
