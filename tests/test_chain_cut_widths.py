"""A search that reaches widths from scratch and by cutting the widest trunk: run, shown, exported, trained again."""

import csv
import json
from pathlib import Path

import pytest
from colours import colour_file, colour_space

from scalesearch.chain.planner import Planner
from scalesearch.cli.export import export_trial
from scalesearch.cli.full_training import train_export
from scalesearch.config import load_run
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.export.metadata import read_config
from scalesearch.records.run_file import stored_session
from scalesearch.study.run import run_search
from scalesearch.values.record import TrialRecord
from scalesearch.views.description import describe

# A whole search of six trainings and another training: half a minute on a machine that also does other work.
pytestmark = pytest.mark.slow

SETTINGS = ("latency.max_s=0.2", "latency.warmup_s=0.02", "machine.threads=1", "machine.bf16=off", "twins=false")
OVERRIDES = (
    "scaling.width_by=['scratch', 'cut']", "quantization.precision=fp32", "pruning.channel_fraction=0.0",
    "training.steps=12", "training.branch_fraction=0.5",
)  # fmt: skip


@pytest.mark.usefixtures("no_dashboard")
def test_a_study_of_both_ways_trains_one_trunk_for_all_that_are_cut(tmp_path: Path) -> None:
    data, space_file, folder = colour_file(tmp_path / "colours.npz"), tmp_path / "tiny.toml", tmp_path / "study"
    space_file.write_text(colour_space("[0.25, 0.5, 1.0]"))
    flags = {"data.source": str(data), "budget": 6}
    settings, space = load_run(space=str(space_file), overrides=(*SETTINGS, *OVERRIDES), flags=flags)

    outcome = run_search(settings, space, folder)

    trained = [measured for record in outcome.records if record.charged and (measured := record.measured)]
    ways = {(record.candidate.scaling.width, record.candidate.scaling.width_by) for record in trained}
    assert ways == {(1.0, "scratch"), *((width, way) for width in (0.25, 0.5) for way in ("scratch", "cut"))}
    cut = [record for record in trained if record.cut_from]
    assert {record.candidate.scaling.width_by for record in cut} == {"cut"} and len(cut) == 2
    plan, session = Planner(stored_session(folder)), stored_session(folder)
    whole = next(record for record in trained if record.candidate.scaling.width == 1.0)
    assert {record.cut_from for record in cut} == {whole.spec}
    assert {plan(record.candidate).trunk_key for record in cut} == {plan(whole.candidate).trunk_key}
    # Three trunks and five branches of 6 updates each: four full trainings.
    assert outcome.charged == pytest.approx((3 * 6 + 5 * 6) / 12)
    assert len(list((folder / "weights").glob("*-6.safetensors"))) == 3

    with (folder / "trials.csv").open(newline="") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    assert {rows[record.trial]["width_by"] for record in cut} == {"cut"}
    record = cut[-1]
    assert "trunk of a network of larger width" in _told(record)["begun as"]
    assert "begun as" not in _told(whole)

    export_trial(record, session, tmp_path / "export")
    config = read_config(tmp_path / "export")
    assert (config.network, config.cut_from) == (record.spec, record.cut_from)
    assert "Begun as the trunk" in (tmp_path / "export" / "MODEL_CARD.md").read_text()
    train_export(tmp_path / "export", steps=12, data=None, seed=None, to=tmp_path / "again")
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["top1"] == record.quality.score
    assert onnx_model(tmp_path / "again" / "model.onnx").sha256 == record.onnx_sha256


def _told(record: TrialRecord) -> dict[str, str]:
    return {label: text for section in describe(record) for label, text in section.lines}
