"""The shape of a folder of images and masks: which mask belongs to which image, the splits, and the classes' names."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scalesearch.data.litter import SUFFIXES, is_in_litter, is_litter
from scalesearch.data.mask_description import Described, classes_of, described_in
from scalesearch.data.mask_reading import Colours
from scalesearch.data.skipped_files import shown_path
from scalesearch.data.split_names import SPLITS, SplitName, splits_of
from scalesearch.errors import ConfigError
from scalesearch.files import is_folder
from scalesearch.values.session import EARLIER_READING

IMAGES: Final = ("images", "image", "imgs", "img", "JPEGImages", "leftImg8bit")
MASKS: Final = ("masks", "mask", "annotations", "labels", "segmentations", "SegmentationClass", "gt", "gtFine")
"""Usual names of the folders of images and of masks, the likeliest first."""
_MASK_ENDINGS: Final = ("_mask", "-mask", "_masks", "_seg", "_label", "_labels", "_gt", "_L", "_labelTrainIds")
"""What the name of a mask may add to the name of its image, before the suffix."""
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
    """Empty if no file in the folder lists them; the number of classes then follows from the masks."""
    colours: Colours | None = None
    divided: bool = False
    """Whether there are split folders; if not, all images are still to be split."""
    missing: tuple[Path, ...] = ()
    """Images without a mask."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folders:
    """The folders of images and of masks of each split."""

    images: dict[SplitName, Path]
    masks: dict[SplitName, Path]
    described: Described = field(default_factory=Described)
    outside: tuple[Path, ...] = ()
    """Images beside the split folders, which belong to no split."""


def holds_masks(path: Path) -> bool:
    """Tell whether the path is a folder, or a YAML file such as data.yaml."""
    return path.is_dir() or (path.is_file() and path.suffix.lower() in (".yaml", ".yml"))


