"""The front as plain plotly data: intervals, ties, what it dominates, and what it is compared with."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scalesearch.analysis.baselines import front_steps
from scalesearch.analysis.front import pareto_front, point, ties
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.views.figures import STYLES, Figure, layout, ticks
from scalesearch.views.front_picture import crowded, latency_limit_ms
from scalesearch.views.palette import FAINT, INK, ORANGE
from scalesearch.views.words import latency_axis, score_axis, shape_text

_LABEL_WIDTH, _LABEL_HEIGHT = 0.05, 0.09
"""Fractions of the picture's sides. If two members are nearer than this, one's number would cover the other's."""
_HOVER = "trial %{text}: %{y:.2f} %, %{x:.4g} ms<br>%{customdata}<extra></extra>"


def front_figure(
    records: Iterable[TrialRecord],
    *,
    chance: Sequence[TrialRecord] = (),
    base: TrialRecord | None = None,
    knee: TrialRecord | None = None,
) -> Figure:
    """Draw the feasible front with its 95 % intervals and ties, faint dominated trials, and what it is compared with.

    Args:
        records: The whole study. Trials answered from the cache would cover their originals and are left out.
        chance: The front of the candidates that were drawn at random.
        base: The trial of the base network, or of the network most like it.
        knee: The knee, which is drawn with a ring.
    """
    measured = [record for record in records if record.same_as is None and record.quality and record.latency]
    feasible = [record for record in measured if record.feasible]
    front = pareto_front(feasible)
    members = {record.trial for record in front}
    dominated = [record for record in feasible if record.trial not in members]
    data = [
        _outside([record for record in measured if not record.within_limits], "breaks a limit", "x-thin-open"),
        _outside([record for record in measured if record.trained_in_part], "trained in part", "y-up-open"),
    ]
    shown = {record.candidate.quantization.precision for record in front}
    data += [_faint(dominated, precision, named=precision not in shown) for precision in STYLES]
    data += [_tie_lines(front), _steps(front, "front", INK, "solid"), _steps(chance, "drawn by chance", ORANGE, "dash")]
    places = _label_places(front, measured)
    data += [_members(front, precision, places) for precision in STYLES]
    data += [_mark(base, "base network", "star", "#000000", 15), _mark(knee, "knee", "circle-open", INK, 22)]
    limit_ms = latency_limit_ms(measured)
    limits_ms = [] if limit_ms is None else [limit_ms]
    latencies = ticks(measured, also_ms=limits_ms)
    ending = f", knee: trial {knee.trial}" if knee else "" if front else ": no feasible trial yet"
    return {
        "data": [trace for trace in data if trace["x"]],
        "layout": layout(
            title=f"Feasible front{ending}",
            x={"type": "log", "title": {"text": f"{latency_axis(measured)} (log scale)"}} | latencies,
            y={"title": {"text": f"{score_axis(measured)}, %"}},
            shapes=[_limit_line(limit_ms) for limit_ms in limits_ms],
        ),
    }


def _points(records: Sequence[TrialRecord], name: str) -> dict[str, Any]:
    pairs = [point(record) for record in records]
    return {
        "type": "scatter", "name": name, "mode": "markers", "hovertemplate": _HOVER,
        "x": [float(f"{p50_ms:.5g}") for _, p50_ms in pairs], "y": [round(100 * score, 2) for score, _ in pairs],
        "text": [str(record.trial) for record in records], "customdata": [_what(record) for record in records],
    }  # fmt: skip


def _what(record: TrialRecord) -> str:
    resolution = f"{record.spec.input_size}, " if record.spec else ""
    pruned = record.candidate.pruning.label
    parts = f"{resolution}{shape_text(record)}{f', {pruned}' if pruned else ''}"
    return html.escape(f"{parts}, {record.candidate.quantization.label}")  # plotly reads some HTML


def _outside(records: Sequence[TrialRecord], name: str, symbol: str) -> dict[str, Any]:
    marker = {"color": FAINT, "symbol": symbol, "size": 8, "opacity": 0.7}
    return _points(records, name) | {"marker": marker, "visible": True}


def _faint(records: Sequence[TrialRecord], precision: str, *, named: bool) -> dict[str, Any]:
    colour, symbol = STYLES[precision]
    mine = [record for record in records if record.candidate.quantization.precision == precision]
    return _points(mine, f"{precision}, dominated") | {
        "marker": {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.3}, "showlegend": named,
    }  # fmt: skip


