"""`profile` times the engine that was measured."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalesearch.cli import compiling
from scalesearch.deployment.backends.base import LayerTime
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import OnnxModel
from scalesearch.values.session import Session


def test_the_profiled_engine_has_the_sparse_kernels_of_the_measured_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Pruning]()

    class Timer:
        def __init__(self, of: Session) -> None:
            self.backend = SimpleNamespace(device=lambda _: of.device)

        @contextlib.contextmanager
        def compile(self, _: OnnxModel, pruning: Pruning) -> Iterator[Any]:
            asked.append(pruning)
            layer = LayerTime(name="conv", kind="", precision="fp16", mean_ms=0.5)
            yield SimpleNamespace(profile=lambda _: (layer,))

    monkeypatch.setattr("scalesearch.chain.timer.Timer", Timer)
    model = OnnxModel(path=Path("model.onnx"), sha256="0" * 64, size_bytes=1, input_shape=(1, 3, 8, 8))
    first, _ = compiling._times(model, session, Pruning(sparsity="2:4"), top=1)
    assert str(first).startswith("1 layers, ") and asked == [Pruning(sparsity="2:4")]
