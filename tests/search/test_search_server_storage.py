"""A study on a PostgreSQL server, and passwords that are written nowhere."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from scalesearch.config import load_run
from scalesearch.dashboard.publisher import stored_histograms
from scalesearch.dashboard.server import DashboardServer
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.records.run_file import NAME, read_run_file, write_run_file
from scalesearch.search.server_storage import server_in_words, server_storage, server_study_name
from scalesearch.search.storage import STUDY_FILE, opened_study, storage_of
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings

MakeRecord = Callable[..., MeasuredTrial]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@localhost/studies",
        "postgresql+psycopg://ann:s3cret@localhost/studies",
        "postgresql://localhost/studies?user=ann&password=s3cret",
    ],
)
def test_a_password_is_refused_before_anything_is_written_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="PGPASSWORD") as caught:
        RunSettings(storage=url)
    with pytest.raises(ConfigError, match="PGPASSWORD") as through_pydantic:
        load_run(space="resnet_small", overrides=[f"storage={url}"])
    for error in (caught, through_pydantic):
        assert "s3cret" not in str(error.value)
        assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize("url", ["mysql://ann@localhost/studies", "sqlite:///x.db", "no url at all"])
def test_other_databases_are_refused_without_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="expected postgresql://") as caught:
        server_storage(url)
    assert "localhost" not in str(caught.value)


def test_the_storage_of_a_study_is_in_its_run_toml(session: Session) -> None:
    url = "postgresql://ann@localhost/studies"
    write_run_file(replace(session, settings=replace(session.settings, storage=url)))
    assert storage_of(session.folder) == url
    write_run_file(session)
    assert storage_of(session.folder) == ""


def test_a_study_keeps_its_name_when_its_folder_moves_and_shares_it_with_none(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "study", tmp_path / "b" / "study"
    for folder in (one, other):
        folder.mkdir(parents=True)
    name = server_study_name(one)
    assert name.startswith("study ")
    assert server_study_name(other) != name
    assert server_study_name(one.rename(tmp_path / "moved")) == name


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"pip install 'scalesearch\[postgresql\]'") as caught:
        server_storage("postgresql://localhost/studies")
    assert len(str(caught.value).splitlines()) == 3


def test_a_server_that_is_not_there_is_said_in_three_lines() -> None:
    pytest.importorskip("psycopg", reason="needs the extra: pip install 'scalesearch[postgresql]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=r"cannot open database studies on 127\.0\.0\.1") as caught:
        server_storage(f"postgresql://ann@127.0.0.1:{port}/studies")
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_server_that_goes_away_while_a_study_is_open_is_said_in_three_lines(wrapped: bool) -> None:
    lost = sqlalchemy.exc.OperationalError("SELECT 1", None, OSError("server closed the connection"))
    with (
        pytest.raises(ConfigError, match="lost database studies on dbhost") as caught,
        server_in_words("postgresql://ann@dbhost/studies"),
    ):
        if wrapped:
            raise optuna.exceptions.StorageInternalError("An exception is raised during the commit") from lost
        raise lost
    lines = str(caught.value).splitlines()
    assert "server closed the connection" in lines[1] and "Finished trials are on disk" in lines[2] and len(lines) == 3


def test_tables_of_another_version_of_optuna_are_told() -> None:
    old = RuntimeError("The runtime optuna version 5.0 is no longer compatible with the table schema")
    with pytest.raises(ConfigError, match="another version of Optuna"), server_in_words("postgresql://dbhost/studies"):
        raise old
    with pytest.raises(RuntimeError, match="a bug"), server_in_words("postgresql://dbhost/studies"):
        raise RuntimeError("a bug")


def _server_binaries() -> Path | None:
    """The newest folder that holds initdb and pg_ctl: Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).parent if path else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a database on a server of our own, which asks for the password `s3cret`."""
    pytest.importorskip("psycopg", reason="needs the extra: pip install 'scalesearch[postgresql]'")
    binaries = _server_binaries()
    if binaries is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    # Not below pytest's folder, which no other user may enter: the server refuses to run as root.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o777)
        (folder / "password").write_text("s3cret\n")
        (folder / "password").chmod(0o644)
        as_other = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data, quiet = folder / "data", {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
        asking = ("--auth=scram-sha-256", f"--pwfile={folder / 'password'}")
        subprocess.run([*as_other, binaries / "initdb", "-D", data, "-U", "ann", *asking], **quiet)  # type: ignore[call-overload]
        options = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
        start = ["-D", data, "-o", options, "-l", folder / "log", "-w", "start"]
        subprocess.run([*as_other, binaries / "pg_ctl", *start], **quiet)  # type: ignore[call-overload]
        try:
            yield f"postgresql://ann@127.0.0.1:{port}/postgres"
        finally:
            stop = ["-D", data, "-m", "immediate", "-w", "stop"]
            subprocess.run([*as_other, binaries / "pg_ctl", *stop], **quiet)  # type: ignore[call-overload]


@pytest.mark.slow
def test_a_study_on_a_server_is_run_shown_and_written_without_the_password(
    server: str, session: Session, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from scalesearch.dashboard.artifacts import keep_artifacts
    from scalesearch.dashboard.publisher import annotate_trial, show_front
    from scalesearch.search.listener import NoListener
    from scalesearch.search.telling import tell

    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ConfigError, match="password authentication failed") as caught:
        server_storage(server)
    assert "wrong" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    here = replace(session, settings=replace(session.settings, storage=server))
    write_run_file(here)
    record = make_record(0)
    with opened_study(tmp_path) as opened:
        trial = opened.study.ask()
        assert opened.live_trial(0).number == 0
        tell(opened.study, trial, record, session.space, NoListener())
        annotate_trial(opened.study, opened.study.trials[0], record)
        show_front(opened.study, [record], folder=tmp_path)
        name = opened.study.study_name
    assert not (tmp_path / STUDY_FILE).exists()
    with opened_study(tmp_path) as again:
        assert again.study.trials[0].values == [0.8, 1.0]
        assert again.study.trials[0].user_attrs["feasible"] is True
        assert keep_artifacts(again.study, tmp_path, [record]) == 0
    assert stored_histograms(tmp_path) == {}
    with DashboardServer(tmp_path, port=0) as dashboard:
        assert dashboard.url
    other = tmp_path / "other"
    other.mkdir()
    with opened_study(other, url=server) as opened:
        assert opened.study.study_name != name
        assert opened.study.trials == []
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file
    assert "storage" in (tmp_path / NAME).read_text()
    stored = read_run_file(tmp_path)
    assert stored
    assert stored.settings.storage == server
    storage = server_storage(server)
    assert {summary.study_name for summary in optuna.get_all_study_summaries(storage)} >= {name}
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.slow
def test_a_search_on_a_server_goes_on_where_it_stopped(
    server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fake_evaluators import FakePlanner, MakeFake, make_space
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    from scalesearch.dashboard.publisher import DashboardListener
    from scalesearch.records.store import RecordStore
    from scalesearch.search.coordinator import run_study
    from scalesearch.search.problem import Problem
    from scalesearch.search.showing import Watchers

    monkeypatch.setenv("PGPASSWORD", "s3cret")
    for budget in (3, 5):
        outcome = run_study(
            tmp_path,
            Problem(space=make_space(), plan=FakePlanner(), make_evaluator=MakeFake()),
            RunSettings(budget=budget, siblings=False, storage=server),
            watchers=Watchers(listener=DashboardListener(tmp_path, make_space(), ["tpe"])),
        )
        assert (outcome.ended, outcome.charged) == ("budget", budget)
    records = RecordStore(tmp_path).all()
    with opened_study(tmp_path, url=server) as opened:
        told = opened.study.get_trials()
        assert [trial.number for trial in told] == [record.trial for record in records]
        assert all(trial.state.is_finished() for trial in told)
        figures = get_plotly_graph_objects(opened.storage.get_study_system_attrs(opened.study._study_id))
    assert {"feasible_front", "hypervolume"} <= set(figures)
    assert not (tmp_path / STUDY_FILE).exists()
