"""A network with its torch module, and as an ONNX file. Torch is named in annotations only and never imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.values.network_spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Spec and module. After pruning, the module's layers are narrower than the spec's formula gives."""

    spec: NetworkSpec
    module: "nn.Module"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An ONNX file on disk, identified by its content. The file itself holds the precision."""

    path: Path
    sha256: str
    size_bytes: int
    input_shape: tuple[int, int, int, int]
    """(batch 1, channels, height, width)."""
