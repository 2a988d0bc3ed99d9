"""Pixels of an .npz file's arrays: 8-bit images of one size, in memory or mapped on disk, with their facts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.cache import Arrays, Put, cache_file, content_key, mapped_arrays
from scalesearch.data.depth import to_8_bits
from scalesearch.data.facts import (
    FLOAT,
    WHOLE,
    ImageFact,
    ImageFacts,
    as_arrays,
    from_arrays,
    gathered,
    joined,
    require_facts,
    sample_of,
)
from scalesearch.data.mapped import MappedImages
from scalesearch.data.memory import disk_note, goes_to_disk, not_written
from scalesearch.data.normalisation import Images
from scalesearch.data.npz_file import MAX_FRACTION, ArrayHeader, read_rows
from scalesearch.data.resize import resize_images
from scalesearch.errors import ConfigError
from scalesearch.host import available_bytes
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, WindowSetting

_CHUNK_IMAGES = 256
# Part of the cache key: raise it when a change to the code makes the same arrays give other pixels.
_VERSION = 1
Pixels = tuple[Images | MappedImages, ImageFacts]
"""The images of an array, and what they were like before."""


class NpzImages:
    """The image arrays of one file, which are read as the settings say; each name stands for one array."""

    def __init__(
        self, path: Path, headers: Mapping[str, ArrayHeader], settings: DataSettings, storage: InputSize
    ) -> None:
        """Take the headers of the image arrays, in the order of their splits."""
        self._path, self._headers, self._settings, self._storage = path, headers, settings, storage
        self._number = sum(header.shape[0] for header in headers.values())
        self._where = f"data {path}"

    def file(self, cache_folder: Path) -> Path:
        """Return the file on disk that holds the images, if they are left there."""
        status, settings = self._path.stat(), self._settings
        read = (self._storage, settings.window, settings.framing, tuple(self._headers))
        key = content_key(_VERSION, str(self._path.resolve()), status.st_size, status.st_mtime_ns, *read)
        return cache_file(cache_folder, f"npz-{key}")

    def stay_on_disk(self, cache_folder: Path) -> bool:
        """Tell whether the images are to be left on disk: they, or the arrays that they come from, are too large.

        Arrays in Fortran order cannot be read image by image; they are held in memory whatever the settings say.

        Raises:
            ConfigError: As `memory.goes_to_disk`.
        """
        on_disk = goes_to_disk(
            images=self._number,
            size=self._storage,
            where=self._where,
            memory=self._settings.memory,
            file=self.file(cache_folder),
        )
        streams = not any(header.fortran_order for header in self._headers.values())
        return streams and (on_disk or (self._settings.memory == "auto" and self._are_too_large()))

    def _are_too_large(self) -> bool:
        return sum(header.size_bytes for header in self._headers.values()) > MAX_FRACTION * available_bytes()

    def in_memory(self, name: str, array: NDArray[np.generic]) -> Pixels:
        """Return the images of an array (N, height, width) or (N, height, width, channels) that has been read."""
        where = f"{self._where}: {name}"
        stored = as_images(array, where)
        return self._resized(stored, where), facts_of(stored, len(stored))

    def mapped(self, cache_folder: Path) -> tuple[dict[str, Pixels], str]:
        """Return the images of all arrays, mapped, by the arrays' names, and a line that tells the user where they are.

        Raises:
            ConfigError: If an array is damaged or of a wrong type or shape, or the file cannot be written.
        """
        file = self.file(cache_folder)
        try:
            arrays = mapped_arrays(
                cache_folder,
                file.stem,
                self._make,
                rows="images",
                shape=(self._number, *self._storage.sides, 3),
                whole=self._require_whole,
            )
        except OSError as error:
            raise not_written(self._where, file, error) from error
        found, start = dict[str, Pixels](), 0
        stored: NDArray[np.uint8] = arrays["images"]  # type: ignore[assignment]  # as _require_whole has checked
        facts = from_arrays(arrays)
        for name, header in self._headers.items():
            places = np.arange(start, start + header.shape[0], dtype=np.int64)
            found[name] = MappedImages(stored, places=places), facts.part(places)
            start += header.shape[0]
        return found, self._note(file)

    def _note(self, file: Path) -> str:
        memory = self._settings.memory
        if memory == "auto" and self._are_too_large():
            return (
                f"{self._where}: its arrays take more than half of the memory available, so its images are read "
                f"from {file}"
            )
        return disk_note(images=self._number, size=self._storage, where=self._where, memory=memory, file=file)

    def _make(self, put: Put) -> Arrays:
        """Read the arrays part by part, give each image to `put`, and return the facts of all."""
        parts = []
        for name, header in self._headers.items():
            where = f"{self._where}: {name}"
            for rows in self._rows(name):
                stored = as_images(rows, where)
                parts.append(facts_of(stored, header.shape[0]))
                for image in self._resized(stored, where):
                    put(image)
        return as_arrays(joined(parts))

    def _rows(self, name: str) -> Iterator[NDArray[np.generic]]:
        try:
            yield from read_rows(self._path, name, _CHUNK_IMAGES)
        except (OSError, ValueError) as error:
            raise unreadable(self._path, error) from error

    def _resized(self, stored: NDArray[np.generic], where: str) -> Images:
        settings = self._settings
        return resize_images(to_bytes(stored, settings.window, where), self._storage, fit=settings.framing)

    def _require_whole(self, arrays: Arrays) -> None:
        images = arrays["images"]
        if images.dtype != np.uint8 or images.shape != (self._number, *self._storage.sides, 3):
            msg = f"{images.shape} {images.dtype} images"
            raise ValueError(msg)
        require_facts(arrays, self._number)


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Return the error that the file cannot be read."""
    return ConfigError(
        f"data {path}: expected a whole .npz file of plain arrays, came: {error}.\nWrite it anew with numpy.savez."
    )


