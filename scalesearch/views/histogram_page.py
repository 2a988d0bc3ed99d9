"""Shows what rounding does to each layer, in words and as histogram.html, a page that needs no other file."""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.values.histogram import WASTED_BELOW, LayerHistogram, TensorHistogram
from scalesearch.views.palette import BLUE, GREEN, INK, RED

PICTURES = ("histogram.png", "histogram.html")
"""The files that `scalesearch histogram` writes."""
_MOST_NAMES = 8
_WIDTH_PX, _HEIGHT_PX, _SCALE_PX = 300, 60, 14
_Band = tuple[float, float, str]
"""Start and end of a band on the axis, and its colour."""


def range_text(low: float, high: float) -> str:
    """Return a range as text with three digits each: -0.5, 1.25 -> `-0.5 .. 1.25`."""
    return f"{low + 0.0:.3g} .. {high + 0.0:.3g}"  # + 0.0: no negative zero


def shape_text(layer: LayerHistogram) -> str:
    """Return the shape of a layer's weight as text: `64x16x1x1`."""
    return "x".join(map(str, layer.shape))


def sqnr_text(tensor: TensorHistogram) -> str:
    """Return the signal to quantization noise ratio as text: `41.3 dB`, or `exact`."""
    return "exact" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f} dB"


def clipped_text(tensor: TensorHistogram) -> str:
    """Return the fraction of clipped values as text: `0.05 %`, or `none`."""
    return f"{100 * tensor.clipped_fraction:.2g} %" if tensor.clipped_fraction else "none"


def summary(histograms: Sequence[LayerHistogram]) -> tuple[str, ...]:
    """Say in a few lines what to look at: layers that waste their range, and where rounding loses most."""
    wasted = [layer.name for layer in histograms if layer.wasted_range]
    more = f" and {len(wasted) - _MOST_NAMES} more" if len(wasted) > _MOST_NAMES else ""
    names = f": {', '.join(wasted[:_MOST_NAMES])}{more}" if wasted else ""
    lines = [f"{len(wasted)} of {len(histograms)} layers keep 99 % of their weights in a quarter of the range{names}"]
    for what in ("weights", "activations"):
        lossy = [
            (tensor.sqnr_db, layer) for layer in histograms if (tensor := getattr(layer, what)).sqnr_db is not None
        ]
        if lossy:
            lowest, layer = min(lossy, key=lambda pair: pair[0])
            lines.append(f"{what} lose most at {layer.name}: signal over rounding noise {lowest:.1f} dB")
    return tuple(lines)


