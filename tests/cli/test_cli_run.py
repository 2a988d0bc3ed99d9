"""What `run` leaves of an old study where it is refused, and what it says at the end of a search that found nothing."""

from pathlib import Path

import pytest
from command import run_command

from scalesearch.cli import run
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.search.events import StudyOutcome


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A study, as far as `--fresh` looks at it."""
    (tmp_path / "study" / "records").mkdir(parents=True)
    (tmp_path / "study" / "run.toml").write_text("old")
    return tmp_path / "study"


def test_a_fresh_run_that_is_refused_moves_nothing(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="need the sampler growth, got tpe"):
        run.run(to=old, fresh=True, target="cpu", sampler="tpe", overrides=["lengths=on"])
    assert sorted(path.name for path in old.parent.rglob("*")) == ["records", "run.toml", "study"]
    assert (old / "run.toml").read_text() == "old"
    assert "old study" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", [ConfigError, KeyboardInterrupt])
def test_a_fresh_run_that_ends_after_it_wrote_something_says_where_the_old_study_is(
    kind: type[BaseException], old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object, **__: object) -> None:
        (old / "reference.onnx").touch()
        raise kind

    monkeypatch.setattr("scalesearch.study.run.run_search", write)
    with pytest.raises(kind):
        run.run(to=old, fresh=True, target="cpu")
    moved = old.with_name("study.old1")
    assert (old / "reference.onnx").is_file() and (moved / "run.toml").read_text() == "old"
    assert f"The old study is kept: {moved}\n" in capsys.readouterr().err


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
