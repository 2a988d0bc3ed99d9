"""Consoles and tables for screens of any width, which print texts literally.

Nothing in a text is taken for markup, for an emoji's name, or for a control code. On a narrow screen, the least
important columns of a table are left out first, never the first column.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 120
NARROW = 60
"""On screens with fewer columns than this, the values of a list stand below their names."""
_LEAST_WIDTH = 20
_LEAST_FOLDED = 12
_SIZES = ("COLUMNS", "LINES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table, and how it behaves on a narrow screen."""

    head: str
    keep: int
    """How important the column is; the least important one is left out first."""
    right: bool = False
    folds: bool = False
    """Whether its text is long and may be broken into lines."""


def usable_sizes(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without COLUMNS and LINES where these are not numbers above 0."""
    return {key: value for key, value in environment.items() if key not in _SIZES or _is_size(value)}


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text[:9]) > 0


def command_word(path: Path | str) -> str:
    """Return the path as one word for a shell, for a command that is shown to be typed."""
    text = str(path)
    # With a leading hyphen it would be taken for an option.
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def wide_console() -> "Console":
    """Return a console for stdout; it is wide where stdout is a file or a pipe."""
    from scalesearch.cli.console import PlainConsole

    environment = usable_sizes(os.environ)
    console = PlainConsole(_environ=environment)
    if not console.is_terminal and "COLUMNS" not in environment:
        console.width = PIPED_WIDTH  # Rich takes 80 for a pipe or a file, and folds every cell
    console.width = max(console.width, _LEAST_WIDTH)
    return console


def print_table(
    console: "Console", columns: Sequence[Column], rows: Sequence[Sequence[str]], *, title: str = ""
) -> None:
    """Print the rows under their headers, and a line that names the columns for which there was no room."""
    table, left_out = fitted(console.width, columns, rows)
    if title:
        console.print(title, markup=False, highlight=False, style="italic")
    console.print(table)
    print_left_out(console, left_out)


def print_left_out(console: "Console", left_out: Sequence[str]) -> None:
    """Print the names of the columns that a narrow screen has no room for."""
    if left_out:
        names = ", ".join(" ".join(name.split()) for name in left_out)
        console.print(f"no room here for: {names} (a wider screen shows them)", markup=False, highlight=False)


def fitted(
    width: int,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    bold: Sequence[int] = (),
    ruled: bool = False,
) -> "tuple[Table, tuple[str, ...]]":
    """Return a table that is at most `width` wide, and the headers of the columns that were left out to fit.

    Args:
        width: Width in characters.
        columns: At least one.
        rows: Cells as plain text, any number of lines each.
        bold: Positions of the rows to print in bold.
        ruled: With a line under the header. It takes a character at each side, and one more between columns.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    places = shown(width - ruled * (len(columns) + 1), columns, rows)
    table = Table(
        box=box.SIMPLE_HEAD if ruled else None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=ruled
    )  # fmt: skip
    for place in places:
        column = columns[place]
        overflow = "fold" if column.folds or len(places) == 1 else "ellipsis"
        table.add_column(
            Text(column.head), justify="right" if column.right else "left", overflow=overflow,  # type: ignore[arg-type]
            no_wrap=overflow != "fold",
        )  # fmt: skip
    for number, row in enumerate(rows):
        table.add_row(*(Text(row[place]) for place in places), style="bold" if number in bold else "")
    return table, tuple(column.head for place, column in enumerate(columns) if place not in places)


def shown(width: int, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the positions of the columns that fit side by side.

    The least important ones are left out until the others fit.
    """
    needed = [_width(column, [row[place] for row in rows]) for place, column in enumerate(columns)]
    places = list(range(len(columns)))
    while len(places) > 1 and sum(needed[place] + 1 for place in places) > width:
        places.remove(min(places, key=lambda place: (columns[place].keep, -place)))
    return places


def _width(column: Column, cells: Sequence[str]) -> int:
    from rich.cells import cell_len

    widest = max(cell_len(line) for text in (column.head, *cells) for line in (text.split("\n") or [""]))
    return min(widest, max(_LEAST_FOLDED, max(map(cell_len, column.head.split())))) if column.folds else widest
