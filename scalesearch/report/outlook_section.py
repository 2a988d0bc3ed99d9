"""The section on what may still be found: the front that a model of the trials expects, and the best untried ones."""

import html
import math
from collections.abc import Sequence

from scalesearch.analysis.outlook import FEWEST, Outlook, Promise
from scalesearch.study.contents import StudyContents
from scalesearch.values.candidate import Candidate
from scalesearch.views.figures import Figure, layout, ticks
from scalesearch.views.markup import chart, paragraph, section, table
from scalesearch.views.palette import FAINT, INK, ORANGE
from scalesearch.views.words import latency_axis, milliseconds, multipliers, percent, score_axis, score_noun_of

_TITLE = "What may still be found"
_SURE = 1.96
"""Standard deviations on each side of a 95 % interval."""


def outlook(study: StudyContents) -> str:
    """Write what the model expects, its errors, and the candidates that promise most."""
    found = study.outlook
    if found is None:
        words = f"A model of the trials needs {FEWEST} measured ones and a space with a choice."
        return section("outlook", _TITLE, paragraph(words))
    noun = score_noun_of(study.records)
    sampler = study.session.settings.sampler_name if study.session else ""
    used = "The sampler chose its candidates by such a model." if sampler == "growth" else "The sampler did not use it."
    note = (
        f"Two Gaussian processes, one for the {noun} and one for the logarithm of the latency, were fitted to the "
        f"measured trials. {used} It is asked about {found.considered} candidates, tried and untried."
    )
    rows = [_row(each) for each in found.best]
    head = ["resolution", "depth x width x kernel", "channels cut", "precision", noun, "latency", "growth of the front"]
    return section(
        "outlook",
        _TITLE,
        paragraph(note),
        paragraph(_errors_text(found, noun)),
        chart("outlook", "The front that the model expects, over the measured trials"),
        table(head, rows, caption="Untried candidates that promise most, with 95 % intervals of the model"),
    )


def _errors_text(found: Outlook, noun: str) -> str:
    if found.errors is None:
        return "How far the model is off cannot be told from fewer than three networks."
    return (
        f"Asked about {found.errors.networks} networks that were left out of the fit one by one, it is off by "
        f"{100 * found.errors.score_rms:.1f} points of {noun} (root mean square) and by "
        f"{100 * found.errors.latency_median:.0f} % of the latency (median)."
    )


def _row(each: Promise) -> list[str]:
    candidate, spread = each.candidate, math.exp(_SURE * each.log_ms_sd)
    cut = candidate.pruning.channel_fraction
    return [
        f"x{candidate.scaling.resolution:.4g}",
        multipliers(candidate.scaling),
        f"{100 * cut:.0f} %" if cut else "-",
        candidate.quantization.label,
        f"{percent(each.score)} ± {100 * _SURE * each.score_sd:.1f}",
        f"{milliseconds(each.p50_ms)} ({milliseconds(each.p50_ms / spread)} to {milliseconds(each.p50_ms * spread)})",
        f"{100 * each.growth:.2f} %",
    ]


def outlook_figure(study: StudyContents) -> Figure:
    """Draw the expected front with its 95 % band, the measured trials, and the most promising untried candidates."""
    found = study.outlook
    measured = [record for record in study.records if record.same_as is None and record.quality and record.latency]
    if found is None:
        return {"data": [], "layout": {}}
    front = found.front
    x = [float(f"{each.p50_ms:.5g}") for each in front]
    upper, lower = ([round(100 * (each.score + sign * _SURE * each.score_sd), 2) for each in front] for sign in (1, -1))
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
            "text": [_words(each.candidate) for each in front], "hovertemplate": "%{text}<extra>expected</extra>",
        },
        _promises(found.best),
    ]  # fmt: skip
    return {
        "data": data,
        "layout": layout(
            title="The front that a model of the trials expects",
            x={"type": "log", "title": {"text": f"{latency_axis(measured)} (log scale)"}} | ticks(measured),
            y={"title": {"text": f"{score_axis(measured)}, %"}},
        ),
    }


def _promises(best: Sequence[Promise]) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": "untried, most promising",
        "x": [float(f"{each.p50_ms:.5g}") for each in best], "y": [round(100 * each.score, 2) for each in best],
        "error_y": {"type": "data", "array": [round(100 * _SURE * each.score_sd, 2) for each in best], "width": 3},
        "marker": {"color": ORANGE, "symbol": "diamond-open", "size": 11, "line": {"width": 2}},
        "text": [_words(each.candidate) for each in best],
        "hovertemplate": "%{text}: %{y:.1f} %, %{x:.4g} ms<extra>expected</extra>",
    }  # fmt: skip


def _words(candidate: Candidate) -> str:
    cut = candidate.pruning.label
    parts = (f"resolution x{candidate.scaling.resolution:.4g}", multipliers(candidate.scaling), cut)
    return html.escape(", ".join(part for part in (*parts, candidate.quantization.label) if part))
