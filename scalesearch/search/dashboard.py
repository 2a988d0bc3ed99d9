"""What makes a study readable in Optuna Dashboard: notes and our own front."""

import html
import importlib.util
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.records.histogram_figure import overview_figure
from scalesearch.records.report import (
    accuracy_with_interval,
    describe,
    latency_with_interval,
    multipliers,
    quantization_text,
    verdict,
)
from scalesearch.search.front import knee, pareto_front
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, storage_in
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import TrialRecord

if TYPE_CHECKING:
    import optuna

FRONT_FIGURE = "feasible_front"
HISTOGRAM_FIGURE = "histograms_of_trial_{trial}"
# Okabe and Ito's colours and shapes, the same as in front.png.
_STYLES = {
    "fp32": ("#0072B2", "circle"),
    "fp16": ("#009E73", "square"),
    "bf16": ("#56B4E9", "diamond"),
    "int8": ("#D55E00", "triangle-up"),
    "fp8": ("#CC79A7", "triangle-down"),
}
_STUDY_NOTE = """\
**Where to look:** the figure *Feasible front* on the study's first page. It holds only trials within every limit.

* The label "Best Trial" is Optuna Dashboard's own and knows nothing of limits: trust the attribute `feasible`.
* `top1` is the accuracy of the deployed file (0 to 1), `p50_ms` its latency on the device.
* Each trial's note says what was asked, what it became after rounding, and what was measured.
* The same on the command line: `scalesearch front`, `scalesearch show --trial N`, `scalesearch export`.
"""


def installed() -> bool:
    """Whether the extra `dashboard` is there. During a run its absence is no fault: the study is whole without it."""
    return all(importlib.util.find_spec(name) is not None for name in ("optuna_dashboard", "plotly"))


def annotate_study(study: "optuna.Study") -> None:
    """Save the study's note: where to look and what the dashboard gets wrong. Does nothing without the extra."""
    if not installed():
        return
    from optuna_dashboard import get_note, save_note

    if not get_note(study):  # what a user wrote there stays
        save_note(study, _STUDY_NOTE)


def annotate_trial(
    study: "optuna.Study", trial: "optuna.Trial | optuna.trial.FrozenTrial", record: TrialRecord
) -> None:
    """Save the record as the trial's note, in any state of the trial. Does nothing without the extra."""
    if not installed():
        return
    from optuna_dashboard import save_note

    save_note(_NoteOwner(storage=study._storage, study=study, _trial_id=trial._trial_id), trial_note(record))


def annotate_missing(study: "optuna.Study", records: Iterable[TrialRecord]) -> int:
    """Save what a run without the extra could not: notes of trials that have none, the study's note, the figure.

    Returns the number of notes saved. Does nothing without the extra.
    """
    if not installed():
        return 0
    from optuna_dashboard import get_note

    known, saved = {record.trial: record for record in records}, 0
    for trial in study.get_trials(deepcopy=False):
        owner = _NoteOwner(storage=study._storage, study=study, _trial_id=trial._trial_id)
        if trial.number in known and not get_note(owner):
            annotate_trial(study, trial, known[trial.number])
            saved += 1
    if saved:
        annotate_study(study)
        update_front_figure(study, known.values())
    return saved


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoteOwner:
    """What `save_note` reads of a live trial; a frozen one (told again after a kill) has no storage of its own."""

    storage: Any
    study: Any
    _trial_id: int


def trial_note(record: TrialRecord) -> str:
    """The record as Markdown: a summary line over one table, with all text of the user's inert."""
    rows = ["| | |", "|---|---|"]
    for section in describe(record):
        rows.append(f"| **{inert(section.title)}** | |")
        rows += [f"| {inert(label)} | {inert(text)} |" for label, text in section.lines]
    return f"**{inert(_summary(record))}**\n\n" + "\n".join(rows) + "\n"


def inert(text: str) -> str:
    """`text` as one line of plain Markdown: class and study names may hold HTML, links or table bars."""
    one_line = " ".join(text.split())
    return re.sub(r"([!-,/:-@\[-`{-~])", r"\\\1", one_line)


def _summary(record: TrialRecord) -> str:
    if record.quality is None or record.latency is None:
        return verdict(record)
    scores = f"top-1 {accuracy_with_interval(record.quality)} %, p50 {latency_with_interval(record.latency)} ms"
    return f"{scores}, {record.candidate.quantization.precision}, {verdict(record)}"


def update_front_figure(study: "optuna.Study", records: Iterable[TrialRecord]) -> None:
    """Save our own front, of feasible trials alone, in place of the last one. Does nothing without the extra."""
    if not installed():
        return
    from optuna_dashboard import save_plotly_graph_object

    save_plotly_graph_object(study, front_figure(records), graph_object_id=FRONT_FIGURE)


