"""The document that says how values were calibrated for 8 bits."""

import dataclasses
from collections.abc import Sequence

from scalesearch.values.candidate import CALIBRATED
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session


def calibration_document(
    record: MeasuredTrial, session: Session, indices: Sequence[int] | None, *, why_not: str = ""
) -> dict[str, object]:
    """Return the content of calibration.json: which images gave the ranges of the activations.

    Args:
        record: Record of the trial.
        session: Session of its study.
        indices: Positions among the source's training images; None where they could not be found.
        why_not: Why there are none, in a line.
    """
    asked = record.candidate.quantization
    return {
        "precision": asked.precision,
        "method": asked.calibration if asked.precision in CALIBRATED else None,
        "data": session.data.name,
        "data_fingerprint": session.data.fingerprint,
        "settings": dataclasses.asdict(session.settings.data),
        "order": "position among the source's training images as it lists them (with val_fraction above 0: training,"
        " then validation images), in the order in which they were used",
        "indices": None if indices is None else list(indices),
        **({"note": why_not} if why_not else {}),
    }
