"""What `check` and `--dry-run` say before anything runs."""

import dataclasses

import pytest

from scalesearch.cli.preview import check_space, collapses, limit_lines, preview_run
from scalesearch.config import parse_space
from scalesearch.deployment.targets import get_target
from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.values.settings import MachineSettings, RunSettings
from scalesearch.values.space import SearchSpace

SETTINGS = RunSettings(machine=MachineSettings(threads=1, bf16="off"))


def space(scaling: dict[str, object], **limits: float) -> SearchSpace:
    document = {
        "network": "resnet_small",
        "resolution_px": 16,
        "scaling": scaling,
        "training": {"steps": 10, "batch_size": 4},
        "limits": limits,
    }
    return parse_space(document, name="tiny", origin="tiny.toml")


def test_choices_that_round_to_the_same_network_are_named() -> None:
    # 16, 24, 48 and 64 channels times 1.02 round back to themselves, times 1.5 they do not
    lines = list(collapses(space({"width": [1.0, 1.02, 1.5]}), base_spec("resnet_small"), get_target("cpu")))
    assert lines[0].startswith("3 combinations of scaling choices give 2 distinct networks")
    assert lines[1:] == ["  scaling.width 1 and 1.02 give the same network always."]


def test_distinct_choices_are_not_blamed() -> None:
    lines = list(collapses(space({"width": [0.5, 1.0], "depth": [1, 2]}), base_spec("resnet_small"), get_target("cpu")))
    assert lines == ["4 combinations of scaling choices give 4 distinct networks."]


def test_what_limits_reject_is_counted() -> None:
    lines = list(limit_lines(space({}, max_macs=100, max_size_bytes=50), [50, 150, 200], [40, 60, 70]))
    assert "rejects 2 of 3" in lines[0]
    assert "at least 2 of 3" in lines[1]


def test_check_prints_axes_cost_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    check_space(SETTINGS, space({"width": [0.5, 1.0]}), with_data=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "scaling.width = one of [0.5, 1.0]" in text
    assert "A budget of 20 takes about" in text
    assert "The space is sound." in text


def test_check_refuses_a_stage_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="numbered 1 to 3"):
        check_space(SETTINGS, space({"stages": {"9": {"width": [0.5]}}}), with_data=False)


def test_a_space_whose_every_candidate_is_too_large_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    preview_run(SETTINGS, dataclasses.replace(space({}, max_macs=10)))
    assert "nothing would be trained" in " ".join(capsys.readouterr().out.split())  # wherever a narrow screen folds


def test_dry_run_shows_settings_and_five_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    preview_run(SETTINGS, space({"width": [0.5, 1.0], "depth": [1.0, 2.0]}))
    text = capsys.readouterr().out
    assert "data.source = 'signs'" in text
    assert "latency.half_width = " in text
    assert text.count(" px ") == 5