def as_images(images: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    """Return images (number, height, width) or (number, height, width, 1 or 3) with their channels as an axis.

    Raises:
        ConfigError: If they are of another shape, or no numbers.
    """
    if images.dtype.kind not in "buif":
        msg = f"{where}: expected numbers (uint8, other whole numbers or floats), came {images.dtype}."
        raise ConfigError(msg)
    grey = images[..., None] if images.ndim == 3 else images
    if grey.ndim != 4 or grey.shape[-1] not in (1, 3) or 0 in grey.shape:
        planes_first = images.ndim == 4 and images.shape[1] in (1, 3)
        advice = " Bring the channels to the end: images.transpose(0, 2, 3, 1)." if planes_first else ""
        msg = f"{where}: expected number x height x width (x 1 or 3), came {images.shape}.{advice}"
        raise ConfigError(msg)
    return grey


def to_bytes(images: NDArray[np.generic], window: WindowSetting, where: str) -> Images:
    """Convert images (number, height, width, C) to bytes (number, height, width, 3); masks become black and white."""
    narrow: Images = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK_IMAGES):
        chunk = images[start : start + _CHUNK_IMAGES]
        if images.dtype == np.uint8 or images.dtype.kind == "b":
            narrow[start : start + _CHUNK_IMAGES] = chunk if images.dtype == np.uint8 else 255 * chunk.astype(np.uint8)
            continue
        try:
            narrow[start : start + _CHUNK_IMAGES] = to_8_bits(chunk, window)
        except ValueError as error:
            msg = f"{where}: expected numbers that are all finite, came {error}.\n"
            if np.isfinite(chunk).all():
                msg = f"{where}: expected floats in 0..1, as data.window=full has it, came others.\n"
                msg += "Take --set data.window=auto, or give their range: --set data.window=[LOW,HIGH]"
            else:
                msg += "Leave those images out, or give the pixels a value: numpy.nan_to_num(images)."
            raise ConfigError(msg) from None
    return narrow if narrow.shape[-1] == 3 else np.repeat(narrow, 3, axis=-1)


def facts_of(images: NDArray[np.generic], number: int) -> ImageFacts:
    """Return the facts of images (some, height, width, C), which are some of `number` images in all."""
    height, width = images.shape[1:3]
    if images.dtype != np.uint8 and images.dtype.kind != "b":
        kind = FLOAT if images.dtype.kind == "f" else WHOLE
        facts = [ImageFact(size=(width, height), kind=kind, sample=sample_of(each, images=number)) for each in images]
        return gathered(facts)
    return gathered([ImageFact(size=(width, height))] * len(images))
