"""Makes Markdown from foreign words, so that nothing in them is taken for markup."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence


def markdown_text(text: str) -> str:
    """Return a user's words as plain text in Markdown: no HTML, no markup, no broken table cell or line."""
    flat = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return re.sub(r"([\\`*_{}\[\]()#!|~$])", r"\\\1", html.escape(flat, quote=False))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; the cells must be Markdown already."""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"
