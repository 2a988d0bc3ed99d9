"""Tables at any width keep the trial and the main figures; odd sizes print; what is to be typed is quoted."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from scalesearch.cli import pick
from scalesearch.cli.front_table import print_front
from scalesearch.cli.screen import Column, command_word, fitted, print_table, shown, usable_sizes, wide_console
from scalesearch.cli.study_commands import show
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]
COLUMNS = (Column(head="trial", keep=9), Column(head="what", keep=1, folds=True), Column(head="ms", keep=5, right=True))


@pytest.fixture
def study(make_record: MakeRecord, session: Session, tmp_path: Path) -> Path:
    folder = tmp_path / "it's $HOME & more"
    folder.mkdir()
    write_run_file(replace(session, folder=folder))
    for trial, (top1, p50_ms) in enumerate([(0.51, 1.25), (0.72, 2.5), (0.93, 12.75)]):
        RecordStore(folder).save(make_record(317 + trial, top1=top1, p50_ms=p50_ms))
    return folder


@pytest.mark.parametrize("width", [40, 44, 60, 80, 100, 200])
def test_the_front_keeps_trial_accuracy_latency_and_precision(
    study: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_front(wide_console(), RecordStore(study).all(), study)
    text = capsys.readouterr().out
    table = text[text.index("trial") :]
    for figure in ("317", "318", "319", "51.0", "72.0", "93.0", "1.250", "2.500", "12.75", "fp32"):
        assert figure in table, figure
    assert max(map(len, text.splitlines())) <= width
    assert ("no room here for: " in text) == (width < 80)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_one_trial_is_readable_on_a_narrow_screen(
    study: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    show(study, trial=318)
    text = capsys.readouterr().out
    assert "72.0 (" in text and "2.500 (" in text and "318" in text.splitlines()[0]
    assert max(map(len, text.splitlines())) <= width


def test_columns_leave_by_importance_and_the_first_one_last() -> None:
    rows = [("12", "a long text that may be folded", "1.25")]
    assert shown(80, COLUMNS, rows) == [0, 1, 2]
    assert shown(20, COLUMNS, rows) == [0, 2]
    assert shown(6, COLUMNS, rows) == [0]
    assert fitted(20, COLUMNS, rows)[1] == ("what",)


def test_cells_are_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Console(width=60), COLUMNS, [("1", "pip install 'x[rtx]' [/b]", "2")])
    assert "pip install 'x[rtx]' [/b]" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "", "-3", "wide", "1e3", "²", "00"])
def test_a_size_that_is_none_is_as_if_it_were_not_set(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usable_sizes({"COLUMNS": size, "LINES": size, "A": "0"}) == {"A": "0"}
    monkeypatch.setenv("COLUMNS", size)
    monkeypatch.setenv("LINES", size)
    print_table(wide_console(), COLUMNS, [("1", "text", "2")])
    assert "text" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plain", "two words", "it's", 'a"b', "$HOME", "a;b", "-dash", "back\\slash", "*", ""])
def test_a_folder_is_one_word_for_the_shell(name: str) -> None:
    word = shlex.split(f"scalesearch export {command_word(name)} --to best")[2]
    assert word in (name, f"./{name}") and not word.startswith("-")


def test_the_line_that_pick_says_works_when_typed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pick.pick(study, knee=True)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("take it:"))
    assert shlex.split(line)[2:6] == ["scalesearch", "export", str(study), "--trial"]


@pytest.mark.parametrize("arguments", [["networks"], ["networks", "--json"], ["--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_enough_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` is gone by the time of the first line
    try:
        done = subprocess.run(
            [sys.executable, "-m", "scalesearch", *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("ruled", [True, False])
def test_no_cell_is_cut_at_any_width_at_which_all_columns_are_shown(ruled: bool) -> None:
    columns = [Column(head=f"column {place}", keep=place) for place in range(6)]
    rows = [[f"{place}" * 12 for place in range(6)]]
    whole = 0
    for width in range(60, 100):
        table, left_out = fitted(width, columns, rows, ruled=ruled)
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(table)
        whole += not left_out
        assert "…" not in console.export_text()
    assert whole == (100 - (6 * 13 + (7 if ruled else 0)))
