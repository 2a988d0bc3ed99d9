"""The folder that `export` writes for one trial: each file, and a line on each that could not be made."""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError, ScalesearchError, StageFailed
from scalesearch.export.environment import LOCK
from scalesearch.export.metadata import CALIBRATION, NAME, PREPROCESSING
from scalesearch.export.target import MODEL, SCRIPT, WEIGHTS
from scalesearch.files import replace_file
from scalesearch.values.candidate import Pruning
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session

if TYPE_CHECKING:
    from scalesearch.deployment.formats import CheckImages, Format, FormatOptions
    from scalesearch.export.contents import ExportedFile, Later
    from scalesearch.tasks.base import CardParts

_CHECK_IMAGES = 8


def write_export(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    formats: Sequence[str] = ("onnx",),
    run: ConfirmedRun | None = None,
    unwritten: dict[str, str] | None = None,
) -> tuple[str, ...]:
    """Write everything of a complete trial into `folder`; return a line for each part that could not be made.

    The folder appears whole, in place of an earlier export. Other formats of that export are kept only if they belong
    to the very same model.onnx. Torch is loaded only to make a model or float weights that no file of the study holds
    any more. The data set is read only for that, and for the calibration images of a calibrated precision.

    If `run`, a run of the trial at full length, is given, its file is exported, and `record` must be `as_confirmed` of
    it.

    If `unwritten`, a format that turns out not to hold this network does not end the export: it is left out, and its
    name is entered there with the reason.

    Raises:
        ConfigError: The folder cannot be written, or holds files that no export wrote; a format is not known; the file
            that is to be exported is missing, or is not the one that was measured.
        MissingBackendError: The package of a requested format is not installed.
        StageFailed: A format cannot hold this network, and there is no `unwritten`.
    """
    from scalesearch.export.formats import get_format
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
                    return _fill(record, session, new, folder, writers=writers, run=run, unwritten=unwritten)
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
    unwritten: dict[str, str] | None,
) -> tuple[str, ...]:
    """Write all files into `folder`, which is to replace `old`; return a line for each that could not be made."""
    from scalesearch.deployment.onnx_file import annotate, onnx_model
    from scalesearch.export.contents import ExportedFile, Written
    from scalesearch.export.environment import write_lock
    from scalesearch.export.formats import OUTPUTS
    from scalesearch.export.metadata import onnx_metadata, write_config, write_preprocessing
    from scalesearch.export.model_card import write_model_card
    from scalesearch.export.parts import as_trained, confirmed_file, remade, write_calibration, write_weights
    from scalesearch.export.pruned import made_pruning
    from scalesearch.export.trial_files import deployed_file
    from scalesearch.tasks.base import built_parts
    from scalesearch.tasks.infer_parts.versions import oldest_versions
    from scalesearch.tasks.registry import task_for

    task = task_for(session.settings)
    later, study = _later(record, session, run), session
    if run:
        session = replace(session, settings=replace(session.settings, seed=run.seed))
    measured = confirmed_file(study, run, folder / MODEL) if run else deployed_file(record, session, folder / MODEL)
    model = annotate(onnx_model(measured.path), onnx_metadata(record, session), folder / MODEL)
    write_config(record, session, folder, score=later.score, confirmed=later.confirmed, model_sha256=model.sha256)
    write_preprocessing(record, session, folder)
    replace_file(folder / SCRIPT, task.infer_script())
    oldest = oldest_versions(model.path)
    write_lock(session.folder, folder, oldest=oldest)
    trained = as_trained(record, session, run, retrained=later.retrained) if run else (record, session)
    notes = [
        *remade(record, measured),
        *write_weights(*trained, model, folder),
        *write_calibration(record, session, folder),
    ]
    card = task.views().card(record, later.score)
    files = _usual_files(record, session, card)
    made = made_pruning(record, model.path)
    options = _format_options(record, session, made, measured_sha256=measured.sha256)
    for writer in writers:
        before = set(folder.iterdir())
        try:
            files += [ExportedFile(name=name, what=writer.what) for name in writer.write(model, folder, options)]
        except StageFailed as error:
            if unwritten is None:
                raise
            unwritten[writer.name] = str(error)
            for begun in set(folder.iterdir()) - before:
                _remove(begun)
    refuted = {Path(name).parts[0] for each in unwritten or () for name in OUTPUTS[each]}
    files += _kept(old, folder, pictures_of=None if run else (study.name, record.trial), but=refuted)
    first = {file.name: file for file in reversed(files)}
    files = [file for file in files if first[file.name] is file and (folder / file.name).exists()]
    write_model_card(
        record,
        session,
        folder,
        card=card,
        parts=built_parts(task.views(), record.spec),
        later=later,
        written=Written(files=tuple(files), notes=tuple(notes), oldest=oldest, pruning=made),
    )
    return tuple(notes)


