"""The shape of an image folder: which files there are, and the split and class of each. No image is opened."""

import os
from dataclasses import dataclass
from pathlib import Path

from scalesearch.errors import ConfigError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
# Names in use for the folder of each split.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One file that is an image by its suffix."""

    path: Path
    split: str
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTree:
    """All image files below a folder; `others` are the visible files that are none."""

    root: Path
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    others: tuple[Path, ...]


def scan_tree(root: Path, *, val_wanted: bool) -> ImageTree:
    """The files of ROOT/SPLIT/CLASS/**, or of ROOT/CLASS/** (all train). `val_wanted`: a val folder must be there.

    Raises:
        ConfigError: if split folders are missing, there are fewer than two classes, a class is empty in train, or
            another split has classes that train has not.
    """
    folders = _split_folders(root, val_wanted=val_wanted)
    class_names = _class_names(folders["train"])
    files: list[ImageFile] = []
    others: list[Path] = []
    for split, folder in folders.items():
        _require_known(folder, class_names, train=folders["train"])
        for label, name in enumerate(class_names):
            for path in _files_below(folder / name, seen=set()):
                if path.suffix.lower() in SUFFIXES:
                    files.append(ImageFile(path=path, split=split, label=label))
                else:
                    others.append(path)
    tree = ImageTree(root=root, class_names=class_names, files=tuple(files), others=tuple(others))
    _require_images(tree, folders)
    return tree


def _split_folders(root: Path, *, val_wanted: bool) -> dict[str, Path]:
    children = {child.name: child for child in _subfolders(root)}
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        present = [name for name in names if name in children]
        if len(present) > 1:
            msg = f"data {root}: expected one {split} folder, came {' and '.join(present)}. Take one of them away."
            raise ConfigError(msg)
        if present:
            found[split] = children[present[0]]
    if not found:
        return {"train": root}
    missing = [split for split in ("train", "val") if split not in found and (split == "train" or val_wanted)]
    if missing:
        advice = f"Add {missing[0]}/CLASS/*.jpg"
        if missing == ["val"]:
            advice += ", or split train anew with --set data.val_fraction=0.2"
        there = ", ".join(f"{folder.name}/" for folder in found.values())
        msg = f"data {root}: expected {missing[0]}/ beside {there}, came none.\n{advice}."
        raise ConfigError(msg)
    return found


def _class_names(train: Path) -> tuple[str, ...]:
    names = tuple(child.name for child in _subfolders(train))
    if len(names) < 2:
        msg = (
            f"data {train}: expected at least two class folders, came {len(names)} ({', '.join(names) or 'none'}).\n"
            f"Put the images of each class into a folder of its own: CLASS/*.jpg."
        )
        raise ConfigError(msg)
    return names


def _require_known(folder: Path, class_names: tuple[str, ...], *, train: Path) -> None:
    unknown = sorted({child.name for child in _subfolders(folder)} - set(class_names))
    if unknown:
        msg = (
            f"data {folder}: expected only the {len(class_names)} classes of {train}, came {len(unknown)} more: "
            f"{', '.join(unknown[:5])}.\nRename them, or add images of them to train."
        )
        raise ConfigError(msg)


def _require_images(tree: ImageTree, folders: dict[str, Path]) -> None:
    present = {file.label for file in tree.files if file.split == "train"}
    empty = [name for label, name in enumerate(tree.class_names) if label not in present]
    if empty:
        msg = (
            f"data {folders['train']}: expected images in every class folder, came none in {len(empty)} of "
            f"{len(tree.class_names)}: {', '.join(empty[:5])}.\n"
            f"Add images ({' '.join(sorted(SUFFIXES))}) or take these folders away."
        )
        raise ConfigError(msg)
    for split, folder in folders.items():
        if not any(file.split == split for file in tree.files):
            msg = f"data {folder}: expected {split} images as CLASS/*.jpg, came none. Add some or take the folder away."
            raise ConfigError(msg)


def _subfolders(folder: Path) -> list[Path]:
    """Visible folders, sorted as ImageFolder sorts them; links to folders count."""
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check path and permissions."
        raise ConfigError(msg) from error


def _files_below(folder: Path, *, seen: set[tuple[int, int]]) -> list[Path]:
    """Visible files at any depth, sorted; each real folder once, so that a loop of links ends."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []  # a class that this split does not have
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check its permissions."
        raise ConfigError(msg) from error
    files: list[Path] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            files.extend(_files_below(Path(entry.path), seen=seen))
        else:
            files.append(Path(entry.path))
    return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: counted among the unreadable files later
