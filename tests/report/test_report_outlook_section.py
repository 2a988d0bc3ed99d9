"""The table of the most promising candidates tells each of them apart."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.analysis.outlook import Outlook, Promise
from scalesearch.records.store import RecordStore
from scalesearch.report.outlook_section import outlook
from scalesearch.study.contents import read_contents
from scalesearch.values.candidate import Candidate, Pruning, Scaling
from scalesearch.values.record import MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


def promise(candidate: Candidate, **changes: object) -> Promise:
    made = Promise(candidate=candidate, score=0.7, score_sd=0.01, p50_ms=1.0, log_ms_sd=0.1, growth=0.02)
    return replace(made, **changes)  # type: ignore[arg-type]


def table_of(best: tuple[Promise, ...], folder: Path, record: MeasuredTrial) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the section's table."""
    RecordStore(folder).save(record)
    found = Outlook(front=best, best=best, errors=None, considered=9)
    html = outlook(replace(read_contents(folder), outlook=found))
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", html, re.DOTALL)]
    return lines[0], lines[1:]


@pytest.mark.parametrize("apart", ["decoder", "blocks", "zeros", "optimizer", "rate"])
def test_candidates_that_differ_have_unlike_rows(apart: str, tmp_path: Path, make_record: MakeRecord) -> None:
    other = {
        "decoder": promise(Candidate(scaling=Scaling(decoder="lraspp"))),
        "blocks": promise(Candidate(pruning=Pruning(block_fraction=0.3))),
        "zeros": promise(Candidate(pruning=Pruning(sparsity="2:4"))),
        "optimizer": promise(Candidate(), sampled={"training.optimizer": "adamw"}),
        "rate": promise(Candidate(), sampled={"training.learning_rate": 0.02}),
    }
    _, rows = table_of((promise(Candidate()), other[apart]), tmp_path, make_record(0))
    assert len(rows) == 2
    assert rows[0] != rows[1]


def test_what_else_was_sampled_has_a_column_beside_what_was_trained(tmp_path: Path, make_record: MakeRecord) -> None:
    sampled = {"scaling.width": 0.5, "training.learning_rate": 0.01234567, "training.flip": True}
    best = (
        promise(Candidate(), sampled=sampled, trained=240),
        promise(Candidate(scaling=Scaling(neck_width=0.5), pruning=Pruning(channel_fraction=0.25))),
    )
    head, rows = table_of(best, tmp_path, make_record(0))
    first, second = (dict(zip(head, row, strict=True)) for row in rows)
    assert first["other sampled axes"] == "learning_rate 0.01235, flip on"
    assert (first["pruned"], first["trained so far"]) == ("-", "240 updates")
    assert (second["other sampled axes"], second["trained so far"]) == ("-", "-")
    assert second["depth x width x kernel"] == "1 x 1 x 1, neck width x 0.5"
    assert second["pruned"] == "channels 25 %"


def test_without_other_axes_there_is_no_such_column(tmp_path: Path, make_record: MakeRecord) -> None:
    head, _ = table_of((promise(Candidate(), sampled={"scaling.width": 0.5}),), tmp_path, make_record(0))
    assert head == [
        "resolution", "depth x width x kernel", "pruned", "precision", "accuracy", "latency", "growth of the front",
    ]  # fmt: skip
