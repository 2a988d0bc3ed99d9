"""With --adaptive, the space narrows itself: a precision that never paid on this chip is not asked any more."""

from collections.abc import Iterable

from scalesearch.values.candidate import Precision
from scalesearch.values.record import TrialRecord

TRIES = 8
"""Networks that must have gained nothing from a precision before it is given up."""


def given_up(records: Iterable[TrialRecord]) -> dict[Precision, int]:
    """Precisions that never paid, with the number of networks that they were tried on.

    Only fp32's rivals can be given up, and only by the gains that were measured against fp32 twins. The records decide,
    so leaving --adaptive out asks for all of them again.
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
    """Why a candidate of that precision is turned down."""
    return f"adaptive: {precision} never paid on this chip in {tries} networks; without --adaptive it is asked again"
