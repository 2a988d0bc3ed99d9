"""How an export describes its network: config.toml to rebuild it, preprocessing.toml and ONNX metadata to run it."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.export.expected import Expected, as_read, as_written, expected_of
from scalesearch.export.reading import (
    GREY_TEXT,
    depth_text,
    fit_text,
    preprocessing_version,
    reading_facts,
    sides_px,
)
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_values
from scalesearch.records.plausible import first_fault, impossible
from scalesearch.records.run_file import as_read_before, layout_of_before
from scalesearch.tasks.registry import DEFAULT
from scalesearch.toml_file import read_toml
from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.identity import values_before
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.parent import Parent
from scalesearch.values.quality import DetectionDetail
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import RunSettings

NAME = "config.toml"
PREPROCESSING = "preprocessing.toml"
CALIBRATION = "calibration.json"
_TASK_KEY = "scalesearch.task"
"""Only the files of other tasks than classification have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedConfig:
    """The content of a config.toml."""

    written_by: str
    study: str
    trial: int
    expected: Expected
    candidate: Candidate
    network: NetworkSpec
    data: DataSummary
    settings: RunSettings
    storage_px: int
    """Height in pixels of the stored images that the network's own were resized from."""
    model_sha256: str = ""
    """SHA-256 of the model.onnx in the same folder; empty in an older export."""
    run_folder: str = ""
    """The working folder that relative paths in the settings start from; empty in an older export."""
    storage_width_px: int = 0
    """Width in pixels of the stored images; 0 means that they are square."""
    parent: Parent | None = None
    """The trained network that the study's networks inherited from."""
    study_folder: str = ""
    """The folder of the study, which keeps trunks and the parent's weights; relative to `run_folder` if it lies below
    that. Empty in an older export."""
    cut_from: NetworkSpec | None = None
    """The larger network whose trunk was cut to this one where the branch began."""
    full_updates: int = 0
    """Updates of a front member of the study, where candidates were trained by unlike lengths; else 0."""

    @property
    def storage(self) -> InputSize:
        """Height and width of the stored images."""
        return InputSize(height_px=self.storage_px, width_px=self.storage_width_px or self.storage_px)


def _study_folder(session: Session) -> str:
    folder = session.folder.absolute()
    try:
        return folder.relative_to(session.run_folder or Path.cwd()).as_posix()
    except ValueError:
        return str(folder)


def write_config(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    score: FrontScore | None = None,
    confirmed: Sequence[ConfirmedRun] = (),
    model_sha256: str = "",
) -> Path:
    """Write config.toml for a complete trial into `folder` and return its path.

    Args:
        record: A record with everything that a complete trial has.
        session: Session of its study.
        folder: Where to write.
        score: The trial's second evaluation, on test images, if it had one.
        confirmed: The trial's runs at full length, if it was confirmed.
        model_sha256: SHA-256 of the model.onnx in the folder, where there is one.
    """
    config = ExportedConfig(
        written_by=f"scalesearch {importlib.metadata.version('scalesearch')}",
        study=session.name,
        trial=record.trial,
        expected=expected_of(record, score, confirmed),
        candidate=record.candidate,
        full_updates=record.full_updates,
        network=_spec(record),
        cut_from=record.cut_from,
        data=session.data,
        settings=session.settings,
        storage_px=session.storage_px,
        storage_width_px=session.storage_width_px,
        model_sha256=model_sha256,
        run_folder=session.run_folder,
        parent=session.parent,
        study_folder=_study_folder(session),
    )
    document: dict[str, Any] = TypeAdapter(ExportedConfig).dump_python(config, mode="json", exclude_none=True)
    document["expected"] = as_written(document["expected"])
    path = folder / NAME
    replace_file(path, tomli_w.dumps(utf8_values(document)).encode())
    return path


