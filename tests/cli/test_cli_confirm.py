import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command import run_command

from scalesearch.analysis.confirmation import confirm_moves
from scalesearch.cli import confirm
from scalesearch.confirm.request import command_for, parse_also
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.records.store import RecordStore
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.training_length import full_length

_run = partial(run_command, confirm.register)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--top", "0"), "--top 0: expected 1 or more"),
        (("--seeds", "-1"), "--seeds -1: expected 1 or more"),
        (("--epochs", "0"), "--epochs 0: expected 1 or more"),
        (("--steps", "10", "--epochs", "2"), "one of --epochs and --steps"),
        (("--seeds", "1000"), "99 or fewer"),
        (("--also", "3", "--also", "best"), "--also 'best': expected a trial's number, or auto"),
        (("--also=-1",), "--also '-1': expected a trial's number"),
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


def test_a_trial_that_cannot_be_added_is_told_first(tmp_path: Path, make_record: Callable[..., MeasuredTrial]) -> None:
    for trial, p50_ms in ((0, 1.0), (1, 2.0)):
        RecordStore(tmp_path).save(make_record(trial, p50_ms=p50_ms))
    for word, told in (
        ("0", "is on the front already"),
        ("7", "no such trial"),
        ("auto", "nothing on the front of .* was confirmed"),
    ):
        with pytest.raises(ConfigError, match=f"--also {word}: .*{told}"):  # before run.toml is missed
            _run(str(tmp_path), "--also", word)


def test_each_number_is_taken_once_and_auto_is_no_number() -> None:
    assert parse_also(("3", "auto", "12", "3")) == ((3, 12), True)
    assert parse_also(()) == ((), False)


def test_the_command_that_goes_on_names_what_is_not_the_default(make_record: Callable[..., MeasuredTrial]) -> None:
    record = make_record(0)
    run = ConfirmedRun(
        trial=0, seed=1, steps=8 * record.training.steps, train_s=1.0, float_score=0.9, validation=record.quality,
        test=record.quality, latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="1",
    )  # fmt: skip
    plain = confirm_moves([record], [run, replace(run, seed=2)])
    other = confirm_moves([record], [replace(run, steps=2 * record.training.steps)])
    assert plain and command_for("small", plain.moves) == "scalesearch confirm small"
    steps = 2 * record.candidate.recipe.steps
    assert other and command_for("small", other.moves) == f"scalesearch confirm small --steps {steps} --seeds 1"
    # Where lengths were unlike, the default is 4 times the greatest of them.
    steps = record.candidate.recipe.steps
    member = replace(record, full_updates=steps, training=replace(record.training, steps=steps))
    usual = confirm_moves([member], [replace(run, steps=4 * steps), replace(run, steps=4 * steps, seed=2)])
    longer = confirm_moves([member], [replace(run, steps=8 * steps), replace(run, steps=8 * steps, seed=2)])
    assert usual and command_for("small", usual.moves) == "scalesearch confirm small"
    assert longer and command_for("small", longer.moves) == f"scalesearch confirm small --steps {8 * steps}"


def test_unlike_batch_sizes_go_on_by_passes_over_the_images(make_record: Callable[..., MeasuredTrial]) -> None:
    records, runs = list[MeasuredTrial](), list[ConfirmedRun]()
    for trial, batch in enumerate((32, 64)):
        record = make_record(trial, top1=0.6 + 0.1 * trial, p50_ms=1.0 + trial)
        recipe = replace(record.candidate.recipe, batch_size=batch)
        candidate, training = replace(record.candidate, recipe=recipe), replace(record.training, steps=recipe.steps)
        records.append(replace(record, candidate=candidate, training=training))
        steps = full_length(recipe, full_updates=0, epochs=40, train_images=1010).steps
        runs += [
            ConfirmedRun(
                trial=trial, seed=seed, steps=steps, train_s=1.0, float_score=0.9, validation=record.quality,
                test=record.quality, latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="1",
            )
            for seed in (1, 2)
        ]  # fmt: skip
    found = confirm_moves(records, runs)
    assert found and [move.steps for move in found.moves] == [1263, 632]  # 40 * 1010 / 32 and / 64, rounded up
    assert command_for("small", found.moves, train_images=1010) == "scalesearch confirm small --epochs 40"
    assert command_for("small", found.moves) == "scalesearch confirm small --steps 1263"  # as good as can be told
    alike = [replace(move, steps=1263) for move in found.moves]
    assert command_for("small", alike, train_images=1010) == "scalesearch confirm small --steps 1263"


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
