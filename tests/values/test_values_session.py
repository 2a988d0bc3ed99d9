"""Names of files in `models/` and the trials that they belong to; which data were drawn by a program; the sampler."""

from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.values.session import Session, model_path, trial_of_model
from scalesearch.values.settings import DataSettings, RunSettings


@pytest.mark.parametrize("trial", [0, 7, 999_999, 1_000_000, 12_345_678])
def test_a_models_path_and_its_trial_are_inverse(trial: int) -> None:
    path = model_path(Path("study"), trial)
    assert trial_of_model(path) == trial
    for suffix in (".fp32.onnx", ".dense.onnx", ".tensorrt.onnx", ".ranked.onnx"):
        assert trial_of_model(path.with_suffix(suffix)) == trial
        assert trial_of_model(path.with_suffix(f".untrained{suffix}")) == trial
    assert trial_of_model(path.with_suffix(".untrained.onnx")) == trial


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "trial_.onnx",
        "trial_abc.onnx",
        "trial_00001.onnx",
        "trial_000001.onnx.bak",
        "trial_000001.mine.onnx",
        "trial_000001.untrained",
        "trial_000001.fp32.untrained.onnx",
        "trial_000001 (copy).onnx",
        "Trial_000001.onnx",
        "trial_00000\u00b2.onnx",
        "trial_-00001.onnx",
        ".trial_000001.onnx",
        "trial_000001.onnx\n",
    ],
)
def test_any_other_name_is_no_trials(name: str) -> None:
    assert trial_of_model(Path("study/models") / name) is None


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ("signs", "road signs"),
        ("Signs", "road signs"),
        ("STREETS", "street scenes"),
        ("builtin:Streets", "street scenes"),
        ("./signs", ""),
        ("signs.npz", ""),
        ("builtin:", ""),
    ],
)
def test_drawn_images_are_called_so_however_their_name_is_typed(source: str, drawn: str, session: Session) -> None:
    typed = replace(session, settings=RunSettings(data=DataSettings(source=source)))
    assert (typed.drawn, typed.synthetic) == (drawn, bool(drawn))
    assert typed.data_words == session.data.name + " (synthetic images)" * bool(drawn)


@pytest.mark.parametrize(
    ("gives_way", "trials", "sampler"), [(True, 1000, "growth"), (True, 1001, "tpe"), (False, 5000, "growth")]
)
def test_a_sampler_gives_way_beyond_many_trials_if_it_was_taken_by_itself(
    session: Session, gives_way: bool, trials: int, sampler: str
) -> None:
    settings = replace(session.settings, sampler="growth")
    assert replace(session, settings=settings, sampler_gives_way=gives_way).sampler_after(trials) == sampler
