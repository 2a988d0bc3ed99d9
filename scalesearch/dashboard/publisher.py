"""Makes a study readable in Optuna Dashboard: notes, figures under fixed ids, and files of front members."""

import contextlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.analysis.baselines import base_network, chance_ends, chance_front
from scalesearch.analysis.front import knee, pareto_front
from scalesearch.analysis.importance import axis_importance
from scalesearch.analysis.score_error import metric_of
from scalesearch.dashboard.artifacts import keep_artifacts
from scalesearch.errors import ConfigError
from scalesearch.search.storage import (
    STUDY_FILE,
    only_coordinator,
    opened_study,
    reading_storage,
    storage_of,
    study_name,
)
from scalesearch.tasks.registry import parts_of, views_of
from scalesearch.values.histogram import LayerHistogram
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import SamplerName
from scalesearch.values.space import SearchSpace
from scalesearch.views.figures import Figure, hypervolume_figure, importance_figure, paid_figure
from scalesearch.views.front_figure import front_figure
from scalesearch.views.histogram_figure import overview_figure
from scalesearch.views.trial_card import STUDY_NOTE, trial_note

if TYPE_CHECKING:
    import optuna

FRONT_FIGURE = "feasible_front"
PAID_FIGURE = "what_paid"
HYPERVOLUME_FIGURE = "hypervolume"
IMPORTANCE_FIGURE = "importance"
OUTLOOK_FIGURE = "expected_front"
HISTOGRAM_FIGURE = "histograms_of_trial_{trial}"


def installed() -> bool:
    """Tell whether the extra `dashboard` is installed.

    During a run its absence is not an error: the study is complete without it.
    """
    return all(importlib.util.find_spec(name) is not None for name in ("optuna_dashboard", "plotly"))


class DashboardListener:
    """Keeps a study readable in Optuna Dashboard while a search goes on. Does nothing without the extra."""

    def __init__(self, folder: Path, space: SearchSpace, samplers: Sequence[SamplerName], task: str = "") -> None:
        """Take the study's folder, space and task, and its `start_samplers`, which tell what was drawn at random."""
        self._folder, self._space, self._samplers, self._task = folder, space, samplers, task

    def study_opened(self, study: "optuna.Study") -> None:
        """Save the study's note."""
        annotate_study(study)

    def trial_recorded(self, study: "optuna.Study", trial: "optuna.Trial", record: TrialRecord) -> None:
        """Save the record as the trial's note."""
        annotate_trial(study, trial, record, task=self._task)

    def front_changed(self, study: "optuna.Study", records: Iterable[TrialRecord]) -> None:
        """Save the front's figures, and the files of its members."""
        show_front(study, records, folder=self._folder, samplers=self._samplers)

    def statistics_due(self, study: "optuna.Study", records: Iterable[TrialRecord]) -> None:
        """Save every figure over all records: those of the front, too, for dominated trials are drawn in them."""
        every = list(records)
        update_figures(study, every, samplers=self._samplers)
        update_statistics(study, every, self._space)


def annotate_study(study: "optuna.Study") -> None:
    """Save the study's note: where to look, and what the dashboard gets wrong. Do nothing without the extra."""
    if not installed():
        return
    from optuna_dashboard import get_note, save_note

    if not get_note(study):  # what a user wrote there is kept
        save_note(study, STUDY_NOTE)


def annotate_trial(
    study: "optuna.Study", trial: "optuna.Trial | optuna.trial.FrozenTrial", record: TrialRecord, *, task: str = ""
) -> None:
    """Save the record as the trial's note, in any state of the trial. Do nothing without the extra.

    `task` is the name of the study's task, which a trial without a score does not tell.
    """
    if not installed():
        return
    from optuna_dashboard import save_note

    views = views_of(record)
    note = trial_note(record, views.sections(record) if views else (), parts=parts_of(record, task))
    save_note(_NoteOwner(storage=study._storage, study=study, _trial_id=trial._trial_id), note)


def annotate_missing(
    study: "optuna.Study",
    records: Iterable[TrialRecord],
    folder: Path | None = None,
    *,
    samplers: Sequence[SamplerName],
    task: str = "",
) -> int:
    """Save what a run without the extra could not: missing notes of trials, the study's note, figures and files.

    Return the number of notes saved. Do nothing without the extra. By `samplers`, the study's `start_samplers`, the
    figures show which candidates were drawn by chance; `task` is as in `annotate_trial`.
    """
    if not installed():
        return 0
    from optuna_dashboard import get_note

    known, saved = {record.trial: record for record in records}, 0
    for trial in study.get_trials(deepcopy=False):
        owner = _NoteOwner(storage=study._storage, study=study, _trial_id=trial._trial_id)
        if trial.number in known and not get_note(owner):
            annotate_trial(study, trial, known[trial.number], task=task)
            saved += 1
    if saved:
        annotate_study(study)
        update_figures(study, known.values(), samplers=samplers)
    if folder:
        keep_artifacts(study, folder, pareto_front(known.values()))
    return saved


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoteOwner:
    """What `save_note` reads of a live trial. A frozen one (told again after a kill) has no storage of its own."""

    storage: Any
    study: Any
    _trial_id: int


