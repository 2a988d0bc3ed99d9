"""What a script writes down of each network that it trained."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

TRIALS = "trials.jsonl"
"""Name of the file with a line for each trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptTrial:
    """One network as the script found it."""

    number: int
    name: str
    side_px: int
    correct: int
    """Validation images that were answered right, of `images`."""
    images: int
    ms: float
    """Median latency of one image, by the plain clock."""
    file: str
    """Name of the ONNX file in the same folder."""
    ended_s: float
    """Seconds from the start of the process to the end of this trial."""
    train_s: float


def add_trial(folder: Path, trial: ScriptTrial) -> None:
    """Add a trial to the folder's file."""
    with (folder / TRIALS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(trial)) + "\n")


def read_trials(folder: Path) -> tuple[ScriptTrial, ...]:
    """Return the trials in the folder's file, in order; none where there is no file."""
    file = folder / TRIALS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return tuple(ScriptTrial(**json.loads(line)) for line in lines)
