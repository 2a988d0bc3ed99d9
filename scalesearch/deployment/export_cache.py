"""Keep recently exported files, and the graphs that torch traced, for networks that are exported again.

Sibling trials and dense twins have the same networks, and torch takes seconds to export one. Workers share the graphs
of networks of one structure (`graph_templates`), so that only one of them traces it.
"""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.deployment.onnx_file import onnx_model, write_bytes
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.values.identity import content_hash
from scalesearch.values.network import Network, OnnxModel

MOST_BYTES = 5 * 10**8
"""Size limit of the cache. Beyond it the oldest files are deleted first, since siblings follow their trial closely."""
_FOLDER, _GRAPHS = "exported", "graphs"
_WRITTEN_AS = b"lowest versions"
"""Change this when the same network is written as a different file; older files of a study are then no longer used."""


class ExportCache:
    """`to_onnx` with a cache of the exported files, which are found by their content.

    Several processes may use it at once.
    """

    def __init__(self, study: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most_bytes = study / _FOLDER, most_bytes

    def to_onnx(
        self, network: Network, *, to: Path, check_images: NDArray[np.float32], output_names: Sequence[str]
    ) -> OnnxModel:
        """Write the network's file to `to`: copy it if the same weights were exported recently, else export it now.

        Args:
            network: The network, in eval mode.
            to: Where to write the file.
            check_images: At least two real images (N, C, H, W), normalised as in training.
            output_names: Names of what the module returns, in its order.

        Raises:
            StageFailed: As `to_onnx.to_onnx`.
        """
        key = _content(network)
        for kept in self._folder.glob(f"{key}-*.onnx"):
            with suppress(OSError, StageFailed):  # another process removed it
                write_bytes(kept.read_bytes(), to)
                model = onnx_model(to)
                if kept.stem.endswith(model.sha256):
                    return model
            kept.unlink(missing_ok=True)  # damaged
        graphs = self._folder / _GRAPHS
        model = to_onnx(network, to=to, check_images=check_images, output_names=output_names, graphs=graphs)
        with suppress(OSError, StageFailed):  # a full disk must not fail this export; the next one is just not cached
            write_bytes(to.read_bytes(), self._folder / f"{key}-{model.sha256}.onnx")
            self._drop_oldest()
        return model

    def clear(self) -> None:
        """Remove all kept files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _drop_oldest(self) -> None:
        files = [(path.stat().st_mtime_ns, path.stat().st_size, path) for path in self._folder.glob("*.onnx")]
        excess = sum(size for _, size, _ in files) - self._most_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


def _content(network: Network) -> str:
    """Return a hash of everything that an exported file depends on: structure, weights, mode, exporter's version."""
    digest = hashlib.sha256(content_hash(replace(network.spec, name=""), torch.__version__).encode())
    digest.update(_WRITTEN_AS)
    # Two modules may hold equal tensors and differ in a stride or an activation, which shows in their text.
    digest.update(repr((str(network.module), [layer.training for layer in network.module.modules()])).encode())
    for name, tensor in network.module.state_dict().items():
        digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
