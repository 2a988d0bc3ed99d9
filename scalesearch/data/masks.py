"""Masks as targets: a class for each pixel. They are held compressed, at the size of their own files."""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.framing import covered_part, nearest
from scalesearch.data.memory import fits_beside
from scalesearch.data.targets import Places
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

if TYPE_CHECKING:
    from torch import Tensor

MASKS: Final = "masks"
"""The kind of targets that `Masks` are."""
UNLABELLED: Final = 255
"""The value of pixels that belong to no class: they are neither trained on nor scored."""
_LEVEL: Final = 1  # a mask of 480 x 360 shrinks to a hundredth of its bytes, and takes a millisecond to read

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedMask:
    """One compressed mask, and what is known of it without unpacking it."""

    packed: bytes
    size: tuple[int, int]
    """Height and width."""
    counts: NDArray[np.int32]
    """Number of pixels of each value, of shape (256,)."""
    digest: bytes
    """A hash of its pixels."""

    @classmethod
    def of(cls, mask: Mask) -> "PackedMask":
        """Compress a mask of shape (height, width)."""
        pixels = mask.tobytes()
        return cls(
            packed=zlib.compress(pixels, _LEVEL),
            size=(int(mask.shape[0]), int(mask.shape[1])),
            counts=np.bincount(mask.ravel(), minlength=256).astype(np.int32),
            digest=blake2b(pixels, digest_size=16).digest(),
        )

    def mask(self) -> Mask:
        """Return the mask (height, width)."""
        return _unpacked(self.packed, self.size)


def _unpacked(packed: bytes, size: tuple[int, int]) -> Mask:
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(size)


