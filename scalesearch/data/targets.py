"""Targets of a data set's images, which a task is trained on and scored against: labels, boxes or masks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from scalesearch.values.network_spec import InputSize

if TYPE_CHECKING:
    from torch import Tensor

Places = slice | NDArray[np.bool_] | NDArray[np.int64]
"""Some images of several: a slice, a mask of shape (number,), or their indices."""
LABELS: Final = "labels"
"""The kind of targets that `Labels` are."""


class Targets(Protocol):
    """The targets of some images, one for each image, in the images' order. They are never changed in place.

    Each kind of targets is a class with these methods. Only the task that they belong to uses anything else of them.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, where: Places) -> Self:
        """Return the targets of some of the images."""
        ...

    def joined(self, other: Self) -> Self:
        """Return these targets and then the others."""
        ...

    def at(self, size: InputSize) -> Self:
        """Return the targets of the same whole images, shrunk to this size.

        Targets that do not depend on the size return themselves.
        """
        ...

    def content(self) -> "Iterator[memoryview]":
        """Yield all bytes in order, for the fingerprint of the data set: other targets give other bytes."""
        ...

    def strata(self) -> NDArray[np.int64] | None:
        """Return the group of each image, counted from 0, of shape (number,); each split gets its share of every group.

        None: the images are split without regard to their targets.
        """
        ...

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return how often each class occurs, of shape (classes,); `classes` is 0 for targets without classes."""
        ...

    def tensor(self) -> "Tensor":
        """Return the targets as the task's batches and losses take them: on the CPU, images along the first axis."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One class for each image. NumPy's functions take them like the array that they hold."""

    values: NDArray[np.int64]
    """Class indices of shape (number,)."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.values)

    def __getitem__(self, where: Places) -> "Labels":
        """Return the labels of some of the images."""
        return Labels(self.values[where])

    def __array__(self, dtype: "np.dtype[np.generic] | None" = None, copy: bool | None = None) -> NDArray[np.generic]:
        return self.values.astype(dtype or self.values.dtype, copy=bool(copy))

    def joined(self, other: "Labels") -> "Labels":
        """Return these labels and then the others."""
        return Labels(np.concatenate([self.values, other.values]))

    def at(self, size: InputSize) -> "Labels":
        """Return these labels: an image's class does not depend on its size."""
        return self

    def content(self) -> "Iterator[memoryview]":
        """Yield the bytes of the array."""
        yield np.ascontiguousarray(self.values).data

    def strata(self) -> NDArray[np.int64]:
        """Return the classes themselves: splits are stratified by class."""
        return self.values

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return the number of images of each class."""
        return np.bincount(self.values, minlength=classes)

    def tensor(self) -> "Tensor":
        """Return int64 (number,), which shares the array's memory."""
        import torch

        return torch.from_numpy(self.values)