def front_figure(records: Iterable[TrialRecord]) -> Any:
    """A plotly figure: the feasible front with its intervals, and the other feasible trials faint."""
    import plotly.graph_objects as go

    feasible = [record for record in records if record.feasible and record.same_as is None]
    front = pareto_front(feasible)
    numbers = {record.trial for record in front}
    best = knee(front)
    figure = go.Figure()
    figure.add_trace(
        {
            "type": "scatter", "mode": "lines", "name": "front", "hoverinfo": "skip",
            "line": {"shape": "hv", "color": "#666666", "width": 1},
        }
        | _coordinates(front)
    )  # fmt: skip
    for precision, (colour, symbol) in _STYLES.items():
        mine = [record for record in feasible if record.candidate.quantization.precision == precision]
        on_front = [record for record in mine if record.trial in numbers]
        rest = [record for record in mine if record.trial not in numbers]
        if on_front:
            marker = {"color": colour, "symbol": symbol, "size": 11, "line": {"width": 1, "color": "white"}}
            figure.add_trace(
                _points(on_front, precision) | {"marker": marker, "mode": "markers+text"} | _bars(on_front)
            )
        if rest:
            marker = {"color": colour, "symbol": symbol, "size": 7, "opacity": 0.3}
            faint = {"marker": marker, "mode": "markers", "showlegend": False}
            figure.add_trace(_points(rest, f"{precision}, dominated") | faint)
    ending = f", knee: trial {best.trial} (faint: dominated)" if best else ": no feasible trial yet"
    figure.update_layout(
        template="none",  # the default template alone would be 7 kB in the study at every update
        title={"text": f"Feasible front{ending}", "x": 0.02},
        xaxis={"type": "log", "title": {"text": "p50 latency of the deployed file, ms"}} | _ticks(feasible),
        yaxis={"title": {"text": "top-1 accuracy of the deployed file, %"}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


def update_histogram_figure(study: "optuna.Study", trial_number: int, histograms: Sequence[LayerHistogram]) -> None:
    """Save what rounding does to a trial's layers, in place of its last figure. Does nothing without the extra."""
    if not installed():
        return
    from optuna_dashboard import save_plotly_graph_object

    figure = overview_figure(histograms, f"Trial {trial_number}: weights and activations")
    save_plotly_graph_object(study, figure, graph_object_id=HISTOGRAM_FIGURE.format(trial=trial_number))


def stored_histograms(folder: Path) -> dict[int, dict[str, Any]]:
    """The figures that `update_histogram_figure` saved in the study of that folder, by trial; empty without any."""
    if not installed() or not (folder / STUDY_FILE).exists():
        return {}
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    storage = storage_in(folder / STUDY_FILE)
    try:
        study_id = storage.get_study_id_from_name(STUDY_NAME)
        found = get_plotly_graph_objects(storage.get_study_system_attrs(study_id))
    finally:
        storage.remove_session()
        storage.engine.dispose()
    prefix = HISTOGRAM_FIGURE.format(trial="")
    return {
        int(name.removeprefix(prefix)): json.loads(figure)
        for name, figure in found.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    }


def _ticks(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Ticks that hold whole values: plotly's own on a log axis are bare digits (`2`, `3` after `1` for 20 and 30)."""
    latencies = [record.latency.p50_ms for record in records if record.latency]
    if not latencies:
        return {}
    decades = range(math.floor(math.log10(min(latencies))), math.ceil(math.log10(max(latencies))) + 1)
    values = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 1.5, 2, 3, 5, 7)]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values]}


def _coordinates(records: Sequence[TrialRecord]) -> dict[str, Any]:
    return {
        "x": [record.latency.p50_ms for record in records if record.latency],
        "y": [100 * record.quality.top1 for record in records if record.quality],
    }


def _points(records: Sequence[TrialRecord], name: str) -> dict[str, Any]:
    return _coordinates(records) | {
        "type": "scatter", "name": name, "hoverinfo": "text", "hovertext": [_hover(record) for record in records],
        "text": [str(record.trial) for record in records], "textposition": "bottom right",
    }  # fmt: skip


def _bars(records: Sequence[TrialRecord]) -> dict[str, Any]:
    latencies = [record.latency for record in records if record.latency]
    qualities = [record.quality for record in records if record.quality]
    return {
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [latency.p50_high_ms - latency.p50_ms for latency in latencies],
            "arrayminus": [latency.p50_ms - latency.p50_low_ms for latency in latencies],
        },
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [100 * (quality.top1_high - quality.top1) for quality in qualities],
            "arrayminus": [100 * (quality.top1 - quality.top1_low) for quality in qualities],
        },
    }  # fmt: skip


def _hover(record: TrialRecord) -> str:
    scaling = f"{record.spec.resolution_px} px, " if record.spec else ""
    lines = (
        f"trial {record.trial}",
        _summary(record),
        f"{scaling}depth x width x kernel {multipliers(record.candidate.scaling)}",
        quantization_text(record.candidate.quantization),
    )
    return "<br>".join(html.escape(line) for line in lines)  # plotly reads some HTML in labels