def _later(record: MeasuredTrial, session: Session, run: ConfirmedRun | None) -> "Later":
    """Return what was measured for the trial after its search; if a run is exported, with that run's test score."""
    from scalesearch.export.contents import Later
    from scalesearch.records.confirmed import read_confirmed
    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.records.store import RecordStore
    from scalesearch.values.training_length import was_retrained

    score = next((each for each in read_front_scores(session.folder) if each.trial == record.trial), None)
    confirmed = tuple(each for each in read_confirmed(session.folder) if each.trial == record.trial)
    if not run:
        return Later(score=score, confirmed=confirmed)
    score = FrontScore(trial=run.trial, test=run.test, latency=run.latency)
    searched = RecordStore(session.folder).load(record.trial).measured or record  # `record` has the run's updates
    return Later(score=score, confirmed=confirmed, exported=run, retrained=was_retrained(searched))


def _kept(
    old: Path, folder: Path, *, pictures_of: tuple[str, int] | None, but: Collection[str]
) -> "list[ExportedFile]":
    """Copy the other formats and pictures of an earlier export of the very same file, and return these parts.

    Args:
        old: The earlier export.
        folder: The new one.
        pictures_of: Study and trial whose pictures are kept; None: none are, since they show the search's network.
        but: Names that are not kept: of formats that were found wrong for this network.
    """
    from scalesearch.export.contents import ExportedFile
    from scalesearch.export.target import kept_parts

    kept = list[ExportedFile]()
    for name in kept_parts(old, model=folder / MODEL, pictures_of=pictures_of):
        if name not in but and not (folder / name).exists():
            _copy(old / name, folder / name)
            shown = f"{name}/" if (folder / name).is_dir() else name
            kept.append(ExportedFile(name=shown, what="of the same network, from an earlier call"))
    return kept


def _usual_files(record: MeasuredTrial, session: Session, card: "CardParts") -> "list[ExportedFile]":
    from scalesearch.export.contents import ExportedFile

    names = "; class names" if session.data.class_names else ""
    return [
        ExportedFile(name=MODEL, what=f"the deployed network, {record.candidate.quantization.precision}"),
        ExportedFile(name=SCRIPT, what=f"{card.script} with it: onnxruntime, numpy and Pillow alone"),
        ExportedFile(name=NAME, what="rebuilds and retrains the network: `scalesearch train config.toml`"),
        ExportedFile(name=PREPROCESSING, what=f"from an image file to the network's input{names}"),
        ExportedFile(name=WEIGHTS, what="trained, pruned, folded weights before quantization, fp32"),
        ExportedFile(name=CALIBRATION, what="which images gave the ranges of int8 or fp8"),
        ExportedFile(name=LOCK, what="exact package versions"),
    ]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _copy(path: Path, to: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to)


def _format_options(record: MeasuredTrial, session: Session, made: Pruning, *, measured_sha256: str) -> "FormatOptions":
    from scalesearch.deployment.formats import FormatOptions
    from scalesearch.tasks.base import AnswersInC
    from scalesearch.tasks.registry import task_for

    task = task_for(session.settings)
    return FormatOptions(
        precision=record.candidate.quantization.precision,
        class_names=session.data.class_names,
        check_images=lambda: check_images(record, session),
        batch=session.settings.latency.batch,
        tensorrt=session.settings.tensorrt.for_pruning(made),
        measured_sha256=measured_sha256,
        c_answer=task.c_answer if isinstance(task, AnswersInC) else None,
    )


def check_images(record: MeasuredTrial, session: Session) -> "CheckImages":
    """Return a few of the study's calibration images as the network takes them: (N, C, H, W) in float32.

    If the data are missing, the images are noise.
    """
    import numpy as np

    from scalesearch.data import to_input
    from scalesearch.data.finding import load_study_data
    from scalesearch.deployment.formats import CheckImages
    from scalesearch.tasks.registry import sources_of

    size, channels = record.spec.input_size, record.spec.image_channels
    try:
        data = load_study_data(session, sources_of(session.settings.task)).at(size)
    except ScalesearchError:
        noise = np.random.default_rng(0).standard_normal((_CHECK_IMAGES, channels, *size.sides), dtype=np.float32)
        return CheckImages(images=noise, told=f"{_CHECK_IMAGES} inputs of normal noise, for the images are gone")
    chosen = data.calibration.images[:_CHECK_IMAGES]
    images = to_input(chosen, mean=session.data.mean, std=session.data.std)
    return CheckImages(images=images, told=f"{len(images)} calibration images of {session.data.name}")
