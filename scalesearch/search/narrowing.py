"""With --adaptive, the search narrows the space: a precision that never paid on this chip is not asked for any more."""

from collections.abc import Iterable

from scalesearch.values.candidate import Precision
from scalesearch.values.record import TrialRecord

TRIES = 8
"""Number of networks that must have gained nothing from a precision before it is given up."""


def given_up(records: Iterable[TrialRecord]) -> dict[Precision, int]:
    """Return the precisions that never paid, with the number of networks that each was tried on.

    Only precisions other than fp32 can be given up, by gains that were measured against fp32 twins. This is decided
    from the records, so a run without --adaptive asks for all precisions again.
    """
    tried: dict[Precision, list[bool]] = {}
    for record in records:
        if record.state != "complete":
            continue
        for gain in record.gains:
            if gain.step == "precision":
                tried.setdefault(record.candidate.quantization.precision, []).append(gain.no_gain)
    return {
        precision: len(verdicts) for precision, verdicts in tried.items() if len(verdicts) >= TRIES and all(verdicts)
    }


def reason(precision: Precision, tries: int) -> str:
    """Return the reason why a candidate of that precision is rejected."""
    return f"adaptive: {precision} never paid on this chip in {tries} networks; without --adaptive it is asked again"
