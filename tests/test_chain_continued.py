"""Full trainings go on from stored trunks of their seed, and end as those that begin with the first update."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from colours import colour_file, colour_space

from scalesearch.cli.export import export_trial
from scalesearch.cli.full_training import train_export
from scalesearch.config import load_run
from scalesearch.confirm.front import confirm_front
from scalesearch.confirm.request import ConfirmRequest
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.records.confirmed import read_confirmed, work_folder
from scalesearch.records.run_file import stored_session
from scalesearch.search.events import StudyOutcome
from scalesearch.study.run import run_search
from scalesearch.values.record import MeasuredTrial

# A search of one training, and five trainings more: a minute on a machine that also does other work.
pytestmark = pytest.mark.slow

SETTINGS = (
    "latency.max_s=0.2", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "twins=false",
    "siblings=false", "quantization.precision=fp32", "pruning.channel_fraction=0.5", "training.steps=12",
    "training.branch_fraction=0.5", "training.warmup_steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, brief_calm: None) -> Iterator[tuple[Path, MeasuredTrial]]:
    """A study of one network, whose trunk has 6 updates, and its record."""
    folder = tmp_path_factory.mktemp("continued")
    data, space_file = colour_file(folder / "colours.npz"), folder / "tiny.toml"
    space_file.write_text(colour_space("[1.0]"))
    settings, space = load_run(space=str(space_file), overrides=SETTINGS, flags={"data.source": str(data), "budget": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scalesearch.dashboard.publisher.installed", lambda: False)
        yield folder / "study", run_search(settings, space, folder / "study").front[0]


def test_a_training_of_an_export_continues_the_search_s_trunk(
    study: tuple[Path, MeasuredTrial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, record = study
    export_trial(record, stored_session(folder), tmp_path / "export")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def trained(to: str) -> tuple[dict[str, Any], str, list[str]]:
        capsys.readouterr()
        train_export(tmp_path / "export", steps=30, data=None, seed=None, to=tmp_path / to)
        result = json.loads((tmp_path / to / "result.json").read_text())
        said = [line for line in capsys.readouterr().out.splitlines() if "trunk" in line]
        return result, onnx_model(tmp_path / to / "model.onnx").sha256, said

    continued, its_model, said = trained("continued")
    assert said == ["continues the search's trunk of 6 updates"]
    assert (continued["trained_steps"], continued["new_steps"]) == (30, 24)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    config = tmp_path / "export" / "config.toml"
    config.write_text(re.sub(r"(?m)^study_folder = .*$", 'study_folder = "nowhere"', config.read_text()))
    anew, model, said = trained("anew")
    assert said == []
    assert (anew["trained_steps"], anew["new_steps"]) == (30, 30)
    assert its_model == model
    scores = "top1", "test_top1", "final_loss"
    assert [continued[name] for name in scores] == [anew[name] for name in scores]


def test_a_confirmation_that_starts_anew_continues_the_trunks_of_its_seeds(study: tuple[Path, MeasuredTrial]) -> None:
    folder, _ = study

    def confirmed(steps: int, *, fresh: bool) -> tuple[list[str], list[str]]:
        said = list[str]()
        confirm_front(folder, ConfirmRequest(steps=steps, seeds=1), fresh=fresh, say=said.append)
        return [run.onnx_sha256 for run in read_confirmed(folder)], [line for line in said if "trunks" in line]

    brief, _ = confirmed(12, fresh=False)
    continued, said = confirmed(30, fresh=True)
    assert said == ["trunks: 1 of 1 go on from those of the same seeds in confirmed.old1"]
    assert sorted(path.stem.partition("-")[2] for path in work_folder(folder).glob("weights/*-*")) == ["15", "6"]
    shutil.rmtree(folder / "confirmed")
    shutil.rmtree(folder / "confirmed.old1")
    anew, said = confirmed(30, fresh=False)
    assert said == []
    assert continued == anew != brief


def test_a_study_made_longer_goes_on_with_its_trunk_and_ends_as_one_that_began_so(
    study: tuple[Path, MeasuredTrial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.dashboard.publisher.installed", lambda: False)
    folder, record = study
    shutil.copytree(folder, tmp_path / "longer")

    def searched(to: Path) -> tuple[StudyOutcome, list[str]]:
        overrides, said = (*SETTINGS, "training.steps=30"), list[str]()
        flags = {"data.source": str(folder.parent / "colours.npz"), "budget": 2}
        settings, space = load_run(space=str(folder.parent / "tiny.toml"), overrides=overrides, flags=flags)
        return run_search(settings, space, to, say=said.append), said

    longer, said = searched(tmp_path / "longer")
    assert [line for line in said if "longer than before" in line and line.endswith("goes on with its trunk")]
    old, (member,) = longer.records[0], longer.front
    assert old.trained_in_part and old.charge == pytest.approx(12 / 30)
    assert old == replace(record, full_updates=30)
    assert (member.training.steps, member.training.new_steps) == (30, 24)
    anew, _ = searched(tmp_path / "anew")
    assert anew.front[0].training.new_steps == 30
    assert member.onnx_sha256 == anew.front[0].onnx_sha256
    assert (tmp_path / "longer" / "models").joinpath(f"trial_{member.trial:06d}.onnx").exists()
