"""An ONNX file on disk, identified by its content."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """File, content hash and input shape (batch 1, channels, height, width). The file itself holds the precision."""

    path: Path
    sha256: str
    size_bytes: int
    input_shape: tuple[int, int, int, int]
