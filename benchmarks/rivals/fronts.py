"""The front that each search hands over, as its own figures say: files, accuracies and latencies."""

from dataclasses import dataclass
from pathlib import Path

from rivals.comparing import OURS, Share
from rivals.script_trials import read_trials
from scalesearch.analysis.front import Point, pareto_front, point, undominated
from scalesearch.measurement.metric import wilson_interval
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.values.quality import Quality
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import model_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """One network that a search hands over: a member of the front by the search's own figures."""

    arm: str
    seed: int
    name: str
    file: Path
    val: Share
    told_ms: float
    test: Share | None
    """None where the search has not looked at the test images: then they are scored here."""
    side_px: int


def share_of(correct: int, images: int) -> Share:
    """Return a share of images with its interval."""
    low, high = wilson_interval(correct, images)
    return Share(value=correct / images, low=low, high=high)


def our_front(folder: Path, seed: int) -> tuple[Handed, ...]:
    """Return the front of a study; members without a file or test score are left out, and named on the screen."""
    front = pareto_front(RecordStore(folder).all())
    tested = {score.trial: score.test for score in read_front_scores(folder)}
    whole = [record for record in front if record.trial in tested and model_path(folder, record.trial).exists()]
    for record in front:
        if record not in whole:
            print(f"{folder}: trial {record.trial} has no file or no test score, and is left out")
    return tuple(
        Handed(
            arm=OURS,
            seed=seed,
            name=f"trial {record.trial}, {_words(record)}",
            file=model_path(folder, record.trial),
            val=_share(record.quality),
            told_ms=record.latency.p50_ms,
            test=_share(tested[record.trial]),
            side_px=record.spec.resolution_px,
        )
        for record in whole
    )


def script_front(folder: Path, arm: str, seed: int) -> tuple[Handed, ...]:
    """Return the front of a script's trials by its own accuracies and latencies."""
    return tuple(
        Handed(
            arm=arm,
            seed=seed,
            name=f"trial {trial.number}, {trial.name}, {trial.side_px} px",
            file=folder / trial.file,
            val=share_of(trial.correct, trial.images),
            told_ms=trial.ms,
            test=None,
            side_px=trial.side_px,
        )
        for trial in undominated(read_trials(folder), lambda trial: (trial.correct / trial.images, trial.ms))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a search went, by its own figures."""

    trainings: int
    found: tuple[tuple[float, Point], ...]
    """(seconds from the start of its process, (accuracy, ms)) of each network that may be on its front."""
    last_s: float
    """Seconds from the start of its process to its last result."""

    def points_by(self, seconds: float) -> tuple[Point, ...]:
        """Return what had been found so many seconds after the start."""
        return tuple(found for at_s, found in self.found if at_s <= seconds)


def course_of(folder: Path, arm: str, *, began: float) -> Course:
    """Return how a search went.

    Args:
        folder: The search's folder.
        arm: Its name.
        began: When its process was started, as time of day in seconds.
    """
    if arm != OURS:
        trials = read_trials(folder)
        return Course(
            trainings=len(trials),
            found=tuple((trial.ended_s, (trial.correct / trial.images, trial.ms)) for trial in trials),
            last_s=max((trial.ended_s for trial in trials), default=0.0),
        )
    store = RecordStore(folder)
    records = store.all()
    ended_s = {record.trial: store.path(record.trial).stat().st_mtime - began for record in records}
    return Course(
        trainings=sum(bool(record.training and not record.training.weights_reused) for record in records),
        found=tuple((ended_s[record.trial], point(record)) for record in records if record.feasible),
        last_s=max(ended_s.values(), default=0.0),
    )


def _share(quality: Quality) -> Share:
    return Share(value=quality.score, low=quality.score_low, high=quality.score_high)


def _words(record: MeasuredTrial) -> str:
    scaling, pruned = record.candidate.scaling, record.candidate.pruning.channel_fraction
    cut = f" cut {pruned:g}" if pruned else ""
    words = f"r{scaling.resolution:.3g} d{scaling.depth:.3g} w{scaling.width:.3g} k{scaling.kernel:.3g}{cut}"
    return f"{words} {record.candidate.quantization.precision}, {record.spec.resolution_px} px"
