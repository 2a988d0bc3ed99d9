"""What image files held before they became 8-bit squares: their size, their depth and a sample of their values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Kinds of pixels. CUT: 16 bits a colour, of which Pillow gives the upper 8.
EIGHT_BITS: Final = 0
WHOLE: Final = 1
FLOAT: Final = 2
CUT: Final = 3

# All samples together stay at a few megabytes, yet each image shows enough of itself.
_SAMPLED_VALUES = 2**20
_FEWEST_AN_IMAGE, _MOST_AN_IMAGE = 64, 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFacts:
    """Facts of the images of a split, in its order."""

    sizes: NDArray[np.int32]
    """(number, 2): width and height in pixels, upright."""
    kinds: NDArray[np.uint8]
    """(number,): EIGHT_BITS, WHOLE, FLOAT or CUT."""
    samples: NDArray[np.float64]
    """(number, 2 + values): smallest and largest value, then values drawn at random; (number, 0) if all are 8-bit."""

    def part(self, where: NDArray[np.bool_] | NDArray[np.int64]) -> "ImageFacts":
        """Those of some of the images."""
        return ImageFacts(sizes=self.sizes[where], kinds=self.kinds[where], samples=self.samples[where])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFact:
    """Facts of one image."""

    size: tuple[int, int]
    kind: int = EIGHT_BITS
    sample: NDArray[np.float64] | None = None


def joined(parts: Sequence[ImageFacts]) -> ImageFacts:
    """One after the other; parts without a sample get an empty one."""
    width = max(part.samples.shape[1] for part in parts)
    samples = [part.samples if part.samples.shape[1] == width else np.zeros((len(part.kinds), width)) for part in parts]
    return ImageFacts(
        sizes=np.concatenate([part.sizes for part in parts]),
        kinds=np.concatenate([part.kinds for part in parts]),
        samples=np.concatenate(samples),
    )


def gathered(facts: Sequence[ImageFact]) -> ImageFacts:
    """The facts of single images as arrays."""
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
    """The facts by name, to be kept in a file."""
    return {"sizes": facts.sizes, "kinds": facts.kinds, "samples": facts.samples}


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], prefix: str = "") -> ImageFacts:
    """The facts that `as_arrays` took apart."""
    return ImageFacts(
        sizes=arrays[f"{prefix}sizes"].astype(np.int32),
        kinds=arrays[f"{prefix}kinds"].astype(np.uint8),
        samples=arrays[f"{prefix}samples"].astype(np.float64),
    )


def require_facts(arrays: Mapping[str, NDArray[np.generic]], images: int, prefix: str = "") -> None:
    """Raise ValueError or KeyError where stored arrays are not the facts of so many images."""
    sizes, kinds, samples = (arrays[f"{prefix}{name}"] for name in ("sizes", "kinds", "samples"))
    fit = sizes.shape == (images, 2) and kinds.shape == (images,) and samples.ndim == 2 and len(samples) == images
    if not fit or sizes.dtype != np.int32 or kinds.dtype != np.uint8 or samples.dtype != np.float64:
        msg = f"facts of shape {sizes.shape}, {kinds.shape}, {samples.shape} of {images} images"
        raise ValueError(msg)


def sample_of(values: NDArray[np.generic], *, images: int) -> NDArray[np.float64]:
    """Smallest and largest value of an image, and some drawn evenly at random, as many as one of `images` may show."""
    count = min(max(_SAMPLED_VALUES // max(images, 1), _FEWEST_AN_IMAGE), _MOST_AN_IMAGE)
    flat = values.ravel()
    # One seed: the places depend on nothing but the size, so that equal sets give equal windows.
    drawn = flat[np.random.default_rng(0).integers(0, flat.size, count)]
    return np.concatenate([[flat.min(), flat.max()], drawn]).astype(np.float64)
