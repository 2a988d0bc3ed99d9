"""Draw the picture of a trial's classes: intersection over union and pixel accuracy of each, as bars."""

import html
from pathlib import Path
from typing import Final

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.values.quality import MaskDetail
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.palette import BLUE, INK, RED
from scalesearch.views.words import percent

_MOST: Final = 40
_LEFT, _TOP, _ROW_PX, _BAR_PX = 190, 60, 22, 420
_LONGEST_NAME: Final = 26


def draw_bars(record: MeasuredTrial, to: Path) -> None:
    """Write an SVG to `to`, whole or not at all: a pair of bars for each class, the weakest first."""
    detail = record.quality.detail
    classes = detail.weakest_first[:_MOST] if isinstance(detail, MaskDetail) else ()
    quality = record.quality
    title = f"Trial {record.trial}: {quality.title} {percent(quality.score)} on {quality.images} images"
    parts = [_text(15, 24, title, size=15, weight="bold")]
    parts.append(_text(15, 44, "intersection over union blue (above), pixel accuracy red (below)"))
    for place, entry in enumerate(classes):
        y = _TOP + _ROW_PX * place
        name = entry.name if len(entry.name) <= _LONGEST_NAME else f"{entry.name[:_LONGEST_NAME]}..."
        parts.append(_text(_LEFT - 6, y + 12, name, anchor="end"))
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{entry.iou * _BAR_PX:.1f}" height="8" fill="{BLUE}"/>')
        parts.append(f'<rect x="{_LEFT}" y="{y + 9}" width="{entry.recall * _BAR_PX:.1f}" height="8" fill="{RED}"/>')
        parts.append(_text(_LEFT + entry.iou * _BAR_PX + 4, y + 8, percent(entry.iou), size=9))
    height = _TOP + _ROW_PX * len(classes) + 15
    parts.append(f'<path d="M{_LEFT} {_TOP - 4}V{height - 12}" stroke="{INK}"/>')
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{height}" viewBox="0 0 680 {height}" '
        f'font-family="sans-serif"><rect width="680" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
    replace_file(to, utf8_text(picture).encode())


def _text(x: float, y: float, words: str, *, size: int = 11, anchor: str = "start", weight: str = "normal") -> str:
    printable = "".join(mark if mark.isprintable() else " " for mark in words)  # XML forbids control characters
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">'
        f"{html.escape(printable)}</text>"
    )
