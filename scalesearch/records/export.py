"""config.toml of one trial: everything that rebuilds its network, and what to expect of it."""

import importlib.metadata
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.values.candidate import Candidate
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import DataSummary, Session
from scalesearch.values.settings import RunSettings

NAME = "config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the search measured, for comparison with a rebuilt network."""

    network_sha256: str
    macs: int
    params: int
    size_bytes: int
    float_top1: float
    top1: float
    p50_ms: float
    device: str


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
    """Side of the stored images that the network's own were resized from."""


def write_config(record: TrialRecord, session: Session, folder: Path) -> Path:
    """The path of the config.toml written into `folder` for a complete trial."""
    assert record.quality and record.latency and record.training and record.spec and record.cost
    config = ExportedConfig(
        written_by=f"scalesearch {importlib.metadata.version('scalesearch')}",
        study=session.folder.name,
        trial=record.trial,
        expected=Expected(
            network_sha256=record.network_sha256 or "",
            macs=record.cost.macs,
            params=record.cost.params,
            size_bytes=record.size_bytes or 0,
            float_top1=record.training.float_top1,
            top1=record.quality.top1,
            p50_ms=record.latency.p50_ms,
            device=record.device.name if record.device else "",
        ),
        candidate=record.candidate,
        network=record.spec,
        data=session.data,
        settings=session.settings,
        storage_px=session.storage_px,
    )
    document = TypeAdapter(ExportedConfig).dump_python(config, mode="json", exclude_none=True)
    path = folder / NAME
    replace_file(path, tomli_w.dumps(document).encode())
    return path


def read_config(path: Path) -> ExportedConfig:
    """The exported config; a folder stands for the config.toml in it.

    Raises:
        ConfigError: not there, or not such a file.
    """
    file = path / NAME if path.is_dir() else path
    try:
        document: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(ExportedConfig).validate_python(document)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"Cannot read {file}: {error}.\nExpected a config.toml that `scalesearch export` wrote."
        raise ConfigError(message) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{file}: {place}: {first['msg'].lower()}.\nExpected a config.toml that `scalesearch export` wrote."
        raise ConfigError(message) from None


def onnx_metadata(record: TrialRecord, data: DataSummary) -> dict[str, str]:
    """What a program needs to feed the ONNX file and read its answer, as texts for the file's own metadata."""
    assert record.spec is not None
    return {
        "scalesearch.class_names": json.dumps(data.class_names),
        "scalesearch.mean": json.dumps(data.mean),
        "scalesearch.std": json.dumps(data.std),
        "scalesearch.resolution_px": str(record.spec.resolution_px),
        "scalesearch.input": "RGB / 255, minus mean, over std; float32 NCHW",
        "scalesearch.precision": record.candidate.quantization.precision,
    }
