"""The file of a table: JSON lines that only grow, so that a stopped run loses nothing but what was in work."""

import gzip
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]
KEYS: dict[str, tuple[str, ...]] = {
    "about": (),
    "network": ("network",),
    "accuracy": ("network", "precision", "steps", "seed"),
    "latency": ("network", "precision", "process"),
}
"""Kinds of lines, with the fields of which a kind has one line for each combination."""
FIXED = ("data", "val_images", "test_images", "space")
"""Fields of the line `about` that may not change while a table is made."""


def key_of(line: Line) -> tuple[Any, ...]:
    """Return what a line is about: its kind and the fields by which it is found."""
    return (line["kind"], *(line[field] for field in KEYS[line["kind"]]))


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a file, packed (`.gz`) or not; torn lines and repeats of a line are left out.

    Raises:
        OSError: The file cannot be read.
    """
    held = path.read_bytes()
    text = (gzip.decompress(held) if path.suffix == ".gz" else held).decode("utf-8", errors="replace")
    parsed = [line for line in map(_parsed, text.splitlines()) if line]
    first = dict[tuple[Any, ...], Line]()
    for line in parsed:
        first.setdefault(key_of(line), line)
    return list(first.values())


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return None
    return line if isinstance(line, dict) and line.get("kind") in KEYS else None


class Lines:
    """The file of a table that is being made.

    Args:
        path: The file; it is made where there is none.
        about: What the table is about; a file that was begun with other data or another space is refused.

    Raises:
        SystemExit: The file was begun with something else.
    """

    def __init__(self, path: Path, about: Line) -> None:
        self._path = path
        self.all = read_lines(path) if path.exists() else []
        self._keys = {key_of(line) for line in self.all}
        begun = next((line for line in self.all if line["kind"] == "about"), None)
        if begun is None:
            self.add([{"kind": "about", **about}])
        elif differing := [name for name in FIXED if begun.get(name) != about.get(name)]:
            message = f"{path} was begun with another {' and '.join(differing)}: give another --to, or the same --data"
            raise SystemExit(message)

    def has(self, *key: Any) -> bool:
        """Tell whether there is a line with this kind and these fields."""
        return key in self._keys

    def add(self, lines: Iterable[Line]) -> None:
        """Append lines; they are on disk when this returns."""
        lines = list(lines)
        append(self._path, lines)
        self.all += lines
        self._keys.update(map(key_of, lines))


def append(path: Path, lines: Iterable[Line]) -> None:
    """Append lines to a file; they are on disk when this returns. A line that a kill tore before is closed first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            file.write(b"" if file.read() == b"\n" else b"\n")
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def pack(path: Path, to: Path) -> int:
    """Write the file compressed, with the same bytes for the same lines, and return its size in bytes."""
    part = to.with_name(to.name + ".part")
    part.write_bytes(gzip.compress(path.read_bytes(), compresslevel=9, mtime=0))
    part.replace(to)
    return to.stat().st_size
