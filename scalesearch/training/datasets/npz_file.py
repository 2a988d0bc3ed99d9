"""Reads .npz files that others wrote, or that a disk damaged: plain arrays, or one kind of error with its reason."""

import errno
import math
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scalesearch.memory import available_bytes

MAX_FRACTION = 0.5
"""Of the memory that is available, for all arrays of a file together."""
_MAX_NAMES = 10_000
_PLAIN = frozenset("biufcSU")
# What zipfile, its decompressors and NumPy's header reader raise on damaged files, found by damaging them (benchmarks/
# fuzz.py); RuntimeError: encrypted, or changed meanwhile.
_DAMAGE = (
    EOFError,
    ImportError,  # a compression whose module Python was built without
    IndexError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """Every array of the file. Headers are compared with the sizes before memory is taken for what they promise.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no whole .npz file of plain arrays, or does not fit into memory; the text is for the user.
    """
    if path.exists() and not path.is_file():
        message = "it is no plain file"
        raise ValueError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's of odd headers, which are judged here
            return _read(path)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # lzma's and bz2's errors know no file; an invalid argument is a place in the file that a damaged number names.
        message = f"the file is damaged ({error})"
        raise ValueError(message) from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except _DAMAGE as error:
        message = f"the file is damaged ({(str(error).splitlines() or [type(error).__name__])[0][:200]})"
        raise ValueError(message) from None


class _RefusedError(Exception):
    """Its text says all."""


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked, available = sum(member.file_size for member in members), available_bytes()
        if len(members) > _MAX_NAMES:
            message = f"it holds {len(members)} arrays, expected at most {_MAX_NAMES}"
            raise _RefusedError(message)
        if unpacked > MAX_FRACTION * available:
            message = (
                f"it unpacks to {unpacked / 1e9:.1f} GB, expected at most half of the {available / 1e9:.1f} GB of "
                "memory available; use fewer or smaller images"
            )
            raise _RefusedError(message)
        for member in members:
            _check_header(archive, member)
        arrays = {}
        for member in members:
            with archive.open(member) as stream:
                arrays[member.filename.removesuffix(".npy")] = npy.read_array(stream, allow_pickle=False)
                stream.read(1)  # at the end zipfile compares the checksum
        return arrays


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise where a member is no plain array, or promises more (or less) than it holds."""
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        header_bytes = stream.tell()
    if dtype.hasobject or dtype.names or dtype.kind not in _PLAIN:
        message = f"the array {member.filename[:80]!r} holds {str(dtype)[:80]}, expected plain numbers or texts"
        raise _RefusedError(message)
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != member.file_size - header_bytes:
        message = (
            f"the array {member.filename[:80]!r} says {dtype} {str(shape)[:80]} and holds "
            f"{member.file_size - header_bytes} bytes"
        )
        raise _RefusedError(message)
