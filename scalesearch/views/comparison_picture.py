"""Draws the fronts of several studies over each other: compare.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.front_picture import bars, dress, png
from scalesearch.views.palette import BLUE, GREEN, ORANGE, PURPLE, RED, SKY

# Line style and marker repeat the distinction of the colours, for print in grey.
_LOOKS = (
    (BLUE, "o", "-"), (RED, "^", "--"), (GREEN, "s", ":"), (PURPLE, "v", "-."), (SKY, "D", "-"), (ORANGE, "P", "--"),
)  # fmt: skip


def draw_fronts(fronts: Mapping[str, Sequence[MeasuredTrial]], *, to: Path, title: str, caption: str = "") -> None:
    """Write the fronts (fastest first, by their studies' names) with their 95 % intervals as one PNG to `to`."""
    from matplotlib.figure import Figure  # takes 0.5 s, so it is imported only once a picture is asked for

    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for place, front in enumerate(fronts.values()):
        colour, marker, style = _LOOKS[place % len(_LOOKS)]
        points = [(record.latency, record.quality) for record in front if record.latency and record.quality]
        x, y = [latency.p50_ms for latency, _ in points], [100 * quality.score for _, quality in points]
        # Steps, not a slanted line: between two points of a front nothing was measured.
        axes.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.2, alpha=0.7)
        axes.errorbar(
            x, y,
            xerr=bars([(latency.p50_low_ms, latency.p50_ms, latency.p50_high_ms) for latency, _ in points]),
            yerr=bars([(100 * each.score_low, 100 * each.score, 100 * each.score_high) for _, each in points]),
            fmt=marker, color=colour, markersize=6.5, markeredgecolor="white", elinewidth=0.9, capsize=2,
            label=f"front {place}",
        )  # fmt: skip
    dress(axes, [record for front in fronts.values() for record in front], title=title)
    legend = axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="#cccccc")
    for text, name in zip(legend.get_texts(), fronts, strict=True):
        text.set_text(name)  # only now: matplotlib leaves out labels that begin with an underscore
        text.set_parse_math(False)  # a study's name may hold a dollar sign
    figure.supxlabel(caption, fontsize=8, color="#888888", x=0.01, ha="left", parse_math=False)
    replace_file(to, png(figure))
