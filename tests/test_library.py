"""The library: what is public, how it is loaded, and the notebook of docs/library.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import scalesearch
from scalesearch.analysis.front import hypervolume, knee, pareto_front, point
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.records.tables import csv_text, trial_rows
from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.space import Choice

MakeRecord = Callable[..., MeasuredTrial]
PAGE = Path(__file__).parents[1] / "docs" / "library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_public_name_is_there_and_known_to_type_checkers() -> None:
    names = set(scalesearch.__all__)
    assert all(getattr(scalesearch, name) is not None for name in names)
    assert names <= set(dir(scalesearch))
    tree = ast.parse(Path(scalesearch.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} == names
    for node in imports:  # one and the same object in both ways of importing
        for alias in node.names:
            assert getattr(import_module(str(node.module)), alias.name) is getattr(scalesearch, alias.name)
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        scalesearch.evaluat  # type: ignore[attr-defined]  # noqa: B018


def test_importing_and_reading_load_neither_torch_nor_optuna(tmp_path: Path, make_record: MakeRecord) -> None:
    RecordStore(tmp_path).save(make_record(0))
    code = (
        "import sys, scalesearch\n"
        "first = sorted({'numpy', 'pydantic', 'pandas', 'torch', 'optuna'} & set(sys.modules))\n"
        "study = scalesearch.read_study(sys.argv[1]); study.frame(); study.knee, study.pick(), study.hypervolume()\n"
        "scalesearch.Candidate(), scalesearch.RunSettings()\n"
        "print(first, sorted({'torch', 'optuna', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run((sys.executable, "-c", code, str(tmp_path)), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_a_study_is_read_as_it_is(tmp_path: Path, make_record: MakeRecord) -> None:
    records = [
        make_record(0, top1=0.70, p50_ms=1.0),
        make_record(1, top1=0.90, p50_ms=6.0),
        make_record(2, top1=0.60, p50_ms=2.0),
        make_record(3, top1=0.85, p50_ms=1.6),
        make_record(4, top1=None),
    ]
    for record in records:
        RecordStore(tmp_path).save(record)
    study = scalesearch.read_study(str(tmp_path))
    assert study.records == tuple(records) and study.session is None and study.confirmed == ()
    assert study.front == pareto_front(records) == (records[0], records[3], records[1])
    assert study.knee == knee(study.front) == records[3]
    assert study.hypervolume() == hypervolume([point(record) for record in study.front])
    slow = make_record(5, top1=0.95, p50_ms=1500.0)
    RecordStore(tmp_path).save(slow)
    wider = hypervolume([point(record) for record in (*study.front, slow)], (0.0, 3000.0))
    assert scalesearch.read_study(tmp_path).hypervolume() == wider
    assert study.record(4) == records[4]
    assert study.pick().record == study.knee
    assert study.pick(scalesearch.Wish(max_latency_ms=1.5)).record == records[0]
    with pytest.raises(NoFeasibleTrialError, match="within the bounds"):
        study.pick(scalesearch.Wish(min_score=0.99))
    with pytest.raises(ConfigError, match="no trial 77"):
        study.record(77)


def test_frames_are_the_tables(tmp_path: Path, make_record: MakeRecord) -> None:
    for trial, (top1, p50_ms) in enumerate(((0.9, 6.0), (0.7, 1.0), (0.6, 2.0))):
        RecordStore(tmp_path).save(make_record(trial, top1=top1, p50_ms=p50_ms))
    study = scalesearch.read_study(tmp_path)
    rows = trial_rows(study.records, front={0, 1})
    assert ["trial", *study.frame().columns] == csv_text(rows).splitlines()[0].split(",")
    assert study.frame()["top1"].to_dict() == {0: 0.9, 1: 0.7, 2: 0.6}
    assert study.frame(front_only=True).index.to_list() == [1, 0]  # fastest first
    assert study.frame().groupby("precision")["top1"].max().to_dict() == {"fp32": 0.9}
    for trial in range(3):
        RecordStore(tmp_path).save(make_record(trial, top1=None))
    none = scalesearch.read_study(tmp_path).frame(front_only=True)
    assert none[["top1", "p50_ms"]].empty and none.index.name == "trial"


def test_the_picture_is_a_figure_of_its_own(tmp_path: Path, make_record: MakeRecord) -> None:
    for trial in range(3):
        RecordStore(tmp_path).save(make_record(trial, top1=0.6 + 0.1 * trial, p50_ms=1.0 + trial))
    figure = scalesearch.read_study(tmp_path).plot(title="mine")
    assert figure.axes[0].get_title(loc="left") == "mine"
    figure.savefig(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").stat().st_size > 10_000


def test_the_picture_of_generated_images_says_so(tmp_path: Path, session: Session, make_record: MakeRecord) -> None:
    settings = replace(session.settings, data=replace(session.settings.data, source="signs"))
    write_run_file(replace(session, folder=tmp_path, settings=settings))
    RecordStore(tmp_path).save(make_record(0))
    figure = scalesearch.read_study(tmp_path).plot()
    assert f"{session.data.name} (synthetic images), {session.data.val_images} validation" in figure.get_supxlabel()


def test_no_study_and_an_empty_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no records"):
        scalesearch.read_study(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        scalesearch.read_study(tmp_path / "nowhere")


def test_a_space_is_loaded_with_overrides_and_checked() -> None:
    space = scalesearch.load_space("resnet_small", ["training.steps=11", "scaling.width=[0.5, 0.75]"])
    axes = {named.name: named.axis for named in space.axes}
    assert axes["scaling.width"] == Choice(values=(0.5, 0.75))
    assert scalesearch.load_space("resnet_small") != space
    with pytest.raises(ConfigError, match="resnet_small"):
        scalesearch.load_space("resnet_smal")
    with pytest.raises(ConfigError, match=r"training\.steps"):
        scalesearch.load_space("resnet_small", ["training.stepz=11"])
    with pytest.raises(ConfigError, match=r"'latency\.max_s' is no part of a search space"):
        scalesearch.load_space("resnet_small", ["latency.max_s=1"])


def test_the_settings_network_is_the_one_that_is_searched_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[str]()

    def note(settings: scalesearch.RunSettings, space: scalesearch.SearchSpace, folder: Path, **_: object) -> None:
        taken.append(space.network)

    monkeypatch.setattr("scalesearch.api._run_search", note)
    monkeypatch.setattr("scalesearch.api._evaluate", lambda _, space, settings, *rest: note(settings, space, tmp_path))
    space = scalesearch.load_space("resnet_small")
    for network in ("mobilenet_v2", ""):
        settings = scalesearch.RunSettings(network=network, target="cpu")
        scalesearch.run_search(settings, space, tmp_path)
        scalesearch.evaluate(scalesearch.Candidate(), space, settings)
    assert taken == ["mobilenet_v2", "mobilenet_v2", "resnet_small", "resnet_small"]


def test_one_candidate_is_not_evaluated_inside_a_search(tmp_path: Path) -> None:
    (tmp_path / "study.sqlite3").touch()
    space = scalesearch.load_space("resnet_small")
    with pytest.raises(ConfigError, match="the study of a search"):
        scalesearch.evaluate(scalesearch.Candidate(), space, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["study.sqlite3"]


def test_a_candidate_that_is_to_be_taught_needs_a_parent(tmp_path: Path) -> None:
    space = scalesearch.load_space("resnet_small", ["training.distill_weight=0.5"])  # a space alone is no run
    candidate = scalesearch.Candidate(recipe=scalesearch.Recipe(distill_weight=0.5))
    with pytest.raises(ConfigError, match=r"distill_weight = 0\.5: expected a parent"):
        scalesearch.evaluate(candidate, space, folder=tmp_path)


@pytest.mark.parametrize("pruning", [Pruning(), Pruning(channel_fraction=0.5)])
def test_a_candidate_whose_branch_has_no_room_for_rounding_is_refused_before_anything_is_made(
    tmp_path: Path, pruning: Pruning
) -> None:
    quantization = Quantization(precision="int8", qat_steps=60)
    short = Candidate(recipe=Recipe(steps=100), quantization=quantization, pruning=pruning)
    with pytest.raises(ConfigError, match=r"(?s)candidate: expected a branch of more than the 60.*Recipe\(steps=182\)"):
        scalesearch.evaluate(short, scalesearch.load_space("resnet_small"), folder=tmp_path / "by_hand")
    assert not (tmp_path / "by_hand").exists()


def test_the_notebook_names_what_is_public() -> None:
    used = set(re.findall(r"scalesearch\.(\w+)\(", "".join(BLOCKS)))
    imported = {
        alias.name
        for block in BLOCKS
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module == "scalesearch"
        for alias in node.names
    }
    assert used and imported and used | imported <= set(scalesearch.__all__)
    table = PAGE.read_text(encoding="utf-8").partition("## What is there")[2]
    assert {name for name in scalesearch.__all__ if f"`{name}`" not in table} <= {
        "ConfirmOutcome", "StudyView", "read_run_file",
    }  # fmt: skip


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    said = capsys.readouterr().out
    assert "budget" in said and "knee: trial" in said and "train\n" in said
    assert (tmp_path / "front.png").stat().st_size > 10_000
    record = names["record"]
    assert isinstance(record, scalesearch.TrialRecord)
    assert (tmp_path / "results" / "by_hand" / "models" / "trial_000000.onnx").is_file()
    again = scalesearch.evaluate(names["candidate"], names["space"], names["settings"], folder="results/by_hand")  # type: ignore[arg-type]
    assert again == record
    other = scalesearch.Candidate(
        scaling=scalesearch.Scaling(resolution=0.5, width=0.25), recipe=record.candidate.recipe
    )
    second = scalesearch.evaluate(other, names["space"], names["settings"], folder="results/by_hand")  # type: ignore[arg-type]
    assert second.trial == 1 and RecordStore(tmp_path / "results" / "by_hand").load(1) == second