def scan_masks(path: Path) -> MaskTree:
    """List the images of a folder with their masks, as images/SPLIT/ and masks/SPLIT/, SPLIT/images/ or images/ alone.

    Ultralytics' data.yaml may say where the images of each split are, name the folder of masks (`masks_dir`) and the
    classes. The path of a mask's folder is that of its image's folder, with the last part that is named like a folder
    of images (`images`) renamed like that of the masks (`masks`).

    Raises:
        ConfigError: There are no such folders, or no image has a mask.
    """
    root = path if path.is_dir() else path.parent
    found = _folders(root, path)
    names, colours, told = classes_of(root, found.described)
    files, missing, spare, seen, twice = list[MaskedFile](), list[Path](), 0, set[str](), list[Path]()
    for split, folder in found.images.items():
        images, masks = list(_images_below(folder)), _masks_below(found.masks[split])
        mask_of = _taken(masks, images, folder)
        for image in images:
            plain, mask = os.path.normpath(image), mask_of.get(image)
            if plain in seen:
                twice.append(image)
                continue
            seen.add(plain)
            if mask is None:
                missing.append(image)
            else:
                files.append(MaskedFile(image=image, mask=mask, split=split))
        spare += sum(map(len, masks.values()))
    if not files:
        split, first = next(iter(found.images.items()))
        message = (
            f"data {root}: expected a mask of the same name for each image of {first}, came none in "
            f"{found.masks[split]}.\n{LAYOUT}"
        )
        raise ConfigError(message)
    notes = [*found.described.notes, *told]
    if found.outside:
        some = ", ".join(shown_path(image, root) for image in found.outside[:_SHOWN])
        more = ", ..." if len(found.outside) > _SHOWN else ""
        notes.append(f"data {root}: left out {len(found.outside)} images that lie in no split folder: {some}{more}")
    if twice:
        notes.append(
            f"data {root}: {len(twice)} images are in two splits, the second time left out {EARLIER_READING} in both "
            f"splits), e.g. {shown_path(twice[0], root)}"
        )
    if spare:
        notes.append(f"data {root}: {spare} masks have no image, e.g. are left from images that were removed")
    return MaskTree(
        root=root,
        files=tuple(files),
        class_names=names,
        colours=colours,
        divided=_is_divided(found, files),
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _is_divided(found: _Folders, files: Sequence[MaskedFile]) -> bool:
    """Tell whether there are splits: data.yaml may name one folder twice, so that there is none after all."""
    if not found.described.folders:
        return set(found.images) != {"train"}
    return len(found.images) == 1 or any(file.split != "train" for file in files)


LAYOUT: Final = (
    "A folder holds images/train/*.jpg and masks/train/*.png (val, test alike), or images/ and masks/ alone."
)


def _folders(root: Path, path: Path) -> _Folders:
    described = described_in(root, path)
    children = _subfolders(root)
    if described.folders:
        images = dict(described.folders)
        masks = {split: _masks_of(folder, root, described.masks_dir) for split, folder in images.items()}
        return _Folders(images=images, masks=masks, described=described)
    images_name, masks_name = _first(IMAGES, children), described.masks_dir or _first(MASKS, children)
    if images_name and masks_name:
        splits = _splits(root / images_name)
        images = splits or {"train": root / images_name}
        return _Folders(
            images=images,
            masks={each: root / masks_name / path.relative_to(root / images_name) for each, path in images.items()},
            described=described,
            outside=_outside(root / images_name, splits) if splits else (),
        )
    splits = {split: folder for split, folder in _splits(root).items() if _first(IMAGES, _subfolders(folder))}
    for folder in splits.values():
        inner = _subfolders(folder)
        images_name, masks_name = _first(IMAGES, inner), described.masks_dir or _first(MASKS, inner)
    if splits and masks_name:
        images = {split: folder / _first(IMAGES, _subfolders(folder)) for split, folder in splits.items()}
        others = {root / name: _subfolders(root / name) for name in children if root / name not in splits.values()}
        outside = [folder / _first(IMAGES, inner) for folder, inner in others.items() if _first(IMAGES, inner)]
        return _Folders(
            images=images,
            masks={split: folder / masks_name for split, folder in splits.items()},
            described=described,
            outside=tuple(image for folder in outside for image in _images_below(folder)),
        )
    shown = ", ".join(f"{name}/" for name in sorted(children)[:5]) or "no folder"
    message = f"data {root}: expected a folder of images and one of masks in it, came {shown}.\n{LAYOUT}"
    raise ConfigError(message)


def _outside(folder: Path, splits: dict[SplitName, Path]) -> tuple[Path, ...]:
    """Return the images in the folder of images, but not in those of its folders that are splits."""
    others = [folder / name for name in _subfolders(folder) if folder / name not in splits.values()]
    below = [image for other in others for image in _images_below(other)]
    return (*below, *_images_below(folder, deep=False))


def _masks_of(folder: Path, root: Path, masks_dir: str) -> Path:
    """Return the folder of masks for a folder of images that data.yaml names.

    Where the data set lies, below a folder called `images` too, decides only if there are no masks in the set itself;
    how its path is typed does not matter.

    Args:
        folder: The folder of images.
        root: The folder of data.yaml.
        masks_dir: The name of the folder of masks; empty: a usual one.
    """
    given, start = (Path(os.path.abspath(each)) for each in (folder, root))  # noqa: PTH100  (keeps links)
    named = [part for part in (given, *given.parents) if part.name in IMAGES]
    above = [part for part in named if start.is_relative_to(part)]
    found = [
        part.parent / (masks_dir or _first(MASKS, _subfolders(part.parent)) or MASKS[0]) / given.relative_to(part)
        for part in (*(part for part in named if part not in above), given, *above)
    ]
    return next((masks for masks in found if is_folder(masks)), found[0])


def _first(names: Sequence[str], children: Iterable[str]) -> str:
    """Return the first of the names that is among the children, in upper or lower case; empty if none is."""
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


def _images_below(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    for path in sorted(folder.rglob("*") if deep else folder.glob("*")):
        if path.suffix.lower() in SUFFIXES and not is_in_litter(path, folder) and path.is_file():
            yield path


def _masks_below(folder: Path) -> dict[str, list[Path]]:
    """Return the masks below a folder, by their names."""
    found = defaultdict[str, list[Path]](list)
    for path in _images_below(folder) if is_folder(folder) else ():
        found[_key(path, folder)].append(path)
    return found


def _taken(masks: dict[str, list[Path]], images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Take the mask of each image out of `masks` and return them; an image may have none.

    A mask belongs to the image of its own name; only where there is none, photo_mask.png belongs to a photo.jpg that
    has no mask of its own name.
    """
    found, without = dict[Path, Path](), dict[str, Path]()
    for image in images:
        name = _key(image, folder)
        if paths := masks.pop(name, []):
            found[image] = paths[0]
        else:
            without.setdefault(name, image)
    for name in tuple(masks):
        bare = next((bare for end in _MASK_ENDINGS if (bare := name.removesuffix(end)) in without), None)
        if bare is not None:
            found[without.pop(bare)] = masks.pop(name)[0]
    return found


def _key(path: Path, folder: Path) -> str:
    return os.fspath(path.relative_to(folder).with_suffix(""))