def show_front(
    study: "optuna.Study", records: Iterable[TrialRecord], *, folder: Path, samplers: Sequence[SamplerName] = ()
) -> None:
    """Save what changes with the front: figures, and the files of its members. Do nothing without the extra."""
    if not installed():
        return
    every = list(records)
    update_figures(study, every, samplers=samplers)
    keep_artifacts(study, folder, pareto_front(every))


def update_figures(
    study: "optuna.Study", records: Iterable[TrialRecord], *, samplers: Sequence[SamplerName] = ()
) -> None:
    """Save the figures of front and hypervolume in place of the last ones. Do nothing without the extra."""
    if not installed():
        return
    every = list(records)
    front = pareto_front(every)
    chance = chance_front(every, samplers)
    figure = front_figure(every, chance=chance, base=base_network(every), knee=knee(front))
    _save(study, FRONT_FIGURE, figure)
    _save(study, HYPERVOLUME_FIGURE, hypervolume_figure(every, chance_until=chance_ends(every, samplers)))


def update_statistics(study: "optuna.Study", records: Iterable[TrialRecord], space: SearchSpace) -> None:
    """Save the figures of what paid, of the importance of the axes, and of the front that is expected.

    Every trial changes them a little; they take the place of the last ones.
    """
    if not installed():
        return
    from scalesearch.analysis.outlook import outlook  # both load scikit-learn
    from scalesearch.views.outlook_figure import outlook_figure

    every = list(records)
    _save(study, PAID_FIGURE, paid_figure(every))
    found = outlook(space, every, simple=False)
    _save(study, OUTLOOK_FIGURE, outlook_figure(found, every, tells_errors=True))
    _save(study, IMPORTANCE_FIGURE, importance_figure(axis_importance(every, space), metric_of(every)))


def _save(study: "optuna.Study", name: str, figure: Figure) -> None:
    """Save a figure under its fixed id, unless it is empty. Do nothing without the extra."""
    if not installed() or not figure["data"]:
        return
    import plotly.graph_objects as go
    from optuna_dashboard import save_plotly_graph_object

    save_plotly_graph_object(study, go.Figure(figure), graph_object_id=name)


def update_histogram_figure(study: "optuna.Study", trial_number: int, histograms: Sequence[LayerHistogram]) -> None:
    """Save the figure of what rounding does to a trial's layers, in place of the last one.

    Do nothing without the extra.
    """
    if not installed():
        return
    from optuna_dashboard import save_plotly_graph_object

    figure = overview_figure(histograms, f"Trial {trial_number}: weights and activations")
    save_plotly_graph_object(study, figure, graph_object_id=HISTOGRAM_FIGURE.format(trial=trial_number))


def keep_histograms(folder: Path, histograms: Mapping[int, Sequence[LayerHistogram]], *, held: bool = False) -> None:
    """Save the histogram figures of several trials into the study of that folder.

    Do not call this while another process works on the study. `held` says that this process holds the folder's lock
    already.
    """
    if histograms and installed() and (storage_of(folder) or (folder / STUDY_FILE).exists()):
        alone = contextlib.nullcontext() if held else only_coordinator(folder)
        with contextlib.suppress(ConfigError), alone, opened_study(folder) as opened:
            for trial, layers in histograms.items():
                update_histogram_figure(opened.study, trial, layers)


def stored_histograms(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the figures that `update_histogram_figure` saved in the study of that folder, by trial; empty without any.

    Raises:
        ConfigError: The database is unfit to be read.
    """
    url = storage_of(folder)
    if not installed() or not (url or (folder / STUDY_FILE).exists()):
        return {}
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    storage = reading_storage(folder)
    try:
        study_id = storage.get_study_id_from_name(study_name(folder, url))
        found = get_plotly_graph_objects(storage.get_study_system_attrs(study_id))
    except KeyError:  # raised by Optuna: a database without this study, as one that was begun a moment ago
        return {}
    finally:
        storage.remove_session()
        storage.engine.dispose()
    prefix = HISTOGRAM_FIGURE.format(trial="")
    return {
        int(name.removeprefix(prefix)): json.loads(figure)
        for name, figure in found.items()
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    }
