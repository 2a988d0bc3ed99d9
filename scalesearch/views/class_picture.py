"""Draw the picture of a trial's classes: precision-recall curves, and recall and precision of the weakest classes."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.values.quality import ClassQuality
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.palette import BLUE, INK, RED
from scalesearch.views.words import percent

_FAINT = "#999999"
_SHOWN = 12
_LONGEST_NAME = 24
_PLOT_PX = 260
_LEFT, _TOP = 55, 60
_BARS_LEFT, _BAR_PX = 530, 200


def draw_classes(record: MeasuredTrial, to: Path) -> None:
    """Write an SVG to `to`: curves of all classes on the left, the weakest classes by recall on the right.

    Classes that no scored image has are left out. The file is written whole or not at all. Matplotlib is not used: it
    would keep a core busy for a second while another process of the search measures latency.
    """
    found = (entry for entry in record.quality.classes if entry.support)
    classes = sorted(found, key=lambda entry: (entry.recall, entry.name))
    score = f"{record.quality.title} {percent(record.quality.score)}"
    title = f"Trial {record.trial}: {score} on {record.quality.images} images"
    parts = (_text(15, 24, title, size=15, weight="bold"), *_curves(classes), *_bars(classes[:_SHOWN]))
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="380" viewBox="0 0 760 380" '
        f'font-family="sans-serif"><rect width="760" height="380" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
    replace_file(to, utf8_text(picture).encode())


def _text(x: float, y: float, words: str, *, size: int = 11, anchor: str = "start", weight: str = "normal") -> str:
    printable = "".join(mark if mark.isprintable() else " " for mark in words)  # XML forbids control characters
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" fill="{INK}">'
        f"{html.escape(printable)}</text>"
    )


def _curves(classes: Sequence[ClassQuality]) -> Iterator[str]:
    yield _text(_LEFT, _TOP - 10, "every class; the weakest in red")
    yield f'<path d="M{_LEFT} {_TOP}v{_PLOT_PX}h{_PLOT_PX}" fill="none" stroke="{INK}"/>'
    for tick in (0.0, 0.5, 1.0):
        yield _text(_LEFT + tick * _PLOT_PX, _TOP + _PLOT_PX + 15, f"{tick:g}", anchor="middle")
        yield _text(_LEFT - 6, _TOP + (1 - tick) * _PLOT_PX + 4, f"{tick:g}", anchor="end")
    yield _text(_LEFT + _PLOT_PX / 2, _TOP + _PLOT_PX + 32, "recall", anchor="middle")
    yield _text(8, _TOP + _PLOT_PX / 2 + 4, "precision", size=10)
    for place, entry in reversed(tuple(enumerate(classes))):  # the weakest last, on top
        points = " ".join(
            f"{_LEFT + recall * _PLOT_PX:.1f},{_TOP + (1 - precision) * _PLOT_PX:.1f}"
            for recall, precision in entry.curve
        )
        look = f'stroke="{_FAINT}" opacity=".5"' if place else f'stroke="{RED}" stroke-width="2.5"'
        yield f'<polyline points="{points}" fill="none" {look}/>'


def _bars(classes: Sequence[ClassQuality]) -> Iterator[str]:
    yield _text(_BARS_LEFT - 160, _TOP - 10, f"weakest {len(classes)}: recall blue (above), precision red (below)")
    for place, entry in enumerate(classes):
        y = _TOP + 4 + 22 * place
        name = entry.name if len(entry.name) <= _LONGEST_NAME else f"{entry.name[:_LONGEST_NAME]}..."
        yield _text(_BARS_LEFT - 6, y + 11, name, anchor="end", size=10)
        yield f'<rect x="{_BARS_LEFT}" y="{y}" width="{entry.recall * _BAR_PX:.1f}" height="7" fill="{BLUE}"/>'
        yield f'<rect x="{_BARS_LEFT}" y="{y + 8}" width="{entry.precision * _BAR_PX:.1f}" height="7" fill="{RED}"/>'
    yield f'<path d="M{_BARS_LEFT} {_TOP}v{22 * len(classes) + 4}" stroke="{INK}"/>'
