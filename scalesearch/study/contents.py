"""Everything that a report shows of a study, read once from its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalesearch.analysis.baselines import base_network, chance_front, drawn_by_chance, start_samplers
from scalesearch.analysis.confirmation import Confirmation
from scalesearch.analysis.front import knee, pareto_front
from scalesearch.analysis.importance import AxisImportance, axis_importance
from scalesearch.analysis.likely_members import Correction, correct
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.confirmed import read_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.run_file import NAME, read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.records.stored_files import stored_pictures
from scalesearch.study.metric import study_metric
from scalesearch.study.view import stored_confirmation
from scalesearch.toml_file import read_toml
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.settings import SamplerName

if TYPE_CHECKING:
    from scalesearch.analysis.outlook import Outlook


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What run.toml says about the origin of the numbers."""

    written_by: str = ""
    command: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    host: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyContents:
    """A study as a report shows it."""

    name: str
    records: tuple[TrialRecord, ...]
    front: tuple[MeasuredTrial, ...]
    knee: MeasuredTrial | None
    samplers: tuple[SamplerName, ...]
    """Those by which the candidates that were drawn at random are known (`start_samplers`); empty if they are not."""
    chance: tuple[TrialRecord, ...]
    """The front of the candidates that were drawn at random; empty if they are not known, or were all there is."""
    chance_trials: int
    base: TrialRecord | None
    scores: dict[int, FrontScore]
    confirmation: Confirmation | None
    """None where no member of the front was confirmed, or where a confirmed file cannot be read."""
    confirmed_off_front: tuple[int, ...]
    """The trials that were confirmed, where no member of the front was."""
    correction: Correction | None
    """What the confirmed trials show about the searched front; None where none was confirmed."""
    importance: tuple[AxisImportance, ...]
    outlook: "Outlook | None"
    """What may still be found; None for a study with few measured trials, or without a readable run.toml."""
    session: Session | None
    """None where run.toml is absent or of another version. The results can still be read without it."""
    origin: Origin
    histograms: dict[int, dict[str, Any]]
    """Plotly figures of weights and activations, by trial."""
    without_histograms: str = ""
    """Why these figures cannot be read; empty if they can."""
    pictures: dict[int, bytes] = field(default_factory=dict)
    """Pictures of validation images with the answers of members of the front, as JPEG files, by trial."""
    unreadable: str = ""
    """Which confirmed file cannot be read, and what to do about it; empty if all can."""

    @property
    def metric(self) -> str:
        """The name of the metric that scores the trials, whether one of them has a score or not."""
        return study_metric(self.records, self.session)

    @property
    def data_words(self) -> str:
        """The data set's name, with a note where its images are synthetic."""
        if self.session is None:
            return "unknown data (no readable run.toml)"
        return self.session.data_words


def read_contents(
    folder: Path, *, histograms: dict[int, dict[str, Any]] | None = None, without_histograms: str = ""
) -> StudyContents:
    """Read the study in `folder`.

    Args:
        folder: The study's folder.
        histograms: The figures of weights and activations that are stored with the study, by trial.
        without_histograms: Why they cannot be read, if so.

    Raises:
        ConfigError: A file of the study cannot be read.
        NoFeasibleTrialError: No trial has finished yet.
    """
    records = RecordStore(folder).all()
    if not records:
        message = f"{folder} has no results yet, so there is nothing to report. Wait for the run, or continue it."
        raise NoFeasibleTrialError(message)
    from scalesearch.analysis.outlook import outlook  # loads scikit-learn
    from scalesearch.search.storage import is_searched  # loads Optuna

    session = _session(folder)
    samplers = start_samplers(session) if is_searched(folder) else ()
    front = pareto_front(records)
    scores = read_front_scores(folder)
    confirmation, unreadable, off_front = None, "", set[int]()
    try:
        confirmation = stored_confirmation(folder, front, records, scores)
        off_front = set() if confirmation else {run.trial for run in read_confirmed(folder)}
    except ConfigError as error:  # the search itself can be shown all the same
        unreadable = str(error)
    return StudyContents(
        name=folder.resolve().name,
        records=records,
        front=front,
        knee=knee(front),
        samplers=samplers,
        chance=chance_front(records, samplers),
        chance_trials=len(drawn_by_chance(records, samplers)),
        base=base_network(records),
        scores={score.trial: score for score in scores},
        confirmation=confirmation,
        confirmed_off_front=tuple(sorted(off_front)),
        correction=correct(confirmation, front, records) if confirmation else None,
        importance=axis_importance(records, session.space) if session else (),
        outlook=outlook(session.space, records) if session else None,
        session=session,
        origin=_origin(folder),
        histograms=histograms or {},
        without_histograms=without_histograms,
        pictures=stored_pictures(folder, tuple(record.trial for record in front)),
        unreadable=unreadable,
    )


def _session(folder: Path) -> Session | None:
    try:
        return read_run_file(folder)
    except ConfigError:
        return None


def _origin(folder: Path) -> Origin:
    try:
        document = read_toml(folder / NAME)
        return Origin(
            written_by=str(document.get("written_by", "")),
            command=str(document.get("command", "")),
            versions=_pairs(document.get("versions")),
            host=_pairs(document.get("host")),
        )
    except (OSError, ValueError):
        return Origin()


def _pairs(part: object) -> tuple[tuple[str, str], ...]:
    return tuple((str(key), str(value)) for key, value in part.items()) if isinstance(part, dict) else ()
