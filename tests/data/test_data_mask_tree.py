"""Which images of a folder belong to which split, and what is said of those that belong to none."""

import os
from pathlib import Path

import pytest

from scalesearch.data.mask_tree import scan_masks


def pair(root: Path, image: str, mask: str) -> None:
    for name in (image, mask):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")  # no file is opened


@pytest.mark.parametrize("nested", [False, True])
def test_images_outside_of_the_split_folders_are_counted(nested: bool, tmp_path: Path) -> None:
    def put(split: str, name: str) -> None:
        for_split = ("{split}/images/{name}", "{split}/masks/{name}") if nested else ("images/{split}/{name}",) * 2
        image, mask = (each.format(split=split, name=name) for each in for_split)
        pair(tmp_path, image, mask if nested else mask.replace("images", "masks", 1))

    for split in ("train", "val"):
        put(split, "a.png")
    assert not scan_masks(tmp_path).notes
    for name in ("a.png", "deep/b.png"):
        put("extra", name)
    put(".hidden", "c.png")
    lost = (
        ["extra/images/a.png", "extra/images/deep/b.png"]
        if nested
        else ["images/extra/a.png", "images/extra/deep/b.png"]
    )
    if not nested:
        pair(tmp_path, "images/loose.png", "masks/loose.png")
        lost.append("images/loose.png")
    tree = scan_masks(tmp_path)
    assert len(tree.files) == 2
    (note,) = tree.notes
    assert note == f"data {tmp_path}: left out {len(lost)} images that lie in no split folder: {', '.join(lost)}"


def test_where_no_folder_is_a_split_nothing_is_outside(tmp_path: Path) -> None:
    for name in ("a.png", "extra/b.png"):
        pair(tmp_path, f"images/{name}", f"masks/{name}")
    tree = scan_masks(tmp_path)
    assert len(tree.files) == 2
    assert not tree.notes


def test_folders_that_data_yaml_does_not_name_are_left_out_on_purpose(tmp_path: Path) -> None:
    for split in ("train", "val", "extra"):
        pair(tmp_path, f"images/{split}/a.png", f"masks/{split}/a.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\n")
    assert not scan_masks(tmp_path).notes


@pytest.mark.parametrize(
    ("yaml", "images", "masks", "more"),
    [
        ("images/set", "images/set/img/train", "images/set/masks/train", ""),
        ("images/set", "images/set/img/train", "images/set/annotations/train", ""),
        ("images/set", "images/set/pictures/train", "images/set/pictures/masks", ""),  # in no folder called images
        ("images/set", "images/set/train", "labels/set/train", ""),
        ("images", "images/train", "drawn/train", "masks_dir: drawn\n"),  # data.yaml itself is among the images
        ("set", "set/images/img/train", "set/masks/img/train", ""),
        ("set", "set/images/img/train", "set/images/masks/train", ""),
        ("set", "set/train/images", "set/train/masks", ""),
    ],
)
def test_masks_are_found_however_the_path_of_the_set_is_typed(
    yaml: str, images: str, masks: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path, f"{images}/a.png", f"{masks}/a.png")
    (tmp_path / "labels").mkdir(exist_ok=True)  # beside a folder of images, but none of masks
    folder = tmp_path / yaml
    (folder / "data.yaml").write_text(f"train: {(tmp_path / images).relative_to(folder)}\n{more}")
    for place in (None, tmp_path, folder, tmp_path / images, tmp_path / masks):
        typed = os.path.relpath(folder, place) if place else folder
        monkeypatch.chdir(place or tmp_path)
        for path in (Path(typed), Path(typed) / "data.yaml"):
            (file,) = scan_masks(path).files
            assert file.image.resolve() == tmp_path / images / "a.png"
            assert file.mask.resolve() == tmp_path / masks / "a.png"


def test_splits_may_have_folders_of_images_of_unlike_names(tmp_path: Path) -> None:
    pair(tmp_path, "img/train/a.png", "masks/train/a.png")
    pair(tmp_path, "images/val/b.png", "masks/val/b.png")
    (tmp_path / "data.yaml").write_text("train: img/train\nval: images/val\n")
    assert [file.mask.name for file in scan_masks(tmp_path).files] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("train", "val", "counts", "divided"),
    [
        ("images/train", "images/train", {"train": 2, "val": 0}, False),
        ("images", "images/val", {"train": 5, "val": 0}, False),
        ("images/train", "images", {"train": 2, "val": 3}, True),
    ],
)
def test_an_image_is_in_the_first_split_that_has_it(
    train: str, val: str, counts: dict[str, int], divided: bool, tmp_path: Path
) -> None:
    for name in ("train/a.png", "train/b.png", "val/a.png", "val/b.png", "val/c.png"):
        pair(tmp_path, f"images/{name}", f"masks/{name}")
    (tmp_path / "data.yaml").write_text(f"train: {train}\nval: {val}\n")
    tree = scan_masks(tmp_path)
    assert {split: sum(file.split == split for file in tree.files) for split in counts} == counts
    assert len({file.image for file in tree.files}) == len(tree.files)
    assert tree.divided == divided
    twice = {"images/train": 2, "images/val": 3, "images": 2}[val]
    (note,) = tree.notes
    assert (
        f"{twice} images are in two splits, the second time left out (earlier versions: in both splits), e.g. " in note
    )
