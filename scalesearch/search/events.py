"""What a run reports while it goes on, and its outcome: for the live view, the NDJSON stream and the exit code."""

from dataclasses import dataclass
from typing import Final, Literal

from scalesearch.values.candidate import Candidate
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.settings import SamplerName

Ending = Literal["budget", "exhausted", "time", "interrupted", "error"]
ENDED_WHOLE: Final = ("budget", "exhausted", "time")
"""Ways in which a run ends by itself; its front is then scored on the test images and drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The study is open. Earlier runs have used `charged_done` of the budget."""

    budget: int
    charged_done: float
    records: int
    continued: int
    """Trials that a killed run left behind, and that this run continues."""
    max_time_s: float = 0.0
    """Seconds after which the run begins no further candidate; 0: no limit."""
    prepared_s: float = 0.0
    """Seconds of them that are over: those of trainings before the search, for the parent and `flip = "auto"`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """A candidate went to a worker."""

    trial: int
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntered:
    """A worker entered a stage of a trial."""

    trial: int
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    """A trial's record is on disk, and Optuna was told. The other fields describe the study after it."""

    record: TrialRecord
    charged_done: float
    budget: int
    front_size: int
    hypervolume: float
    """Hypervolume of the front, up to one second; where a feasible network of the study takes more than half of that,
    up to twice the latency of the slowest."""
    on_front: bool = False
    """Whether the trial is on the front of the study as it is now; a later trial may displace it."""
    metric: str = DEFAULT_METRIC
    """Name of the study's score, whether or not this trial has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """A precision is not asked for any more (`--adaptive`), or no sibling has it any more."""

    precision: str
    tries: int
    """Number of networks that gained nothing from it."""
    siblings: bool = False
    """Whether siblings alone are meant; the sampler goes on asking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerChanged:
    """The study has so many trials that another sampler goes on (`sampler = "auto"`)."""

    sampler: SamplerName
    """The sampler from now on."""
    trials: int
    """Number of trials that are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """The front has hardly grown for a while. The run goes on; there is no further event before it has grown again."""

    candidates: int
    """Number of the last trained candidates over which the growth is measured, of any length."""
    in_part: int = 0
    """How many of them were trained in part, where candidates are trained by unlike lengths."""
    growth: float
    """Growth of the hypervolume over these candidates, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStopped:
    """The run is over; `message` says why in a sentence."""

    ended: Ending
    message: str


Event = RunStarted | TrialStarted | StageEntered | TrialFinished | Narrowed | SamplerChanged | Plateau | RunStopped


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """Everything that the study holds after a run, and what the run cost."""

    records: tuple[TrialRecord, ...]
    front: tuple[MeasuredTrial, ...]
    ended: Ending
    message: str
    charged: float
    """What was charged to the budget over all runs of the study, in full trainings."""
    wall_s: float
    """Wall time of this run in seconds."""
    search_s: float
    """Seconds of that time that the search itself took: asking, planning, storing, telling."""
