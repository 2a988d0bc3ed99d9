"""What of 2:4 zeros that were asked for a file really holds."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from scalesearch.compression.pattern_2_4 import as_in_file
from scalesearch.values.candidate import Pruning

ASKED = Pruning(channel_fraction=0.5, sparsity="2:4")
DENSE = Pruning(channel_fraction=0.5)


def _file(folder: Path, *weights: NDArray[Any]) -> Path:
    tensors = [numpy_helper.from_array(values, f"weight_{place}") for place, values in enumerate(weights)]
    graph = helper.make_graph([], "weights", [], [], tensors)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    return path


def _weight(*shape: int, zeros: bool = True) -> NDArray[np.float32]:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if zeros:
        weight[:, ::4] = weight[:, 3::4] = 0
    return weight


WIDE = _weight(256, 256)
KINDS: dict[str, NDArray[Any]] = {
    "linear": WIDE,
    "MatMul": np.ascontiguousarray(WIDE.T),
    "convolution": _weight(256, 320, 3, 3),
    "fp16": WIDE.astype(np.float16),
    "int8": np.rint(WIDE * 20).clip(-127, 127).astype(np.int8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_are_found_in_weights_of_every_kind(kind: str, tmp_path: Path) -> None:
    assert as_in_file(ASKED, _file(tmp_path, _weight(256, 256, zeros=False), KINDS[kind])) == ASKED


def test_zeros_that_no_wide_layer_holds_were_asked_in_vain(tmp_path: Path) -> None:
    others = _weight(256, 256, zeros=False), _weight(256, 128), _weight(128, 256), np.zeros(512, np.float32)
    assert as_in_file(ASKED, _file(tmp_path, *others)) == DENSE
    assert as_in_file(Pruning(sparsity="2:4"), _file(tmp_path)) == Pruning()


@pytest.mark.parametrize("asked", [Pruning(), DENSE, Pruning(sparsity="unstructured")])
def test_without_2_4_zeros_no_file_is_read(asked: Pruning, tmp_path: Path) -> None:
    assert as_in_file(asked, tmp_path / "nothing.onnx") == asked
