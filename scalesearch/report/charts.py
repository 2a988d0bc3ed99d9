"""The figures of the page, by the name of their place."""

from collections.abc import Sequence
from typing import Any

from scalesearch.report.study import Study
from scalesearch.search.baselines import RANDOM_START
from scalesearch.search.figures import (
    INK,
    STYLES,
    Figure,
    front_figure,
    hypervolume_figure,
    importance_figure,
    paid_figure,
)
from scalesearch.search.front import point
from scalesearch.values.confirmed import ConfirmedRun


def figures(study: Study) -> dict[str, Figure]:
    """Every figure that is drawn at once; those of classes and histograms follow the reader's choice."""
    sampler = study.session.settings.sampler if study.session else "tpe"
    made = {
        "front": front_figure(study.records, chance=study.chance, base=study.base, knee=study.knee),
        "hypervolume": hypervolume_figure(study.records, chance_until=RANDOM_START[sampler]),
        "importance": importance_figure(study.importance),
        "paid": paid_figure(study.records),
        "confirmed": confirmed_figure(study),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}


def confirmed_figure(study: Study) -> Figure:
    """Every confirmed run at its test accuracy, joined with where the search had put it."""
    searched = {record.trial: record for record in study.records if record.quality and record.latency}
    runs = [run for run in study.confirmed if run.trial in searched]
    before = [point(searched[run.trial]) for run in runs]
    x: list[float | None] = []
    y: list[float | None] = []
    for (top1, p50_ms), run in zip(before, runs, strict=True):
        x += [p50_ms, run.latency.p50_ms, None]
        y += [100 * top1, 100 * run.test.top1, None]
    base = front_figure([])
    moved = {
        "type": "scatter", "mode": "lines", "name": "move", "hoverinfo": "skip", "x": x, "y": y,
        "line": {"color": INK, "width": 1, "dash": "dot"},
    }  # fmt: skip
    first = _runs("searched (validation)", [run.trial for run in runs], before, STYLES["bf16"]) | {"mode": "markers"}
    last = _runs(
        "confirmed (test)", [run.trial for run in runs], [(run.test.top1, run.latency.p50_ms) for run in runs],
        STYLES["int8"],
    ) | _bars(runs)  # fmt: skip
    layout = base["layout"] | {"title": base["layout"]["title"] | {"text": "Searched and confirmed"}}
    layout["xaxis"] = layout["xaxis"] | {"type": "log"}
    return {"data": [moved, first, last] if runs else [], "layout": layout}


def _runs(
    name: str, trials: Sequence[int], points: Sequence[tuple[float, float]], style: tuple[str, str]
) -> dict[str, Any]:
    colour, symbol = style
    return {
        "type": "scatter", "name": name, "mode": "markers+text", "textposition": "bottom right",
        "x": [float(f"{p50_ms:.5g}") for _, p50_ms in points], "y": [round(100 * top1, 2) for top1, _ in points],
        "text": [str(trial) for trial in trials], "marker": {"color": colour, "symbol": symbol, "size": 10},
        "hovertemplate": "trial %{text}: %{y:.2f} %, %{x:.4g} ms<extra></extra>",
    }  # fmt: skip


def _bars(runs: Sequence[ConfirmedRun]) -> dict[str, Any]:
    return {
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [round(100 * (run.test.top1_high - run.test.top1), 2) for run in runs],
            "arrayminus": [round(100 * (run.test.top1 - run.test.top1_low), 2) for run in runs],
        },
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [float(f"{run.latency.p50_high_ms - run.latency.p50_ms:.3g}") for run in runs],
            "arrayminus": [float(f"{run.latency.p50_ms - run.latency.p50_low_ms:.3g}") for run in runs],
        },
    }  # fmt: skip
