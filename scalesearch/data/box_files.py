"""Turn labelled image files into a data set with boxes, once their labels were read from any format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.box_faults import Faults, checked_box, refuse, shown, without_repeats
from scalesearch.data.boxes import Boxes, CropLosses, ImageBoxes, boxes_at
from scalesearch.data.cache import Arrays, cached_arrays
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.declared_sizes import DeclaredSizes
from scalesearch.data.facts import ImageFacts, from_arrays
from scalesearch.data.folder import decoded, files_key
from scalesearch.data.folder_tree import ImageFile, ImageTree
from scalesearch.data.mapped import MappedImages
from scalesearch.data.skipped_files import shown_path, skip_warnings
from scalesearch.data.source import SourceData
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.data.split_names import SplitName

SPLIT_ORDER: Final = ("train", "val", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBox:
    """One box, as its label file gives it."""

    sides: tuple[float, float, float, float]
    """Left, top, right and bottom: in pixels of the image as it is seen, or as fractions of its sides."""
    label: int
    where: str
    """File and line."""
    ignored: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """An image file with its boxes."""

    path: Path
    split: "SplitName"
    boxes: tuple[LabelledBox, ...]
    declared: tuple[int, int] | None = None
    """Width and height that its labels state; None if they state none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTree:
    """All images of a data set with their labels."""

    root: Path
    class_names: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    fractions: bool
    """Whether boxes are fractions of the sides of their image rather than pixels."""
    divided: bool
    """Whether the source says which images are for training; if not, all images are still to be split."""
    faults: Faults
    notes: tuple[str, ...] = ()


def load_boxes(tree: BoxTree, settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Decode the images, or read them from the cache, and place their boxes.

    Raises:
        ConfigError: There are no images or no boxes, too many images cannot be read, or labels are of other ones.
    """
    from scalesearch.data.decode import Reading

    _require_boxes(tree)
    images = sorted(tree.images, key=lambda image: SPLIT_ORDER.index(image.split))
    files = tuple(ImageFile(path=image.path, split=image.split, label=0) for image in images)
    listed = ImageTree(root=tree.root, class_names=tree.class_names, files=files, others=(), divided=tree.divided)
    reading = Reading(size=storage, window=settings.window, fit=settings.framing, images=len(files))
    arrays, notes = decoded(listed, reading, settings, cache_folder=cache_folder)
    _count_turned(listed, tree.faults, cache_folder)
    skipped = skip_warnings(listed, arrays, max_fraction=settings.max_skipped_fraction)
    kept = [image for image, good in zip(images, arrays["kept"], strict=True) if good]
    facts = from_arrays(arrays)
    sizes = DeclaredSizes(tree.faults)
    boxes = [_boxes_of(image, size, tree, sizes) for image, size in zip(kept, facts.sizes.tolist(), strict=True)]
    sizes.refuse_others()
    losses = CropLosses()

    def targets_of(places: NDArray[np.int64]) -> Boxes:
        some = [boxes[place] for place in places.tolist()]
        return boxes_at(some, facts.sizes[places], storage, settings.framing, losses)

    parts = {
        split: _part(kept, facts, arrays, split, root=tree.root, targets_of=targets_of)
        for split in SPLIT_ORDER
        if any(image.split == split for image in kept)
    }
    if "train" not in parts:
        refuse(str(tree.root), "images to train on", "none", "the data set", "Add a training split.")
    return SourceData(
        name=tree.root.resolve().name or str(tree.root),
        class_names=tree.class_names,
        train=parts["train"],
        val=parts.get("val"),
        test=parts.get("test"),
        warnings=(*skipped, *tree.faults.warnings(), *losses.warnings(str(tree.root), storage, settings.framing)),
        divided=tree.divided,
        notes=(*tree.notes, *notes),
    )


def _require_boxes(tree: BoxTree) -> None:
    root = str(tree.root)
    if not tree.images:
        refuse(root, "images", "none", "the data set", "Check the paths of its images.")
    if not any(image.boxes for image in tree.images):
        first = shown([str(image.path) for image in tree.images])
        came = f"none for all of {len(tree.images)} images"
        refuse(root, "boxes", came, f"the labels of {first}", "Check where the labels are.")


def _count_turned(listed: ImageTree, faults: Faults, cache_folder: Path) -> None:
    """Count the images that EXIF turns: their labels may be those of the pixels as they lie in the file."""
    from scalesearch.data.decode import is_turned

    def whole(arrays: Arrays) -> None:
        if arrays["turned"].shape != (len(listed.files),) or arrays["turned"].dtype != np.bool_:
            message = f"{arrays['turned'].shape} {arrays['turned'].dtype} marks of {len(listed.files)} files"
            raise ValueError(message)

    turned = cached_arrays(
        cache_folder,
        f"turned-{files_key(listed, None)}",
        lambda: {"turned": np.asarray([is_turned(file.path) for file in listed.files], np.bool_)},
        whole=whole,
    )["turned"]
    for place in np.flatnonzero(turned).tolist():
        where = str(listed.files[place].path)
        faults.add("images are turned by EXIF: their labels must be those of the turned image", where)


def _boxes_of(image: LabelledImage, size: Sequence[int], tree: BoxTree, sizes: DeclaredSizes) -> ImageBoxes:
    """Return the boxes of an image in its own pixels, after their faults were corrected and counted."""
    width, height = (float(side) for side in size)
    unit = np.asarray([width, height] * 2) if tree.fractions else np.ones(4)
    if image.declared:
        given = np.asarray([box.sides for box in image.boxes], np.float64).reshape(-1, 4)
        unit = unit * sizes.factors(image.path, image.declared, (int(width), int(height)), given)
    rows = [((*box.sides, float(box.label), float(box.ignored)), box.where) for box in image.boxes]
    found: list[tuple[NDArray[np.float64], LabelledBox]] = []
    for place in without_repeats(rows, tree.faults):
        box = image.boxes[place]
        inside = checked_box(np.asarray(box.sides) * unit, (width, height), where=box.where, faults=tree.faults)
        if inside is not None:
            found.append((inside, box))
    return ImageBoxes(
        boxes=np.asarray([inside for inside, _ in found], np.float32).reshape(-1, 4),
        classes=np.asarray([box.label for _, box in found], np.int64),
        ignored=np.asarray([box.ignored for _, box in found], np.bool_),
    )


def _part(
    images: Sequence[LabelledImage],
    facts: ImageFacts,
    arrays: Arrays,
    split: str,
    *,
    root: Path,
    targets_of: Callable[[NDArray[np.int64]], Boxes],
) -> ImageSplit:
    places = np.flatnonzero([image.split == split for image in images])
    mine, stored = facts.part(places), arrays["images"]
    names = np.asarray([shown_path(images[place].path, root) for place in places.tolist()], np.str_)
    pixels: MappedImages | NDArray[np.uint8]
    if isinstance(stored, np.memmap):
        pixels = MappedImages(stored, places=places)
    else:
        pixels = stored[places].astype(np.uint8, copy=False)
    return ImageSplit(images=pixels, targets=targets_of(places), facts=mine, names=names)