@dataclass(frozen=True, slots=True, eq=False)
class MaskStore:
    """Masks of any sizes, each compressed by itself: those of photographs to a fiftieth of their bytes or less."""

    packed: NDArray[np.uint8]
    """The compressed masks, one after the other."""
    ends: NDArray[np.int64]
    """Where each mask ends in `packed`, of shape (number,)."""
    sizes: NDArray[np.int32]
    """Height and width of each, of shape (number, 2)."""
    counts: NDArray[np.int32]
    """Number of pixels of each value in each mask, of shape (number, 256)."""
    digests: NDArray[np.uint8]
    """A hash of each one's pixels, of shape (number, 16)."""

    @classmethod
    def pack(cls, masks: "Iterable[Mask]") -> "MaskStore":
        """Compress masks, each of shape (height, width)."""
        return cls.of([PackedMask.of(mask) for mask in masks])

    @classmethod
    def of(cls, masks: "Sequence[PackedMask]") -> "MaskStore":
        """Return a store of masks that are compressed already."""
        return cls(
            packed=np.frombuffer(b"".join(mask.packed for mask in masks), np.uint8),
            ends=np.cumsum([len(mask.packed) for mask in masks], dtype=np.int64),
            sizes=np.asarray([mask.size for mask in masks], np.int32).reshape(-1, 2),
            counts=np.asarray([mask.counts for mask in masks], np.int32).reshape(-1, 256),
            digests=np.frombuffer(b"".join(mask.digest for mask in masks), np.uint8).reshape(-1, 16),
        )

    def __len__(self) -> int:
        return len(self.ends)

    def mask(self, place: int) -> Mask:
        """Return one mask (height, width) at its own size."""
        begin, end = (int(self.ends[place - 1]) if place else 0), int(self.ends[place])
        height, width = (int(side) for side in self.sizes[place])
        return _unpacked(self.packed[begin:end].tobytes(), (height, width))

    def joined(self, other: "MaskStore") -> "MaskStore":
        """Return these masks and then the others."""
        shift = int(self.ends[-1]) if len(self) else 0
        return MaskStore(
            packed=np.concatenate([self.packed, other.packed]),
            ends=np.concatenate([self.ends, other.ends + shift]),
            sizes=np.concatenate([self.sizes, other.sizes]),
            counts=np.concatenate([self.counts, other.counts]),
            digests=np.concatenate([self.digests, other.digests]),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the store as named arrays, to be kept in a file."""
        return {f"mask_{name}": getattr(self, name) for name in _FIELDS}

    @classmethod
    def of_arrays(cls, arrays: "dict[str, NDArray[np.generic]]") -> "MaskStore":
        """Return the store that `arrays` returned.

        Raises:
            KeyError: An array is missing.
            ValueError: An array has another shape or type, or the parts do not fit together.
        """
        held = {name: np.asarray(arrays[f"mask_{name}"]) for name in _FIELDS}
        number = len(held["ends"])
        shapes = {"ends": (number,), "sizes": (number, 2), "counts": (number, 256), "digests": (number, 16)}
        wrong = [name for name, shape in shapes.items() if held[name].shape != shape]
        wrong += [name for name, kind in _FIELDS.items() if held[name].dtype != kind]
        if wrong or (number and int(held["ends"][-1]) != len(held["packed"])):
            message = f"masks with wrong {', '.join(wrong) or 'ends'}"
            raise ValueError(message)
        return cls(**held)


_FIELDS: Final = {
    "packed": np.uint8, "ends": np.int64, "sizes": np.int32, "counts": np.int32, "digests": np.uint8,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """A class for every pixel of each image (`Targets`).

    Masks keep the size of their own files, at which predictions are scored; `tensor` gives them at the images' size.
    """

    store: MaskStore
    places: NDArray[np.int64]
    """Which masks of the store these are, in order, of shape (number,)."""
    storage: InputSize
    """Size of the stored images, which the images' framing fits into."""
    fit: Fit = "stretch"
    """How images were fitted to `storage`. With `pad`, they have bars, which the masks lack. Otherwise a mask covers
    exactly what its stored image shows, which is only a part of an image that was cropped."""
    size: InputSize | None = None
    """Size of the masks that `tensor` gives; None: that of the stored images."""
    _made: list["Tensor"] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.places)

    def __getitem__(self, where: Places) -> "Masks":
        """Return the masks of some of the images."""
        return replace(self, places=np.atleast_1d(self.places[where]), _made=[])

    def joined(self, other: "Masks") -> "Masks":
        """Return these masks and then the others."""
        if other.store is self.store:
            return replace(self, places=np.concatenate([self.places, other.places]), _made=[])
        places = np.concatenate([self.places, other.places + len(self.store)])
        return replace(self, store=self.store.joined(other.store), places=places, _made=[])

    def at(self, size: InputSize) -> "Masks":
        """Return the same masks for images of this size."""
        return replace(self, size=size, _made=[])

    def content(self) -> Iterator[memoryview]:
        """Yield a hash of each mask, and its size."""
        yield np.ascontiguousarray(self.store.digests[self.places]).data
        yield np.ascontiguousarray(self.store.sizes[self.places]).data

    def strata(self) -> None:
        """Return None: an image has pixels of many classes, so splits are not stratified."""
        return

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return in how many images each class occurs."""
        return np.asarray((self.store.counts[self.places, :classes] > 0).sum(axis=0), np.int64)

    def pixel_counts(self, classes: int) -> NDArray[np.int64]:
        """Return how many pixels each class has, of shape (classes,)."""
        return np.asarray(self.store.counts[self.places, :classes].sum(axis=0, dtype=np.int64))

    def tensor(self) -> "Tensor":
        """Return uint8 (number, height, width) at the images' size, by nearest pixels; 255 has no class.

        If that would take more than a quarter of the memory, the result is a `MaskRows`, which unpacks masks whenever
        it is indexed.
        """
        import torch

        height, width = (self.size or self.storage).sides
        rows = MaskRows(self)
        if not fits_beside(len(self) * height * width):
            return rows  # type: ignore[return-value]  # it has all of a tensor that batches and losses use
        if not self._made:
            self._made.append(rows[torch.arange(len(self))])
        return self._made[0]

    def own(self, place: int) -> Mask:
        """Return the mask (height, width) of one image at the size of its own file."""
        return self.store.mask(int(self.places[place]))

    def part(self, place: int) -> tuple[float, float, float, float]:
        """Return which part of the image the mask covers: top, left, bottom and right, as shares of its sides."""
        height, width = (int(side) for side in self.store.sizes[self.places[place]])
        return covered_part(height, width, self.storage, self.fit)

    def scaled(self, place: int) -> Mask:
        """Return the mask of one image at the size that `tensor` gives, by nearest pixels."""
        height, width = (self.size or self.storage).sides
        own = self.own(place)
        top, left, bottom, right = self.part(place)
        rows, inside = nearest(height, own.shape[0], top, bottom)
        columns, beside = nearest(width, own.shape[1], left, right)
        mask = own[rows[:, None], columns]
        return mask if inside.all() and beside.all() else np.where(inside[:, None] & beside, mask, np.uint8(UNLABELLED))


class MaskRows:
    """Stands in for a tensor of masks (number, height, width) in batches and losses; unpacks masks when indexed."""

    dtype: Final = np.uint8

    def __init__(self, masks: Masks) -> None:
        """Take the masks; nothing is unpacked yet."""
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number, height and width."""
        return len(self), *(self._masks.size or self._masks.storage).sides

    def __getitem__(self, where: "slice | Tensor") -> "Tensor":
        """Return masks as uint8 (chosen, height, width) on the CPU."""
        import torch

        chosen: Sequence[int] = range(len(self))[where] if isinstance(where, slice) else where.tolist()
        masks = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for at, place in enumerate(chosen):
            masks[at] = self._masks.scaled(place)
        return torch.from_numpy(masks)
