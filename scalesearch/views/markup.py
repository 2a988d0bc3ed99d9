"""Decides how texts get into pages: escaped for HTML, for JSON inside a script element, and for Markdown."""

import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def text(value: object) -> str:
    """Return `value` as HTML text or attribute value.

    Names of classes, studies and files come from the user and may hold HTML.
    """
    # U+2028 and U+2029 end a line in some readers; control characters are not legal in HTML at all.
    words = "".join(mark if mark.isprintable() else " " for mark in str(value))
    return html.escape(words, quote=True)


def prose(words: object) -> str:
    """Return the words as `text` does, with everything between two backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text(words))


def script_json(value: Any) -> str:
    """Return `value` as JSON that cannot end a script element.

    It has no `<`, `>` or `&`, and no Unicode line separator.
    """
    dumped = json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    """Return `value` with None for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str, strong: frozenset[int] = frozenset()
) -> str:
    """Return a table in a frame that scrolls sideways on narrow screens. The first cell of a row is its heading.

    `strong` holds the positions of rows to be set in bold.
    """
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    body = "".join(
        ("<tr class='strong'>" if place in strong else "<tr>")
        + f'<th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for place, row in enumerate(rows)
    )
    return (
        f'<div class="scroll" role="region" aria-label="{text(caption)}" tabindex="0"><table><caption>{text(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bullets(lines: Iterable[str], *, css: str = "") -> str:
    """Return a list of texts."""
    return f'<ul class="{css}">' + "".join(f"<li>{prose(line)}</li>" for line in lines) + "</ul>"


def paragraph(words: str, *, css: str = "") -> str:
    """Return a paragraph of plain text."""
    return f'<p class="{css}">{prose(words)}</p>' if css else f"<p>{prose(words)}</p>"


def chart(name: str, label: str, *, height_px: int = 460) -> str:
    """Return the place of a figure of the page's data; screen readers read `label` instead of it."""
    return (
        f'<figure class="chart h{height_px}" data-chart="{text(name)}" role="img" aria-label="{text(label)}">'
        f'<p class="waiting">Drawing: {text(label)}</p></figure>'
    )


def section(name: str, title: str, *parts: str) -> str:
    """Return a headed section that the page's own links lead to."""
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{text(title)}</h2>' + (
        "\n".join(parts) + "</section>\n"
    )


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
