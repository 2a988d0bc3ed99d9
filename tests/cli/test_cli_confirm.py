import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command import run_command

from scalesearch.cli import confirm
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.store import RecordStore
from scalesearch.values.record import MeasuredTrial

_run = partial(run_command, confirm.register)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--top", "0"), "--top 0: expected 1 or more"),
        (("--seeds", "-1"), "--seeds -1: expected 1 or more"),
        (("--epochs", "0"), "--epochs 0: expected 1 or more"),
        (("--steps", "10", "--epochs", "2"), "one of --epochs and --steps"),
        (("--seeds", "1000"), "99 or fewer"),
    ],
)
def test_bad_numbers_are_told_before_anything_is_read(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        _run(str(tmp_path / "nowhere"), *flags)


def test_no_study_no_results_and_no_front_are_told(tmp_path: Path, make_record: Callable[..., MeasuredTrial]) -> None:
    with pytest.raises(ConfigError, match="no study"):
        _run(str(tmp_path / "nowhere"))
    RecordStore(tmp_path).save(make_record(0, top1=None))
    with pytest.raises(NoFeasibleTrialError, match="no feasible trial"):
        _run(str(tmp_path))
    RecordStore(tmp_path).save(make_record(0))
    with pytest.raises(ConfigError, match=r"run\.toml"):
        _run(str(tmp_path))
    assert not (tmp_path / "confirmed").exists()


def test_help_and_bad_input_never_load_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom scalesearch.cli import app\n"
        "try:\n app(args=sys.argv[1:], standalone_mode=False)\nexcept Exception as e:\n print(type(e).__name__)\n"
        "print('torch' in sys.modules)"
    )
    for arguments in (("confirm", "--help"), ("confirm", str(tmp_path), "--top", "0"), ("confirm", str(tmp_path))):
        done = subprocess.run(
            (sys.executable, "-c", code, *arguments), capture_output=True, text=True, check=True, env=os.environ
        )
        assert done.stdout.splitlines()[-1] == "False", done.stdout
