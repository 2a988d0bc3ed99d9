"""Read .npz files that others wrote or that a disk damaged: return plain arrays, or raise an error with the reason."""

import errno
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scalesearch.memory import available_bytes

MAX_FRACTION = 0.5
"""Share of the available memory that all arrays of a file together may take."""
_MAX_NAMES = 10_000
_CHUNK_BYTES = 2**20
# Of the header before each member of a zip file.
_LOCAL_HEADER_BYTES, _NAME_LENGTH_AT = 30, 26
_PLAIN = frozenset("biufcSU")
# What zipfile, its decompressors and NumPy's header reader raise on damaged files, found by damaging files (benchmarks/
# fuzz.py). RuntimeError means that the file is encrypted, or was changed while it was read.
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
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_arrays(path: Path, *, mapped: Collection[str] = ()) -> dict[str, NDArray[np.generic]]:
    """Read every array of the file.

    The headers are compared with the sizes in the file before memory is taken for what they promise.

    Args:
        path: The .npz file.
        mapped: Names of arrays that are mapped into memory instead: they cannot be written to, take no memory, and are
            read from the file when their elements are. They must be stored uncompressed. Their checksums are compared,
            too.

    Raises:
        OSError: If the file is not there, or cannot be read.
        ValueError: If it is not a complete .npz file of plain arrays, or does not fit into memory; the message is meant
            for the user.
    """
    if path.exists() and not path.is_file():
        message = "it is no plain file"
        raise ValueError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of odd headers, which are checked here
            return _read(path, mapped)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # Errors of lzma and bz2 have no errno. "Invalid argument" means that a damaged number in the file gave an
        # impossible position.
        message = f"the file is damaged ({error})"
        raise ValueError(message) from None
    except _RefusedError as error:
        raise ValueError(str(error)) from None
    except _DAMAGE as error:
        message = f"the file is damaged ({(str(error).splitlines() or [type(error).__name__])[0][:200]})"
        raise ValueError(message) from None


class _RefusedError(Exception):
    """The file is refused; the text of the error says why."""


def _read(path: Path, mapped: Collection[str]) -> dict[str, NDArray[np.generic]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members if _name(member) not in mapped)
        available = available_bytes()
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
        arrays: dict[str, NDArray[np.generic]] = {}
        for member in members:
            with archive.open(member) as stream:
                if _name(member) in mapped:
                    arrays[_name(member)] = _mapped(path, member, stream)
                    while stream.read(_CHUNK_BYTES):
                        pass
                    continue
                arrays[_name(member)] = npy.read_array(stream, allow_pickle=False)
                stream.read(1)  # reading to the end makes zipfile compare the checksum
        return arrays


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _mapped(path: Path, member: zipfile.ZipInfo, stream: IO[bytes]) -> NDArray[np.generic]:
    """Map a stored member of the file, whose bytes lie behind the name and the extra field of its local header."""
    if member.compress_type != zipfile.ZIP_STORED:
        message = f"the array {member.filename[:80]!r} is compressed, so it cannot be mapped"
        raise _RefusedError(message)
    shape, fortran_order, dtype, header_bytes = _header(stream)
    with path.open("rb") as file:
        file.seek(member.header_offset + _NAME_LENGTH_AT)
        name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
    offset = member.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes + header_bytes
    return np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order="F" if fortran_order else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    """Return the shape, order and type of an array, and how many bytes its header takes."""
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    return shape, fortran_order, dtype, stream.tell()


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise an error if a member is not a plain array, or its header does not match the bytes that it holds."""
    with archive.open(member) as stream:
        shape, _, dtype, header_bytes = _header(stream)
    if dtype.hasobject or dtype.names or dtype.kind not in _PLAIN:
        message = f"the array {member.filename[:80]!r} holds {str(dtype)[:80]}, expected plain numbers or texts"
        raise _RefusedError(message)
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != member.file_size - header_bytes:
        message = (
            f"the array {member.filename[:80]!r} says {dtype} {str(shape)[:80]} and holds "
            f"{member.file_size - header_bytes} bytes"
        )
        raise _RefusedError(message)
