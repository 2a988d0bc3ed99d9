"""Read .npz files that others wrote or a disk damaged: plain arrays, whole or in rows, or an error that says why."""

import errno
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from scalesearch.host import available_bytes

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayHeader:
    """What a file states about one of its arrays, before the array is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    """Whether the first axis changes fastest; the array then cannot be read row by row."""

    @property
    def size_bytes(self) -> int:
        """Memory that the array takes as a whole."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(
    path: Path, *, mapped: Collection[str] = (), left_out: Collection[str] = ()
) -> dict[str, NDArray[np.generic]]:
    """Read every array of the file.

    The headers are compared with the sizes in the file before memory is taken for what they promise.

    Args:
        path: The .npz file.
        mapped: Names of arrays that are mapped into memory instead: they cannot be written to, take no memory, and are
            read from the file when their elements are. They must be stored uncompressed. Their checksums are compared,
            too.
        left_out: Names of arrays that are not read at all.

    Raises:
        OSError: If the file is not there, or cannot be read.
        ValueError: If it is not a complete .npz file of plain arrays, or does not fit into memory; the message is meant
            for the user.
    """
    with _told(path):
        return _read(path, mapped, left_out)


def read_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the headers of the file's arrays, by the arrays' names; no array is read.

    Raises:
        OSError: As `read_arrays`.
        ValueError: As `read_arrays`, except that the arrays need not fit into memory.
    """
    with _told(path), zipfile.ZipFile(path) as archive:
        return {_name(member): _check_header(archive, member) for member in _members(archive)}


def read_rows(path: Path, name: str, rows: int) -> Iterator[NDArray[np.generic]]:
    """Yield an array of the file in parts of `rows` rows, none of which is kept in memory; it may be compressed.

    Args:
        path: The .npz file.
        name: Name of an array that is not in Fortran order.
        rows: Number of rows in each part; the last part may have fewer.

    Raises:
        OSError: As `read_arrays`.
        ValueError: If the file is damaged, which may be found after the last row: the checksum is compared there.
    """
    with _told(path), zipfile.ZipFile(path) as archive:
        member = next(member for member in reversed(_members(archive)) if _name(member) == name)
        header = _check_header(archive, member)
        row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
        with archive.open(member) as stream:
            _header(stream)
            for start in range(0, header.shape[0], rows):
                count = min(rows, header.shape[0] - start)
                content = stream.read(count * row_bytes)
                if len(content) != count * row_bytes:
                    message = "an array ends too early"
                    raise EOFError(message)
                yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])
            stream.read(1)  # reading to the end makes zipfile compare the checksum


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn any error that is raised for a damaged file into one that says so."""
    if path.exists() and not path.is_file():
        message = "it is no plain file"
        raise ValueError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of odd headers, which are checked here
            yield
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


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_NAMES:
        message = f"it holds {len(members)} arrays, expected at most {_MAX_NAMES}"
        raise _RefusedError(message)
    return members


def _read(path: Path, mapped: Collection[str], left_out: Collection[str]) -> dict[str, NDArray[np.generic]]:
    with zipfile.ZipFile(path) as archive:
        members = [member for member in _members(archive) if _name(member) not in left_out]
        unpacked = sum(member.file_size for member in members if _name(member) not in mapped)
        available = available_bytes()
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
    """Map an uncompressed member of the file, whose bytes follow the name and extra field of its local header."""
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


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHeader:
    """Return the header of a member; raise an error if it is no plain array, or the header does not match its bytes."""
    with archive.open(member) as stream:
        shape, fortran_order, dtype, header_bytes = _header(stream)
    if dtype.hasobject or dtype.names or dtype.kind not in _PLAIN:
        message = f"the array {member.filename[:80]!r} holds {str(dtype)[:80]}, expected plain numbers or texts"
        raise _RefusedError(message)
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != member.file_size - header_bytes:
        message = (
            f"the array {member.filename[:80]!r} says {dtype} {str(shape)[:80]} and holds "
            f"{member.file_size - header_bytes} bytes"
        )
        raise _RefusedError(message)
    return ArrayHeader(shape=shape, dtype=dtype, fortran_order=fortran_order)
