"""What `run` says at the end of a search that has found nothing."""

from pathlib import Path

import pytest
from command import run_command

from scalesearch.cli import run
from scalesearch.errors import NoFeasibleTrialError
from scalesearch.search.events import StudyOutcome


def test_a_run_whose_time_went_into_preparation_points_to_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalesearch.study import run as module

    nothing = StudyOutcome(
        records=(), front=(), ended="time", message="the time is up at 0; run again to go on", charged=0.0, wall_s=1.0,
        search_s=0.0,
    )  # fmt: skip
    monkeypatch.setattr(module, "run_search", lambda *_, **__: nothing)
    with pytest.raises(NoFeasibleTrialError, match=r"No trial was begun: the time is up") as caught:
        run_command(run.register, "run", "--to", tmp_path / "study", "--max-time", "2m", "--target", "cpu")
    words = str(caught.value)
    assert "the same command goes on with it" in words and "--trial" not in words and len(words.splitlines()) <= 3