def read_config(path: Path) -> ExportedConfig:
    """Read an exported config; a folder stands for the config.toml in it.

    Its network, candidate and settings are complete; `config.check_stored` and `networks.validity` check them.

    Raises:
        ConfigError: The file is not there, or is not an exported config.
    """
    file = path / NAME if path.is_dir() else path
    try:
        document = read_toml(file)
        if isinstance(asked := document.get("candidate", {}), dict) and isinstance(asked.get("recipe"), dict):
            asked["recipe"] = values_before(Recipe) | asked["recipe"]
        if isinstance(expected := document.get("expected"), dict):
            document["expected"] = as_read(expected)
        config = TypeAdapter(ExportedConfig).validate_python(document)
        problem = impossible(config)
    except ValidationError as error:
        problem = first_fault(error)
    except (OSError, ValueError, ConfigError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
    if problem:
        message = f"Cannot read {file}: {problem}.\nExpected a config.toml that `scalesearch export` wrote."
        raise ConfigError(message)
    said = document["settings"].get("data", {})
    data = as_read_before(config.settings.data, said)
    if "layout" not in said:
        data = layout_of_before(data, config.data.class_names)
    return dataclasses.replace(config, settings=dataclasses.replace(config.settings, data=data))


def preprocessing(record: MeasuredTrial, session: Session) -> dict[str, object]:
    """Return the content of preprocessing.toml.

    It says how an image file becomes the network's input, and what the network's outputs mean.
    """
    spec, data, asked = _spec(record), session.data, session.settings.data
    grey, beyond, storage = spec.image_channels == 1, reading_facts(spec, asked), session.storage
    return {
        "version": preprocessing_version(spec, asked, storage),
        "resolution_px": sides_px(spec.input_size),
        "storage_px": sides_px(storage),
        "steps": [
            f"turn upright as EXIF says; {depth_text(asked)}; transparency laid on white; RGB",
            f"{fit_text(asked.framing, storage)}, to {storage} by Pillow: BILINEAR, reducing_gap 3.0, JPEG draft mode",
            *([GREY_TEXT] if grey else []),
            f"to {spec.input_size}: antialiased bilinear in integers, as torch's interpolate on uint8 does",
            "pixel / 255, minus mean, over std",
        ],
        "channel_order": "grey" if grey else "RGB",
        **beyond,
        "layout": "NCHW",
        "type": "float32",
        "mean": list(data.mean),
        "std": list(data.std),
        "class_names": list(data.class_names),
    }


def write_preprocessing(record: MeasuredTrial, session: Session, folder: Path) -> Path:
    """Write preprocessing.toml into `folder` and return its path."""
    path = folder / PREPROCESSING
    replace_file(path, tomli_w.dumps(utf8_values(preprocessing(record, session))).encode())
    return path


def onnx_metadata(record: MeasuredTrial, session: Session) -> dict[str, str]:
    """Return what `infer.py` needs to make the ONNX file's input and read its outputs, as texts for its metadata."""
    spec, data = _spec(record), session.data
    beyond, colours = reading_facts(spec, session.settings.data), "grey" if spec.image_channels == 1 else "RGB"
    return {
        "scalesearch.preprocessing": preprocessing_version(spec, session.settings.data, session.storage),
        **{f"scalesearch.{key}": json.dumps(value) for key, value in beyond.items()},
        "scalesearch.class_names": json.dumps(data.class_names),
        "scalesearch.mean": json.dumps(data.mean),
        "scalesearch.std": json.dumps(data.std),
        "scalesearch.storage_px": json.dumps(sides_px(session.storage)),
        "scalesearch.resolution_px": json.dumps(sides_px(spec.input_size)),
        "scalesearch.input": f"{colours} / 255, minus mean, over std; float32 NCHW",
        "scalesearch.precision": record.candidate.quantization.precision,
        "scalesearch.trial": f"{session.name}/{record.trial}",
        "scalesearch.network_sha256": record.network_sha256 or "",
        **_answer_facts(record),
        **({} if session.settings.task == DEFAULT else {_TASK_KEY: session.settings.task}),
    }


def _answer_facts(record: MeasuredTrial) -> dict[str, str]:
    """Return the facts that are needed to read the outputs and were measured with the score: a detector's threshold."""
    detail = record.quality.detail
    return {"scalesearch.threshold": json.dumps(detail.threshold)} if isinstance(detail, DetectionDetail) else {}


def task_of(model: Path) -> str:
    """Return the name of the task that an exported ONNX file is for.

    A file that cannot be read is taken for one of the default task, whose code for opening it says what is wrong.
    """
    from scalesearch.deployment.onnx_file import read_onnx

    try:
        properties = read_onnx(model).metadata_props
    except StageFailed:
        return DEFAULT
    return next((each.value for each in properties if each.key == _TASK_KEY), DEFAULT)


def _spec(record: MeasuredTrial) -> NetworkSpec:
    return record.spec
