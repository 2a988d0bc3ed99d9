"""Which folders of an image tree are splits and which are classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scalesearch.data.folder_listing import SHOWN, LeftOut, has_images, subfolders, tables_in
from scalesearch.data.split_names import SPLITS, SplitName, split_of, splits_of
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataLayout

_WRAPPERS: Final = 4
"""How many folders that contain only one folder are entered at most, as in dataset/images/train/..."""

CLASSES_FLAG: Final = "--set data.layout=classes"

SPLITS_FLAG: Final = "--set data.layout=splits"


def inside_wrappers(root: Path, left: LeftOut) -> Path:
    """Go down into single folders that only hold folders: the tree may be unpacked a level too deep."""
    for _ in range(_WRAPPERS):
        children = subfolders(root, left)
        if len(children) != 1 or has_images(root) or has_images(children[0]):
            return root
        inside = subfolders(children[0], left)
        holds_splits = "train" in splits_of(folder.name for folder in inside).values()
        if not inside or (split_of(children[0].name) and not holds_splits):
            return root
        root = children[0]
    return root


def _inside_itself(folder: Path, split: SplitName, left: LeftOut) -> Path:
    """Go from train/ into train/train/, which results from unpacking an archive into a folder of its own name."""
    inside = subfolders(folder, left)
    same_name = len(inside) == 1 and inside[0].name.casefold() == folder.name.casefold()
    if len(inside) == 1 and (same_name or split_of(inside[0].name) == split) and not has_images(folder):
        return inside[0] if subfolders(inside[0], left) else folder
    return folder


def split_folders(root: Path, layout: DataLayout, left: LeftOut) -> dict[SplitName, Path]:
    """Return the folder of each split; if the folders in `root` are classes, that is `root` for train alone."""
    children = subfolders(root, left)
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
                f"If these folders are classes: {CLASSES_FLAG}"
            )
            raise ConfigError(msg)
        if present:
            found[split] = _inside_itself(present[0], split, left)
    if "train" not in found:
        beside = f" beside {', '.join(f'{folder.name}/' for folder in found.values())}" if found else ""
        msg = (
            f"data {root}: expected train/{beside}, came none.\nAdd train/CLASS/*.jpg; "
            f"if these folders are classes: {CLASSES_FLAG}"
        )
        raise ConfigError(msg)
    left.folders += [child.name for child in children if child not in splits]
    return found


def _are_classes(root: Path, children: Sequence[Path], splits: dict[Path, SplitName], left: LeftOut) -> bool:
    """Tell whether folders named like splits are classes.

    A class folder holds images directly; a split folder holds class folders.

    Raises:
        ConfigError: If both readings are possible.
    """
    like_classes = [child for child in splits if has_images(child) and not subfolders(child, left)]
    like_splits = [child for child in splits if child not in like_classes and subfolders(child, left)]
    others = [child for child in children if child not in splits]
    filled = [child for child in others if has_images(child)]
    mixed = [child for child in like_splits if has_images(child)]
    if len(like_splits) > 1 or len(children) == 1:
        return False  # train/ and val/ with classes in both; other folders next to them are left out, with a note
    # train/*.jpg and test/*.jpg next to a table of labels are a whole data set without class folders.
    unsorted = bool(tables_in(root)) and "train" in {splits[child] for child in like_classes} and len(like_classes) > 1
    if not like_splits and like_classes and others and not unsorted:
        return True
    if not (like_classes or filled or mixed):
        return False
    named = ", ".join(f"{child.name}/" for child in sorted({*like_classes, *mixed, *filled})[:SHOWN])
    msg = (
        f"data {root}: {', '.join(f'{child.name}/' for child in splits)} can be splits or classes, since images lie "
        f"directly in {named}.\nIf each folder here is a class: {CLASSES_FLAG}\n"
        f"If they are splits, put the images of each class into a folder of its own (train/CLASS/*.jpg): {SPLITS_FLAG}"
    )
    raise ConfigError(msg)


def _refuse_like_named(root: Path, children: Sequence[Path], left: LeftOut) -> None:
    """Raise an error if no folder holds images itself, but all hold folders of the same names: they are not classes.

    Raises:
        ConfigError: If they are most likely splits with other names, or classes that hold splits.
    """
    if any(map(has_images, children)):
        return
    every = [frozenset(child.name.casefold() for child in subfolders(folder, left)) for folder in children]
    inside = [names for names in every if names]  # a folder of lists or annotations is not a class in any case
    shared = {name for names in inside for name in names if sum(name in other for other in inside) > 1}
    if len(inside) < 2 or len(shared) < 2 or any(2 * len(names & shared) < len(names) for names in inside):
        return
    outer = ", ".join(f"{child.name}/" for child in children[:SHOWN])
    names = ", ".join(f"{name}/" for name in sorted(shared)[:SHOWN])
    if any(split_of(name) for name in shared):
        advice = "Put the split above the classes: train/CLASS/*.jpg, val/CLASS/*.jpg."
    else:
        advice = "If they are splits, name them train/, val/ and test/."
    msg = (
        f"data {root}: expected class folders with images, but {outer} all hold folders of the same names: {names}\n"
        f"{advice}\nIf they really are classes, with images of each at any depth: {CLASSES_FLAG}"
    )
    raise ConfigError(msg)
