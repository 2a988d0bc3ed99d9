"""Draws what rounding does to each layer: histogram.png."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.files import replace_file
from scalesearch.values.histogram import WASTED_BELOW, LayerHistogram, TensorHistogram
from scalesearch.views.histogram_page import clipped_text, range_text, shape_text, sqnr_text, summary
from scalesearch.views.palette import BLUE, GREEN, INK, PALE, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LAYERS_A_ROW = 2
_LEGEND = (
    "Dark: counts; light: the same on a log scale. Blue: weights over -max..max, grey band: a quarter of it, dotted: "
    "99 % of them. Green: what the layer reads; dashed: what eight bits reach, red: clipped."
)
_MARGIN = 0.03
"""Fraction of the width that is left free at both ends of a histogram."""


def draw_histograms(histograms: Sequence[LayerHistogram], to: Path, title: str) -> None:
    """Write `histogram_figure` as a PNG to `to`, under a temporary name first."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The study's name may have characters that the font lacks: boxes in a title are no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        histogram_figure(histograms, title).savefig(buffer, format="png")
    replace_file(to, buffer.getvalue())


def histogram_figure(histograms: Sequence[LayerHistogram], title: str) -> "Figure":
    """Draw two small histograms for each layer, of its weights and of its input, with two layers per row."""
    from matplotlib.figure import Figure  # takes 0.5 s, so it is imported only once a picture is asked for

    rows = -(-len(histograms) // _LAYERS_A_ROW)
    lines = (*summary(histograms), _LEGEND)
    top = 0.75 + 0.2 * len(lines)
    height = 1.25 * rows + top
    figure = Figure(figsize=(15, height), dpi=110)
    grid = figure.subplots(rows, 2 * _LAYERS_A_ROW, squeeze=False).ravel()
    figure.subplots_adjust(
        left=0.012, right=0.988, top=1 - top / height, bottom=0.25 / height, wspace=0.05, hspace=0.55
    )
    for place, layer in enumerate(histograms):
        _draw_weights(grid[2 * place], layer)
        _draw_activations(grid[2 * place + 1], layer.activations)
    for axes in grid[2 * len(histograms) :]:
        axes.set_axis_off()
    figure.text(0.012, 1 - 0.3 / height, title, fontsize=13, fontweight="bold", color=INK, parse_math=False)
    for place, line in enumerate(lines):
        y = 1 - (0.55 + 0.2 * place) / height
        figure.text(0.012, y, line, fontsize=8.5, color=PALE, parse_math=False)
    return figure


def _draw_weights(axes: "Axes", layer: LayerHistogram) -> None:
    weights, colour = layer.weights, RED if layer.wasted_range else BLUE
    reach = max(-weights.low, weights.high)
    axes.axvspan(-WASTED_BELOW * reach, WASTED_BELOW * reach, color="#ededed", zorder=0)
    _draw_counts(axes, weights, colour)
    for side in (-1, 1):
        axes.axvline(side * layer.within_99 * reach, color=INK, linestyle=":", linewidth=0.9)
    axes.set_title(
        f"{layer.name}  {layer.kind} {shape_text(layer)}",
        fontsize=7.5,
        loc="left",
        pad=3,
        fontweight="bold",
        color=colour if layer.wasted_range else INK,
        parse_math=False,
    )
    note = f"{sqnr_text(weights)}\n99 % in {100 * layer.within_99:.0f} %"
    _note(axes, f"{note}\nWASTED RANGE" if layer.wasted_range else note, colour if layer.wasted_range else INK)
    axes.set_xlim(_span(weights.first_edge, weights.last_edge))


def _draw_activations(axes: "Axes", values: TensorHistogram) -> None:
    _draw_counts(axes, values, GREEN)
    low, high = _span(min(values.first_edge, values.clip_low), max(values.last_edge, values.clip_high))
    for end, clip, beyond in (
        (low, values.clip_low, values.low < values.clip_low),
        (high, values.clip_high, values.high > values.clip_high),
    ):
        axes.axvline(clip, color=RED, linestyle="--", linewidth=0.9)
        if beyond:
            axes.axvspan(end, clip, color=RED, alpha=0.2, linewidth=0, zorder=0)
    axes.set_title(
        f"reads {range_text(values.low, values.high)}, clip {range_text(values.clip_low, values.clip_high)}",
        fontsize=7.5,
        loc="left",
        pad=3,
        color=INK,
    )
    _note(axes, f"{sqnr_text(values)}\nclipped {clipped_text(values)}", INK)
    axes.set_xlim(low, high)


def _draw_counts(axes: "Axes", values: TensorHistogram, colour: str) -> None:
    import numpy as np

    counts = np.asarray(values.counts, dtype=float)
    edges = np.linspace(values.first_edge, values.last_edge, len(counts) + 1)
    # The linear scale shows where the values are, the logarithmic one that there are a few outside.
    axes.stairs(np.log1p(counts) / np.log1p(counts.max()), edges, fill=True, color=colour, alpha=0.25, linewidth=0)
    axes.stairs(counts / counts.max(), edges, fill=True, color=colour, linewidth=0)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([])
    axes.tick_params(labelsize=6.5, length=2, pad=1.5, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _note(axes: "Axes", text: str, colour: str) -> None:
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=2.5, foreground="white")]
    axes.text(
        0.99, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=7, color=colour, path_effects=effects
    )


def _span(low: float, high: float) -> tuple[float, float]:
    margin = _MARGIN * (high - low)
    return low - margin, high + margin
