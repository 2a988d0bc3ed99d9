"""The front that a model of the trials expects, as plain plotly data."""

import html
import math
from collections.abc import Sequence
from typing import Final

from scalesearch.analysis.belief import Errors
from scalesearch.analysis.outlook import Outlook, Promise
from scalesearch.spaces.axes import Value
from scalesearch.values.record import TrialRecord
from scalesearch.views.figures import Figure, layout, ticks
from scalesearch.views.palette import FAINT, INK, ORANGE
from scalesearch.views.words import latency_axis, milliseconds, scaling_text, score_axis, score_noun_of

SURE = 1.96
"""Standard deviations on each side of a 95 % interval."""
_TOP_PX: Final = 64
"""Room for two lines of title."""
_TOLD: Final = frozenset(
    {
        *(f"scaling.{name}" for name in ("resolution", "depth", "width", "kernel")),
        *(f"scaling.{name}" for name in ("decoder", "neck_width", "neck_follows")),
        *(f"pruning.{name}" for name in ("channel_fraction", "block_fraction", "sparsity")),
        *(f"quantization.{name}" for name in ("precision", "keep_float")),
    }
)
"""The axes that the words on shape, pruning and precision tell."""


def outlook_figure(found: Outlook | None, records: Sequence[TrialRecord], *, tells_errors: bool = False) -> Figure:
    """Draw the expected front with its 95 % band, the measured trials, and the most promising untried candidates.

    Trials that were trained in part are left out, since the expected scores are those of full length.

    Args:
        found: What is expected; None draws nothing.
        records: All trials of the study.
        tells_errors: Whether the title tells how far the model is off, for a page that has no other text on it.
    """
    new = (record for record in records if record.same_as is None and not record.short)
    measured = [record for record in new if record.quality and record.latency]
    if found is None:
        return {"data": [], "layout": {}}
    front = found.front
    x = [float(f"{each.p50_ms:.5g}") for each in front]
    upper, lower = ([round(100 * (each.score + sign * SURE * each.score_sd), 2) for each in front] for sign in (1, -1))
    shown = [(record.latency.p50_ms, record.quality.score) for record in measured if record.latency and record.quality]
    data = [
        {
            "type": "scatter", "mode": "lines", "name": "95 % of the model", "x": [*x, *reversed(x)],
            "y": [*upper, *reversed(lower)], "fill": "toself", "fillcolor": ORANGE, "opacity": 0.2,
            "line": {"width": 0}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "mode": "markers", "name": "measured", "x": [float(f"{ms:.5g}") for ms, _ in shown],
            "y": [round(100 * score, 2) for _, score in shown], "marker": {"color": FAINT, "size": 6},
            "text": [str(record.trial) for record in measured],
            "hovertemplate": "trial %{text}: %{y:.2f} %, %{x:.4g} ms<extra></extra>",
        },
        {
            "type": "scatter", "mode": "lines", "name": "expected front", "x": x,
            "y": [round(100 * each.score, 2) for each in front], "line": {"color": INK, "width": 2},
            "text": [_words(each) for each in front],
            "hovertemplate": "%{text}: %{y:.1f} %, %{x:.4g} ms<extra>expected</extra>",
        },
        _promises(found.best),
    ]  # fmt: skip
    errors = _off(found.errors, score_noun_of(records)) if tells_errors and found.errors else ""
    frame = layout(
        title=f"The front that a model of the trials expects{errors}",
        x={"type": "log", "title": {"text": f"{latency_axis(records)} (log scale)"}} | ticks(measured),
        y={"title": {"text": f"{score_axis(records)}, %"}},
    )
    if errors:
        frame["margin"]["t"] = _TOP_PX
    return {"data": data, "layout": frame}


def _promises(best: Sequence[Promise]) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": "untried, most promising",
        "x": [float(f"{each.p50_ms:.5g}") for each in best], "y": [round(100 * each.score, 2) for each in best],
        "error_y": {"type": "data", "array": [round(100 * SURE * each.score_sd, 2) for each in best], "width": 3},
        "marker": {"color": ORANGE, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
        "text": [_words(each) for each in best],
        "customdata": [_why(each, place) for place, each in enumerate(best, start=1)],
        "hovertemplate": "%{text}: %{y:.1f} %, %{x:.4g} ms<br>%{customdata}<extra>expected</extra>",
    }  # fmt: skip


def _off(errors: Errors, noun: str) -> str:
    """Return how far the model is off, as a second line of the title."""
    return (
        f"<br><span style='font-size:12px'>off by {100 * errors.score_rms:.1f} points of {noun}, "
        f"{100 * errors.latency_median:.0f} % of latency ({errors.networks} networks left out)</span>"
    )


def _why(each: Promise, place: int) -> str:
    """Return what speaks for an untried candidate, with what the model doubts, as two lines."""
    spread = math.exp(SURE * each.log_ms_sd)
    doubt = (
        f"95 % of the model: ± {100 * SURE * each.score_sd:.1f} points, {milliseconds(each.p50_ms / spread)} to "
        f"{milliseconds(each.p50_ms * spread)}"
    )
    grows = "" if each.growth is None else f" by {100 * each.growth:.2f} %"
    trained = f"; {each.trained} updates of its training are made" if each.trained else ""
    return f"{doubt}<br>expected to enlarge the front{grows}: number {place} of the untried ones, cost apart{trained}"


def _words(each: Promise) -> str:
    candidate = each.candidate
    parts = (f"resolution x{candidate.scaling.resolution:.4g}", scaling_text(candidate.scaling))
    further = (candidate.pruning.label, candidate.quantization.label, other_axes(each))
    return html.escape(", ".join(part for part in (*parts, *further) if part))


def other_axes(each: Promise) -> str:
    """Return what was sampled besides resolution, shape, pruning and precision, as text; empty if nothing was.

    Axes have the names of the settings, without their group: `optimizer adamw, learning_rate 0.01`.
    """
    return ", ".join(
        f"{name.partition('.')[2]} {_value_text(value)}" for name, value in each.sampled.items() if name not in _TOLD
    )


def _value_text(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
