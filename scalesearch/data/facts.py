"""What image files held before they became 8-bit pixels of one size: their size, depth and a sample of their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Kinds of pixels. CUT: files with 16 bits a colour, of which Pillow gives only the upper 8.
EIGHT_BITS: Final = 0
WHOLE: Final = 1
FLOAT: Final = 2
CUT: Final = 3

# All samples together take only a few megabytes, yet enough values of each image are kept.
_SAMPLED_VALUES = 2**20
_FEWEST_AN_IMAGE, _MOST_AN_IMAGE = 64, 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFacts:
    """Facts about the images of a split, in the same order."""

    sizes: NDArray[np.int32]
    """(number, 2): width and height in pixels, after the image was turned upright."""
    kinds: NDArray[np.uint8]
    """(number,): EIGHT_BITS, WHOLE, FLOAT or CUT."""
    samples: NDArray[np.float64]
    """(number, 2 + values): smallest and largest value, then values drawn at random; (number, 0) if all are 8-bit."""

    def part(self, where: NDArray[np.bool_] | NDArray[np.int64]) -> "ImageFacts":
        """Return the facts of some of the images.

        Args:
            where: A mask of shape (number,), or the indices of the images.
        """
        return ImageFacts(sizes=self.sizes[where], kinds=self.kinds[where], samples=self.samples[where])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFact:
    """Facts about one image."""

    size: tuple[int, int]
    kind: int = EIGHT_BITS
    sample: NDArray[np.float64] | None = None


def joined(parts: Sequence[ImageFacts]) -> ImageFacts:
    """Join the facts of several parts in their order; images of parts without a sample get one of zeros."""
    width = max(part.samples.shape[1] for part in parts)
    samples = [part.samples if part.samples.shape[1] == width else np.zeros((len(part.kinds), width)) for part in parts]
    return ImageFacts(
        sizes=np.concatenate([part.sizes for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
        samples=np.concatenate(samples),
    )


def gathered(facts: Sequence[ImageFact]) -> ImageFacts:
    """Put the facts of single images together into arrays."""
    width = max((len(fact.sample) for fact in facts if fact.sample is not None), default=0)
    samples = np.zeros((len(facts), width))
    for row, fact in zip(samples, facts, strict=True):
        if fact.sample is not None:
            row[:] = fact.sample
    return ImageFacts(
        sizes=np.asarray([fact.size for fact in facts], np.int32).reshape(-1, 2),
        kinds=np.asarray([fact.kind for fact in facts], np.uint8),
        samples=samples,
    )


def as_arrays(facts: ImageFacts) -> dict[str, NDArray[np.generic]]:
    """Return the facts as named arrays, to be stored in a file."""
    return {"sizes": facts.sizes, "kinds": facts.kinds, "samples": facts.samples}


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> ImageFacts:
    """Make facts from the arrays that `as_arrays` returned."""
    return ImageFacts(
        sizes=arrays[f"{prefix}sizes"].astype(np.int32),
        kinds=arrays[f"{prefix}kinds"].astype(np.uint8),
        samples=arrays[f"{prefix}samples"].astype(np.float64),
    )


def require_facts(arrays: Mapping[str, NDArray[np.generic]], images: int, prefix: str = "") -> None:
    """Check that stored arrays are the facts of the given number of images.

    Args:
        arrays: `sizes` of shape (images, 2) in int32, `kinds` of shape (images,) in uint8, and `samples` of shape
            (images, values) in float64; other arrays are ignored.
        images: Number of images.
        prefix: Beginning of the names of the three arrays.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array has another shape or type.
    """
    sizes, kinds, samples = (arrays[f"{prefix}{name}"] for name in ("sizes", "kinds", "samples"))
    fit = sizes.shape == (images, 2) and kinds.shape == (images,) and samples.ndim == 2 and len(samples) == images
    if not fit or sizes.dtype != np.int32 or kinds.dtype != np.uint8 or samples.dtype != np.float64:
        msg = f"facts of shape {sizes.shape}, {kinds.shape}, {samples.shape} of {images} images"
        raise ValueError(msg)


def sample_of(values: NDArray[np.generic], *, images: int) -> NDArray[np.float64]:
    """Return the smallest and the largest value of an image, and some values drawn evenly at random.

    Args:
        values: The values of one image, of any shape.
        images: Number of images in all; the more there are, the fewer values are drawn from each (64 to 4096).

    Returns:
        Values of shape (2 + drawn,).
    """
    count = min(max(_SAMPLED_VALUES // max(images, 1), _FEWEST_AN_IMAGE), _MOST_AN_IMAGE)
    flat = values.ravel()
    # The seed is fixed: which values are drawn depends only on the sizes, so equal sets give equal windows.
    drawn = flat[np.random.default_rng(0).integers(0, flat.size, count)]
    return np.concatenate([[flat.min(), flat.max()], drawn]).astype(np.float64)
