"""Draws the picture of a study, front.png: score of the deployed files against measured latency."""

import io
import math
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import NoFeasibleTrialError
from scalesearch.files import replace_file
from scalesearch.values.candidate import Precision
from scalesearch.values.latency import Latency
from scalesearch.values.quality import Quality
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.space import LATENCY_LIMIT
from scalesearch.views.palette import INK, LOOKS, PALE
from scalesearch.views.words import device_text, latency_axis, score_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[Precision, tuple[str, str]] = {name: (look.colour, look.marker) for name, look in LOOKS.items()}
_LABEL_PX = 40


def draw_front(
    records: Iterable[TrialRecord],
    *,
    front: Collection[int],
    to: Path,
    title: str,
    caption: str = "",
    knee: int | None = None,
) -> None:
    """Write `front_picture` as a PNG to `to`, under a temporary name first."""
    replace_file(to, png(front_picture(records, front=front, title=title, caption=caption, knee=knee)))


def front_picture(
    records: Iterable[TrialRecord], *, front: Collection[int], title: str, caption: str = "", knee: int | None = None
) -> "Figure":
    """Draw every measured trial faintly and the front in full, with its 95 % intervals.

    Args:
        records: The whole study. Trials answered from the cache would cover their originals and are left out.
        front: Trial numbers of the front.
        title: Title of the figure.
        caption: Text under the picture, after the device's name. It should name the images, and say so if they are
            synthetic.
        knee: Trial number of the knee, if it is to be marked.

    Raises:
        NoFeasibleTrialError: No trial was measured, so there is nothing to draw.
    """
    from matplotlib.figure import Figure  # takes 0.5 s, so it is imported only once a picture is asked for

    asked = (record.measured for record in records if record.same_as is None)
    points = [record for record in asked if record is not None]
    if not points:
        message = f"{title}: no trial has both a score and a latency, so there is no front to draw"
        raise NoFeasibleTrialError(message)
    best = [record for record in points if record.trial in front]
    # A Figure of its own, not pyplot: pyplot keeps figures in a global list and may ask for a display.
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_points(axes, [record for record in points if record.trial not in front])
    _draw_front_points(axes, best, knee=knee)
    dress(axes, points, title=title)
    _label(axes, best)
    _legend(axes, points, knee=knee)
    figure.supxlabel(_under(points, caption), fontsize=8, color=PALE, x=0.01, ha="left", parse_math=False)
    return figure


def _measured(record: MeasuredTrial) -> tuple[Latency, Quality]:
    return record.latency, record.quality


def _draw_points(axes: "Axes", points: Sequence[MeasuredTrial]) -> None:
    for precision, (colour, marker) in STYLES.items():
        mine = [record for record in points if record.candidate.quantization.precision == precision]
        inside = [_measured(record) for record in mine if record.feasible]
        axes.scatter(
            [latency.p50_ms for latency, _ in inside],
            [100 * quality.score for _, quality in inside],
            color=colour, marker=marker, s=26, alpha=0.28, linewidths=0, zorder=2,
        )  # fmt: skip
    for marker, others in (
        ("x", [record for record in points if not record.within_limits]),
        ("1", [record for record in points if record.trained_in_part]),
    ):
        outside = [_measured(record) for record in others]
        axes.scatter(
            [latency.p50_ms for latency, _ in outside],
            [100 * quality.score for _, quality in outside],
            color=PALE, marker=marker, s=28, linewidths=1.1, zorder=2,
        )  # fmt: skip


def _draw_front_points(axes: "Axes", points: Sequence[MeasuredTrial], *, knee: int | None) -> None:
    ordered = sorted(points, key=lambda record: _measured(record)[0].p50_ms)
    line = [_measured(record) for record in ordered]
    # Steps, not a slanted line: between two points of the front nothing was measured.
    axes.step(
        [latency.p50_ms for latency, _ in line],
        [100 * quality.score for _, quality in line],
        where="post", color=INK, linewidth=1.0, alpha=0.6, zorder=3,
    )  # fmt: skip
    for record in ordered:
        latency, quality = _measured(record)
        colour, marker = STYLES[record.candidate.quantization.precision]
        x, y = latency.p50_ms, 100 * quality.score
        axes.errorbar(
            x, y,
            xerr=bars([(latency.p50_low_ms, x, latency.p50_high_ms)]),
            yerr=bars([(100 * quality.score_low, y, 100 * quality.score_high)]),
            fmt=marker, color=colour, markersize=7.5, markeredgecolor="white", markeredgewidth=0.8,
            elinewidth=1.1, capsize=2.5, zorder=4,
        )  # fmt: skip
        if record.trial == knee:
            axes.scatter([x], [y], s=190, facecolors="none", edgecolors=INK, linewidths=1.4, zorder=5)


