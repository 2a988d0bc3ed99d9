"""Which stored trunk the training of an export takes for its own: that of equal key, trained by an equal machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scalesearch.chain.planner import Planner
from scalesearch.records.confirmed import work_folder
from scalesearch.records.run_file import NAME, write_run_file
from scalesearch.study.searched_trunk import lay_searched_trunk
from scalesearch.training.state import TrainingState
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Candidate, Recipe
from scalesearch.values.plan import Plan
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]

BRIEF = Recipe(steps=30, branch_fraction=1 / 3, warmup_steps=5)
KEPT = KeptTraining(float_score=0.0, train_s=1.0, final_loss=0.5, losses=(0.5,), steps=20, safe_recipe_used=False)


@pytest.fixture
def plan(session: Session, make_record: MakeRecord) -> Callable[..., Plan]:
    """Plan a training of the exported network."""

    def planned(recipe: Recipe, *, seed: int = 0) -> Plan:
        planner = Planner(replace(session, settings=replace(session.settings, seed=seed)))
        return planner.plan_spec(make_record(4).spec, Candidate(recipe=recipe), cut_from=None)

    return planned


@pytest.fixture
def training(session: Session, tmp_path: Path) -> Session:
    """The session of a training in a folder of its own, by as many threads as the machine has cores."""
    return replace(session, folder=tmp_path / "trained", machine=replace(session.machine, threads=16))


def searched(session: Session, plan: Plan, folder: Path) -> Path:
    """Write a study that has trained the plan's trunk, and return its folder."""
    write_run_file(replace(session, folder=folder))
    keep_trunk(plan, folder)
    return folder


def keep_trunk(plan: Plan, folder: Path, steps: int = KEPT.steps) -> None:
    state = TrainingState(moments={}, batches={"order": torch.arange(3)}, random={})
    WeightStore(folder / "weights").save_trunk(plan.trunk_key, nn.Linear(2, 2), replace(KEPT, steps=steps), state)


def test_the_search_s_trunk_is_continued_by_a_longer_training_of_the_same_key(
    session: Session, training: Session, plan: Callable[..., Plan], tmp_path: Path
) -> None:
    study, longer = searched(session, plan(BRIEF), tmp_path / "study"), plan(replace(BRIEF, steps=240))
    line = lay_searched_trunk(longer, training, (tmp_path / "nothing", study))
    assert line == "continues the search's trunk of 20 updates"
    name = f"{longer.trunk_key}-20.safetensors"
    assert (training.folder / "weights" / name).read_bytes() == (study / "weights" / name).read_bytes()
    assert lay_searched_trunk(longer, training, (study,)) == line, "it was stopped, and begins again"
    keep_trunk(longer, training.folder, steps=100)
    assert lay_searched_trunk(longer, training, (study,)) == "", "its own trunk is longer"


def test_a_confirmation_s_trunk_is_continued_by_a_training_of_its_seed(
    session: Session, training: Session, plan: Callable[..., Plan], tmp_path: Path
) -> None:
    study, own = searched(session, plan(BRIEF), tmp_path / "study"), plan(replace(BRIEF, steps=240), seed=7)
    assert lay_searched_trunk(own, training, (study,)) == ""
    keep_trunk(own, work_folder(study), steps=160)
    assert lay_searched_trunk(own, training, (study,)) == "continues the confirmation's trunk of 160 updates"


@pytest.mark.parametrize(
    "recipe",
    [
        replace(BRIEF, steps=240, learning_rate=0.1),
        replace(BRIEF, steps=240, warmup_steps=40),
        replace(BRIEF, steps=27),  # its trunk is shorter than the search's
        replace(BRIEF, steps=240, schedule="cosine"),
    ],
    ids=["rate", "warm-up", "shorter", "cosine"],
)
def test_another_recipe_begins_anew(
    session: Session, training: Session, plan: Callable[..., Plan], tmp_path: Path, recipe: Recipe
) -> None:
    study = searched(session, plan(BRIEF), tmp_path / "study")
    assert lay_searched_trunk(plan(recipe), training, (study,)) == ""
    assert not list(tmp_path.glob("trained/weights/*"))


def test_another_seed_machine_or_code_begins_anew(
    session: Session, training: Session, plan: Callable[..., Plan], tmp_path: Path
) -> None:
    known = replace(session, code_sha256="a" * 64, code_read_by="Python 3.12, torch 2.14")
    study, longer = searched(known, plan(BRIEF), tmp_path / "study"), plan(replace(BRIEF, steps=240))
    rounded = replace(training, machine=replace(training.machine, bf16=True))
    changed = replace(training, code_sha256="b" * 64, code_read_by=known.code_read_by)
    assert lay_searched_trunk(longer, rounded, (study,)) == ""
    assert lay_searched_trunk(longer, changed, (study,)) == ""
    assert lay_searched_trunk(plan(replace(BRIEF, steps=240), seed=1), training, (study,)) == ""
    (study / NAME).write_text("nothing [ to read")
    assert lay_searched_trunk(longer, training, (study,)) == ""
    assert not list(tmp_path.glob("trained/weights/*"))


def test_nothing_is_said_where_the_training_is_over(
    session: Session, training: Session, plan: Callable[..., Plan], tmp_path: Path
) -> None:
    study, longer = searched(session, plan(BRIEF), tmp_path / "study"), plan(replace(BRIEF, steps=240))
    WeightStore(training.folder / "weights").save(longer.weights_key, nn.Linear(2, 2), KEPT)
    assert lay_searched_trunk(longer, training, (study,)) == ""
