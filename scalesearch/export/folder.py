"""The folder that `export` writes for one trial: each file, and a line on each that could not be made."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scalesearch.errors import ConfigError, ScalesearchError
from scalesearch.export.environment import LOCK
from scalesearch.export.metadata import CALIBRATION, NAME, PREPROCESSING
from scalesearch.export.target import MODEL, SCRIPT, WEIGHTS
from scalesearch.files import replace_file
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session

if TYPE_CHECKING:
    from scalesearch.deployment.formats import CheckImages, Format, FormatOptions
    from scalesearch.export.model_card import ExportedFile

_FP32: Final = "fp32"
_CHECK_IMAGES = 8


def write_export(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    formats: Sequence[str] = ("onnx",),
    run: ConfirmedRun | None = None,
) -> tuple[str, ...]:
    """Write everything of a complete trial into `folder`; return a line for each part that could not be made.

    The folder appears whole, in place of an earlier export. Other formats of that export are kept only where they
    belong to the very same file. Torch is loaded only where it must be: for a model or float weights that no file of
    the study holds any more. The data set is read only for that, and for the calibration images of a calibrated
    precision.

    With `run`, a run of the trial at full length, its file is exported; `record` is then `as_confirmed` of it.

    Raises:
        ConfigError: The folder cannot be written, or holds what no export wrote; a format is not known; the file that
            is to be exported is missing, or is not the one that was measured.
        MissingBackendError: The package of a requested format is not installed.
        StageFailed: A format cannot hold this network.
    """
    from scalesearch.deployment.formats import get_format
    from scalesearch.export.target import check_place, earlier_export
    from scalesearch.folder_lock import hold_folder
    from scalesearch.whole_folder import make_folders, remove_empty, whole_folder

    writers = [get_format(name) for name in dict.fromkeys(formats)]
    for writer in writers:  # before anything is written
        writer.ensure_holds(record.candidate.quantization.precision)
        writer.ensure_available()
    check_place(folder, session)
    try:
        made = make_folders(folder.absolute().parent)
        try:
            with hold_folder(folder, "export", inside=False):
                earlier_export(folder)
                with whole_folder(folder) as new:
                    return _fill(record, session, new, folder, writers=writers, run=run)
        finally:
            remove_empty(made)  # if no export was written
    except OSError as error:
        message = f"Cannot write to {folder}: {error.strerror or error}. Give another folder with --to."
        raise ConfigError(message) from None


def _fill(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    old: Path,
    *,
    writers: "Sequence[Format]",
    run: ConfirmedRun | None,
) -> tuple[str, ...]:
    """Write all files into `folder`, which is to replace `old`; return a line for each that could not be made."""
    from scalesearch.deployment.onnx_file import annotate, onnx_model
    from scalesearch.export.environment import write_lock
    from scalesearch.export.metadata import onnx_metadata, write_config, write_preprocessing
    from scalesearch.export.model_card import ExportedFile, write_model_card
    from scalesearch.export.target import kept_parts
    from scalesearch.export.trial_files import deployed_file
    from scalesearch.records.confirmed import read_confirmed
    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.tasks.classification.infer import oldest_versions
    from scalesearch.tasks.registry import get_task, views_of

    score = next((each for each in read_front_scores(session.folder) if each.trial == record.trial), None)
    confirmed = [run for run in read_confirmed(session.folder) if run.trial == record.trial]
    study = session
    if run:
        score = FrontScore(trial=run.trial, test=run.test, latency=run.latency)
        session = replace(session, settings=replace(session.settings, seed=run.seed))
    measured = _confirmed_file(study, run, folder / MODEL) if run else deployed_file(record, session, folder / MODEL)
    model = annotate(onnx_model(measured.path), onnx_metadata(record, session), folder / MODEL)
    write_config(record, session, folder, score=score, confirmed=confirmed, model_sha256=model.sha256)
    write_preprocessing(record, session, folder)
    replace_file(folder / SCRIPT, get_task(session.settings.task).infer_script())
    oldest = oldest_versions(model.path)
    write_lock(session.folder, folder, oldest=oldest)
    trained = _as_trained(record, session, run) if run else (record, session)
    notes = [
        *_remade(record, measured),
        *_write_weights(*trained, model, folder),
        *_write_calibration(record, session, folder),
    ]
    files = _usual_files(record)
    options = _format_options(record, session)
    for writer in writers:
        files += [ExportedFile(name=name, what=writer.what) for name in writer.write(model, folder, options)]
    pictures_of = None if run else (study.folder.name, record.trial)  # they show the search's network
    for name in kept_parts(old, model=folder / MODEL, pictures_of=pictures_of):
        if not (folder / name).exists():
            _copy(old / name, folder / name)
            shown = f"{name}/" if (folder / name).is_dir() else name
            files.append(ExportedFile(name=shown, what="of the same network, from an earlier call"))
    first = {file.name: file for file in reversed(files)}
    files = [file for file in files if first[file.name] is file and (folder / file.name).exists()]
    views = views_of(record)
    write_model_card(
        record,
        session,
        folder,
        files=files,
        notes=notes,
        score=score,
        confirmed=confirmed,
        exported=run,
        oldest=oldest,
        task_lines=views.card(record, score) if views else (),
    )
    return tuple(notes)


def _usual_files(record: MeasuredTrial) -> "list[ExportedFile]":
    from scalesearch.export.model_card import ExportedFile

    return [
        ExportedFile(name=MODEL, what=f"the deployed network, {record.candidate.quantization.precision}"),
        ExportedFile(name=SCRIPT, what="labels images with it: onnxruntime, numpy and Pillow alone"),
        ExportedFile(name=NAME, what="rebuilds and retrains the network: `scalesearch train config.toml`"),
        ExportedFile(name=PREPROCESSING, what="from an image file to the network's input; class names"),
        ExportedFile(name=WEIGHTS, what="trained, pruned, folded weights before quantization, fp32"),
        ExportedFile(name=CALIBRATION, what="which images gave the ranges of int8 or fp8"),
        ExportedFile(name=LOCK, what="exact package versions"),
    ]


def _remade(record: MeasuredTrial, model: OnnxModel) -> tuple[str, ...]:
    """Return a line where the file had to be made again and differs, since nobody has measured it then."""
    if not record.onnx_sha256 or model.sha256 == record.onnx_sha256:
        return ()
    return (
        f"{MODEL} was made again, for the study does not keep it, and is not the measured file bit for bit: its "
        "accuracy may differ a little from the one that is told",
    )


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to)


def _confirmed_file(session: Session, run: ConfirmedRun, to: Path) -> OnnxModel:
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


def _as_trained(record: MeasuredTrial, session: Session, run: ConfirmedRun) -> tuple[MeasuredTrial, Session]:
    """Return the record and session under which the run's weights are stored."""
    from scalesearch.records.confirmed import work_folder
    from scalesearch.values.training_length import recipe_of

    candidate = record.candidate
    recipe = recipe_of(candidate.recipe, total_steps=run.steps, pruned=candidate.pruning.any)
    work = replace(session, folder=work_folder(session.folder))
    return replace(record, candidate=replace(candidate, recipe=recipe)), work


