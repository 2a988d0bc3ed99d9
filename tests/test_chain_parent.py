"""A search whose networks inherit from an export: run, exported, and trained again, with that parent alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from colours import colour_file, colour_space

from scalesearch.cli.export import export_trial
from scalesearch.cli.full_training import train_export
from scalesearch.config import load_run
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ConfigError
from scalesearch.export.metadata import read_config
from scalesearch.records.run_file import stored_session
from scalesearch.search.events import StudyOutcome
from scalesearch.study.run import run_search

# Two searches, of a training each, and two trainings more: most of a minute.
pytestmark = pytest.mark.slow

SETTINGS = (
    "latency.max_s=0.2", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "twins=false",
    "siblings=false", "quantization.precision=fp32", "pruning.channel_fraction=0.0", "training.steps=12",
)  # fmt: skip


def search(folder: Path, data: Path, widths: str, said: list[str], *, parent: str = "") -> StudyOutcome:
    space_file = folder.with_suffix(".toml")
    space_file.write_text(colour_space(widths))
    flags = {"data.source": str(data), "budget": 1, "parent": parent}
    settings, space = load_run(space=str(space_file), overrides=(*SETTINGS, "parent_steps=4"), flags=flags)
    return run_search(settings, space, folder, say=said.append)


@pytest.mark.usefixtures("no_dashboard", "brief_calm")
def test_a_study_with_a_parent_is_trained_again_with_that_parent_alone(tmp_path: Path) -> None:
    data, mother, study = colour_file(tmp_path / "colours.npz"), tmp_path / "mother", tmp_path / "study"
    (record,) = search(tmp_path / "first", data, "[1.0]", []).front
    export_trial(record, stored_session(tmp_path / "first"), mother)
    renamed, said = tmp_path / "renamed.npz", list[str]()
    with np.load(data) as arrays:  # classes of other names, so that the parent is fine-tuned
        np.savez(renamed, **{**arrays, "class_names": np.array(["a", "b", "c"])})

    outcome = search(study, renamed, "[0.5, 1.0]", said, parent=str(mother))

    assert "parent: fine-tuning it by 4 updates, once for the whole study" in said
    assert sum("on the validation images at 16 px, after 4 updates" in line for line in said) == 1
    record, session = outcome.front[0], stored_session(study)
    export_trial(record, session, tmp_path / "export")
    config = read_config(tmp_path / "export")
    assert config.parent == session.parent and config.parent and config.parent.steps == 4

    def again(to: str) -> None:
        train_export(tmp_path / "export", steps=12, data=None, seed=None, to=tmp_path / to)
        assert json.loads((tmp_path / to / "result.json").read_text())["top1"] == record.quality.score
        assert onnx_model(tmp_path / to / "model.onnx").sha256 == record.onnx_sha256

    mother.rename(tmp_path / "aside")
    again("from_the_study")
    shutil.rmtree(study / "parent")
    with pytest.raises(ConfigError, match="nothing of that name is here"):
        again("from_nothing")
    shutil.copytree(tmp_path / "export", mother)
    with pytest.raises(ConfigError, match="mother has the SHA-256"):
        again("from_another")
    shutil.rmtree(mother)
    (tmp_path / "aside").rename(mother)
    again("from_the_file")
