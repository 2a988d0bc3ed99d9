"""Images that stay on disk: a file mapped into memory, from which pixels are read when they are asked for."""

import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.resize import resize_images, rows_of_chunk, to_grey
from scalesearch.values.network_spec import InputSize

if TYPE_CHECKING:
    from torch import Tensor

Places = NDArray[np.bool_] | NDArray[np.int64]


class MappedImages:
    """Images of a memory-mapped array, used like an array of shape (number, height, width, C) in uint8.

    An index (a whole number, a slice, a mask or an array of numbers) reads those images, makes them grey and resizes
    them; the pixels are the same as if all images had been converted at once. Nothing else holds pixels in memory.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        stored: NDArray[np.uint8],
        *,
        places: NDArray[np.int64] | None = None,
        size: InputSize | None = None,
        grey: bool = False,
    ) -> None:
        """Take the images as they are stored.

        Args:
            stored: The mapped array, of shape (stored, height, width, 3).
            places: Which of the stored images these are, in order, of shape (number,); None: all of them.
            size: Size of the images, if it is not that of the stored ones.
            grey: Whether the images are grey, of shape (number, height, width, 1).
        """
        self._stored, self._grey = stored, grey
        self._places = np.arange(len(stored), dtype=np.int64) if places is None else places
        self._size = size or InputSize(height_px=int(stored.shape[1]), width_px=int(stored.shape[2]))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, height, width and channels."""
        return len(self), *self._size.sides, 1 if self._grey else int(self._stored.shape[3])

    @property
    def nbytes(self) -> int:
        """Bytes that all the images would take in memory."""
        number, height, width, channels = self.shape
        return number * height * width * channels

    def __getitem__(self, where: "int | slice | Places") -> NDArray[np.uint8]:
        """Read images.

        Returns:
            Images of shape (chosen, height, width, C); for a whole number one image of shape (height, width, C).
        """
        places = self._places[where]
        images = self._read(np.atleast_1d(places))
        return images[0] if np.ndim(places) == 0 else images

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[place] for place in range(len(self)))

    def __array__(self, dtype: "np.dtype[np.generic] | None" = None, copy: bool | None = None) -> NDArray[np.generic]:
        return self[:].astype(dtype or self.dtype, copy=False)

    def part(self, where: Places) -> "MappedImages":
        """Return some of the images without reading them.

        Args:
            where: A mask of shape (number,), or the indices of the images.
        """
        return self._with(places=self._places[where])

    def joined(self, other: "MappedImages") -> "MappedImages":
        """Return these images and then the others, which must be of the same mapped array, without reading them."""
        if self._stored is not other._stored or self.shape[1:] != other.shape[1:]:
            msg = "images of two files cannot be joined without reading them"
            raise ValueError(msg)
        return self._with(places=np.concatenate([self._places, other._places]))

    def at(self, size: int | InputSize) -> "MappedImages":
        """Return the whole images at another size, which are resized whenever they are read.

        Args:
            size: Their height and width; a number stands for the side of a square in pixels.
        """
        return self._with(size=InputSize.of(size))

    def in_grey(self) -> "MappedImages":
        """Return the images in grey, which are converted whenever they are read."""
        return self._with(grey=True)

    def _with(
        self, *, places: NDArray[np.int64] | None = None, size: InputSize | None = None, grey: bool = False
    ) -> "MappedImages":
        return MappedImages(
            self._stored,
            places=self._places if places is None else places,
            size=size or self._size,
            grey=grey or self._grey,
        )

    def _read(self, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = np.empty((len(places), *self.shape[1:]), np.uint8)
        step = rows_of_chunk(self._stored.shape, bytes_a_value=8)  # for the stored, grey and resized copies of a chunk
        for start in range(0, len(places), step):
            chunk = np.asarray(self._stored[places[start : start + step]])
            chunk = to_grey(chunk) if self._grey else chunk
            images[start : start + step] = resize_images(chunk, self._size, fit="stretch")
            _let_go(self._stored)
        return images


class ImageSource(Protocol):
    """Images that training reads batch by batch, instead of a tensor in memory, uint8 (N, C, H, W)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, channels, height and width."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: "Tensor") -> "Tensor":
        """Return images as uint8 (n, C, H, W) on the CPU.

        Args:
            indices: Which ones, int64 (n,) on the CPU; an image may be asked for twice.
        """
        ...


class MappedPlanes:
    """The `ImageSource` of mapped images."""

    def __init__(self, images: MappedImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, channels, height and width."""
        number, height, width, channels = self._images.shape
        return number, channels, height, width

    def take(self, indices: "Tensor") -> "Tensor":
        """Return images as uint8 (n, C, H, W), channels-last in memory.

        Args:
            indices: Which ones, int64 (n,) on the CPU.
        """
        import torch

        return torch.from_numpy(self._images[indices.numpy()]).permute(0, 3, 1, 2)


def planes(images: "NDArray[np.uint8] | MappedImages") -> "Tensor | ImageSource":
    """Return images (number, height, width, C) as training takes them: uint8 (N, C, H, W).

    Nothing is copied: the tensor shares the array's memory, and mapped images stay on disk.
    """
    import torch

    if isinstance(images, MappedImages):
        return MappedPlanes(images)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _let_go(array: NDArray[np.uint8]) -> None:
    """Tell the system that the mapped pages are no longer in use; it may keep them as it keeps any file that was read.

    Otherwise they would count as this process's memory until the system is short of memory.
    """
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
