import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from own_modules import Twice
from tiny_training import SPEC
from torch import nn

from scalesearch.training.state import TrainingState
from scalesearch.training.weights import KeptTraining, WeightStore, trunk_key, weights_key
from scalesearch.values.candidate import LossWeights, Recipe, ScheduleName
from scalesearch.values.identity import values_before

KEPT = KeptTraining(
    float_score=0.625, train_s=1.5, final_loss=0.1 + 0.2, losses=(2.5, 0.3), steps=30, safe_recipe_used=True
)
KEY = weights_key(SPEC, Recipe(), "data", 0)
OLD_KEY = "eb687c7871cf8d618c7fa5b6227d22e1d83ebf2f21b4b8daf4d21b93c1711208"


def module(seed: int, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)).to(memory_format=torch.channels_last)


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "weights")
    trained, fresh = module(0), module(1)
    assert store.load(KEY, fresh) is None
    store.save(KEY, trained, KEPT)
    assert not same(trained, fresh)
    assert store.load(KEY, fresh) == KEPT
    assert same(trained, fresh)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [f"{KEY}.safetensors"]


def test_a_layer_of_two_names_comes_back_and_stays_one(tmp_path: Path) -> None:
    def twice(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Twice()

    trained, fresh = twice(0), twice(1)
    WeightStore(tmp_path).save(KEY, trained, KEPT)
    assert WeightStore(tmp_path).load(KEY, fresh) == KEPT
    assert same(trained, fresh)
    assert fresh.get_parameter("fc.weight") is fresh.get_parameter("body.fc.weight")


def test_any_safetensors_reader_can_read_it(tmp_path: Path) -> None:
    trained = module(0)
    WeightStore(tmp_path).save(KEY, trained, KEPT)
    tensors = safetensors.torch.load_file(tmp_path / f"{KEY}.safetensors")
    assert tensors.keys() == trained.state_dict().keys()


def flip_a_weight_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_header(path: Path) -> None:
    safetensors.torch.save_file({name: t.contiguous() for name, t in module(0).state_dict().items()}, path)


def wrong_key(path: Path) -> None:
    WeightStore(path.parent).save("0" * 64, module(0), KEPT)
    (path.parent / f"{'0' * 64}.safetensors").replace(path)


def missing_number(path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["scalesearch"])
    del header["kept"]["train_s"]
    safetensors.torch.save_file(tensors, path, metadata={"scalesearch": json.dumps(header)})


@pytest.mark.parametrize("damage", [flip_a_weight_bit, cut_short, empty, no_header, wrong_key, missing_number])
def test_a_bad_file_is_absent_with_a_warning_and_gets_replaced(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, trained = WeightStore(tmp_path), module(0)
    store.save(KEY, trained, KEPT)
    damage(tmp_path / f"{KEY}.safetensors")

    fresh, twin = module(1), module(1)
    assert store.load(KEY, fresh) is None
    assert same(fresh, twin)
    assert "holds no usable weights" in caplog.text

    store.save(KEY, trained, KEPT)
    assert store.load(KEY, fresh) == KEPT


def test_weights_of_another_shape_leave_the_module_untouched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = WeightStore(tmp_path)
    store.save(KEY, module(0), KEPT)
    wider, twin = module(1, width=6), module(1, width=6)
    assert store.load(KEY, wider) is None
    assert same(wider, twin)
    assert "6 tensors differ from the network's, first '0.bias'" in caplog.text


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WeightStore(tmp_path)
    store.save(KEY, module(0), KEPT)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.save(KEY, module(1), replace(KEPT, steps=1))
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1
    assert store.load(KEY, module(2)) == KEPT


OTHER_VALUES: dict[str, object] = {
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "muon_learning_rate": 0.001,
    "weight_decay": 0.1,
    "label_smoothing": 0.0,
    "loss": "bce",
    "steps": 301,
    "retrain_steps": 10,
    "batch_size": 32,
    "warmup_fraction": 0.1,
    "ema_decay": 0.9,
    "dropout": 0.0,
    "shift_fraction": 0.0,
    "flip": True,
    "jitter": 0.0,
    "branch_fraction": 0.5,
    "warmup_steps": 30,
    "distill_weight": 0.5,
    "distill_temperature": 2.0,
    "loss_weights": LossWeights(box=2.0),
    "class_weights": "root",
    "scale_fraction": 0.25,
}
NOT_READ = {
    "cosine": {"retrain_steps", "branch_fraction", "warmup_steps", "distill_temperature"},
    "wsd": {"retrain_steps", "warmup_fraction", "distill_temperature"},
}


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
@pytest.mark.parametrize("name", [field.name for field in fields(Recipe) if field.name != "schedule"])
def test_the_key_changes_with_every_part_of_the_recipe_that_changes_training(name: str, schedule: ScheduleName) -> None:
    recipe = Recipe(schedule=schedule)
    other = replace(recipe, **{name: OTHER_VALUES[name]})  # type: ignore[arg-type]
    same = weights_key(SPEC, other, "data", 0) == weights_key(SPEC, recipe, "data", 0)
    assert same == (name in NOT_READ[schedule])


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_the_temperature_belongs_to_the_key_where_the_teacher_has_a_share(schedule: ScheduleName) -> None:
    taught = Recipe(schedule=schedule, distill_weight=0.5)
    warmer = replace(taught, distill_temperature=2.0)
    assert weights_key(SPEC, taught, "data", 0) != weights_key(SPEC, warmer, "data", 0)


def test_the_schedules_have_different_keys() -> None:
    assert weights_key(SPEC, Recipe(schedule="cosine"), "data", 0) != KEY


def test_a_recipe_of_before_the_schedules_has_the_key_that_it_had() -> None:
    """The expected key was made by the version without `schedule`."""
    before = Recipe(**(values_before(Recipe) | {"loss_weights": LossWeights()}))
    assert weights_key(SPEC, before, "data", 0) == OLD_KEY
    assert weights_key(SPEC, Recipe(schedule="cosine"), "data", 0) == OLD_KEY


TRUNK = (
    *("batch_size", "class_weights", "distill_weight", "flip", "learning_rate", "loss", "loss_weights", "optimizer"),
    *("scale_fraction", "warmup_steps"),
)
BRANCH = ("branch_fraction", "distill_temperature", "ema_decay", "retrain_steps", "steps", "warmup_fraction")


@pytest.mark.parametrize("name", TRUNK + BRANCH)
def test_a_trunk_is_shared_by_all_recipes_that_differ_in_the_branch_only(name: str) -> None:
    other = replace(Recipe(), **{name: OTHER_VALUES[name]})  # type: ignore[arg-type]
    assert (trunk_key(SPEC, other, "data", 0) == trunk_key(SPEC, Recipe(), "data", 0)) == (name in BRANCH)


def test_there_is_no_trunk_with_cosine() -> None:
    assert trunk_key(SPEC, Recipe(schedule="cosine"), "data", 0) == ""


def state() -> TrainingState:
    return TrainingState(
        moments={"0.weight": {"exp_avg": torch.ones(4, 3, 3, 3), "step": torch.tensor(7.0)}},
        batches={"order": torch.arange(5)},
        random={"cpu": torch.get_rng_state()},
        safe_recipe_used=True,
    )


def test_a_trunk_comes_back_with_its_state(tmp_path: Path) -> None:
    store, trained, fresh = WeightStore(tmp_path), module(0), module(1)
    store.save_trunk(KEY, trained, KEPT, state())

    found = store.load_trunk(KEY, 30, fresh)

    assert found is not None
    assert same(trained, fresh)
    assert found.kept == KEPT
    assert found.state.safe_recipe_used
    came, expected = found.state.tensors(), state().tensors()
    assert came.keys() == expected.keys()
    assert all(torch.equal(came[name], expected[name]) for name in came)


def test_the_longest_trunk_that_is_not_too_long_is_taken(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    for steps in (9, 30, 100):
        store.save_trunk(KEY, module(steps), replace(KEPT, steps=steps), state())

    lengths = [store.load_trunk(KEY, steps, module(0)) for steps in (8, 9, 99, 100, 1000)]

    assert [found and found.kept.steps for found in lengths] == [None, 9, 30, 100, 100]


def test_a_damaged_trunk_is_absent_and_a_shorter_one_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = WeightStore(tmp_path)
    for steps in (9, 30):
        store.save_trunk(KEY, module(steps), replace(KEPT, steps=steps), state())
    flip_a_weight_bit(tmp_path / f"{KEY}-30.safetensors")

    found = store.load_trunk(KEY, 30, module(0))

    assert found is not None
    assert found.kept.steps == 9
    assert "holds no usable weights" in caplog.text


def test_the_longest_sound_trunk_is_copied_into_another_store(tmp_path: Path) -> None:
    first, other = WeightStore(tmp_path / "first"), WeightStore(tmp_path / "other")
    assert first.lay_trunk(KEY, 1000, to=other) == 0
    for steps in (9, 30, 100):
        first.save_trunk(KEY, module(steps), replace(KEPT, steps=steps), state())
    assert [first.lay_trunk(KEY, steps, to=other) for steps in (8, 29, 30)] == [0, 9, 30]
    assert first.lay_trunk(KEY, 99, to=other) == 30, "it is there"
    trained, fresh = module(30), module(0)
    assert other.load_trunk(KEY, 99, fresh) and same(trained, fresh)
    flip_a_weight_bit(tmp_path / "first" / f"{KEY}-100.safetensors")
    assert first.lay_trunk(KEY, 1000, to=other) == 30
    other.save_trunk(KEY, module(50), replace(KEPT, steps=50), state())
    assert first.lay_trunk(KEY, 1000, to=other) == 0, "a longer one is there"
    assert sorted(path.stem.partition("-")[2] for path in (tmp_path / "other").iterdir()) == ["30", "50", "9"]


def test_the_score_is_read_without_the_weights(tmp_path: Path) -> None:
    store = WeightStore(tmp_path)
    assert store.score(KEY) is None
    store.save(KEY, module(0), KEPT)
    assert store.score(KEY) == KEPT.float_score
    cut_short(tmp_path / f"{KEY}.safetensors")
    assert store.score(KEY) is None


def test_the_updates_of_all_weights_are_told_without_those_of_trunks(tmp_path: Path) -> None:
    store, other = WeightStore(tmp_path), "0" * 64
    assert store.updates() == {}
    store.save(KEY, module(0), KEPT)
    store.save(other, module(0), replace(KEPT, steps=KEPT.steps + 1))
    (tmp_path / f"{KEY}-8.safetensors").write_bytes((tmp_path / f"{KEY}.safetensors").read_bytes())
    assert store.updates() == {KEY: KEPT.steps, other: KEPT.steps + 1}
    cut_short(tmp_path / f"{KEY}.safetensors")
    assert store.updates() == {KEY: 0, other: KEPT.steps + 1}


def test_the_key_changes_with_shape_data_and_seed_but_not_with_a_name() -> None:
    keys = {
        KEY,
        weights_key(replace(SPEC, resolution_px=24), Recipe(), "data", 0),
        weights_key(replace(SPEC, norm_eps=1e-3), Recipe(), "data", 0),
        weights_key(SPEC, Recipe(), "other data", 0),
        weights_key(SPEC, Recipe(), "data", 1),
    }
    assert len(keys) == 5
    assert weights_key(replace(SPEC, name="other"), Recipe(), "data", 0) == KEY


def test_muons_rate_counts_only_where_it_is_used() -> None:
    adamw = Recipe(optimizer="adamw")
    other = replace(adamw, muon_learning_rate=0.5)
    assert weights_key(SPEC, adamw, "data", 0) == weights_key(SPEC, other, "data", 0)
