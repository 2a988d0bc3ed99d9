import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from serving import serving

from scalesearch.analysis.baselines import chance_ends
from scalesearch.dashboard import server as dashboard_server
from scalesearch.dashboard.publisher import (
    DashboardListener,
    annotate_missing,
    annotate_study,
    annotate_trial,
    update_figures,
    update_histogram_figure,
)
from scalesearch.dashboard.server import DashboardServer
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.search import database_file
from scalesearch.search.storage import STUDY_FILE, opened_study
from scalesearch.spaces.moves import drawn
from scalesearch.values.histogram import LayerHistogram, TensorHistogram
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.views.front_figure import front_figure
from scalesearch.views.trial_card import inert

pytest.importorskip("optuna_dashboard", reason="needs the extra: pip install 'scalesearch[dashboard]'")

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture(scope="module")
def empty_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study without trials: making the tables takes a second, a copy of the closed file none."""
    folder = tmp_path_factory.mktemp("empty")
    with opened_study(folder):
        pass
    return folder / STUDY_FILE


@pytest.fixture
def study(empty_study: Path, tmp_path: Path) -> Iterator[optuna.Study]:
    shutil.copyfile(empty_study, tmp_path / STUDY_FILE)
    with opened_study(tmp_path) as opened:
        yield opened.study


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "a | b", "[x](javascript:y)", "`code`", "*bold* _it_", "two\nlines", "# head"]
)
def test_users_text_is_inert_markdown(text: str) -> None:
    import re

    made = inert(text)
    assert "\n" not in made
    assert re.sub(r"\\([!-/:-@\[-`{-~])", "", made).translate(str.maketrans("", "", "./-")).replace(" ", "").isalnum()
    assert re.sub(r"\\(.)", r"\1", made) == " ".join(text.split()), "and it reads as it was"


def test_a_trials_note_holds_its_result_and_no_live_html(study: optuna.Study, make_record: MakeRecord) -> None:
    from optuna_dashboard import get_note

    trial = study.ask()
    annotate_trial(study, trial, make_record(0, top1=0.8, classes=("<img src=x onerror=alert(1)>", "yield")))
    note = get_note(trial)
    assert note.startswith("**top-1 80\\.0") or note.startswith("**top-1 80.0")
    assert "| **Weakest classes** | |" in note
    assert "<img" not in note.replace("\\<", "")


def test_a_finished_trial_can_be_annotated_again(study: optuna.Study, make_record: MakeRecord) -> None:
    """After a kill the coordinator tells records again and has only the frozen trial."""
    from optuna_dashboard import get_note

    trial = study.ask()
    study.tell(trial, (0.5, 1.0))
    annotate_trial(study, study.trials[0], make_record(0, top1=0.5))
    annotate_trial(study, study.trials[0], make_record(0, top1=None))
    assert "loss is not finite" in get_note(trial)
    assert "Weakest" not in get_note(trial)


def test_layers_of_a_trial_without_a_score_are_those_of_the_studys_task(
    study: optuna.Study, make_record: MakeRecord
) -> None:
    from optuna_dashboard import get_note

    trial, failed = study.ask(), make_record(0, top1=None)
    for task, classes in (("classification", 2), ("segmentation", 0)):
        annotate_trial(study, trial, failed, task=task)
        assert get_note(trial).count("average pooling") + get_note(trial).count("| linear") == classes


def test_the_studys_note_keeps_what_a_user_wrote(study: optuna.Study) -> None:
    from optuna_dashboard import get_note, save_note

    annotate_study(study)
    assert "Feasible front" in get_note(study)
    save_note(study, "mine")
    annotate_study(study)
    assert get_note(study) == "mine"


def test_figure_holds_feasible_trials_alone_and_replaces_itself(study: optuna.Study, make_record: MakeRecord) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    records = [
        make_record(0, top1=0.7, p50_ms=1.0),
        make_record(1, top1=0.6, p50_ms=2.0),
        make_record(2, top1=0.99, p50_ms=9.0, excess=0.1),
    ]
    update_figures(study, records[:1])
    update_figures(study, records)
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert sorted(figures) == ["feasible_front", "hypervolume"]
    traces = json.loads(figures["feasible_front"])["data"]
    drawn = {number for trace in traces if trace["name"] != "breaks a limit" for number in trace.get("text", [])}
    assert drawn == {"0", "1"}
    assert [trace["text"] for trace in traces if trace["name"] == "breaks a limit"] == [["2"]]
    assert [trace["x"] for trace in traces if trace["name"] == "front"] == [[1.0]]


def test_at_the_end_the_figures_hold_trials_that_changed_no_front(
    study: optuna.Study, make_record: MakeRecord, session: Session
) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    records = [make_record(trial, top1=0.8 - trial / 10, p50_ms=1.0 + trial) for trial in range(3)]
    listener = DashboardListener(session.folder, session.space, ["random"])
    listener.front_changed(study, records[:1])
    listener.statistics_due(study, records)
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    traces = json.loads(figures["feasible_front"])["data"]
    assert {number for trace in traces for number in trace.get("text", [])} == {"0", "1", "2"}
    assert json.loads(figures["hypervolume"])["data"][0]["x"] == [0, 2], "the plateau is drawn to the last trial"


def test_the_expected_front_tells_its_errors_and_what_the_next_candidates_promise(
    study: optuna.Study, make_record: MakeRecord, session: Session
) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    random, records = np.random.default_rng(0), list[MeasuredTrial]()
    for trial in range(12):
        candidate = drawn(session.space, random)
        record = make_record(trial, top1=0.4 + 0.3 * candidate.scaling.width, p50_ms=candidate.scaling.width)
        records.append(replace(record, candidate=candidate))
    DashboardListener(session.folder, session.space, ["growth"]).statistics_due(study, records)
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    figure = json.loads(figures["expected_front"])
    assert "networks left out" in figure["layout"]["title"]["text"]
    told = next(trace for trace in figure["data"] if trace["name"] == "untried, most promising")["customdata"]
    assert told and all("expected to enlarge the front by " in line for line in told)


def _layer(name: str, *, wasted: bool = False) -> LayerHistogram:
    counts = (1,) * 10 + (30,) * 44 + (1,) * 10
    tensor = TensorHistogram(
        low=-1.0,
        high=1.0,
        first_edge=-1.0,
        last_edge=1.0,
        counts=counts,
        clip_low=-1.0,
        clip_high=1.0,
        clipped_fraction=0.0,
        sqnr_db=40.0,
    )
    within = 0.2 if wasted else 0.9
    return LayerHistogram(
        name=name, node="Conv_0", kind="Conv", shape=(8, 3, 3, 3), weights=tensor, activations=tensor, within_99=within
    )


def test_a_trials_histograms_are_one_figure_that_replaces_itself(study: optuna.Study) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    update_histogram_figure(study, 7, [_layer("stem"), _layer("head")])
    update_histogram_figure(study, 7, [_layer("<b>stem", wasted=True)])
    update_histogram_figure(study, 8, [_layer("stem")])
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert sorted(figures) == ["histograms_of_trial_7", "histograms_of_trial_8"]
    layout = json.loads(figures["histograms_of_trial_7"])["layout"]
    assert layout["yaxis"]["ticktext"] == ["<b>&lt;b&gt;stem, wasted</b>"]
    assert layout["title"]["text"].startswith("Trial 7: weights and activations<br>1 of 1 layers")
    # Every 2 kB are a row of the study's database.
    assert len(figures["histograms_of_trial_8"]) < 4000


def test_figure_of_nothing_says_so_and_labels_are_escaped(make_record: MakeRecord) -> None:
    assert "no feasible trial yet" in front_figure([make_record(0, top1=None)])["layout"]["title"]["text"]
    traces = front_figure([make_record(0)])["data"]
    hovers = [words for trace in traces for words in trace.get("customdata", [])]
    assert hovers
    assert not any("<" in words for words in hovers)


def test_without_the_extra_a_run_goes_on_and_the_command_says_what_to_install(
    study: optuna.Study, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    before = study._storage.get_study_system_attrs(study._study_id)
    annotate_study(study)
    annotate_trial(study, study.ask(), make_record(0))
    update_figures(study, [make_record(0)])
    update_histogram_figure(study, 0, [_layer("stem")])
    assert study._storage.get_study_system_attrs(study._study_id) == before
    with pytest.raises(MissingBackendError, match=r"pip install 'scalesearch\[dashboard\]'") as caught:
        DashboardServer(tmp_path, port=0)
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_or_foreign_file_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.sqlite3 does not exist"):
        DashboardServer(tmp_path, port=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "study.sqlite3").write_bytes(b"not a database at all, but long enough to be looked into")
    with pytest.raises(ConfigError, match="cannot be opened as a study"):
        DashboardServer(tmp_path, port=0)
    (tmp_path / "study.sqlite3").write_bytes(b"")
    with pytest.raises(ConfigError, match="not an Optuna study"):
        DashboardServer(tmp_path, port=0)


def test_a_busy_port_is_said(study: optuna.Study, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: another program is using it"):
            DashboardServer(tmp_path, port=port)


@pytest.fixture
def served(study: optuna.Study, tmp_path: Path) -> Iterator[str]:
    study.tell(study.ask(), (0.5, 1.0))
    with serving(tmp_path) as url:
        yield url


def _ask(url: str, *, method: str = "GET", host: str = "", body: Any = None) -> int:
    request = urllib.request.Request(url, method=method, headers={"Content-Type": "application/json"})
    if host:
        request.add_header("Host", host)
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, data) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_page_is_served_on_loopback_and_reads_the_study(served: str, study: optuna.Study) -> None:
    assert served.startswith("http://127.0.0.1:")
    assert _ask(f"{served}dashboard/") == 200
    assert _ask(f"{served}api/studies/{study._study_id}") == 200
    note = {"body": "a note", "version": 1}
    assert _ask(f"{served}api/studies/{study._study_id}/note", method="PUT", body=note) == 204


@pytest.mark.parametrize(
    ("method", "path", "host"),
    [
        ("DELETE", "api/studies/1", ""),
        ("POST", "api/studies", ""),
        ("GET", "api/studies", "elsewhere.example"),
        ("PUT", "api/studies/1/note", "elsewhere.example:8080"),
    ],
    ids=["delete", "create", "rebound name", "rebound name and port"],
)
def test_what_could_harm_a_running_study_is_refused(
    served: str, study: optuna.Study, method: str, path: str, host: str
) -> None:
    assert _ask(served + path, method=method, host=host) == 403
    assert len(study.trials) == 1


def test_notes_that_a_run_without_the_extra_could_not_save_are_made_later(
    study: optuna.Study, make_record: MakeRecord
) -> None:
    from optuna_dashboard import get_note, save_note
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    trials = [study.ask(), study.ask()]
    for trial in trials:
        study.tell(trial, (0.5, 1.0))
    save_note(trials[0], "a user's own words")
    records = [make_record(0, top1=0.5), make_record(1, top1=0.8)]
    assert annotate_missing(study, records, samplers=["growth"]) == 1
    assert get_note(trials[0]) == "a user's own words"
    assert "80" in get_note(trials[1])
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert sorted(figures) == ["feasible_front", "hypervolume"]
    assert annotate_missing(study, records, samplers=["growth"]) == 0


def _answer(url: str, **headers: str) -> tuple[int, Any, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.headers, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode(errors="replace")


@pytest.mark.parametrize("path", ["dashboard/", "api/studies", "api/studies/999", "nothing/here", "static/bundle.js"])
def test_every_answer_forbids_guessing_framing_and_other_pages(served: str, path: str) -> None:
    _, headers, _ = _answer(served + path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Access-Control-Allow-Origin"] is None
    refused = _answer(served + path, Host="elsewhere.example")[1]
    assert refused["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 204),
        ({"Origin": "same"}, 204),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_note_is_taken_from_the_dashboards_own_page_only(
    served: str, study: optuna.Study, headers: dict[str, str], code: int
) -> None:
    url = f"{served}api/studies/{study._study_id}/note"
    sent = {name: served.rstrip("/") if value == "same" else value for name, value in headers.items()}
    request = urllib.request.Request(url, method="PUT", headers={"Content-Type": "application/json", **sent})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            request, json.dumps({"body": "x", "version": 1}).encode()
        ) as answer:
            assert answer.status == code
    except urllib.error.HTTPError as error:
        with error:
            assert error.code == code


def test_a_fault_is_answered_in_words_and_leaves_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    from scalesearch.dashboard.guard import guard

    def broken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ["wsgi.errors"].write("Traceback (most recent call last)")
        if environ["PATH_INFO"] == "/api/x":
            start_response("500 Internal Server Error", [])
            return [b"Traceback (most recent call last)"]
        raise KeyError("HTTP_ACCEPT_ENCODING")

    for path in ("/api/x", "/dashboard"):
        told: list[Any] = []
        environ = {"HTTP_HOST": "127.0.0.1:1", "REQUEST_METHOD": "GET", "PATH_INFO": path, "wsgi.errors": None}
        body = b"".join(guard(broken)(environ, lambda *parts: told.extend(parts))).decode()  # noqa: B023
        assert told[0].startswith("500") and "Traceback" not in body
        assert "scalesearch front" in body
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_study_that_cannot_be_written_is_shown_without_changing_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_study(tmp_path) as opened:
        opened.study.ask()
    for module in (database_file, dashboard_server):
        monkeypatch.setattr(module, "is_read_only", lambda _: True)
    with DashboardServer(tmp_path, port=0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            assert _ask(server.url.rstrip("/") + "/api/studies") == 200
            assert _ask(server.url.rstrip("/") + "/api/studies/1/note", method="PUT") == 403
        finally:
            server.stop()
            thread.join()


def test_a_deleted_database_is_told_with_the_way_back(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with pytest.raises(ConfigError, match=r"(?s)study\.sqlite3 does not exist.*own command.*again from them"):
        DashboardServer(tmp_path, port=0)


def test_figures_made_later_shade_what_the_studys_sampler_drew_by_chance(
    study: optuna.Study, make_record: MakeRecord
) -> None:
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    records = [make_record(trial, top1=0.5 + trial / 100, p50_ms=1.0 + trial) for trial in range(30)]
    for record in records:
        assert record.quality and record.latency
        study.tell(study.ask(), (record.quality.score, record.latency.p50_ms))
    assert annotate_missing(study, records, samplers=["growth"]) == 30
    figures = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    (shade,) = json.loads(figures["hypervolume"])["layout"]["shapes"]
    assert shade["x1"] == chance_ends(records, ["growth"]) != chance_ends(records, ["tpe"])
