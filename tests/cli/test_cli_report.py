import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesearch.cli import report
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.records.confirmed import confirmed_path
from scalesearch.records.store import RecordStore
from scalesearch.values.record import MeasuredTrial


@pytest.fixture
def folder(make_record: Callable[..., MeasuredTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scalesearch.report.page._plotly", lambda: "window.Plotly = {};")
    store = RecordStore(tmp_path / "results" / "mine")
    for trial in range(3):
        store.save(make_record(trial, top1=0.5 + trial / 10, p50_ms=1.0 + trial))
    return tmp_path / "results" / "mine"


def test_the_newest_study_is_reported_into_its_own_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.report(None, None) == 0
    said = capsys.readouterr().out
    assert str(Path("results/mine/report.html")) in said
    assert "MB" in said
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_to_takes_a_file_or_a_folder_that_is_there(folder: Path, tmp_path: Path) -> None:
    report.report(folder, tmp_path / "new" / "page.html")
    report.report(folder, tmp_path)
    assert (tmp_path / "new" / "page.html").is_file()
    assert (tmp_path / "report.html").is_file()
    assert not (folder / "report.html").exists()


def test_another_ending_is_refused_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.html, or a folder") as caught:
        report.report(folder, tmp_path / "page.pdf")
    assert len(str(caught.value).splitlines()) <= 3


def test_without_plotly_the_extra_is_named_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"pip install 'scalesearch\[report\]'") as caught:
        report.report(folder, None)
    assert len(str(caught.value).splitlines()) == 3
    assert not (folder / "report.html").exists()


def test_a_report_loads_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scalesearch.cli.report import report;"
        f"report(Path({str(folder)!r}), None);"
        "print([name for name in ('torch', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_a_page_of_somebody_else_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    report.report(folder, tmp_path / "index.html")
    report.report(folder, tmp_path / "index.html")  # its own is replaced
    (tmp_path / "index.html").write_text("<title>my pages</title>")
    (tmp_path / "link.html").symlink_to("index.html")
    for name, says in (("index.html", "no report of scalesearch"), ("link.html", "is a link")):
        with pytest.raises(ConfigError, match=says):
            report.report(folder, tmp_path / name)
    assert (tmp_path / "index.html").read_text() == "<title>my pages</title>"


def test_a_damaged_database_costs_its_histograms_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("optuna_dashboard", reason="needs the extra: pip install 'scalesearch[dashboard]'")
    (folder / "study.sqlite3").write_bytes(b"torn" * 500)
    assert report.report(folder, None) == 0
    said = capsys.readouterr()
    assert "left out are weights and activations" in said.err and "Delete it" in said.err
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "They cannot be read from the study&#x27;s database" in html and "None are stored" not in html


def test_without_the_extra_that_keeps_histograms_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scalesearch.dashboard import publisher

    monkeypatch.setattr(publisher, "installed", lambda: False)
    assert report.report(folder, None) == 0
    assert "warning" not in capsys.readouterr().err
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "pip install &#x27;scalesearch[dashboard]&#x27;" in html and "None are stored" not in html


def test_a_missing_driver_of_the_database_costs_its_histograms_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scalesearch.dashboard import publisher

    def missing(_: Path) -> dict[int, object]:
        message = "needs psycopg: pip install 'scalesearch[postgresql]'"
        raise MissingBackendError(message)

    monkeypatch.setattr(publisher, "stored_histograms", missing)
    assert report.report(folder, None) == 0
    assert "left out are weights and activations: needs psycopg" in capsys.readouterr().err


def test_a_damaged_confirmed_file_costs_the_confirmed_front_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = confirmed_path(folder, 0, 1)
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text("{")
    assert report.report(folder, None) == 0
    said = capsys.readouterr()
    assert f"left out is the confirmed front: {damaged} cannot be read" in said.err and "remove it" in said.err
    page = (folder / "report.html").read_text()
    assert f"Left out: {damaged} cannot be read" in page
    assert "Not confirmed yet" not in page


def test_a_study_that_cannot_be_written_is_reported_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: "str | os.PathLike[str]", *arguments: int, **keywords: int) -> int:
        if str(folder) in os.fspath(path) and arguments[0] & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"(?s)Cannot write .*report\.html: Read-only file system\..*--to FILE\.html"):
        report.report(folder.resolve(), None)
    report.report(folder.resolve(), tmp_path / "page.html")
    assert (tmp_path / "page.html").is_file()
