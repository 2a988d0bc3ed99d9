"""Find pictures of two splits that look alike: frames of one film, or a picture that was saved again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.dataset import ImageSplit
from scalesearch.data.framing import covered_part
from scalesearch.data.resize import rows_of_chunk
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

MOST_BITS: Final = 6
"""Two pictures are compared in full only if no more than this many of the 64 bits of their hashes differ."""
MOST_DIFFERENCE: Final = 0.12
"""Largest mean difference of two thumbnails of one picture, in standard deviations of their pixels."""
_LEAST_DEVIATION: Final = 4.0
"""Least standard deviation of a picture that is compared: pictures of nearly one colour all look alike."""
_SIDE: Final = 16
_SAMPLES: Final = 4  # pixels along a side that are averaged into one of the thumbnail
_MOST_PAIRS: Final = 400_000_000
_PAIRS_AT_ONCE: Final = 4_000_000
_COMPARED_AT_ONCE: Final = 4096
_SHOWN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Looks:
    """Thumbnails and hashes of pictures, by which those that look alike are found."""

    thumbnails: NDArray[np.float32]
    """(number, 256): 16 x 16 grey pixels, less their mean and divided by their standard deviation."""
    hashes: NDArray[np.uint64]
    """(number,): which of 8 x 8 cells are brighter than the mean."""
    flat: NDArray[np.bool_]
    """(number,): whether the picture is nearly of one colour."""


def near_copy_warnings(splits: Mapping[str, Sequence[ImageSplit]], *, name: str, fit: Fit) -> tuple[str, ...]:
    """Warn of images of a split that look like images of an earlier split, with two examples.

    Args:
        splits: The splits by name, the one that is trained on first. One of several parts (images to train on and those
            to calibrate on) counts as one.
        name: Name of the data set, for the warnings.
        fit: How the images were brought to one size: the bars of `pad`, which all images share, are not looked at.
    """
    looks = {split: _joined([_looks(part, fit) for part in parts]) for split, parts in splits.items()}
    warnings, names = [], list(splits)
    for at, second in enumerate(names):
        for first in names[:at]:
            asked, some = _asked(looks[first], looks[second])
            pairs = list(_pairs(looks[first], looks[second], asked))
            if pairs:
                number = f"the {len(asked)}" if some else str(len(looks[second].hashes))
                compared = " that were compared" if some else ""
                shown = "; ".join(
                    f"{_called(splits[second], mine, second)} like {_called(splits[first], theirs, first)}"
                    for mine, theirs in pairs[:_SHOWN]
                )
                warnings.append(
                    f"data {name}: {len(pairs)} of {number} images of {second}{compared} look like images of {first}, "
                    f"e.g. {shown}: the score on {second} will be too high; data.group_by keeps the frames of a film "
                    "in one split"
                )
    return tuple(warnings)


def _looks(split: ImageSplit, fit: Fit) -> _Looks:
    thumbnails = np.empty((len(split), _SIDE * _SIDE), np.float32)
    step = rows_of_chunk(split.images.shape)
    for places, rows, columns in _looked_at(split, fit):
        for start in range(0, len(places), step):
            some = places[start : start + step]
            pixels = split.images[some][:, rows[:, None], columns]
            cells = pixels.reshape(len(some), _SIDE, _SAMPLES, _SIDE, _SAMPLES * pixels.shape[3])
            thumbnails[some] = cells.mean(axis=(2, 4), dtype=np.float32).reshape(len(some), -1)
    deviation = thumbnails.std(axis=1)
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    cells = centred.reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4)).reshape(-1, 64)
    bits = np.packbits(cells > 0, axis=1)
    return _Looks(
        thumbnails=centred / np.maximum(deviation, 1e-6)[:, None],
        hashes=bits.view(np.uint64)[:, 0] if len(bits) else np.empty(0, np.uint64),
        flat=deviation < _LEAST_DEVIATION,
    )


def _joined(parts: Sequence[_Looks]) -> _Looks:
    return _Looks(
        thumbnails=np.concatenate([part.thumbnails for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
        flat=np.concatenate([part.flat for part in parts]),
    )


def _looked_at(split: ImageSplit, fit: Fit) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the indices of images of one size, and the rows and columns at which they are looked at."""
    _, height, width, _ = (int(side) for side in split.images.shape)
    if fit != "pad" or split.facts is None:
        yield np.arange(len(split)), _samples(height, 0.0, 1.0), _samples(width, 0.0, 1.0)
        return
    sizes, size_of = np.unique(split.facts.sizes, axis=0, return_inverse=True)
    for number, (own_width, own_height) in enumerate(sizes.tolist()):
        storage = InputSize(height_px=height, width_px=width)
        top, left, bottom, right = covered_part(own_height, own_width, storage, fit)
        yield np.flatnonzero(size_of.ravel() == number), _samples(height, top, bottom), _samples(width, left, right)


def _samples(side: int, first: float, last: float) -> NDArray[np.int64]:
    """Return the places of evenly spaced pixels between two fractions of a side, several for each of a thumbnail's."""
    number = _SIDE * _SAMPLES
    return ((first + (np.arange(number) + 0.5) / number * (last - first)) * side).astype(np.int64)


def _asked(first: _Looks, second: _Looks) -> tuple[NDArray[np.int64], bool]:
    """Return the images of the second split to compare, and whether these are only some, evenly spaced, of very many.

    Those of nearly one colour are never compared.
    """
    every = np.flatnonzero(~second.flat)
    most = max(1, _MOST_PAIRS // max(1, len(first.hashes)))
    if len(every) <= most:
        return every, False
    return every[np.linspace(0, len(every) - 1, most).astype(np.int64)], True


def _pairs(first: _Looks, second: _Looks, asked: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (image of the second split, image of the first that it looks most like), once for each such image.

    Only the images `asked` of the second split are compared.
    """
    step = max(1, _PAIRS_AT_ONCE // max(1, len(first.hashes)))
    for start in range(0, len(asked), step):
        some = asked[start : start + step]
        bits = np.bitwise_count(second.hashes[some, None] ^ first.hashes[None])
        mine, theirs = np.nonzero((bits <= MOST_BITS) & ~first.flat)
        if not len(mine):
            continue
        differences = np.concatenate(
            [
                np.abs(second.thumbnails[some[mine[part]]] - first.thumbnails[theirs[part]]).mean(axis=1)
                for part in (slice(at, at + _COMPARED_AT_ONCE) for at in range(0, len(mine), _COMPARED_AT_ONCE))
            ]
        )
        alike = differences <= MOST_DIFFERENCE
        for place in np.unique(mine[alike]):
            likeliest = np.flatnonzero(alike & (mine == place))
            best = likeliest[differences[likeliest].argmin()]
            yield int(some[place]), int(theirs[best])


def _called(parts: Sequence[ImageSplit], place: int, name: str) -> str:
    """Return the file name of an image, or its number in the split if the split has no file names."""
    shown, at = f"image {place} of {name}", place
    for part in parts:
        if at < len(part):
            return shown if part.names is None else str(part.names[at])
        at -= len(part)
    return shown
