"""The confirmation of a study as it is stored, read once from its folder."""

from collections.abc import Sequence
from pathlib import Path

from scalesearch.analysis.confirmation import Confirmation, added_trials, confirm_moves
from scalesearch.records.confirmed import read_confirmed
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord


def stored_confirmation(
    folder: Path,
    front: Sequence[MeasuredTrial],
    records: Sequence[TrialRecord],
    scores: Sequence[FrontScore] = (),
) -> Confirmation | None:
    """Return what was confirmed of the front and beside it; None where no member of the front was confirmed.

    Args:
        folder: The study's folder.
        front: The searched front.
        records: All trials of the study.
        scores: Test scores of the search's own files.

    Raises:
        ConfigError: One of the files cannot be read.
    """
    runs = read_confirmed(folder)
    if not any(run.trial == record.trial for run in runs for record in front):
        return None
    return confirm_moves(front, runs, scores, added=added_trials(front, records, runs))