def _label_places(front: Sequence[TrialRecord], measured: Sequence[TrialRecord]) -> dict[int, str]:
    """Return the position of each member's number, by trial: below and to the right of its point.

    If it would cover the number of the member before, it is above and to the left.
    """
    spots = {record.trial: _spot(record) for record in measured}
    wide, high = (max(ends) - min(ends) or 1.0 for ends in zip(*spots.values(), strict=True)) if spots else (1.0, 1.0)
    trials = sorted((record.trial for record in front), key=lambda trial: spots[trial])
    hits = crowded((spots[trial] for trial in trials), width=_LABEL_WIDTH * wide, height=_LABEL_HEIGHT * high)
    return {trial: "top left" if hit else "bottom right" for trial, hit in zip(trials, hits, strict=True)}


def _spot(record: TrialRecord) -> tuple[float, float]:
    score, p50_ms = point(record)
    return math.log(p50_ms), score


def _members(front: Sequence[TrialRecord], precision: str, places: Mapping[int, str]) -> dict[str, Any]:
    colour, symbol = STYLES[precision]
    mine = [record for record in front if record.candidate.quantization.precision == precision]
    trace = _points(mine, precision) | {
        "mode": "markers+text", "textposition": [places[record.trial] for record in mine],
        "marker": {"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1, "color": "white"}},
    }  # fmt: skip
    return trace | _bars(mine)


def _bars(records: Sequence[TrialRecord]) -> dict[str, Any]:
    latencies = [record.latency for record in records if record.latency]
    qualities = [record.quality for record in records if record.quality]
    return {
        "error_x": _bar(
            [latency.p50_high_ms - latency.p50_ms for latency in latencies],
            [latency.p50_ms - latency.p50_low_ms for latency in latencies],
        ),
        "error_y": _bar(
            [100 * (quality.score_high - quality.score) for quality in qualities],
            [100 * (quality.score - quality.score_low) for quality in qualities],
        ),
    }


def _bar(up: Sequence[float], down: Sequence[float]) -> dict[str, Any]:
    rounded = [[float(f"{max(0.0, value):.3g}") for value in values] for values in (up, down)]
    return {"type": "data", "symmetric": False, "thickness": 1, "array": rounded[0], "arrayminus": rounded[1]}


def _steps(front: Sequence[TrialRecord], name: str, colour: str, dash: str) -> dict[str, Any]:
    # Steps, not a slanted line: between two points of the front nothing was measured.
    x, y = front_steps(front)
    found = dash == "solid"  # its points are drawn with their intervals; a front of one point has no line to show
    return {
        "type": "scatter", "mode": "lines" if found else "lines+markers", "name": name, "hoverinfo": "skip",
        "x": x, "y": y, "marker": {"symbol": "diamond-open", "size": 14, "color": colour, "line": {"width": 2}},
        "line": {"shape": "hv", "color": colour, "width": 1 if found else 2, "dash": dash},
    }  # fmt: skip


def _tie_lines(front: Sequence[MeasuredTrial]) -> dict[str, Any]:
    """Draw a wide light line between any two members that the data cannot tell apart."""
    by_number = {record.trial: record for record in front}
    x: list[float | None] = []
    y: list[float | None] = []
    for pair in ties(front):
        for number in pair:
            score, p50_ms = point(by_number[number])
            x.append(float(f"{p50_ms:.5g}"))
            y.append(round(100 * score, 2))
        x.append(None)
        y.append(None)
    return {
        "type": "scatter", "mode": "lines", "name": "tie", "hoverinfo": "skip", "x": x, "y": y,
        "line": {"color": "#F0E442", "width": 7},
    }  # fmt: skip


def _mark(record: TrialRecord | None, name: str, symbol: str, colour: str, size: int) -> dict[str, Any]:
    marker = {"symbol": symbol, "color": colour, "size": size, "line": {"width": 1.5, "color": colour}}
    return _points([record] if record else [], name) | {"marker": marker}


def _limit_line(limit_ms: float) -> dict[str, Any]:
    dash = {"color": FAINT, "width": 1.5, "dash": "dot"}
    return {"type": "line", "x0": limit_ms, "x1": limit_ms, "y0": 0, "y1": 1, "yref": "paper", "line": dash}
