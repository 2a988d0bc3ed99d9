"""Fronts of several studies over each other, compare.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.records.plots import bars, dress, png
from scalesearch.values.record import TrialRecord

# Okabe and Ito's colours; line style and marker say the same once more, for print in grey.
_LOOKS = (
    ("#0072B2", "o", "-"), ("#D55E00", "^", "--"), ("#009E73", "s", ":"), ("#CC79A7", "v", "-."),
    ("#56B4E9", "D", "-"), ("#E69F00", "P", "--"),
)  # fmt: skip


def draw_fronts(fronts: Mapping[str, Sequence[TrialRecord]], *, to: Path, title: str, caption: str = "") -> None:
    """Write the fronts (fastest first, by their studies' names) as one PNG to `to`, with their 95 % intervals."""
    from matplotlib.figure import Figure  # 0.5 s, so only once a picture is asked for

    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for place, (name, front) in enumerate(fronts.items()):
        colour, marker, style = _LOOKS[place % len(_LOOKS)]
        points = [(record.latency, record.quality) for record in front if record.latency and record.quality]
        x, y = [latency.p50_ms for latency, _ in points], [100 * quality.top1 for _, quality in points]
        # Steps, not a slanted line: between two points of a front nothing was measured.
        axes.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.2, alpha=0.7)
        axes.errorbar(
            x, y,
            xerr=bars([(latency.p50_low_ms, latency.p50_ms, latency.p50_high_ms) for latency, _ in points]),
            yerr=bars([(100 * each.top1_low, 100 * each.top1, 100 * each.top1_high) for _, each in points]),
            fmt=marker, color=colour, markersize=6.5, markeredgecolor="white", elinewidth=0.9, capsize=2, label=name,
        )  # fmt: skip
    dress(axes, [record for front in fronts.values() for record in front], title=title)
    legend = axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="#cccccc")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a study's name may hold a dollar sign
    figure.supxlabel(caption, fontsize=8, color="#888888", x=0.01, ha="left", parse_math=False)
    replace_file(to, png(figure))
