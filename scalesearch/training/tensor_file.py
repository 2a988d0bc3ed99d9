"""Write and read files of named tensors, each with a key and a digest of its content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
from torch import Tensor

from scalesearch.files import replace_file

UNUSABLE: Final = (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError)
"""Exceptions that reading raises if a file is missing, damaged, or belongs to another key."""
_HEADER: Final = "scalesearch"


def write_tensors(path: Path, key: str, named: Mapping[str, Tensor], **known: object) -> None:
    """Write tensors with their digest and further facts about them; the file is written whole or not at all.

    Args:
        path: The file; an older one is replaced.
        key: Identifies what the tensors depend on. A reader must give the same key.
        named: The tensors by name, of any shape and on any device. Tensors that share memory (a layer with two names)
            are each written.
        known: What is known about the tensors, as JSON can hold it.
    """
    tensors, written = dict[str, Tensor](), set[int]()
    for name, tensor in named.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if memory in written else own  # safetensors refuses memory that has two names
        written.add(memory)
    header = json.dumps({"key": key, "digest": _digest(tensors), **known})
    replace_file(path, safetensors.torch.save(tensors, metadata={_HEADER: header}))


def read_header(path: Path, key: str) -> dict[str, Any]:
    """Return what is known about a file's tensors, without reading them.

    Raises:
        ValueError, OSError, ...: One of `UNUSABLE`: there is no such file, or it belongs to another key.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads((file.metadata() or {})[_HEADER])
    if header["key"] != key:
        msg = f"its header names another key, {header['key'][:12]}..."
        raise ValueError(msg)
    return header


def read_tensors(path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors by name, and what is known about them.

    Raises:
        ValueError, OSError, ...: One of `UNUSABLE`: there is no such file, its bytes changed, or it belongs to another
            key.
    """
    header = read_header(path, key)
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    if header["digest"] != _digest(tensors):
        msg = "its bytes do not match their own digest"
        raise ValueError(msg)
    return tensors, header


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of all tensors. It is needed because safetensors itself checks sizes, not content."""
    running = hashlib.sha256()
    for name in sorted(tensors):
        running.update(name.encode())
        running.update(tensors[name].numpy().tobytes())
    return running.hexdigest()
