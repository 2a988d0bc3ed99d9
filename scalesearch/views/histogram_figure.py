"""Shows what rounding does to each layer as one plotly figure, small enough to be kept in a study."""

import html
import math
from collections.abc import Sequence
from typing import Any

from scalesearch.values.histogram import LayerHistogram, TensorHistogram
from scalesearch.views.histogram_page import clipped_text, range_text, shape_text, sqnr_text, summary
from scalesearch.views.palette import INK, RED

_LAYER_PX, _FRAME_PX = 20, 150


def overview_figure(histograms: Sequence[LayerHistogram], title: str) -> Any:
    """Draw one row of a heat map for each layer: weights on the left, its input on the right.

    Marks show 99 % and the clip range. Since a histogram is drawn as colour, fifty layers fit into one picture, and a
    layer that wastes its range shows as a narrow line. The figure takes about a kilobyte per layer.
    """
    import plotly.graph_objects as go

    places = list(range(len(histograms)))
    figure = go.Figure()
    figure.add_trace(_heat([layer.weights for layer in histograms], "x", (-1.0, 1.0)))
    figure.add_trace(_heat([layer.activations for layer in histograms], "x2", (0.0, 1.0)))
    for side in (-1, 1):
        edges = [round(side * layer.within_99, 3) for layer in histograms]
        figure.add_trace(_marks(edges, "x", [_weights_text(layer) for layer in histograms], INK))
    for end in ("clip_low", "clip_high"):
        at = [_relative(layer.activations, getattr(layer.activations, end)) for layer in histograms]
        figure.add_trace(_marks(at, "x2", [_activations_text(layer) for layer in histograms], RED))
    figure.update_layout(
        template="none",
        title={"text": "<br>".join(html.escape(line) for line in (title, summary(histograms)[0])), "x": 0.02},
        height=_FRAME_PX + _LAYER_PX * len(histograms),
        margin={"l": 220, "t": 80},
        showlegend=False,
        xaxis={
            "domain": [0, 0.48],
            "zeroline": False,
            "title": {"text": "weight over the largest |weight|; marks: 99 % of them"},
        },
        xaxis2={
            "domain": [0.52, 1],
            "zeroline": False,
            "title": {"text": "what the layer reads, least to largest; marks: clip range"},
        },
        yaxis={
            "tickvals": places,
            "ticktext": [_label(layer) for layer in histograms],
            "autorange": "reversed",
            "zeroline": False,
        },
    )
    return figure


def _heat(tensors: Sequence[TensorHistogram], axis: str, ends: tuple[float, float]) -> dict[str, Any]:
    bins = len(tensors[0].counts)
    width = (ends[1] - ends[0]) / bins
    return {
        "type": "heatmap", "xaxis": axis, "x0": ends[0] + width / 2, "dx": width, "y0": 0, "dy": 1, "ygap": 2,
        # On a log scale; otherwise one outlier in a thousand weights would not show.
        "z": [[_shade(count, sum(tensor.counts)) for count in tensor.counts] for tensor in tensors],
        "colorscale": [[0, "#ffffff"], [0.02, "#e3eef7"], [1, "#0b3c6f"]], "zmin": 0, "zmax": 1,
        "showscale": False, "hoverinfo": "skip",
    }  # fmt: skip


def _marks(at: Sequence[float | None], axis: str, texts: Sequence[str], colour: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "xaxis": axis, "x": list(at), "y": list(range(len(at))),
        "marker": {"symbol": "line-ns-open", "size": 12, "color": colour, "line": {"width": 2, "color": colour}},
        "hoverinfo": "text", "hovertext": list(texts),
    }  # fmt: skip


def _shade(count: int, total: int) -> float:
    return round(math.log1p(count) / math.log1p(total), 2)


def _relative(tensor: TensorHistogram, value: float) -> float | None:
    """Return the position of a value between the first and the last bin edge, 0 to 1; None if it lies outside."""
    place = (value - tensor.first_edge) / (tensor.last_edge - tensor.first_edge)
    return round(place, 3) if 0 <= place <= 1 else None


def _label(layer: LayerHistogram) -> str:
    name = html.escape(layer.name)  # plotly reads some HTML in labels
    return f"<b>{name}, wasted</b>" if layer.wasted_range else name


def _weights_text(layer: LayerHistogram) -> str:
    weights = layer.weights
    return html.escape(f"{layer.name}: {shape_text(layer)}, {range_text(weights.low, weights.high)}") + (
        f"<br>99 % within {100 * layer.within_99:.0f} % of the range, SQNR {sqnr_text(weights)}"
    )


def _activations_text(layer: LayerHistogram) -> str:
    read = layer.activations
    return html.escape(f"{layer.name} reads {range_text(read.low, read.high)}") + (
        f"<br>clip {range_text(read.clip_low, read.clip_high)}, clipped {clipped_text(read)}, SQNR {sqnr_text(read)}"
    )
