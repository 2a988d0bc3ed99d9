"""Figures of a study as plain plotly data, so that report and dashboard draw the same; plotly is not needed here."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scalesearch.analysis.baselines import hypervolume_over_trials, worker_minutes
from scalesearch.analysis.importance import AxisImportance
from scalesearch.analysis.paid import gains_by_step
from scalesearch.analysis.score_error import metric_of
from scalesearch.values.quality import PROPORTIONS, score_noun
from scalesearch.values.record import Gain, TrialRecord
from scalesearch.views.palette import FAINT, LOOKS, ORANGE, YELLOW
from scalesearch.views.words import score_title

Figure = dict[str, Any]
STYLES: dict[str, tuple[str, str]] = {name: (look.colour, look.symbol) for name, look in LOOKS.items()}
_CYCLE = (*STYLES.values(), (ORANGE, "cross"), ("#000000", "x"), (YELLOW, "pentagon"))
_NEAR = 1.5


def paid_figure(records: Iterable[TrialRecord]) -> Figure:
    """Draw the speed-up of every measured compression step against its change of score.

    Each kind of step has a colour and shape of its own.
    """
    every = list(records)
    better = "more accurate" if metric_of(every) in PROPORTIONS else "a better score"
    groups = sorted(gains_by_step(every).items())
    data = [
        _gain_points(f"{what}, {kind}", gains, _CYCLE[place % len(_CYCLE)])
        for place, ((what, kind), gains) in enumerate(groups)
    ]
    dash = {"color": FAINT, "width": 1, "dash": "dot"}
    no_change = [
        {"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper", "line": dash},
        {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0, "line": dash},
    ]
    return {
        "data": data,
        "layout": layout(
            title=f"What compression paid: right is faster, up is {better}",
            x={"title": {"text": "speed-up against the same network without the step"}},
            y={"title": {"text": f"change of {score_title(every)}, points"}},
            shapes=no_change,
        ),
    }


def hypervolume_figure(records: Iterable[TrialRecord], *, chance_until: float = 0) -> Figure:
    """Draw the hypervolume of the front after each trial; candidates before `chance_until` were drawn at random.

    Two buttons choose what is to the right: trials, or the minutes that workers spent on them.
    """
    every = list(records)
    grown, minutes = hypervolume_over_trials(every), worker_minutes(every)
    trials = [trial for trial, _ in grown]
    spent = [round(minutes[trial], 2) for trial in trials]
    line = {
        "type": "scatter", "mode": "lines", "name": "front", "showlegend": False,
        "x": trials, "y": [float(f"{value:.6g}") for _, value in grown],
        "customdata": [list(pair) for pair in zip(trials, spent, strict=True)],
        "line": {"shape": "hv", "color": STYLES["fp32"][0], "width": 2},
        "hovertemplate": "after trial %{customdata[0]}, %{customdata[1]} min of the workers: %{y:.4f}<extra></extra>",
    }  # fmt: skip
    shapes = []
    if grown and 0 < chance_until < trials[-1]:
        shapes = [
            {"type": "rect", "x0": 0, "x1": chance_until, "y0": 0, "y1": 1, "yref": "paper", "fillcolor": ORANGE,
             "opacity": 0.15, "line": {"width": 0}},
        ]  # fmt: skip
    title = "Hypervolume of the front" + (" (shaded: drawn by chance)" if shapes else "")
    frame = layout(
        title=title,
        x={"title": {"text": "trial"}},
        y={"title": {"text": "hypervolume"}},
        shapes=shapes,
    )
    if grown and spent[-1]:
        chance_minutes = max((minutes[trial] for trial in minutes if trial < chance_until), default=0.0)
        frame["updatemenus"] = [_trials_or_minutes(trials, spent, (chance_until, chance_minutes) if shapes else None)]
    return {"data": [line] if grown else [], "layout": frame}


def _trials_or_minutes(trials: list[int], minutes: list[float], chance: tuple[float, float] | None) -> dict[str, Any]:
    """Return the buttons that put trials or minutes on the horizontal axis; `chance` ends the shaded part in each."""
    buttons = []
    for place, (label, title, x) in enumerate((("trials", "trial", trials), ("minutes", "worker minutes", minutes))):
        changes: dict[str, Any] = {"xaxis.title.text": title}
        if chance:
            changes["shapes[0].x1"] = round(chance[place], 2)
        buttons.append({"label": label, "method": "update", "args": [{"x": [x]}, changes]})
    return {
        "type": "buttons", "direction": "right", "buttons": buttons, "showactive": True,
        "x": 1, "xanchor": "right", "y": -0.12, "yanchor": "top", "pad": {"t": 4}, "font": {"size": 11},
    }  # fmt: skip


def importance_figure(entries: Sequence[AxisImportance], metric: str) -> Figure:
    """Draw two bars for each axis: its importance for the score, and for the latency.

    Importance is the axis's share in what distinguishes the best-scoring (the fastest) trials from the rest.

    Args:
        entries: Importance of each axis.
        metric: Name of the metric that scored the trials.
    """
    names = [html.escape(entry.axis) for entry in reversed(entries)]
    bars: tuple[tuple[str, list[float], str], ...] = (
        ("latency", [round(100 * entry.p50_ms, 1) for entry in reversed(entries)], STYLES["int8"][0]),
        (score_noun(metric), [round(100 * entry.score, 1) for entry in reversed(entries)], STYLES["fp32"][0]),
    )
    data = [
        {
            "type": "bar", "orientation": "h", "name": name, "y": names, "x": values,
            "marker": {"color": colour},
            "hovertemplate": "%{y}: %{x} %<extra>" + name + "</extra>",
        }
        for name, values, colour in bars
    ]  # fmt: skip
    axes = layout(
        title="What the best trials have in common (PED-ANOVA)",
        x={"title": {"text": "share of the importance, %"}},
        y={"automargin": True},
    )
    return {
        "data": data if entries else [],
        "layout": axes | {"barmode": "group", "legend": axes["legend"] | {"y": -0.35}},
    }


def ticks(records: Iterable[TrialRecord], *, also_ms: Iterable[float] = ()) -> dict[str, Any]:
    """Return ticks with whole values: plotly's own on a log axis are bare digits (`2`, `3` after `1` for 20 and 30).

    Where latencies differ by less than a factor of `_NEAR`, round values at equal distances lie between them.

    Args:
        records: The trials whose latencies are drawn.
        also_ms: Further latencies that the figure shows.
    """
    latencies = [record.latency.p50_ms for record in records if record.latency]
    if not latencies:
        return {}
    every = [*latencies, *also_ms]
    low, high = min(every), max(every)
    digits: tuple[float, ...] = (1, 2, 5)
    if high / low < 30:
        digits = (1, 1.5, 2, 3, 5, 7) if high / low > 4 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    if high / low < _NEAR:
        even = _even_values(low, high)
        values = sorted({*even, *(value for value in values if not even[0] < value < even[-1])})
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _even_values(low: float, high: float) -> list[float]:
    """Return round values at equal distances, from one that is not above `low` to one that is not below `high`."""
    wanted = max((high - low) / 5, 0.005 * high)
    unit = 10.0 ** math.floor(math.log10(wanted))
    step = next(size * unit for size in (1, 2, 5, 10) if size * unit >= wanted)
    places = range(math.floor(low / step), math.ceil(high / step) + 1)
    return [float(f"{place * step:.4g}") for place in places]


def layout(*, title: str, x: Mapping[str, Any], y: Mapping[str, Any], shapes: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the frame of a figure: plain axes with a faint grid, and the legend below."""
    grid = {"gridcolor": "#e3e3e3", "zeroline": False, "automargin": True}
    return {
        "template": "none",  # the default template alone would be 7 kB in the study at every update
        "title": {"text": title, "x": 0.02, "font": {"size": 15}},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
        "xaxis": grid | dict(x),
        "yaxis": grid | dict(y),
        "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "font": {"size": 12}},
        "margin": {"l": 60, "r": 20, "t": 50, "b": 55},
        "hovermode": "closest",
        "shapes": list(shapes),
    }


