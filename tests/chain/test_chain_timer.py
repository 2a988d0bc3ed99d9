"""Engines are built as the file asks, whatever the candidate asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_graphs import wide_graph

from scalesearch.chain.timer import Timer
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.onnx_file import write_onnx
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import OnnxModel
from scalesearch.values.session import Session


@pytest.mark.parametrize("zeros", [True, False])
def test_sparse_kernels_are_allowed_where_the_file_holds_the_zeros(
    zeros: bool, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan knows that 2:4 was asked in vain, a record does not: both must give the same engine."""
    asked = list[bool]()

    def compile_it(_: OnnxModel, options: EngineOptions) -> Any:
        asked.append(options.tensorrt.sparse_weights)

    monkeypatch.setattr("scalesearch.chain.timer.get_backend", lambda _: SimpleNamespace(compile=compile_it))
    timer, model = Timer(session), write_onnx(wide_graph(sparse=zeros), tmp_path / "model.onnx")
    timer.compile(model, Pruning(sparsity="2:4"))
    timer.compile(model)
    assert asked == [zeros, False]
