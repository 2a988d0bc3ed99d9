"""The report as a reader's browser meets it: what is in it, what it may load, and whose text may do what."""

import base64
import datetime
import gzip
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalesearch.analysis.baselines import hypervolume_over_trials
from scalesearch.errors import NoFeasibleTrialError
from scalesearch.records.confirmed import read_confirmed, write_confirmed
from scalesearch.records.front_scores import write_front_scores
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.report import outlook_section
from scalesearch.report.confirmed_section import confirmed
from scalesearch.report.detail_sections import axes, machine, training
from scalesearch.report.front_sections import answer
from scalesearch.report.page import page, write_page
from scalesearch.search.storage import STUDY_FILE
from scalesearch.study.contents import read_contents
from scalesearch.values.candidate import Scaling
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore, LimitUse, LossCurve, MeasuredTrial, StageTime
from scalesearch.values.session import Session

pytest.importorskip("plotly", reason="needs the extra: pip install 'scalesearch[report]'")

MakeRecord = Callable[..., MeasuredTrial]
NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
PAYLOADS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    '<a href="javascript:window.hacked=1">x</a>',
    "a\u2028window.hacked=1",
    "\"><svg onload=window.hacked=1>'",
)
SECTIONS = (
    "answer", "front", "warnings", "confirmed", "outlook", "axes", "compression", "classes", "histograms", "training",
    "machine",
)  # fmt: skip
MOST_BYTES = 3_000_000


def make_study(
    folder: Path, session: Session, make_record: MakeRecord, *, names: tuple[str, ...], trials: int = 30
) -> None:
    """A study with a front, ties, unfeasible and failed trials, test scores and a confirmation."""
    folder.mkdir(parents=True, exist_ok=True)
    session = replace(session, folder=folder, data=replace(session.data, class_names=names, warnings=names[:1]))
    write_run_file(session)
    store = RecordStore(folder)
    for trial in range(trials):
        record = make_record(
            trial,
            top1=0.4 + 0.5 * trial / trials,
            p50_ms=1.0 + (trial * 7 % trials) / 10,
            precision="int8" if trial % 3 else "fp32",
            excess=0.2 if trial == 5 else -0.5,
            classes=names,
            warnings=(names[0],) if trial == 2 else (),
        )
        scaling = Scaling(width=1.0 if trial % 2 else 0.5, resolution=0.5)
        assert record.training
        curves = (LossCurve(steps=300, losses=(2.0, 1.0, 0.5)), LossCurve(steps=60, losses=(0.8, 0.6)))
        training = replace(record.training, loss_curves=curves)
        store.save(replace(record, candidate=replace(record.candidate, scaling=scaling), training=training))
    store.save(make_record(trials, top1=None))
    study = read_contents(folder)
    member = study.front[-1]
    assert member.quality and member.latency
    write_front_scores(folder, [FrontScore(trial=member.trial, test=member.quality, latency=member.latency)])
    run = ConfirmedRun(
        trial=member.trial, seed=7, steps=3000, train_s=90.0, float_score=0.93, validation=member.quality,
        test=member.quality, latency=member.latency, size_bytes=1000, onnx_sha256="0" * 64, network_sha256="1" * 64,
    )  # fmt: skip
    write_confirmed(folder, run)


@pytest.fixture
def folder(tmp_path: Path, session: Session, make_record: MakeRecord) -> Path:
    make_study(tmp_path / "study", session, make_record, names=("stop", "yield", "priority"))
    return tmp_path / "study"