_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; color: #222; background: #fff; margin: 1.5rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .7rem; text-align: left; vertical-align: middle; }
tr + tr { border-top: 1px solid #ddd; } thead th { position: sticky; top: 0; background: #fff; }
tr.wasted { background: #fdeee4; } tr.wasted th { color: #D55E00; } small, .legend { color: #666; font-weight: normal; }
svg { display: block; } svg text { font-size: 9px; fill: #555; }
"""


def write_histogram_page(histograms: Sequence[LayerHistogram], to: Path, title: str) -> None:
    """Write one HTML file to `to` that works offline: a row for each layer, drawn as SVG, without any script.

    It takes some 3 kB per layer, where plotly alone would add 4.8 MB. The browser is told to load and run nothing.
    """
    rows = "\n".join(_row(layer) for layer in histograms)
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in summary(histograms))
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(title)}</h1><ul>{lines}</ul>
<p class="legend">Dark: counts; light: the same on a log scale. Weights: over -max..max, the grey band is a quarter of
it, dashed lines hold 99 % of them. What it reads: dashed is what eight bits reach, red what they clip. A layer whose
weights sit in a quarter of their range is marked: its few outliers cost it two of its eight bits.</p>
<table><thead><tr><th>layer</th><th>weights</th><th></th><th>what it reads</th><th></th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""
    replace_file(to, utf8_text(page).encode())


def page_is_of(page: Path, study: str, trial: int) -> bool:
    """Tell whether that file is a page that `scalesearch histogram` wrote for that trial.

    Its title then begins with the names of study and trial.
    """
    try:
        return f"<title>{html.escape(f'{study}, trial {trial}: ')}" in page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _row(layer: LayerHistogram) -> str:
    weights, read = layer.weights, layer.activations
    wasted = "<br><b>wasted range</b>" if layer.wasted_range else ""
    cells = (
        _weights_svg(layer),
        f"{range_text(weights.low, weights.high)}<br>99 % within {100 * layer.within_99:.0f} % of the range"
        f"<br>SQNR {sqnr_text(weights)}{wasted}",
        _activations_svg(read),
        f"{range_text(read.low, read.high)}<br>clip {range_text(read.clip_low, read.clip_high)}"
        f"<br>clipped {clipped_text(read)}<br>SQNR {sqnr_text(read)}",
    )
    head = f"<th>{html.escape(layer.name)}<br><small>{html.escape(layer.kind)} {shape_text(layer)}</small></th>"
    opening = '<tr class="wasted">' if layer.wasted_range else "<tr>"
    return f"{opening}{head}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _weights_svg(layer: LayerHistogram) -> str:
    weights = layer.weights
    reach = max(-weights.low, weights.high)
    band = (-WASTED_BELOW * reach, WASTED_BELOW * reach, "#e4e4e4")
    return _svg(
        weights,
        RED if layer.wasted_range else BLUE,
        span=(weights.first_edge, weights.last_edge),
        bands=(band,),
        marks=(-layer.within_99 * reach, layer.within_99 * reach),
    )


def _activations_svg(read: TensorHistogram) -> str:
    low, high = min(read.first_edge, read.clip_low), max(read.last_edge, read.clip_high)
    bands = ((low, read.clip_low, "#f6cdb4"), (read.clip_high, high, "#f6cdb4"))
    return _svg(read, GREEN, span=(low, high), bands=bands, marks=(read.clip_low, read.clip_high))


def _svg(
    values: TensorHistogram,
    colour: str,
    *,
    span: tuple[float, float],
    bands: Sequence[_Band],
    marks: Sequence[float],
) -> str:
    """Draw one histogram over `span`: counts dark, their logarithms light, bands behind and dashed lines in front."""

    def x(value: float) -> float:
        return round((value - span[0]) / (span[1] - span[0]) * _WIDTH_PX, 1)

    largest = max(values.counts)
    light = _outline(values, [math.log1p(count) / math.log1p(largest) for count in values.counts], x)
    dark = _outline(values, [count / largest for count in values.counts], x)
    shaded = "".join(
        f'<rect x="{x(low)}" width="{max(0.0, x(high) - x(low)):.1f}" height="{_HEIGHT_PX}" fill="{fill}"/>'
        for low, high, fill in bands
    )
    lines = "".join(
        f'<path d="M{x(at)} 0V{_HEIGHT_PX}" stroke="{INK}" stroke-dasharray="3 2"/>'
        for at in marks
        if span[0] <= at <= span[1]
    )
    baseline = _HEIGHT_PX + _SCALE_PX - 3
    ends = (
        f'<text x="0" y="{baseline}">{span[0] + 0.0:.3g}</text>'
        f'<text x="{_WIDTH_PX}" y="{baseline}" text-anchor="end">{span[1]:.3g}</text>'
    )
    return (
        f'<svg width="{_WIDTH_PX}" height="{_HEIGHT_PX + _SCALE_PX}">{shaded}'
        f'<path d="{light}" fill="{colour}" opacity=".3"/><path d="{dark}" fill="{colour}"/>{lines}{ends}</svg>'
    )


def _outline(values: TensorHistogram, heights: Sequence[float], x: Callable[[float], float]) -> str:
    """Return the steps of a histogram as an SVG path, from the baseline and back to it."""
    width = (values.last_edge - values.first_edge) / len(heights)
    steps = "".join(
        f"V{_HEIGHT_PX * (1 - height):.1f}H{x(values.first_edge + place * width)}"
        for place, height in enumerate(heights, start=1)
    )
    return f"M{x(values.first_edge)} {_HEIGHT_PX}{steps}V{_HEIGHT_PX}Z"
