"""Reads TOML that others wrote: whatever is wrong with a file, there is one kind of error for it."""

import tomllib
from pathlib import Path
from typing import Any

from scalesearch.files import read_file

MAX_FILE_BYTES = 16 * 2**20
"""Above what any run.toml, config.toml or space holds: tomllib takes some hundred times a file's size in memory."""


def parse_toml(text: str) -> dict[str, Any]:
    """The document as nested dicts.

    Raises:
        ValueError: It is no TOML, nests too deep, or holds a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        message = "it nests too deep"
        raise ValueError(message) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The file as nested dicts.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no plain file, too large, or no TOML in UTF-8.
    """
    return parse_toml(read_file(path, max_bytes=MAX_FILE_BYTES).decode())
