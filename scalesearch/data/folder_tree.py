"""The shape of an image folder: which files there are, and the split and class of each; no image is opened."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scalesearch.data.folder_listing import SHOWN, LeftOut, files_below, images_in, listed, subfolders, tables_in
from scalesearch.data.folder_splits import SPLITS_FLAG, inside_wrappers, split_folders
from scalesearch.data.litter import SUFFIXES
from scalesearch.data.split_names import SplitName, folded_name
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataLayout


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
    left = LeftOut()
    inner = inside_wrappers(root, left)
    folders = split_folders(inner, layout, left)
    names, train_folders = _classes(folders["train"], left)
    files: list[ImageFile] = []
    others: list[Path] = []
    for split, folder in folders.items():
        if loose := len(images_in(folder)):
            left.loose[f"{folder.name}/"] = loose
        by_class = train_folders if split == "train" else _known_classes(folder, names, folders["train"], left)
        for label, name in enumerate(names):
            for class_folder in by_class.get(folded_name(name), ()):
                for path in files_below(class_folder, seen=set(), left=left):
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


def _classes(train: Path, left: LeftOut) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """Return the class names, and the folders of each class by its composed name.

    Two folders whose names differ only in how Unicode spells them are one class.
    """
    folders: dict[str, list[Path]] = {}
    for child in subfolders(train, left):
        folders.setdefault(folded_name(child.name), []).append(child)
    names = tuple(found[0].name for found in folders.values())
    if len(names) < 2:
        came, advice = f"{len(names)} ({', '.join(names) or 'none'})", ""
        if loose := len(images_in(train)):
            came += f", and {loose} images in no class folder"
            advice = "".join(f"Labels in {table} are not read. " for table in tables_in(train)[:1])
        msg = (
            f"data {train}: expected at least two class folders, came {came}.\n"
            f"{advice}Put the images of each class into a folder of its own: CLASS/*.jpg."
        )
        raise ConfigError(msg)
    return names, folders


def _known_classes(folder: Path, names: tuple[str, ...], train: Path, left: LeftOut) -> dict[str, list[Path]]:
    """Return the class folders of another split, all of which must be classes of train."""
    known = {folded_name(name) for name in names}
    folders: dict[str, list[Path]] = {}
    for child in subfolders(folder, left):
        folders.setdefault(folded_name(child.name), []).append(child)
    unknown = sorted(found[0].name for name, found in folders.items() if name not in known)
    if unknown:
        folded = {_loose(name): name for name in names}
        near = [f"{name} (train has {folded[_loose(name)]})" for name in unknown if _loose(name) in folded]
        advice = "They differ in case or spaces only: rename" if len(near) == len(unknown) else "Rename"
        shown = ", ".join((near if len(near) == len(unknown) else unknown)[:SHOWN])
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
            f"{len(tree.class_names)}: {', '.join(empty[:SHOWN])}.{also}\n"
            f"Add images ({' '.join(sorted(SUFFIXES))}) or take these folders away."
        )
        raise ConfigError(msg)
    for split, folder in folders.items():
        if not any(file.split == split for file in tree.files):
            msg = f"data {folder}: expected {split} images as CLASS/*.jpg, came none. Add some or take the folder away."
            raise ConfigError(msg)


def _notes(root: Path, inner: Path, folders: dict[SplitName, Path], left: LeftOut) -> tuple[str, ...]:
    notes = []
    if inner != root:
        notes.append(f"data {root}: read from {inner.relative_to(root)}/, the only folder in it")
    renamed = [f"{folder.name}/ as {split}" for split, folder in folders.items() if folder.name != split]
    if renamed and folders != {"train": inner}:
        notes.append(f"data {root}: read {', '.join(renamed)}")
    if left.litter:
        names = [f"{name} ({count})" if count > 1 else name for name, count in sorted(left.litter.items())]
        notes.append(f"data {root}: passed over {listed(names)}, which a system left there")
    if left.classes:
        named = listed([f"{name}/" for name in left.classes])
        notes.append(f"data {root}: read {named} as a class, for images lie directly in it (else {SPLITS_FLAG})")
    if left.folders:
        notes.append(f"data {root}: left out {listed([f'{name}/' for name in left.folders])} beside the splits")
    for where, count in left.loose.items():
        notes.append(f"data {root}: left out {count} images that lie in {where} itself, in no class folder")
    return tuple(notes)
