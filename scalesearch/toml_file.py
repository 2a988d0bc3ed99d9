"""Read TOML files that users wrote; every fault of the text is reported as a ValueError."""

import tomllib
from pathlib import Path
from typing import Any

from scalesearch.files import read_file

MAX_FILE_BYTES = 16 * 2**20
"""More bytes than a run.toml, config.toml or space has. tomllib needs some hundred times a file's size in memory."""


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document into nested dicts.

    Raises:
        ValueError: It is not TOML, nests too deep, or holds a number of thousands of digits.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        message = "it nests too deep"
        raise ValueError(message) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file into nested dicts.

    Raises:
        OSError: The file is not there, or cannot be read.
        ValueError: It is not a regular file, too large, or not TOML in UTF-8.
    """
    return parse_toml(read_file(path, max_bytes=MAX_FILE_BYTES).decode())
