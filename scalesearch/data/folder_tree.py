"""The shape of an image folder: which files there are, and the split and class of each; no image is opened."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scalesearch.data.litter import SUFFIXES, is_litter
from scalesearch.data.split_names import SPLITS, SplitName, folded_name, split_of, splits_of
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataLayout

_TABLES: Final = frozenset((".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet"))
_WRAPPERS: Final = 4
"""How many folders around the tree are looked through, as in dataset/images/train/..."""
_SHOWN: Final = 5
_CLASSES_FLAG: Final = "--set data.layout=classes"
_SPLITS_FLAG: Final = "--set data.layout=splits"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file that has the suffix of an image."""

    path: Path
    split: str
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """All image files below a folder; `others` are the visible files that are not images."""

    root: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    others: tuple[Path, ...]
    divided: bool = False
    """Whether there are split folders; if not, all images are still to be split."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the folder was read, where that is not obvious, and on what was left out."""


@dataclass(slots=True)
class _Left:
    """What was skipped, for the notes."""

    litter: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    """Folders that have the name of a split but were read as classes."""
    loose: dict[str, int] = field(default_factory=dict)
    """For each folder, the number of images that lie directly in it instead of in one of its class folders."""


def scan_tree(root: Path, *, layout: DataLayout = "auto") -> ImageTree:
    """List the files of ROOT/SPLIT/CLASS/**, or of ROOT/CLASS/** (which are then all train).

    Split folders are recognised by the usual names (`split_names`), in upper or lower case. A single folder around the
    tree is looked through. Folders that an operating system left there are skipped (`litter`).

    Args:
        root: The folder.
        layout: `classes` or `splits` says what the folders in it are; `auto` finds out.

    Raises:
        ConfigError: If both readings are possible, train is missing, there are fewer than two classes, a class is empty
            in train, or another split has classes that train does not have.
    """
    left = _Left()
    inner = _inside_wrappers(root, left)
    folders = _split_folders(inner, layout, left)
    names, train_folders = _classes(folders["train"], left)
    files: list[ImageFile] = []
    others: list[Path] = []
    for split, folder in folders.items():
        if loose := len(_images_in(folder)):
            left.loose[f"{folder.name}/"] = loose
        by_class = train_folders if split == "train" else _known_classes(folder, names, folders["train"], left)
        for label, name in enumerate(names):
            for class_folder in by_class.get(folded_name(name), ()):
                for path in _files_below(class_folder, seen=set(), left=left):
                    if path.suffix.lower() in SUFFIXES:
                        files.append(ImageFile(path=path, split=split, label=label))
                    else:
                        others.append(path)
    notes = _notes(root, inner, folders, left)
    tree = ImageTree(
        root=inner,
        class_names=names,
        files=tuple(files),
        others=tuple(others),
        divided=folders != {"train": inner},
        notes=notes,
    )
    _require_images(tree, folders)
    return tree


def _inside_wrappers(root: Path, left: _Left) -> Path:
    """Go down into single folders that only hold folders: the tree may be unpacked a level too deep."""
    for _ in range(_WRAPPERS):
        children = _subfolders(root, left)
        if len(children) != 1 or _has_images(root) or _has_images(children[0]):
            return root
        inside = _subfolders(children[0], left)
        holds_splits = "train" in splits_of(folder.name for folder in inside).values()
        if not inside or (split_of(children[0].name) and not holds_splits):
            return root
        root = children[0]
    return root


def _inside_itself(folder: Path, split: SplitName, left: _Left) -> Path:
    """Go from train/ into train/train/, which results from unpacking an archive into a folder of its own name."""
    inside = _subfolders(folder, left)
    same_name = len(inside) == 1 and inside[0].name.casefold() == folder.name.casefold()
    if len(inside) == 1 and (same_name or split_of(inside[0].name) == split) and not _has_images(folder):
        return inside[0] if _subfolders(inside[0], left) else folder
    return folder


def _split_folders(root: Path, layout: DataLayout, left: _Left) -> dict[SplitName, Path]:
    """Return the folder of each split; only train if the folders are classes."""
    children = _subfolders(root, left)
    named = splits_of(child.name for child in children)
    splits = {child: named[child.name] for child in children if child.name in named}
    if layout == "classes" or (layout == "auto" and not splits):
        if layout == "auto":
            _refuse_like_named(root, children, left)
        return {"train": root}
    if layout == "auto" and _are_classes(root, children, splits, left):
        left.classes += [child.name for child in splits]
        return {"train": root}
    found: dict[SplitName, Path] = {}
    for split in SPLITS:
        present = [child for child, each in splits.items() if each == split]
        if len(present) > 1:
            names = " and ".join(child.name for child in present)
            msg = (
                f"data {root}: expected one {split} folder, came {names}. Take one of them away, or join them.\n"
                f"If these folders are classes: {_CLASSES_FLAG}"
            )
            raise ConfigError(msg)
        if present:
            found[split] = _inside_itself(present[0], split, left)
    if "train" not in found:
        beside = f" beside {', '.join(f'{folder.name}/' for folder in found.values())}" if found else ""
        msg = (
            f"data {root}: expected train/{beside}, came none.\nAdd train/CLASS/*.jpg; "
            f"if these folders are classes: {_CLASSES_FLAG}"
        )
        raise ConfigError(msg)
    left.folders += [child.name for child in children if child not in splits]
    return found


