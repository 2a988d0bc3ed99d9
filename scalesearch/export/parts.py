"""The parts of an export that the record alone does not give: model, weights, calibration images.

The functions return a line for each part that could not be made, which the export prints.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from scalesearch.errors import ConfigError, ScalesearchError
from scalesearch.export.metadata import CALIBRATION
from scalesearch.export.target import MODEL, WEIGHTS
from scalesearch.files import replace_file
from scalesearch.values.candidate import CALIBRATED
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

_FP32: Final = "fp32"


def remade(record: MeasuredTrial, model: OnnxModel) -> tuple[str, ...]:
    """Return a warning if the file had to be made again and differs from the one that was measured."""
    if not record.onnx_sha256 or model.sha256 == record.onnx_sha256:
        return ()
    return (
        f"{MODEL} was made again, for the study does not keep it, and is not the measured file bit for bit: its "
        "accuracy may differ a little from the one that is told",
    )


def confirmed_file(session: Session, run: ConfirmedRun, to: Path) -> OnnxModel:
    """Copy the file of a run at full length to `to`.

    Raises:
        ConfigError: The file is missing, or is not the one that was measured.
    """
    from scalesearch.deployment.onnx_file import onnx_model
    from scalesearch.records.confirmed import confirmed_model_path
    from scalesearch.records.stored_files import confirmed_model

    file = confirmed_model(session.folder, run)
    if file is None:
        missing = confirmed_model_path(session.folder, run.trial, run.seed)
        message = f"{missing} is missing.\nPut it back, or run `scalesearch confirm`: it trains that network again."
        raise ConfigError(message)
    replace_file(to, file.read_bytes())
    return onnx_model(to)


def as_trained(
    record: MeasuredTrial, session: Session, run: ConfirmedRun, *, retrained: bool
) -> tuple[MeasuredTrial, Session]:
    """Return the record and session by which the run's weights are found in the study's folder of confirmations.

    Args:
        record: The trial, `as_confirmed` of the run.
        session: The session of its study.
        run: The run at full length.
        retrained: Whether the trial was trained again after pruning (`was_retrained` of its record in the search).
    """
    from scalesearch.records.confirmed import work_folder
    from scalesearch.values.training_length import recipe_of

    candidate = record.candidate
    recipe = recipe_of(candidate.recipe, total_steps=run.steps, pruned=retrained)
    work = replace(session, folder=work_folder(session.folder))
    return replace(record, candidate=replace(candidate, recipe=recipe)), work


def write_weights(record: MeasuredTrial, session: Session, model: OnnxModel, folder: Path) -> tuple[str, ...]:
    """Write weights.safetensors: those of the file itself if it is in fp32, or of the network built again in float.

    Both use the tensor names of the folded network.
    """
    import safetensors.numpy

    from scalesearch.deployment.float_weights import float_weights, is_in_float, unlike_weight
    from scalesearch.deployment.onnx_file import read_onnx
    from scalesearch.export.trial_files import float_network

    deployed, qat = read_onnx(model.path), record.candidate.quantization.aware_steps > 0
    if record.candidate.quantization.precision == _FP32 or is_in_float(deployed):
        weights, qat = float_weights(deployed), False
    else:
        try:
            weights = float_weights(float_network(record, session))
        except ScalesearchError as error:
            first = str(error).splitlines()[0]
            return (f"{WEIGHTS} is left out: the float network had to be built again, and that failed: {first}",)
        if unlike := unlike_weight(weights, deployed, after_qat=qat):
            return (
                f"{WEIGHTS} is left out: the study does not keep them any more, and training again gave others than "
                f"those in {MODEL} ({unlike})",
            )
    about = {
        "study": session.name,
        "trial": str(record.trial),
        "network_sha256": record.network_sha256 or "",
        "state": "trained, pruned, BatchNorm folded, fp32" + ("; before quantization-aware updates" if qat else ""),
    }
    replace_file(folder / WEIGHTS, safetensors.numpy.save(weights, metadata=about))
    return ()


def write_calibration(record: MeasuredTrial, session: Session, folder: Path) -> tuple[str, ...]:
    """Write calibration.json; return a line if the images that the file should list cannot be found."""
    from scalesearch.export.parts import calibration_document
    from scalesearch.values.candidate import CALIBRATED

    asked = record.candidate.quantization
    indices: tuple[int, ...] | None = ()
    why, notes = "", list[str]()
    if asked.precision not in CALIBRATED:
        why = f"{asked.precision} needs no calibration"
    else:
        from scalesearch.data.calibration_images import calibration_indices
        from scalesearch.data.finding import find_study_data
        from scalesearch.tasks.registry import sources_of

        try:
            sources = sources_of(session.settings.task)
            indices = calibration_indices(
                find_study_data(session, sources).settings,
                sources,
                storage_px=session.storage,
                count=asked.calibration_images,
                channels=session.base.image_channels,
                fingerprint=session.data.fingerprint,
            )
        except ScalesearchError as error:
            indices, why = None, str(error).splitlines()[0]
            notes.append(f"{CALIBRATION} names no images: {why}")
    document = calibration_document(record, session, indices, why_not=why)
    replace_file(folder / CALIBRATION, (json.dumps(document, indent=1) + "\n").encode())
    return tuple(notes)


def calibration_document(
    record: MeasuredTrial, session: Session, indices: Sequence[int] | None, *, why_not: str = ""
) -> dict[str, object]:
    """Return the content of calibration.json: which images gave the ranges of the activations.

    Args:
        record: Record of the trial.
        session: Session of its study.
        indices: Positions among the source's training images; None where they could not be found.
        why_not: One line on why there are no indices.
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
