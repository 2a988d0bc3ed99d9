"""The fine-tuned parent as a teacher: whose answers it gives, where they are kept, and what is learnt from them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from parent_studies import opened, plain_study, trained_folder

from scalesearch.chain import inheritance, teacher
from scalesearch.chain.inheritance import Starter, tuned_apart
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.chain.teacher import Mirrored, Teacher
from scalesearch.data import LABEL_SOURCES
from scalesearch.data.finding import load_study_data
from scalesearch.data.normalisation import normalise
from scalesearch.errors import ConfigError
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.training.batches import Drawn
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling, ScheduleName
from scalesearch.values.parent import parent_folder
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.space import Choice, NamedAxis

RECIPE = Recipe(
    optimizer="adamw", learning_rate=0.01, steps=6, warmup_steps=1, batch_size=16, flip=True, distill_weight=0.5
)
DRAWN = Drawn(indices=torch.tensor([7, 3, 3, 20]), mirrored=torch.tensor([False, True, False, True]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, stand_in_reference: None) -> Session:
    """A study without a parent, on three classes."""
    return plain_study(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def session(
    plain: Session, tmp_path_factory: pytest.TempPathFactory, make_record: Callable[..., MeasuredTrial]
) -> Session:
    """A study with a parent that knows its classes; its answers are not found yet."""
    folder = tmp_path_factory.mktemp("teacher")
    trained_folder(plain, make_record(0), folder / "trained")
    return opened(folder / "study", Path(plain.settings.data.source), parent=str(folder / "trained"))


def lock(session: Session) -> DeviceLock:
    return DeviceLock("cpu", folder=session.folder)


def teacher_of(session: Session) -> Teacher:
    return Teacher(session, lock(session), Starter(session, lock(session)).parent)


def stored(session: Session) -> list[Path]:
    return sorted(parent_folder(session.folder).glob("answers-*.safetensors"))


def expected(session: Session, drawn: Drawn) -> torch.Tensor:
    """What the parent answers for the images of a batch, computed one by one."""
    data, module = load_study_data(session, LABEL_SOURCES), Starter(session, lock(session)).parent().module
    images = torch.from_numpy(data.train.images[drawn.indices.numpy()]).permute(0, 3, 1, 2)
    shown = [each.flip(2) if mirrored else each for each, mirrored in zip(images, drawn.mirrored, strict=True)]
    with torch.no_grad():
        return torch.cat([module(normalise(each[None], mean=data.mean, std=data.std)) for each in shown])


def test_the_answers_are_those_for_the_very_images_on_the_very_side(session: Session) -> None:
    given = teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"]
    torch.testing.assert_close(given, expected(session, DRAWN), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(given[1], given[2], atol=1e-3)  # one image, mirrored and not
    assert not given.requires_grad and len(stored(session)) == 2


def test_a_second_worker_reads_what_the_first_found(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first = teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"]
    monkeypatch.setattr(teacher, "answers", None)  # to compute them again would fail
    assert torch.equal(teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"], first)
    unmirrored = teacher_of(session).ready(replace(RECIPE, flip=False))
    assert torch.equal(unmirrored.answers(DRAWN)["logits"], first)  # a task may mirror whatever the recipe says


def test_a_damaged_file_is_found_again(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    first = teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"]
    path, *_ = stored(session)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert torch.equal(teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"], first)
    assert "holds no usable answers" in caplog.text and path.read_bytes() == whole


def test_answers_too_large_to_be_kept_are_computed_batch_by_batch(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stored(session):
        path.unlink()
    monkeypatch.setattr(teacher, "MOST_BYTES", 100)
    given = teacher_of(session).ready(RECIPE).answers(DRAWN)["logits"]
    torch.testing.assert_close(given, expected(session, DRAWN), atol=1e-4, rtol=1e-4)
    assert not stored(session) and not given.is_inference()


def test_answers_for_mirror_images_need_room_only_where_training_mirrors(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in stored(session):
        path.unlink()
    classes = len(session.data.class_names)
    monkeypatch.setattr(teacher, "MOST_BYTES", 6 * classes * session.data.train_images)  # those of one and a half sets
    taught = teacher_of(session).ready(replace(RECIPE, flip=False))
    assert len(stored(session)) == 1
    given = taught.ready(RECIPE).answers(DRAWN)["logits"]
    torch.testing.assert_close(given, expected(session, DRAWN), atol=1e-4, rtol=1e-4)
    assert len(stored(session)) == 1
    plain = replace(DRAWN, mirrored=torch.zeros(4, dtype=torch.bool))
    monkeypatch.setattr(taught, "_live", lambda _: pytest.fail("what is kept is computed again"))
    torch.testing.assert_close(taught.answers(plain)["logits"], expected(session, plain), atol=1e-4, rtol=1e-4)


def test_what_a_space_can_ask_for_is_found_before_its_workers_start(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inheritance, "DeviceLock", lambda _: lock(session))
    for path in stored(session):
        path.unlink()
    tuned_apart(session)
    assert not stored(session)
    axes = (NamedAxis(name="training.distill_weight", axis=Choice(values=(0.0, 0.5))),)
    tuned_apart(replace(session, space=replace(session.space, axes=axes)))
    assert len(stored(session)) == 1  # the space does not mirror images


def test_mirrored_images_are_taken_as_the_others_are() -> None:
    images = torch.arange(24, dtype=torch.uint8).view(2, 1, 3, 4)
    mirrored = Mirrored(images)
    assert (len(mirrored), mirrored.shape) == (2, (2, 1, 3, 4))
    assert torch.equal(mirrored.take(torch.tensor([1])), images[1:].flip(3))


def shrunk(session: Session, recipe: Recipe, pruning: Pruning = Pruning()) -> dict[str, torch.Tensor]:  # noqa: B008
    plan = Planner(session)(Candidate(scaling=Scaling(width=0.5), recipe=recipe, pruning=pruning))
    data = load_study_data(session, LABEL_SOURCES)
    return Shrinker(session, lock(session))(plan, data, StageClock()).network.module.state_dict()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def emptied(session: Session) -> None:
    for path in (session.folder / "weights").glob("*.safetensors"):
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["wsd", pytest.param("cosine", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pruning", [Pruning(), Pruning(channel_fraction=0.5)], ids=["dense", "cut"])
def test_every_part_of_a_training_is_taught(session: Session, schedule: ScheduleName, pruning: Pruning) -> None:
    recipe = replace(RECIPE, schedule=schedule, retrain_steps=2)
    plain = shrunk(session, replace(recipe, distill_weight=0.0), pruning)
    assert same(plain, shrunk(session, replace(recipe, distill_weight=0.0, distill_temperature=9.0), pruning))
    taught = shrunk(session, recipe, pruning)
    assert not same(plain, taught)
    assert not same(taught, shrunk(session, replace(recipe, distill_temperature=9.0), pruning))


@pytest.mark.slow
def test_a_taught_trunk_that_was_stopped_ends_at_the_same_weights(session: Session) -> None:
    longer = replace(RECIPE, steps=12)
    emptied(session)
    at_once = shrunk(session, longer)
    emptied(session)
    shrunk(session, RECIPE)
    assert same(at_once, shrunk(session, longer))


def test_without_a_parent_nothing_is_taught(plain: Session) -> None:
    with pytest.raises(ConfigError, match=r"distill_weight = 0\.5: expected a parent"):
        shrunk(plain, RECIPE)