def _are_classes(root: Path, children: Sequence[Path], splits: dict[Path, SplitName], left: _Left) -> bool:
    """Tell whether folders named like splits are classes.

    A class folder holds images directly; a split folder holds class folders.

    Raises:
        ConfigError: If both readings are possible.
    """
    like_classes = [child for child in splits if _has_images(child) and not _subfolders(child, left)]
    like_splits = [child for child in splits if child not in like_classes and _subfolders(child, left)]
    others = [child for child in children if child not in splits]
    filled = [child for child in others if _has_images(child)]
    mixed = [child for child in like_splits if _has_images(child)]
    if len(like_splits) > 1 or len(children) == 1:
        return False  # train/ and val/ with classes in both; what lies beside them is left out, which a note says
    # train/*.jpg and test/*.jpg beside a table of labels are a whole data set without class folders.
    unsorted = bool(_tables_in(root)) and "train" in {splits[child] for child in like_classes} and len(like_classes) > 1
    if not like_splits and like_classes and others and not unsorted:
        return True
    if not (like_classes or filled or mixed):
        return False
    named = ", ".join(f"{child.name}/" for child in sorted({*like_classes, *mixed, *filled})[:_SHOWN])
    msg = (
        f"data {root}: {', '.join(f'{child.name}/' for child in splits)} can be splits or classes, since images lie "
        f"directly in {named}.\nIf each folder here is a class: {_CLASSES_FLAG}\n"
        f"If they are splits, put the images of each class into a folder of its own (train/CLASS/*.jpg): {_SPLITS_FLAG}"
    )
    raise ConfigError(msg)


def _refuse_like_named(root: Path, children: Sequence[Path], left: _Left) -> None:
    """Raise an error if no folder holds images itself, but all hold folders of the same names: they are not classes.

    Raises:
        ConfigError: If they are most likely splits with other names, or classes that hold splits.
    """
    if any(map(_has_images, children)):
        return
    every = [frozenset(child.name.casefold() for child in _subfolders(folder, left)) for folder in children]
    inside = [names for names in every if names]  # a folder of lists or annotations is not a class in any case
    shared = {name for names in inside for name in names if sum(name in other for other in inside) > 1}
    if len(inside) < 2 or len(shared) < 2 or any(2 * len(names & shared) < len(names) for names in inside):
        return
    outer = ", ".join(f"{child.name}/" for child in children[:_SHOWN])
    names = ", ".join(f"{name}/" for name in sorted(shared)[:_SHOWN])
    if any(split_of(name) for name in shared):
        advice = "Put the split above the classes: train/CLASS/*.jpg, val/CLASS/*.jpg."
    else:
        advice = "If they are splits, name them train/, val/ and test/."
    msg = (
        f"data {root}: expected class folders with images, but {outer} all hold folders of the same names: {names}\n"
        f"{advice}\nIf they really are classes, with images of each at any depth: {_CLASSES_FLAG}"
    )
    raise ConfigError(msg)


def _classes(train: Path, left: _Left) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """Return the class names, and the folders of each class by its composed name.

    Two folders whose names differ only in how Unicode spells them are one class.
    """
    folders: dict[str, list[Path]] = {}
    for child in _subfolders(train, left):
        folders.setdefault(folded_name(child.name), []).append(child)
    names = tuple(found[0].name for found in folders.values())
    if len(names) < 2:
        came, advice = f"{len(names)} ({', '.join(names) or 'none'})", ""
        if loose := len(_images_in(train)):
            came += f", and {loose} images in no class folder"
            advice = "".join(f"Labels in {table} are not read. " for table in _tables_in(train)[:1])
        msg = (
            f"data {train}: expected at least two class folders, came {came}.\n"
            f"{advice}Put the images of each class into a folder of its own: CLASS/*.jpg."
        )
        raise ConfigError(msg)
    return names, folders