@pytest.fixture
def small_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing 4.8 MB takes a second, and says nothing of the rest of the page."""
    monkeypatch.setattr("scalesearch.report.page._plotly", lambda: "window.Plotly = {};")


def _policy(html: str) -> dict[str, list[str]]:
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert found
    return {words.split()[0]: words.split()[1:] for words in found[1].split(";")}


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def test_the_policy_allows_the_pages_own_script_plotly_and_nothing_else(folder: Path) -> None:
    html = page(read_contents(folder), written=NOON)
    policy = _policy(html)
    assert policy["default-src"] == ["'none'"]
    own = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    packed = re.search(r'id="plotly-packed">([^<]*)<', html)
    assert own and packed
    plotly = gzip.decompress(base64.b64decode(packed[1])).decode()
    assert policy["script-src"] == [_hash(own[1]), _hash(plotly)]
    assert "unsafe" not in " ".join(policy["script-src"] + policy["style-src-elem"])
    without_plotly = html.replace(packed[1], "")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", without_plotly)


def test_the_whole_file_is_below_the_size_limit(folder: Path) -> None:
    to = folder / "report.html"
    size_bytes = write_page(read_contents(folder), to, written=NOON)
    assert size_bytes == to.stat().st_size < MOST_BYTES


@pytest.mark.usefixtures("small_plotly")
def test_equal_studies_give_equal_pages(folder: Path) -> None:
    assert page(read_contents(folder), written=NOON) == page(read_contents(folder), written=NOON)


@pytest.mark.usefixtures("small_plotly")
def test_every_section_is_there_and_linked(folder: Path) -> None:
    html = page(read_contents(folder), written=NOON)
    for name in SECTIONS:
        assert html.count(f'<section id="{name}"') == 1
        assert f'href="#{name}"' in html


def test_slow_networks_have_a_hypervolume(tmp_path: Path, session: Session, make_record: MakeRecord) -> None:
    write_run_file(replace(session, samplers=("tpe",)))
    (tmp_path / STUDY_FILE).touch()
    for trial in range(20):  # the sampler draws the first ten by chance
        RecordStore(tmp_path).save(make_record(trial, top1=0.4 + trial / 50, p50_ms=1500.0 + 100 * trial))
    study = read_contents(tmp_path)
    told = re.search(r"hypervolume (\d\.\d{3}) against (\d\.\d{3})", answer(study))
    assert told and 0 < float(told[1]) < float(told[2])
    assert float(told[2]) == pytest.approx(hypervolume_over_trials(study.records)[-1][1], abs=5e-4)


@pytest.mark.usefixtures("small_plotly")
def test_the_numbers_are_those_of_the_records(folder: Path) -> None:
    study = read_contents(folder)
    html = page(study, written=NOON)
    found = re.search(r'id="page-data">(.*?)</script>', html, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    drawn = {
        int(number): (x, y)
        for trace in data["figures"]["front"]["data"]
        for number, x, y in zip(trace.get("text", []), trace["x"], trace["y"], strict=False)
    }
    measured = {record.trial: record for record in study.records if record.quality and record.latency}
    assert set(drawn) == set(measured)
    for trial, (x, y) in drawn.items():
        record = measured[trial]
        assert record.quality and record.latency
        assert x == pytest.approx(record.latency.p50_ms, rel=1e-4)
        assert y == pytest.approx(100 * record.quality.score, abs=0.01)
    names = {"front", "hypervolume", "outlook", "importance", "paid", "confirmed", "losses"}
    assert set(data["figures"]) == names


def test_a_sampler_that_gave_way_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_contents(folder)
    assert study.session
    settings = replace(study.session.settings, sampler="growth")
    study = replace(study, session=replace(study.session, settings=settings, sampler_gives_way=True))
    assert "<dd>growth, budget" in machine(study)
    assert "last sampler, growth, chooses by such a model." in outlook_section.outlook(study)
    monkeypatch.setattr("scalesearch.values.settings.MANY_TRIALS", 20)
    assert "<dd>growth, tpe beyond 1,000 trials, budget" in machine(study)
    assert "last sampler, tpe, does not use it." in outlook_section.outlook(study)


def test_what_a_limit_of_latency_saved_is_told_beside_the_training(folder: Path, make_record: MakeRecord) -> None:
    assert "rejected untrained" not in training(read_contents(folder))
    slow = make_record(
        900,
        top1=None,
        state="rejected",
        charged=False,
        limits=(LimitUse(limit="max_latency_ms", excess=0.4),),
        stages=(StageTime(stage="untrained", seconds=2.0),),
    )
    RecordStore(folder).save(slow)
    assert "1 candidate was too slow and rejected untrained" in training(read_contents(folder))


@pytest.mark.usefixtures("small_plotly")
def test_a_trial_that_was_confirmed_beside_the_front_is_marked_and_the_bias_is_told(folder: Path) -> None:
    study = read_contents(folder)
    assert study.confirmation
    (member,) = study.confirmation.moves
    other = next(record.measured for record in study.records if record.feasible and record not in study.front)
    assert other
    run = next(run for run in read_confirmed(folder) if run.trial == member.record.trial)
    write_confirmed(folder, replace(run, trial=other.trial, latency=replace(run.latency, p50_ms=99.0)))
    html = page(read_contents(folder), written=NOON)
    assert f"<td>added: no: {member.record.trial} beat it" in html
    assert f"Added, though not on the brief front: {other.trial} (off the front now)." in html
    assert "Bias of the brief front: nothing to say, it takes 4 confirmed networks" in html


def test_a_confirmed_trial_that_left_the_front_is_named(folder: Path, make_record: MakeRecord) -> None:
    study = read_contents(folder)
    assert study.confirmation and not study.confirmed_off_front
    (member,) = study.confirmation.moves
    RecordStore(folder).save(make_record(99, top1=0.99, p50_ms=0.1))
    told = confirmed(read_contents(folder))
    assert f"No member of the front is confirmed; trial {member.record.trial} was, but is not on the front" in told
    assert "Not confirmed yet" not in told
    run = read_confirmed(folder)[0]
    write_confirmed(folder, replace(run, trial=99))
    assert "No member" not in confirmed(read_contents(folder))


@pytest.mark.parametrize(
    "words",
    ["did not settle", "points between the float network", "High standard error", "1 of 31 trials failed (1 in train)"],
)
@pytest.mark.usefixtures("small_plotly")
def test_doubts_are_said(words: str, folder: Path) -> None:
    store = RecordStore(folder)
    last = read_contents(folder).front[-1]
    assert last.latency and last.quality
    lossy = (replace(last.accuracy_path[0], score=last.quality.score + 0.03), *last.accuracy_path[1:])
    store.save(
        replace(
            last,
            latency=replace(last.latency, stable=False),
            accuracy_path=lossy,
            quality=replace(last.quality, images=100),
        )
    )
    assert words in page(read_contents(folder), written=NOON)


@pytest.mark.usefixtures("small_plotly")
def test_without_run_toml_and_without_a_front_it_is_still_a_page(tmp_path: Path, make_record: MakeRecord) -> None:
    RecordStore(tmp_path).save(make_record(0, top1=None))
    html = page(read_contents(tmp_path), written=NOON)
    assert "None of 1 trials is feasible" in html
    unknown = "The space is not known: run.toml is absent or cannot be read."
    assert html.count(unknown) == 3, "outlook, simple ways, axes"
    assert all(f'<section id="{name}"' in html for name in SECTIONS)


@pytest.mark.usefixtures("small_plotly")
def test_trials_in_part_alone_are_told_as_the_reason_of_what_is_missing(
    folder: Path, tmp_path: Path, session: Session, make_record: MakeRecord
) -> None:
    session = replace(session, folder=tmp_path / "brief")
    session.folder.mkdir()
    write_run_file(session)
    for record in read_contents(folder).records:
        steps = record.candidate.recipe.steps
        RecordStore(session.folder).save(replace(record, full_updates=2 * steps))
    study = read_contents(session.folder)
    assert not study.front and study.outlook
    html = page(study, written=NOON)
    assert "No axis took two values in measured trials of full length. Left out: 30 trials trained in part." in html
    assert html.count("The front has no member yet.") == 3, "weights, training, simpler ways"
    assert "an earlier version wrote them" not in html and "None are stored" not in html
    assert "a few measured trials, and a space" not in html


def test_importance_counts_trials_of_full_length(folder: Path) -> None:
    study = read_contents(folder)
    part = [replace(each, full_updates=each.candidate.recipe.steps + (each.trial % 2)) for each in study.records]
    told = axes(replace(study, records=tuple(part), importance=()))
    assert "Importance is left out below 20 measured trials of full length." in told
    assert "Left out: 15 trials trained in part." in told
    assert "in part" not in axes(study)


@pytest.mark.parametrize(
    ("task", "metric", "title", "classes"),
    [("detection", "map50_95", "mAP50-95", "Objects found"), ("segmentation", "miou", "mIoU", "Classes")],
)
@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.usefixtures("small_plotly")
def test_other_tasks_keep_their_words_without_a_front(
    tmp_path: Path, session: Session, make_record: MakeRecord, task: str, metric: str, title: str, classes: str,
    *, scored: bool,
) -> None:  # fmt: skip
    write_run_file(replace(session, settings=replace(session.settings, task=task)))
    record = make_record(0, top1=0.5 if scored else None, excess=0.2)
    if scored:
        record = replace(record, quality=replace(record.quality, metric=metric))
    RecordStore(tmp_path).save(record)
    study = read_contents(tmp_path)
    assert not study.front and study.metric == metric
    html = page(study, written=NOON)
    assert f'<th scope="col">{title}, %</th>' in html and f'<th scope="col">float {title}</th>' in html
    assert "score against latency</h1>" in html and "top-1" not in html and "ccuracy" not in html.partition("<main>")[0]
    assert f'<section id="classes" aria-labelledby="classes-title"><h2 id="classes-title">{classes}</h2>' in html


def test_the_best_member_is_called_most_accurate_only_where_the_score_is_an_accuracy(folder: Path) -> None:
    study = read_contents(folder)
    beaten = next(each for each in study.records if each.feasible and each not in study.front)
    study = replace(study, base=beaten)
    assert "<h3>Most accurate</h3>" in answer(study) and "is at least as accurate" in answer(study)
    masks = [replace(each, quality=each.quality and replace(each.quality, metric="miou")) for each in study.records]
    told = answer(replace(study, records=tuple(masks)))
    assert "<h3>Best-scoring</h3>" in told and "is at least as good" in told and "accurate" not in told


def test_a_study_without_records_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(NoFeasibleTrialError, match="no results yet"):
        read_contents(tmp_path)


@pytest.mark.usefixtures("small_plotly")
def test_pictures_leave_room_for_the_knees_histogram(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.report.page.MOST_BYTES", 600_000)
    study = read_contents(folder)
    knee, trials = study.knee, [record.trial for record in study.front]
    assert knee and len(trials) > 3
    heavy = replace(
        study,
        pictures=dict.fromkeys(trials, bytes(100_000)),
        histograms={trial: {"data": ["x" * 120_000], "layout": {}} for trial in trials},
    )
    html = page(heavy, written=NOON)
    assert f'<option value="{knee.trial}">' in html.partition('id="histogram-member"')[2]
    assert f"{len(trials) - 1} more are left out to keep the file small." in html
    assert html.count("data:image/jpeg") == 1 and len(html) < 600_000
    assert f"{len(trials) - 1} members are left out to keep the file small." in html


@pytest.mark.usefixtures("small_plotly")
def test_histograms_that_do_not_fit_are_not_said_to_be_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.report.page.MOST_HISTOGRAM_BYTES", 10)
    study = read_contents(folder)
    figure = {"data": ["x" * 20], "layout": {}}
    html = page(replace(study, histograms={record.trial: figure for record in study.front}), written=NOON)
    assert f"{len(study.front)} are left out to keep the file small." in html
    assert "None are stored" not in html
    assert "None are stored" in page(study, written=NOON)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.usefixtures("small_plotly")
def test_users_texts_stay_inside_their_elements(
    payload: str, tmp_path: Path, session: Session, make_record: MakeRecord
) -> None:
    folder = tmp_path / payload.replace("/", "_")
    make_study(folder, session, make_record, names=(payload, "yield"))
    html = page(read_contents(folder), written=NOON)
    packed = re.search(r'id="plotly-packed">([^<]*)<', html)
    assert packed
    html = html.replace(packed[1], "")
    assert html.count("<script") == 3
    assert html.count("</script>") == 3
    assert "<img" not in html
    assert "onload=window" not in html.replace("&gt;&lt;svg onload", "").replace("\\u003e\\u003csvg onload", "")
    assert "\u2028" not in html


@pytest.mark.slow
@pytest.mark.parametrize("width_px", [1400, 390])
def test_a_browser_draws_every_figure_and_runs_nothing_of_the_users(
    width_px: int, tmp_path: Path, session: Session, make_record: MakeRecord, chromium: Any
) -> None:
    folder = tmp_path / PAYLOADS[2].replace("/", "_")
    make_study(folder, session, make_record, names=PAYLOADS)
    histogram = {"data": [{"type": "scatter", "x": [1, 2], "y": [1, 2]}], "layout": {"title": {"text": "h"}}}
    first = read_contents(folder).front[0].trial
    write_page(read_contents(folder, histograms={first: histogram}), folder / "report.html", written=NOON)
    said: list[str] = []
    tab = chromium.new_page(viewport={"width": width_px, "height": 900})
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((folder / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    assert tab.evaluate("document.documentElement.dataset.ready") == "yes"
    for name in ("front", "hypervolume", "importance", "paid", "confirmed", "losses", "curves", "histogram"):
        assert tab.locator(f'[data-chart="{name}"] .main-svg').count() > 0, name
    for name in SECTIONS:
        assert tab.locator(f"section#{name} h2").is_visible()
    for place in range(len(PAYLOADS)):
        tab.select_option("#class", index=place)
    tab.select_option("#member", index=0)
    tab.locator("#class-table tbody tr").first.click()
    assert tab.locator("#class-table tbody tr").count() == len(PAYLOADS)
    assert tab.locator("#class-table tr.chosen").count() == 1
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("a[href^='javascript']").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= width_px
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []
    tab.close()


@pytest.mark.slow
def test_a_figure_without_data_is_said_to_have_none(tmp_path: Path, make_record: MakeRecord, chromium: Any) -> None:
    RecordStore(tmp_path).save(make_record(0, top1=None))
    write_page(read_contents(tmp_path), tmp_path / "report.html", written=NOON)
    tab = chromium.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    assert tab.evaluate("document.documentElement.dataset.ready") == "yes"
    for name in ("front", "hypervolume"):
        assert tab.locator(f'[data-chart="{name}"]').inner_text() == "Nothing to draw yet."
    assert "Drawing:" not in tab.locator("main").inner_text()
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize(("low", "kept"), [(0.131, "0.133"), (1.0, "2")])
def test_a_phone_shows_few_ticks_but_some(
    low: float, kept: str, tmp_path: Path, session: Session, make_record: MakeRecord, chromium: Any
) -> None:
    write_run_file(replace(session, space=replace(session.space, axes=())))
    for trial in range(5):
        p50_ms = low + 0.001 * trial if low < 1 else low + trial
        record = make_record(trial, top1=0.5 + trial / 100, p50_ms=p50_ms)
        RecordStore(tmp_path).save(replace(record, limits=()))  # a line at a limit would widen the axis
    write_page(read_contents(tmp_path), tmp_path / "report.html", written=NOON)
    tab = chromium.new_page(viewport={"width": 390, "height": 900})
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    told = tab.locator('[data-chart="front"] .xtick text').all_text_contents()
    assert kept in told and 2 <= len(told) <= 7
    assert low < 1 or "3" not in told
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("classes", [{}, None])
def test_a_browser_draws_the_figures_of_a_task_without_classes_to_choose(
    classes: dict[str, Any] | None, tmp_path: Path, session: Session, make_record: MakeRecord, chromium: Any
) -> None:
    """Segmentation has none, and the part of a task of another package may have another name."""
    make_study(tmp_path, session, make_record, names=("one", "two"))
    histogram = {"data": [{"type": "scatter", "x": [1, 2], "y": [1, 2]}], "layout": {"title": {"text": "h"}}}
    first = read_contents(tmp_path).front[0].trial
    write_page(read_contents(tmp_path, histograms={first: histogram}), tmp_path / "report.html", written=NOON)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = re.search(r'(<script[^>]*id="page-data"[^>]*>)(.*?)(</script>)', html, re.DOTALL)
    assert found
    data = {**json.loads(found[2]), "classes": classes}
    if classes is None:
        del data["classes"]
    (tmp_path / "report.html").write_text(
        html.replace(found[2], json.dumps(data).replace("<", "\\u003c")), encoding="utf-8"
    )
    tab = chromium.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    assert tab.evaluate("document.documentElement.dataset.ready") == "yes"
    assert tab.locator('[data-chart="histogram"] .main-svg').count() > 0
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "order"), [("recall", ["weak", "strong", "unseen"]), ("average", ["strong", "weak", "unseen"])]
)
def test_a_browser_sorts_classes_as_the_data_say_and_names_what_it_counts(
    by: str, order: list[str], tmp_path: Path, session: Session, make_record: MakeRecord, chromium: Any
) -> None:
    make_study(tmp_path, session, make_record, names=("unseen", "strong", "weak"))
    write_page(read_contents(tmp_path), tmp_path / "report.html", written=NOON)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    found = re.search(r'(<script[^>]*id="page-data"[^>]*>)(.*?)(</script>)', html, re.DOTALL)
    assert found
    data = json.loads(found[2])
    classes = data["classes"]
    classes.update(noun="objects", weakest_by=by)
    for member in classes["members"]:
        member.update(support=[0, 7, 8], recall=[0, 900, 400], average=[0, 300, 600])
    told = json.dumps(data).replace("<", "\\u003c")
    (tmp_path / "report.html").write_text(html.replace(found[2], told), encoding="utf-8")
    tab = chromium.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("html[data-ready]", timeout=60_000)
    assert tab.locator("#class-table tbody th").all_inner_texts() == order
    assert tab.locator("#class option:checked").inner_text() == order[0]
    names = tab.evaluate("document.querySelector('[data-chart=curves]').data.map((trace) => trace.name)")
    assert all(name.endswith(" objects") for name in names)
    tab.close()