def _label(axes: "Axes", points: Sequence[MeasuredTrial]) -> None:
    """Write each trial's number below and right of its point, or above and left where it would cover the last label."""
    from matplotlib.patheffects import withStroke

    measured = sorted(
        (_measured(record)[0].p50_ms, 100 * _measured(record)[1].score, record.trial) for record in points
    )
    pixels = [tuple(axes.transData.transform((p50_ms, score))) for p50_ms, score, _ in measured]
    for (p50_ms, score, trial), hit in zip(measured, crowded(pixels, width=_LABEL_PX, height=_LABEL_PX), strict=True):
        offset, side = ((-7, 6), "right") if hit else ((7, -12), "left")
        axes.annotate(
            str(trial), (p50_ms, score), xytext=offset, textcoords="offset points", ha=side,
            fontsize=8.5, color=INK, zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def bars(intervals: Iterable[tuple[float, float, float]]) -> list[list[float]]:
    """Return the lengths of error bars, [below, above], for (low, value, high) triples.

    They are never negative, which matplotlib refuses: 100 times two equal fractions may differ in the last digit.
    """
    ends = [(max(0.0, value - low), max(0.0, high - value)) for low, value, high in intervals]
    return [[below for below, _ in ends], [above for _, above in ends]]


def crowded(spots: Iterable[Sequence[float]], *, width: float, height: float) -> list[bool]:
    """Tell for each label, from left to right, whether it must go to the other side because of the one before.

    A label on the other side is in no other label's way.
    """
    found, last = list[bool](), (math.inf, math.inf)
    for x, y in spots:
        found.append(abs(x - last[0]) < width and abs(y - last[1]) < height)
        last = (math.inf, math.inf) if found[-1] else (x, y)
    return found


def latency_limit_ms(points: Iterable[TrialRecord]) -> float | None:
    """Return the study's latency limit, computed from any record's use of it (value / limit - 1)."""
    for record in points:
        for use in record.limits:
            if use.limit == LATENCY_LIMIT and record.latency:
                return record.latency.p50_ms / (1 + use.excess)
    return None


def dress(axes: "Axes", points: Sequence[MeasuredTrial], *, title: str) -> None:
    """Give the axes of score against latency their scales, ticks and words; `points` are what is drawn on them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes.set_xscale("log")
    low, high = (pick(_measured(record)[0].p50_ms for record in points) for pick in (min, max))
    axes.set_xlim(low / 1.2, high * 1.25)
    # Where the latencies differ little, ticks at powers of ten would leave the axis bare.
    subs = (1, 1.5, 2, 3, 5, 7) if high / low < 30 else (1, 2, 5)
    axes.xaxis.set_major_locator(MaxNLocator(6) if high / low < 4 else LogLocator(subs=subs))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    batches = " and ".join(map(str, sorted({_measured(record)[0].batch for record in points})))
    # Fronts of several studies may have been timed or scored unlike: the axes name everything that is drawn on them.
    latencies = " / ".join(dict.fromkeys(f"{latency_axis([record])}, {_timed(record)}" for record in points))
    scores = " / ".join(dict.fromkeys(score_axis([record]) for record in points))
    axes.set_xlabel(f"{latencies} (batch {batches}, log scale)")
    axes.set_ylabel(f"{scores} of the deployed engine, %")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", parse_math=False)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _timed(record: MeasuredTrial) -> str:
    return "post-processing included" if record.latency.objective == "end_to_end" else "of the deployed engine"


def _legend(axes: "Axes", points: Sequence[MeasuredTrial], *, knee: int | None) -> None:
    from matplotlib.lines import Line2D

    used = {record.candidate.quantization.precision for record in points}
    marks = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7, label=precision)
        for precision, (colour, marker) in STYLES.items()
        if precision in used
    ]
    marks.append(Line2D([], [], color=INK, linewidth=1, alpha=0.6, label="front, with 95 % intervals"))
    if any(record.feasible for record in points):
        marks.append(Line2D([], [], color=PALE, marker="o", alpha=0.35, linestyle="", label="dominated"))
    if not all(record.within_limits for record in points):
        marks.append(Line2D([], [], color=PALE, marker="x", linestyle="", label="breaks a limit"))
    if any(record.trained_in_part for record in points):
        marks.append(Line2D([], [], color=PALE, marker="1", linestyle="", label="trained in part"))
    if knee is not None:
        marks.append(
            Line2D(
                [], [], color=INK, marker="o", markersize=11, fillstyle="none", linestyle="", label="knee: best trade"
            )
        )
    limit_ms = latency_limit_ms(points)
    if limit_ms is not None:
        axes.axvline(limit_ms, color=PALE, linestyle=":", linewidth=1.2)
        marks.append(Line2D([], [], color=PALE, linestyle=":", linewidth=1.2, label=f"limit {limit_ms:.3g} ms"))
    axes.legend(handles=marks, loc="best", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="#cccccc")


def _under(points: Sequence[MeasuredTrial], caption: str) -> str:
    device = points[0].device
    return "  |  ".join(part for part in (device_text(device) if device else "", caption) if part)


def png(figure: "Figure") -> bytes:
    """Return the figure as a PNG file's bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The study's name may have characters that the font lacks: boxes in a title are no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