def _known_classes(folder: Path, names: tuple[str, ...], train: Path, left: _Left) -> dict[str, list[Path]]:
    """Return the class folders of another split, all of which must be classes of train."""
    known = {folded_name(name) for name in names}
    folders: dict[str, list[Path]] = {}
    for child in _subfolders(folder, left):
        folders.setdefault(folded_name(child.name), []).append(child)
    unknown = sorted(found[0].name for name, found in folders.items() if name not in known)
    if unknown:
        folded = {_loose(name): name for name in names}
        near = [f"{name} (train has {folded[_loose(name)]})" for name in unknown if _loose(name) in folded]
        advice = "They differ in case or spaces only: rename" if len(near) == len(unknown) else "Rename"
        shown = ", ".join((near if len(near) == len(unknown) else unknown)[:_SHOWN])
        msg = (
            f"data {folder}: expected only the {len(names)} classes of {train}, came {len(unknown)} more: {shown}.\n"
            f"{advice} them, or add images of them to train."
        )
        raise ConfigError(msg)
    return folders


def _loose(name: str) -> str:
    return "".join(folded_name(name).casefold().replace("_", " ").replace("-", " ").split())


def _require_images(tree: ImageTree, folders: dict[SplitName, Path]) -> None:
    present = {file.label for file in tree.files if file.split == "train"}
    empty = [name for label, name in enumerate(tree.class_names) if label not in present]
    if empty:
        kinds = Counter(path.suffix.lower() for path in tree.others if path.suffix)
        also = f" They hold {kinds.most_common(1)[0][0]} files, which cannot be read." if kinds else ""
        msg = (
            f"data {folders['train']}: expected images in every class folder, came none in {len(empty)} of "
            f"{len(tree.class_names)}: {', '.join(empty[:_SHOWN])}.{also}\n"
            f"Add images ({' '.join(sorted(SUFFIXES))}) or take these folders away."
        )
        raise ConfigError(msg)
    for split, folder in folders.items():
        if not any(file.split == split for file in tree.files):
            msg = f"data {folder}: expected {split} images as CLASS/*.jpg, came none. Add some or take the folder away."
            raise ConfigError(msg)


def _notes(root: Path, inner: Path, folders: dict[SplitName, Path], left: _Left) -> tuple[str, ...]:
    notes = []
    if inner != root:
        notes.append(f"data {root}: read from {inner.relative_to(root)}/, the only folder in it")
    renamed = [f"{folder.name}/ as {split}" for split, folder in folders.items() if folder.name != split]
    if renamed and folders != {"train": inner}:
        notes.append(f"data {root}: read {', '.join(renamed)}")
    if left.litter:
        names = [f"{name} ({count})" if count > 1 else name for name, count in sorted(left.litter.items())]
        notes.append(f"data {root}: passed over {_listed(names)}, which a system left there")
    if left.classes:
        named = _listed([f"{name}/" for name in left.classes])
        notes.append(f"data {root}: read {named} as a class, for images lie directly in it (else {_SPLITS_FLAG})")
    if left.folders:
        notes.append(f"data {root}: left out {_listed([f'{name}/' for name in left.folders])} beside the splits")
    for where, count in left.loose.items():
        notes.append(f"data {root}: left out {count} images that lie in {where} itself, in no class folder")
    return tuple(notes)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _subfolders(folder: Path, left: _Left) -> list[Path]:
    """List the folders that a person made, sorted as ImageFolder sorts them; links to folders are included."""
    found = [child for child in _listing(folder) if child.is_dir()]
    _count_litter(found, left)
    return [child for child in found if not is_litter(child)]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check path and permissions."
        raise ConfigError(msg) from error


def _count_litter(found: Iterable[Path], left: _Left) -> None:
    for child in found:
        if is_litter(child) and not child.name.startswith("."):
            left.litter[child.name] = max(left.litter[child.name], 1)


def _images_in(folder: Path) -> list[Path]:
    """List the images that lie directly in the folder."""
    return [
        child
        for child in _listing(folder)
        if child.suffix.lower() in SUFFIXES and not is_litter(child) and not child.is_dir()
    ]


def _has_images(folder: Path) -> bool:
    return bool(_images_in(folder))


def _tables_in(folder: Path) -> list[str]:
    """List the names of the files in the folder that may hold labels."""
    return [child.name for child in _listing(folder) if child.suffix.lower() in _TABLES and not is_litter(child)]


def _files_below(folder: Path, *, seen: set[tuple[int, int]], left: _Left) -> list[Path]:
    """List visible files at any depth, sorted; visit each real folder once, so that a loop of links ends."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check its permissions."
        raise ConfigError(msg) from error
    files: list[Path] = []
    for entry in entries:
        if is_litter(Path(entry.path)):
            if not entry.name.startswith("."):
                left.litter[entry.name] += 1
        elif _is_folder(entry):
            files.extend(_files_below(Path(entry.path), seen=seen, left=left))
        else:
            files.append(Path(entry.path))
    return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; it is counted as an unreadable file later
