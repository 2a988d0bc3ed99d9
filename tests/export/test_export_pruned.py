"""What was really pruned, by the record's costs and by the file."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_graphs import wide_graph

from scalesearch.deployment.onnx_file import write_onnx
from scalesearch.export.pruned import made_pruning
from scalesearch.values.candidate import Candidate, Pruning
from scalesearch.values.record import MeasuredTrial

ASKED = Pruning(channel_fraction=0.25, criterion="l1", block_fraction=0.3, sparsity="2:4")
NOTHING_CUT = Pruning(criterion="l1", sparsity="2:4")


@pytest.mark.parametrize(
    ("dense_macs", "made"),
    [(20_000_000, NOTHING_CUT), (31_000_000, ASKED), (None, ASKED)],  # None: an old record
)
def test_where_nothing_was_cut_no_channels_and_blocks_are_told(
    dense_macs: int | None, made: Pruning, make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    record = make_record(1, candidate=Candidate(pruning=ASKED), dense_macs=dense_macs)
    model = write_onnx(wide_graph(sparse=True), tmp_path / "model.onnx")
    assert made_pruning(record, model.path) == made


def test_zeros_are_told_where_the_file_has_them(make_record: Callable[..., MeasuredTrial], tmp_path: Path) -> None:
    record = make_record(1, candidate=Candidate(pruning=Pruning(sparsity="2:4")))
    model = write_onnx(wide_graph(sparse=False), tmp_path / "model.onnx")
    assert made_pruning(record, model.path) == Pruning()
