"""The command line as a person meets it: help, exit codes, and errors of at most three lines without a traceback."""

import importlib.metadata
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scalesearch.cli import main
from scalesearch.errors import ConfigError


def scalesearch(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "scalesearch", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_version_is_told(tmp_path: Path) -> None:
    told = scalesearch("--version", folder=tmp_path)
    assert (told.returncode, told.stdout) == (0, f"scalesearch {importlib.metadata.version('scalesearch')}\n")


@dataclass(frozen=True)
class Case:
    name: str
    arguments: tuple[str, ...]
    code: int
    says: tuple[str | re.Pattern[str], ...]


FROM_ONE = re.compile(r"greater than or equal to 1\b|not in the range x>=1\b")
"""As typer says it, and as it said it in the oldest version that is allowed."""
CASES = (
    Case("space", ("run", "--space", "resnet_smal"), 2, ("'resnet_smal'", "Did you mean 'resnet_small'?")),
    Case("key", ("run", "--set", "train.steps=3"), 2, ("train.steps", "training.steps")),
    Case("folder", ("run", "--data", "no/such/folder"), 2, ("no/such/folder",)),
    Case("budget", ("run", "--budget", "0"), 2, ("budget = 0",)),
    Case("budget-text", ("run", "--budget", "many"), 2, ("budget",)),
    Case("target", ("run", "--target", "cpuu"), 2, ("cpuu", "'cpu'")),
    Case("network", ("run", "--network", "resnet_smalll"), 2, ("resnet_smalll", "resnet_small")),
    Case("own-network", ("run", "--network", "nowhere:spec"), 2, ("nowhere",)),
    Case("sampler", ("run", "--sampler", "tpee"), 2, ("tpee", "'tpe'")),
    Case("flag", ("run", "--bugdet", "3"), 2, ("--bugdet",)),
    Case("command", ("rnu",), 2, ("rnu",)),
    Case("no-study", ("front",), 2, ("scalesearch run",)),
    Case("no-such-study", ("export", "nothing"), 2, ("nothing",)),
    Case("check", ("check", "resnet_small", "--set", "scaling.width=[]"), 2, ("scaling.width",)),
    Case("config", ("train", "missing.toml"), 2, ("missing.toml",)),
    Case("no-steps", ("train", "missing.toml", "--steps", "0"), 2, ("'--steps'", FROM_ONE)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_answered_shortly_and_with_the_right_code(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["scalesearch", *case.arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == case.code, told
    assert "Traceback" not in told
    assert 1 <= len(told.strip().splitlines()) <= 3, told
    for part in case.says:
        assert part in told if isinstance(part, str) else part.search(told), told
    assert not list(tmp_path.glob("results/*")), "nothing was begun, so nothing is left behind"


def test_a_wrong_task_is_told_before_an_old_study_is_set_aside(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    (study / "run.toml").write_text("")
    done = scalesearch("run", "--fresh", "--to", "study", "--set", "task=clasification", folder=tmp_path)
    assert done.returncode == 2
    assert "no task is called 'clasification'. Did you mean 'classification'?" in done.stderr
    assert list(tmp_path.iterdir()) == [study]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = scalesearch("run", "--budget", "0", "--debug", folder=tmp_path)
    assert "Traceback" in done.stderr
    assert ConfigError.__name__ in done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    done = scalesearch("run", "--to", str(blocker / "study"), folder=tmp_path)
    assert done.returncode == 2
    assert "Cannot write to" in done.stderr and "Not a directory" in done.stderr and "--to" in done.stderr


LIGHT = ("--help", "run --help", "spaces --json", "networks --json")


@pytest.mark.parametrize("arguments", LIGHT)
def test_light_commands_load_no_heavy_library(arguments: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['scalesearch', *sys.argv[1:]]\n"
        "from scalesearch.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'optuna', 'pandas', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_typed_name_of_a_folder_and_a_built_in_set_is_asked_about(tmp_path: Path) -> None:
    (tmp_path / "signs").mkdir()
    for arguments in (("check", "--data", "signs"), ("run", "--set", "data.source=signs", "--dry-run")):
        told = scalesearch(*arguments, folder=tmp_path)
        assert told.returncode == 2, told.stdout
        assert "--data ./signs" in told.stderr and "--data builtin:signs" in told.stderr
        assert len(told.stderr.splitlines()) <= 3 and "Traceback" not in told.stderr