def _write_weights(record: MeasuredTrial, session: Session, model: OnnxModel, folder: Path) -> tuple[str, ...]:
    """Write weights.safetensors: the weights of an fp32 file itself, or those of the network built again in float.

    Both use the tensor names of the folded network.
    """
    import safetensors.numpy

    from scalesearch.deployment.float_weights import float_weights, unlike_weight
    from scalesearch.deployment.onnx_file import read_onnx
    from scalesearch.export.trial_files import float_network

    deployed, qat = read_onnx(model.path), record.candidate.quantization.qat_steps > 0
    if record.candidate.quantization.precision == _FP32:
        weights = float_weights(deployed)
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
        "study": session.folder.name,
        "trial": str(record.trial),
        "network_sha256": record.network_sha256 or "",
        "state": "trained, pruned, BatchNorm folded, fp32" + ("; before quantization-aware updates" if qat else ""),
    }
    replace_file(folder / WEIGHTS, safetensors.numpy.save(weights, metadata=about))
    return ()


def _write_calibration(record: MeasuredTrial, session: Session, folder: Path) -> tuple[str, ...]:
    from scalesearch.export.metadata import calibration_document
    from scalesearch.values.candidate import CALIBRATED

    asked = record.candidate.quantization
    indices: tuple[int, ...] | None = ()
    why, notes = "", list[str]()
    if asked.precision not in CALIBRATED:
        why = f"{asked.precision} needs no calibration"
    else:
        from scalesearch.data.calibration_images import calibration_indices
        from scalesearch.data.finding import find_study_data

        try:
            indices = calibration_indices(
                find_study_data(session).settings,
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


def _format_options(record: MeasuredTrial, session: Session) -> "FormatOptions":
    from scalesearch.deployment.formats import FormatOptions

    return FormatOptions(
        precision=record.candidate.quantization.precision,
        class_names=session.data.class_names,
        check_images=lambda: check_images(record, session),
        batch=session.settings.latency.batch,
        tensorrt=session.settings.tensorrt,
    )


def check_images(record: MeasuredTrial, session: Session) -> "CheckImages":
    """Return a few of the study's calibration images as the network takes them: (N, C, H, W) in float32.

    Where the data are missing, they are noise.
    """
    import numpy as np

    from scalesearch.data import to_input
    from scalesearch.data.finding import load_study_data
    from scalesearch.deployment.formats import CheckImages

    size, channels = record.spec.input_size, record.spec.image_channels
    try:
        data = load_study_data(session).at(size)
    except ScalesearchError:
        noise = np.random.default_rng(0).standard_normal((_CHECK_IMAGES, channels, *size.sides), dtype=np.float32)
        return CheckImages(images=noise, told=f"{_CHECK_IMAGES} inputs of normal noise, for the images are gone")
    chosen = data.calibration.images[:_CHECK_IMAGES]
    images = to_input(chosen, mean=session.data.mean, std=session.data.std)
    return CheckImages(images=images, told=f"{len(images)} calibration images of {session.data.name}")
