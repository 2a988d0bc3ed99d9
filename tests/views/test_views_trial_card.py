import re
from collections.abc import Callable
from dataclasses import replace

from scalesearch.values.record import MeasuredTrial
from scalesearch.views.trial_card import trial_note

MakeRecord = Callable[..., MeasuredTrial]


def _plain(note: str) -> str:
    return re.sub(r"\\(.)", r"\1", note).replace("\u00a0", "")


def test_the_card_says_first_what_decides(make_record: MakeRecord) -> None:
    note = _plain(trial_note(make_record(3, top1=0.8, p50_ms=1.5, precision="int8")))
    lines = note.splitlines()
    assert lines[0].startswith("**top-1 80.0 (78.0-82.0) %, p50 1.500 (1.485-1.515) ms, int8, feasible")
    assert "| 80.0 (78.0-82.0) | 1.500 (1.485-1.515) | 20 M | 310 k | 1.25 MB |" in lines
    assert "| x 0.5 = 32 px | 1 x 0.75 x 1 | channels 25 % | int8 |" in lines


def test_the_way_from_float_to_engine_is_in_points_of_the_float_network(make_record: MakeRecord) -> None:
    lines = _plain(trial_note(make_record(3, top1=0.8))).splitlines()
    at = lines.index("#### Where accuracy went")
    assert lines[at + 4 : at + 7] == [
        "| torch | 81.0 % |  |",
        "| ONNX fp32 | 81.0 % | +0.0 |",
        "| engine | 80.0 % | -1.0 |",
    ]


def test_the_float_file_after_quantization_aware_updates_is_called_so(make_record: MakeRecord) -> None:
    record = make_record(3, top1=0.8, precision="int8")
    quantization = replace(record.candidate.quantization, qat_steps=60)
    record = replace(record, candidate=replace(record.candidate, quantization=quantization))
    assert "| fp32 after QAT | 81.0 % | +0.0 |" in _plain(trial_note(record)).splitlines()


def test_every_table_row_has_as_many_cells_as_its_head(make_record: MakeRecord) -> None:
    record = make_record(3, classes=("a | b", "<b>", "two\nlines", "`x`"))
    for block in trial_note(replace(record, warnings=("one | two",))).split("\n\n"):
        rows = [re.sub(r"\\.", "", line) for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


def test_a_failed_trial_has_a_card_too(make_record: MakeRecord) -> None:
    note = _plain(trial_note(make_record(3, top1=None)))
    assert note.startswith("**failed: train: loss is not finite**")
    assert "| - | - | 20 M | 310 k | - |" in note
    assert "Where accuracy went" not in note


def test_the_card_of_a_module_names_its_function_and_has_no_layers(make_record: MakeRecord) -> None:
    record = make_record(3)
    spec = replace(record.spec, stages=(), origin="mine:network", origin_sha256="abcdef0123456789")
    note = _plain(trial_note(replace(record, spec=spec)))
    assert "The module that mine:network returns, with its weights of SHA-256 abcdef012345..." in note
    assert "| stage |" not in note and "stem" not in note
