"""A graph that torch traced, without its weights, as it is kept in memory and in a file."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from scalesearch.files import replace_file

_NOTES = "scalesearch template"
"""Key of the metadata entry under which a stored graph holds the other fields of its `Template`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The graph of an export, without its weights."""

    proto: onnx.ModelProto
    weights: tuple[str, ...]
    """Names of the weights, in the order of the graph's constants."""
    flattened: tuple[tuple[str, str], ...]
    """Constants that flatten a feature map before a fully connected layer, with the name of that layer's weight."""
    grouped: Mapping[str, str]
    """For each convolution, by the name of its weight, the path of its layer in the module."""


def store_template(template: Template, key: str, folder: Path) -> None:
    """Store a template for other processes; if the disk cannot be written, do nothing."""
    proto = onnx.ModelProto()
    proto.CopyFrom(template.proto)
    notes = {"weights": template.weights, "flattened": template.flattened, "grouped": dict(template.grouped)}
    proto.metadata_props.add(key=_NOTES, value=json.dumps(notes))
    written = proto.SerializeToString(deterministic=True)
    with contextlib.suppress(OSError):
        replace_file(_path(key, folder), hashlib.sha256(written).digest() + written)


def stored_template(key: str, folder: Path) -> Template | None:
    """Return the template that a process stored under `key`; None if there is none, or if its file is damaged."""
    try:
        whole = _path(key, folder).read_bytes()
    except OSError:
        return None
    digest, written = whole[:32], whole[32:]
    if hashlib.sha256(written).digest() != digest:
        return None
    proto = onnx.ModelProto.FromString(written)
    entry = proto.metadata_props.pop()
    notes = json.loads(entry.value)
    return Template(
        proto=proto,
        weights=tuple(notes["weights"]),
        flattened=tuple((constant, weight) for constant, weight in notes["flattened"]),
        grouped=notes["grouped"],
    )


def _path(key: str, folder: Path) -> Path:
    """Return where a template is stored. The path depends on torch's version, which may change the traced graph."""
    return folder / f"{hashlib.sha256(f'{torch.__version__} {key}'.encode()).hexdigest()}.graph"
