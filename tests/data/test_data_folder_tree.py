"""Trees as people have them: what is read as a split, what as a class, what is passed over, and what is asked."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from scalesearch.data.folder_tree import ImageTree, scan_tree
from scalesearch.errors import ConfigError


def make(root: Path, *folders: str, count: int = 2) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / folder / f"{index}.jpg").write_text(f"{folder}{index}")
    return root


def counts(tree: ImageTree) -> dict[str, int]:
    """Images by split and class: {"train/cat": 2}."""
    return dict(Counter(f"{file.split}/{tree.class_names[file.label]}" for file in tree.files))


@dataclass(frozen=True)
class Shape:
    folders: tuple[str, ...]
    expected: dict[str, int]
    note: str = ""


@pytest.mark.parametrize(
    "shape",
    [
        Shape(("Training/x", "Training/y", "Testing/x", "Testing/y"),
              {"train/x": 2, "train/y": 2, "test/x": 2, "test/y": 2}, "read Training/ as train, Testing/ as test"),
        Shape(("TRAIN/x", "TRAIN/y", "VAL/x", "VAL/y"), {"train/x": 2, "train/y": 2, "val/x": 2, "val/y": 2}),
        Shape(("training_set/x", "training_set/y", "test_set/x"), {"train/x": 2, "train/y": 2, "test/x": 2}),
        Shape(("train/x", "train/y", "Val/x"), {"train/x": 2, "train/y": 2, "val/x": 2}, "read Val/ as val"),
        Shape(("train/x", "train/y", "dev/y"), {"train/x": 2, "train/y": 2, "val/y": 2}, "dev/ as val"),
        Shape(("Train Data/x", "Train Data/y", "Hold-out/y"), {"train/x": 2, "train/y": 2, "test/y": 2}),
        Shape(("set/train/x", "set/train/y", "set/val/y"), {"train/x": 2, "train/y": 2, "val/y": 2},
              "read from set/, the only folder in it"),
        Shape(("a/b/x", "a/b/y"), {"train/x": 2, "train/y": 2}, "read from a/b/"),
        Shape(("train/x", "train/y", "val/x", "raw"), {"train/x": 2, "train/y": 2, "val/x": 2},
              "left out raw/ beside the splits"),
        Shape(("train/train/x", "train/train/y", "val/x"), {"train/x": 2, "train/y": 2, "val/x": 2}),
        Shape(("seg_train/seg_train/x", "seg_train/seg_train/y", "seg_test/seg_test/x"),
              {"train/x": 2, "train/y": 2, "test/x": 2}, "read seg_train/ as train, seg_test/ as test"),
        Shape(("test/train/x", "test/train/y", "test/val/y"), {"train/x": 2, "train/y": 2, "val/y": 2}, "from test/"),
        Shape(("paper", "recycled", "Recycler"), {"train/paper": 2, "train/recycled": 2, "train/Recycler": 2}),
        Shape(("bus", "car", "train"), {"train/bus": 2, "train/car": 2, "train/train": 2}, "read train/ as a class"),
        Shape(("test", "control"), {"train/test": 2, "train/control": 2}),
        Shape(("valid", "forged"), {"train/valid": 2, "train/forged": 2}),
        Shape(("dev", "rev/deep"), {"train/dev": 2, "train/rev": 2}),
        Shape(("robin/2019", "robin/2020", "wren/2020"), {"train/robin": 4, "train/wren": 2}),
    ],
    ids=lambda shape: "+".join(shape.folders),
)  # fmt: skip
def test_shapes_are_read(shape: Shape, tmp_path: Path) -> None:
    tree = scan_tree(make(tmp_path / "data", *shape.folders))
    assert counts(tree) == shape.expected
    assert not shape.note or any(shape.note in note for note in tree.notes), tree.notes


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "val"), r"train/, val/ can be splits or classes, since images lie directly in train/, val/"),
        (("train/x", "train/y", "test"), r"can be splits or classes, since images lie directly in test/"),
        (("train/x", "train/y", "bus"), r"since images lie directly in bus/"),
        (("train/x", "train/y", "dev/x", "valid/x"), r"expected one val folder, came dev and valid"),
        (("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"), r"fold1/, fold2/ all hold folders of the same names"),
        (("A/Cat", "A/Dog", "B/cat", "B/dog", "B/emu"), r"names: cat/, dog/\nIf they are splits, name them train/"),
        (("p/x", "p/y", "q/x", "q/y", "r/y"), r"p/, q/, r/ all hold folders of the same names: x/, y/"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), r"Put the split above the classes"),
        (("val/x", "val/y", "test/x", "test/y"), r"expected train/ beside val/, test/, came none"),
        (("train/Cat", "train/dog", "val/cat"), r"1 more: cat \(train has Cat\)\.\nThey differ in case or spaces only"),
        (("train/x",), r"at least two class folders, came 1 \(x\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_asked_in_three_lines(folders: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        scan_tree(make(tmp_path / "data", *folders))
    assert str(caught.value).count("\n") <= 2


def test_the_setting_decides_what_could_be_both(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "train/x", "train/y", "test")
    assert counts(scan_tree(root, layout="classes")) == {"train/train": 4, "train/test": 2}
    with pytest.raises(ConfigError, match=r"expected test images as CLASS"):
        scan_tree(root, layout="splits")
    folds = make(tmp_path / "f", "fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog")
    assert counts(scan_tree(folds, layout="classes")) == {"train/fold1": 4, "train/fold2": 4}
    both = make(tmp_path / "b", "train", "val")
    assert counts(scan_tree(both, layout="classes")) == {"train/train": 2, "train/val": 2}


@pytest.mark.parametrize("where", ["", "train", "train/bolt", "val/nut", "train/bolt/deep"])
@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "__MACOSX", "lost+found", "$RECYCLE.BIN", ".Trashes"])
def test_litter_is_passed_over_wherever_it_lies(where: str, name: str, tmp_path: Path) -> None:
    root = make(tmp_path / "d", "train/bolt", "train/nut", "val/bolt", "val/nut")
    clean = counts(scan_tree(root))
    make(root / where, f"{name}/0.jpg", f"{name}/bolt")
    (root / where / "._0.jpg").write_text("fork")
    tree = scan_tree(root)
    assert counts(tree) == clean
    assert tree.class_names == ("bolt", "nut")
    assert name.startswith(".") or any(f"passed over {name}" in note for note in tree.notes)


def test_class_names_match_in_any_form_of_unicode(tmp_path: Path) -> None:
    composed, parts = (unicodedata.normalize(form, "Müsli") for form in ("NFC", "NFD"))
    assert composed != parts
    tree = scan_tree(make(tmp_path / "d", f"train/{composed}", "train/tea", f"val/{parts}", f"train/{parts}"))
    label = {unicodedata.normalize("NFC", name): name for name in tree.class_names}[composed]
    assert len(tree.class_names) == 2
    assert counts(tree) == {f"train/{label}": 4, f"val/{label}": 2, "train/tea": 2}


def test_loose_images_beside_classes_are_told(tmp_path: Path) -> None:
    root = make(tmp_path / "d", "train/x", "train/y", "val/x")
    (root / "train" / "cover.png").write_text("cover")
    tree = scan_tree(root)
    assert any("left out 1 images that lie in train/ itself" in note for note in tree.notes)


@pytest.mark.parametrize(
    ("folders", "table", "message"),
    [
        (
            (".",),
            "labels.csv",
            r"came 0 \(none\), and 2 images in no class folder\.\nLabels in labels\.csv are not read",
        ),
        (("train",), "train/answers.tsv", r"and 2 images in no class folder\.\nLabels in answers\.tsv are not read"),
        (
            ("train", "test", "sample"),
            "truth.json",
            r"test/, train/ can be splits or classes, since images lie directly",
        ),
    ],
)
def test_images_with_a_table_of_labels_are_no_classes(
    folders: tuple[str, ...], table: str, message: str, tmp_path: Path
) -> None:
    root = make(tmp_path / "d", *folders)
    (root / table).write_text("0.jpg,cat")
    with pytest.raises(ConfigError, match=message):
        scan_tree(root)
