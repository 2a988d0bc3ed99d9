"""Folder names as people write them."""

from pathlib import Path

import pytest

from scalesearch.data.litter import is_litter
from scalesearch.data.split_names import split_of, splits_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "Train", "TRAIN", "Training", "training_set", "train-data", "Train Set", "trainset"]),
        ("train", [" train ", "TrainingData", "train_images", "images_train", "train2017", "Train.Images", "01_train"]),
        ("val", ["val", "VAL", "Valid", "validation", "Validation Set", "valid_data", "dev", "DevSet", "eval"]),
        ("val", ["evaluation", "Development_set", "validate", "val2017"]),
        ("test", ["test", "Test", "TESTING", "test_set", "Testing Data", "holdout", "hold-out", "Hold Out", "testset"]),
    ],
)  # fmt: skip
def test_spellings_of_a_split_are_known(split: str, names: list[str]) -> None:
    assert {name: split_of(name) for name in names} == dict.fromkeys(names, split)


@pytest.mark.parametrize(
    "name",
    ["control", "trains", "bullet train", "cat", "device", "set", "data", "2017", "train_val", "trainer", "tests"],
)  # fmt: skip
def test_other_words_are_no_splits(name: str) -> None:
    assert split_of(name) is None


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "@EADIR", "#recycle", "#snapshot", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information",
     "@Recycle", "found.003", "Thumbs.db", "desktop.ini", "._photo.jpg", ".cache", ".Trash-1000", "Icon\r",
     ".ipynb_checkpoints"],
)  # fmt: skip
def test_what_systems_leave_is_litter(name: str) -> None:
    assert is_litter(Path(name))


@pytest.mark.parametrize("name", ["recycle", "snapshot", "found.00", "eaDir", "#1", "@home", "thumbs", "lost", "a.jpg"])
def test_what_a_person_may_call_a_class_is_none(name: str) -> None:
    assert not is_litter(Path(name))


def test_a_waste_basket_is_litter_and_a_class_of_waste_is_none(tmp_path: Path) -> None:
    for name, inside in (("RECYCLER", "S-1-5-21-1"), ("recycled", "INFO2")):
        (tmp_path / name).mkdir()
        assert not is_litter(tmp_path / name)
        (tmp_path / name / inside).mkdir()
        assert is_litter(tmp_path / name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("seg_train", "seg_test", "seg_pred"), {"seg_train": "train", "seg_test": "test"}),
        (("Train-Birds", "dev-birds"), {"Train-Birds": "train", "dev-birds": "val"}),
        (("asl alphabet train", "asl_alphabet_valid"), {"asl alphabet train": "train", "asl_alphabet_valid": "val"}),
        (("bullet_train", "steam_test"), {}),  # no word that they share
        (("bullet_train", "bullet_car"), {}),
        (("train", "bullet_train", "bullet_test"),
         {"train": "train", "bullet_train": "train", "bullet_test": "test"}),
    ],
)  # fmt: skip
def test_a_word_that_siblings_share_changes_nothing(names: tuple[str, ...], expected: dict[str, str]) -> None:
    assert splits_of(names) == expected