def _gain_points(name: str, gains: Sequence[Gain], style: tuple[str, str]) -> dict[str, Any]:
    colour, symbol = style
    points = [
        (round(gain.speedup, 3), round(100 * gain.score_change, 2)) for gain in gains if gain.score_change is not None
    ]
    return {
        "type": "scatter", "mode": "markers", "name": html.escape(name),
        "x": [x for x, _ in points], "y": [y for _, y in points],
        "marker": {"color": colour, "symbol": symbol, "size": 9, "opacity": 0.75},
        "hovertemplate": "%{x}x as fast, %{y:+} points<extra>" + html.escape(name) + "</extra>",
    }  # fmt: skip


def loss_figure(records: Sequence[TrialRecord], knee: TrialRecord | None) -> Figure:
    """Draw each record's training loss over its steps, trunk and branch; the knee's line is strong."""
    data = []
    for record in records:
        x, y = _losses(record)
        strong = knee is not None and record.trial == knee.trial
        colour = STYLES[record.candidate.quantization.precision][0] if strong else FAINT
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": f"trial {record.trial}", "x": x, "y": y,
                "line": {"color": colour, "width": 3 if strong else 1}, "opacity": 1 if strong else 0.5,
                "showlegend": strong, "hovertemplate": "step %{x}: %{y:.3f}<extra>trial " + f"{record.trial}</extra>",
            }
        )  # fmt: skip
    data.sort(key=lambda trace: bool(trace["showlegend"]))  # the strong line on top
    axes = layout(
        title="Loss while training (a gap: where the branch begins, cut or not)",
        x={"title": {"text": "step"}},
        y={"title": {"text": "loss, means of equal stretches"}},
    )
    return {"data": [trace for trace in data if trace["x"]], "layout": axes}


def _losses(record: TrialRecord) -> tuple[list[float | None], list[float | None]]:
    x: list[float | None] = []
    y: list[float | None] = []
    done = 0
    for curve in record.training.loss_curves if record.training else ():
        stretch = curve.steps / len(curve.losses)
        x += [round(done + (place + 0.5) * stretch, 1) for place in range(len(curve.losses))]
        y += [float(f"{loss:.4g}") for loss in curve.losses]
        x.append(None)
        y.append(None)
        done += curve.steps
    return x[:-1], y[:-1]
