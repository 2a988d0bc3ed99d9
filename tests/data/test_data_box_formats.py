"""YOLO, COCO and Pascal VOC: the same scene in each, and what is said of every fault in their labels."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import Dataset, find_source, load_dataset
from scalesearch.data.coco import read_coco
from scalesearch.data.source import SourceData
from scalesearch.data.voc import read_voc
from scalesearch.data.yolo import label_file, read_yolo
from scalesearch.errors import ConfigError
from scalesearch.tasks.registry import get_task
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

BOX_SOURCES = get_task("detection").sources()
STORAGE = InputSize(height_px=32, width_px=64)
WIDTH, HEIGHT = 80, 40


def picture(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), exif: Image.Exif | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = int.from_bytes(path.stem.encode()[-1:], "big")  # no two files alike
    Image.new("RGB", size, (shade, 90, 160)).save(path, exif=exif or Image.Exif())


def loaded(path: Path, cache: Path, **settings: Any) -> SourceData:
    asked = replace(DataSettings(source=str(path), fit="stretch", max_skipped_fraction=0.0), **settings)
    source = find_source(str(path), BOX_SOURCES)
    return source.load(asked, storage=STORAGE, cache_folder=cache)


def yolo(root: Path, lines: str = "0 0.5 0.5 0.25 0.5\n", *, yaml: str | None = None) -> Path:
    """Write a YOLO set: `a` with the lines and `b` with a usual box to train on, `c` to validate."""
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            picture(root / "images" / split / f"{name}.jpg")
            label = root / "labels" / split / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(lines if name == "a" else "1 0.5 0.5 0.5 0.5\n")
    text = "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
    (root / "data.yaml").write_text(text if yaml is None else yaml)
    return root


def coco_document(names: Sequence[str]) -> dict[str, Any]:
    return {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": [
            {"id": 10 * place, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
            for place, name in enumerate(names)
        ],
        "annotations": [
            {"id": place, "image_id": 10 * place, "category_id": 3, "bbox": [30, 10, 20, 20]}
            for place, _ in enumerate(names)
        ],
    }


def coco(root: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    for split, names in (("train", "ab"), ("val", "c")):
        for name in names:
            picture(root / "images" / split / f"{name}.jpg")
        document = coco_document(names)
        if split == "train":
            change(document)
        file = root / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document))
    return root


def voc_object(name: str = "cat", corners: str = "31 11 50 30", extra: str = "") -> str:
    values = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=False)
    )
    return f"<object><name>{name}</name><bndbox>{values}</bndbox>{extra}</object>"


def voc(root: Path, objects: str | None = None, *, whole: str | None = None) -> Path:
    for name in "abc":
        picture(root / "JPEGImages" / f"{name}.jpg")
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        inside = objects if objects is not None and name == "a" else voc_object()
        text = f"<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>{inside}</annotation>"
        file.write_text(whole if whole is not None and name == "a" else text)
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {"yolo": yolo, "coco": coco, "voc": voc}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_box_in_every_format(kind: str, tmp_path: Path) -> None:
    root = WRITERS[kind](tmp_path / "set")
    data = loaded(root, tmp_path / "cache")
    assert not data.warnings
    cat = data.class_names.index("cat")
    # 30..50 of 80 and 10..30 of 40 pixels, stretched to 64 x 32
    np.testing.assert_allclose(data.train.targets.boxes[0, 0], [24, 8, 40, 24], atol=1e-4)  # type: ignore[attr-defined]
    assert data.train.targets.classes[0, 0] == cat  # type: ignore[attr-defined]
    assert data.divided == (kind != "voc")
    assert (data.val is None) == (kind == "voc")


@pytest.mark.parametrize("kind", WRITERS)
def test_boxes_that_the_centre_crop_takes_are_told(kind: str, tmp_path: Path) -> None:
    root = WRITERS[kind](tmp_path / "set")
    source = find_source(str(root), BOX_SOURCES)
    tall, asked = InputSize(height_px=64, width_px=8), DataSettings(source=str(root))  # keeps 5 of 80 columns
    data = source.load(asked, storage=tall, cache_folder=tmp_path)
    said = [text for text in data.warnings if "centre crop" in text]
    assert said == [
        f"data {root}: 3 of 3 boxes lie mostly outside the centre crop to 64x8 px: neither trained on nor scored, "
        f"which leaves 3 of 3 images without any; --set data.fit=pad keeps all"
    ]
    for kept in ({"fit": "pad"}, {"fit": "stretch"}):
        whole = source.load(replace(asked, **kept), storage=tall, cache_folder=tmp_path)  # type: ignore[arg-type]
        assert not [text for text in whole.warnings if "centre crop" in text]


def test_images_may_be_mapped_from_disk(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    held, mapped = (loaded(root, tmp_path / memory, memory=memory) for memory in ("ram", "disk"))
    np.testing.assert_array_equal(held.train.images[:], mapped.train.images[:])
    assert b"".join(held.train.targets.content()) == b"".join(mapped.train.targets.content())


def test_a_whole_data_set_is_split(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(12):
        name = f"{chr(97 + number)}"
        picture(root / "JPEGImages" / f"{name}.jpg")
        file = root / "Annotations" / f"{name}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{voc_object()}</annotation>")
    data = load_dataset(
        DataSettings(source=str(root), fit="pad"), BOX_SOURCES, storage_px=STORAGE, cache_folder=tmp_path
    )
    sizes = [len(part) for part in (data.train, data.val, data.calibration, data.test)]
    assert sum(sizes) == 12
    assert all(sizes)


FILMS = tuple(f"film{film}_{frame}" for film in range(8) for frame in range(3))


def film_set(kind: str, root: Path) -> Path:
    """Write frames of eight films, which no file divides into splits."""
    folder = root / ("JPEGImages" if kind == "voc" else "images")
    for name in FILMS:
        picture(folder / f"{name}.jpg")
    if kind == "coco":
        (root / "annotations").mkdir()
        (root / "annotations" / "all.json").write_text(json.dumps(coco_document(FILMS)))
        return root
    (root / ("Annotations" if kind == "voc" else "labels")).mkdir()
    for name in FILMS:
        if kind == "voc":
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{voc_object()}</annotation>")
        else:
            (root / "labels" / f"{name}.txt").write_text("0 .5 .5 .5 .5\n")
    if kind == "yolo":
        (root / "data.yaml").write_text("train: images\nnames: [cat, thing]\n")
    return root


def dataset(source: str, cache: Path, **settings: Any) -> Dataset:
    asked = DataSettings(source=source, fit="stretch", calibration_images=2, **settings)
    return load_dataset(asked, BOX_SOURCES, storage_px=STORAGE, cache_folder=cache, look_for_copies=False)


@pytest.mark.parametrize("kind", WRITERS)
def test_films_stay_together_however_the_folder_is_typed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = film_set(kind, tmp_path / "of_all" / "my_set")
    monkeypatch.chdir(root.parent)
    (tmp_path / "link_to").symlink_to(root)
    found = []
    for source in ("my_set", str(root), "../of_all/./my_set", str(tmp_path / "link_to")):
        data = dataset(source, tmp_path / "cache", group_by="^[^_]+")
        found.append([part.names.tolist() for part in (data.train, data.val, data.calibration, data.test)])  # type: ignore[union-attr]
    assert found[1:] == found[:1] * 3
    train, val, calibration, test = ({name.split("_")[0] for name in names} for names in found[0])
    assert not (train | calibration) & val
    assert not (train | calibration | val) & test
    assert val and test
    folder = "JPEGImages" if kind == "voc" else "images"
    assert train | val | test == {f"{folder}/film{film}" for film in range(8)}


@pytest.mark.parametrize("typed", ["set", "{here}/set", "{here}/link"])
def test_images_outside_of_the_folder_are_named_from_it(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = yolo(tmp_path / "set")
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "pool" / "d.jpg")
    lines = [tmp_path / "pool" / "d.jpg", root / "images" / "train" / "a.jpg", root / "images" / "train" / "b.jpg"]
    (root / "train.txt").write_text("\n".join(map(str, lines)))
    (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    data = loaded(Path(typed.format(here=tmp_path)), tmp_path / "cache")
    assert data.train.names.tolist() == ["../pool/d.jpg", "images/train/a.jpg", "images/train/b.jpg"]  # type: ignore[union-attr]


def test_one_json_file_has_its_images_beside_its_folder(tmp_path: Path) -> None:
    data = loaded(coco(tmp_path / "set") / "annotations" / "instances_train.json", tmp_path / "cache")
    assert data.train.names.tolist() == ["../images/train/a.jpg", "../images/train/b.jpg"]  # type: ignore[union-attr]


def test_a_class_without_boxes_is_said(tmp_path: Path) -> None:
    data = dataset(str(film_set("yolo", tmp_path / "set")), tmp_path / "cache")
    assert data.class_names == ("cat", "thing")
    said = [f"data set: {split} has no image of 1 of 2 classes: thing" for split in ("train", "val", "test")]
    assert [text for text in data.warnings if "no image of" in text] == said


YOLO_WARNINGS = {
    "no area": ("0 .5 .5 0 .5\n", "1 boxes without area, left out (", "a.txt:1)"),
    "outside": ("0 1.4 .5 .2 .2\n", "1 boxes outside of their image, left out (", "a.txt:1)"),
    "beyond the edge": ("0 .9 .5 .4 .2\n", "1 boxes that reach out of their image, cut off", "a.txt:1)"),
    "twice": ("0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n", "1 boxes that are there twice, the second left out (", "a.txt:2)"),
    "confidence": ("0 .5 .5 .2 .2 .97\n", "1 lines with a sixth number", "a.txt:1)"),
    "polygon": ("0 .1 .1 .5 .2 .3 .8\n", "1 polygons, taken for the boxes around them (", "a.txt:1)"),
    "oriented box": ("0 .5 .4 .6 .5 .5 .6 .4 .5\n", "1 polygons, taken for the boxes around them (", "a.txt:1)"),
    "unlike polygons": (
        "0 .5 .4 .4 .5 .5 .5\n0 .5 .4 .4 .5 .5 .5 .6 .5\n",
        "2 polygons, taken for the boxes around them (",
        "a.txt:2)",
    ),
    "triangle or keypoint": (
        "0 .5 .4 .4 .5 .5 .5\n",
        "1 lines of 7 numbers, taken for polygons: if they are",
        "a.txt:1)",
    ),
    "triangle or track": ("0 .5 .4 .4 .5 .9 1\n", "1 lines of 7 numbers, taken for polygons: if they are", "a.txt:1)"),
    "keypoints": ("0 .5 .4 .4 .5 .5 .5 .6 .3\n", "1 lines of 9 numbers, taken for polygons: if they are", "a.txt:1)"),
    "marked keypoints": ("0 .5 .5 .4 .4 .5 .5 1 .6 .4 0\n", "1 lines of 11 numbers, taken for polygons", "a.txt:1)"),
}


@pytest.mark.parametrize("fault", YOLO_WARNINGS)
def test_faults_of_yolo_that_are_counted(fault: str, tmp_path: Path) -> None:
    lines, what, where = YOLO_WARNINGS[fault]
    (warning,) = loaded(yolo(tmp_path / "set", lines), tmp_path / "cache").warnings
    assert what in warning
    assert where in warning


YOLO_ERRORS = {
    "pixels": ("0 40 20 20 20\n", r"expected fractions.*came 40 20 20 20 \(pixels\?\) in .*a\.txt:1\.\nDivide x"),
    "pixels later": (
        "0 .5 .5 .2 .2 .3 200\n",
        r"came 200 as number 7 of a line of 7 \(pixels, a keypoint, a track\?\) in .*a\.txt:1\.\nDivide by",
    ),
    "track": ("0 .5 .5 .2 .2 .97 4\n", r"came 4 as number 7 of a line of 7 .*a\.txt:1\..*\n.*remove what follows"),
    "marked keypoints": ("0 .5 .5 .4 .4 .5 .5 2 .6 .4 0\n", r"came 2 as number 8 of a line of 11 .*\n.*its kpt_shape"),
    "hidden keypoints": (
        "0 .5 .5 .4 .4 .5 .5 0 0 0 0\n",
        r"the corners of a polygon, came .* with 2 points at 0 0 \(keypoints\?\) in .*a\.txt:1\.\nGive data.yaml its",
    ),
    "words": ("cat .5 .5 .2 .2\n", r"expected a class and four numbers, came 'cat .* in .*a\.txt:1"),
    "too few": ("\n0 .5 .5 .2\n", r"came '0 .5 .5 .2' in .*a\.txt:2"),
    "not finite": ("0 .5 nan .2 .2\n", r"came '0 .5 nan .2 .2' in .*a\.txt:1"),
    "no such class": ("2 .5 .5 .2 .2\n", r"one of the 2 classes that data.yaml names, came class 2 in .*a\.txt:1"),
    "half a class": ("0.5 .5 .5 .2 .2\n", r"came class 0.5 in .*a\.txt:1"),
}


@pytest.mark.parametrize("fault", YOLO_ERRORS)
def test_faults_of_yolo_that_are_refused(fault: str, tmp_path: Path) -> None:
    lines, message = YOLO_ERRORS[fault]
    with pytest.raises(ConfigError, match=message):
        loaded(yolo(tmp_path / "set", lines), tmp_path / "cache")


POSES = "names: [cat, dog]\nkpt_shape: [{}, {}]\ntrain: images/train\nval: images/val\n"


@pytest.mark.parametrize(("size", "more"), [(2, ".5 .6 0 0 .4 .5"), (3, ".5 .6 2 0 0 0 .4 .5 1")])
def test_keypoints_behind_a_box_are_not_read_and_counted(size: int, more: str, tmp_path: Path) -> None:
    lines = f"0 .5 .5 .25 .5 {more}\n0 .25 .25 .1 .1\n"  # one of them has none
    data = loaded(yolo(tmp_path / "set", lines, yaml=POSES.format(3, size)), tmp_path / "cache")
    (warning,) = data.warnings
    assert "1 boxes with keypoints, which are not read (" in warning
    np.testing.assert_allclose(data.train.targets.boxes[0, 0], [24, 8, 40, 24], atol=1e-4)  # type: ignore[attr-defined]


@pytest.mark.parametrize("more", [".5 .6", ".9", ".5 .6 .4 .5 .3 .4 .2 .3"])
def test_lines_of_other_lengths_than_kpt_shape_says_are_refused(more: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", f"0 .5 .5 .25 .5 {more}\n", yaml=POSES.format(2, 3))
    message = r"expected 5 numbers, or 11 with 2 keypoints of 3, as kpt_shape says, came \d+ numbers in .*a\.txt:1\."
    with pytest.raises(ConfigError, match=message):
        loaded(root, tmp_path / "cache")


YAML_ERRORS = {
    "keypoints": (POSES.format(17, 4), r"expected kpt_shape as \[keypoints, 2 or 3\], came \[17, 4\] in .*data\.yaml"),
    "no keypoints": (POSES.format("a", 2), r"expected kpt_shape as \[keypoints, 2 or 3\], came \['a', 2\]"),
    "no YAML": ("names: [cat\ntrain: x\n", r"expected YAML, came .* in .*data\.yaml:\d"),
    "no train": ("names: [cat]\n", "expected a table with the keys names and train, came the keys names"),
    "no folder": ("names: [cat, dog]\ntrain: pictures\n", "a .txt that lists them, for train, came 'pictures'"),
    "nc": ("names: [cat, dog]\nnc: 3\ntrain: images/train\n", "expected nc = 2, as there are names, came nc = 3"),
    "same names": ("names: [cat, cat]\ntrain: images/train\n", "'cat' twice"),
    "no text": ("names: [cat, no]\ntrain: images/train\n", "names as texts, came False, as YAML reads it"),
    "no date": ("names: [cat, dog]\ndate: 2024-02-30\ntrain: images/train\n", r"expected YAML, came day .*data\.yaml"),
    "names": ("names: {a: cat}\ntrain: images/train\n", "names as a list, or a table from class numbers"),
}


@pytest.mark.parametrize("fault", YAML_ERRORS)
def test_faults_of_a_data_yaml(fault: str, tmp_path: Path) -> None:
    text, message = YAML_ERRORS[fault]
    with pytest.raises(ConfigError, match=message):
        loaded(yolo(tmp_path / "set", yaml=text), tmp_path / "cache")


def test_a_data_yaml_may_name_classes_by_number_and_list_files(tmp_path: Path) -> None:
    root = yolo(
        tmp_path / "set", "4 .5 .5 .2 .2\n", yaml="names: {4: cat, 1: dog}\ntrain: train.txt\nval: images/val\n"
    )
    (root / "train.txt").write_text("images/train/a.jpg\n./images/train/b.jpg\nimages/train/a.jpg\n")
    tree = read_yolo(root / "data.yaml")
    assert tree.class_names == ("dog", "cat")
    assert [image.path.stem for image in tree.images] == ["a", "b", "c"]
    assert tree.images[0].boxes[0].label == 1
    assert "listed twice" in tree.faults.warnings()[0]


LISTS = {"yolo": "train.txt", "voc": "ImageSets/Main/train.txt"}


def with_list(kind: str, root: Path, lines: bytes) -> Path:
    """Write a set whose images for training a list names, and return the list."""
    WRITERS[kind](root)
    file = root / LISTS[kind]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(lines)
    if kind == "yolo":
        (root / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]\n")
    return file


@pytest.mark.parametrize("kind", LISTS)
def test_a_byte_order_mark_in_a_list_loses_no_image(kind: str, tmp_path: Path) -> None:
    names = ["images/train/a.jpg", "images/train/b.jpg"] if kind == "yolo" else ["a", "b", "c"]
    with_list(kind, tmp_path / "set", "\n".join(names).encode("utf-8-sig"))
    data = loaded(tmp_path / "set", tmp_path / "cache")
    assert len(data.train) == len(names)
    assert not data.warnings


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(
    ("lines", "where"), [("a\nstraße".encode("latin-1"), 2), ("a\n".encode("utf-16"), 1)], ids=["latin", "utf-16"]
)
def test_a_list_in_another_encoding_is_refused_with_its_line(
    kind: str, lines: bytes, where: int, tmp_path: Path
) -> None:
    file = with_list(kind, tmp_path / "set", lines)
    with pytest.raises(ConfigError, match=f"expected a list of images in UTF-8, came .* in .*{file.name}:{where}\\."):
        loaded(tmp_path / "set", tmp_path / "cache")


@pytest.mark.parametrize("name", ["x\0.jpg", "x" * 400 + "/y.jpg"], ids=["null", "long"])
def test_a_listed_name_that_no_file_can_have_is_an_image_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    with_list("yolo", tmp_path / "set", f"images/train/a.jpg\nimages/train/b.jpg\n{name}".encode())
    data = loaded(tmp_path / "set", tmp_path / "cache", max_skipped_fraction=0.5)
    assert len(data.train) == 2
    assert "skipped 1 of 3 image files" in data.warnings[0]


def test_missing_and_empty_labels_are_background_and_counted(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", "")
    (root / "labels" / "val" / "c.txt").unlink()
    (root / "labels" / "val" / "z.txt").write_text("")
    data = loaded(root, tmp_path / "cache")
    assert [warning.partition(": ")[2].partition(" (")[0] for warning in data.warnings] == [
        "1 images without a file of labels, taken for background", "1 files of labels without an image, left out",
    ]  # fmt: skip
    assert data.train.targets.class_counts(2).tolist() == [0, 1]


def test_without_any_box_the_labels_are_in_another_place(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "labels").rename(root / "boxes")
    with pytest.raises(
        ConfigError, match=r"expected boxes, came none for all of 3 images.*\nCheck where the labels are"
    ):
        loaded(root, tmp_path / "cache")


def test_labels_stand_beside_the_last_folder_called_images() -> None:
    start = Path("/images/set")
    assert label_file(Path("/images/set/images/train/a.b.jpg"), start) == Path("/images/set/labels/train/a.b.txt")
    assert label_file(Path("/other/images/a.jpg"), start) == Path("/other/labels/a.txt")
    assert label_file(Path("/images/set/train/a.jpg"), start) == Path("/images/set/train/a.txt")
    assert label_file(Path("/pictures/a.jpg"), start) == Path("/pictures/a.txt")


@pytest.mark.parametrize(
    ("yaml", "images", "labels"),
    [
        ("images/set", "images/set/train", "images/set/train"),  # beside the images, below a folder called images
        ("images/set", "images/set/train", "labels/set/train"),
        ("images/set", "images/set/images/train", "images/set/labels/train"),
        ("images", "images/train", "labels/train"),  # data.yaml itself is among the images
        ("set", "set/images/train", "set/labels/train"),
    ],
)
def test_labels_are_found_however_the_path_of_the_set_is_typed(
    yaml: str, images: str, labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / yaml
    for name in "ab":
        picture(tmp_path / images / f"{name}.jpg")
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "data.yaml").write_text(f"train: {(tmp_path / images).relative_to(folder)}\nnames: [cat, dog]\n")
    for place in (None, tmp_path, folder, tmp_path / images, tmp_path / labels):
        typed = os.path.relpath(folder, place) if place else folder
        monkeypatch.chdir(place or tmp_path)
        tree = read_yolo(Path(typed) / "data.yaml")
        assert [len(image.boxes) for image in tree.images] == [1, 0]
        (warning,) = tree.faults.warnings()
        assert "1 images without a file of labels" in warning


def test_the_path_in_data_yaml_may_lead_into_the_folder_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = yolo(tmp_path / "set", yaml="path: images\ntrain: train\nval: val\nnames: [cat, dog]\n")
    monkeypatch.chdir(root)
    for typed in (root / "data.yaml", Path("data.yaml")):
        assert [len(image.boxes) for image in read_yolo(typed).images] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["yolo", "voc"])
@pytest.mark.parametrize("folder", [".ipynb_checkpoints", "@eaDir/deeper"])
def test_thumbnails_in_folders_of_systems_are_no_images(kind: str, folder: str, tmp_path: Path) -> None:
    root = WRITERS[kind](tmp_path / "set")
    picture(root / ("JPEGImages" if kind == "voc" else "images/train") / folder / "thumb.jpg")
    if kind == "voc":
        (root / "Annotations" / folder).mkdir(parents=True)
        (root / "Annotations" / folder / "a.xml").write_text("<annotation>")
    data = loaded(root, tmp_path / "cache")
    assert not data.warnings
    assert len(data.train) == (3 if kind == "voc" else 2)


def test_unreadable_images_are_counted_or_too_many(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "images" / "train" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"at most 0 % unreadable image files, came 1 of 3: .*b\.jpg"):
        loaded(root, tmp_path / "cache")
    data = loaded(root, tmp_path / "cache", max_skipped_fraction=0.5)
    assert "skipped 1 of 3 image files" in data.warnings[0]
    assert len(data.train) == 1


def test_transparent_images_are_laid_on_white(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "images" / "train" / "a.jpg").unlink()
    Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0)).save(root / "images" / "train" / "a.png")
    assert (loaded(root, tmp_path / "cache").train.images[0] == 255).all()


def test_boxes_are_those_of_the_image_as_exif_turns_it(tmp_path: Path) -> None:
    root = yolo(tmp_path / "set", "0 .25 .25 .5 .5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(root / "images" / "train" / "a.jpg", size=(HEIGHT, WIDTH), exif=exif)
    data = loaded(root, tmp_path / "cache")
    np.testing.assert_allclose(data.train.targets.boxes[0, 0], [0, 0, 32, 16], atol=1e-4)  # type: ignore[attr-defined]
    assert data.train.targets.originals[0].tolist() == [WIDTH, HEIGHT]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", WRITERS)
def test_images_that_exif_turns_are_counted(kind: str, tmp_path: Path) -> None:
    root = WRITERS[kind](tmp_path / "set")
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    path = next(root.rglob("a.jpg"))
    picture(path, exif=upside_down)
    for _ in range(2):  # decoded, and from the cache
        (warning,) = loaded(root, tmp_path / "cache").warnings
        assert warning == (
            f"data {root}: 1 images are turned by EXIF: their labels must be those of the turned image ({path})"
        )


def set_annotation(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["annotations"][0].update(changes)


COCO_WARNINGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no area": (set_annotation(bbox=[30, 10, 0, 20]), "1 boxes without area, left out"),
    "outside": (set_annotation(bbox=[90, 10, 5, 20]), "1 boxes outside of their image"),
    "beyond the edge": (set_annotation(bbox=[70, 10, 30, 20]), "1 boxes that reach out of their image"),
    "no image": (set_annotation(image_id=99), "1 annotations of an image that is not listed, left out"),
    "other size": (
        lambda document: document["images"][0].update(width=WIDTH // 2, height=HEIGHT // 2),
        "1 images of another size than their labels tell",
    ),
    "rounded size": (
        lambda document: document["images"][0].update(width=WIDTH // 3, height=HEIGHT // 3),
        "1 images of another size than their labels tell",
    ),
    "exchanged": (
        lambda document: document["images"][0].update(width=HEIGHT, height=WIDTH),
        "1 images with width and height exchanged in their labels, whose boxes fit",
    ),
    "twice": (
        lambda document: document["annotations"].append(document["annotations"][0]),
        "1 boxes that are there twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", COCO_WARNINGS)
def test_faults_of_coco_that_are_counted(fault: str, tmp_path: Path) -> None:
    change, what = COCO_WARNINGS[fault]
    warnings = loaded(coco(tmp_path / "set", change), tmp_path / "cache").warnings
    assert any(what in warning for warning in warnings), warnings


COCO_ERRORS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no category": (set_annotation(category_id=4), r"a category_id that is listed, came 4 in .*annotations\[0\]"),
    "no box": (set_annotation(bbox=None), r"bbox as \[left, top, width, height\].*annotations\[0\]"),
    "not finite": (set_annotation(bbox=[1, 2, float("inf"), 4]), r"came bbox = .*inf.*annotations\[0\]"),
    "a list as id": (lambda document: document["images"][0].update(id=[0]), r"an id that no other has.*images\[0\]"),
    "a list as image": (set_annotation(image_id=[0]), r"an image_id as a number or a text, came \[0\] in .*ns\[0\]"),
    "a list as category": (set_annotation(category_id=[3]), r"a category_id that is listed, came \[3\] .*ns\[0\]"),
    "a huge number": (set_annotation(bbox=[1, 2, 10**400, 4]), r"came bbox = \[1, 2, 10000.* in .*annotations\[0\]"),
    "same id": (lambda document: document["images"][1].update(id=0), r"an id that no other has.*images\[1\]"),
    "same category": (lambda document: document["categories"][1].update(id=7), r"an id and a name.*categories\[1\]"),
    "no list": (lambda document: document.pop("categories"), "came none for categories"),
    "no file": (lambda document: document["images"][0].update(file_name="z.jpg"), r"a file for every image, came none"),
    "other names": (lambda document: document["categories"][0].update(name="cow"), "the same categories in all files"),
    "exchanged": (
        lambda document: (
            document["images"][0].update(width=HEIGHT, height=WIDTH),
            document["annotations"][0].update(bbox=[10, 30, 20, 20]),
        ),
        r"image as it lies, 80 x 40, came labels of 40 x 80 with boxes that reach out of it in those of .*a\.jpg",
    ),
    "another shape": (
        lambda document: [each.update(width=50, height=50) for each in document["images"]],
        r"an image of the same shape, as 80 x 40, came labels of 50 x 50 in those of .*a\.jpg, .*b\.jpg \(2\)",
    ),
    "a huge size": (
        lambda document: document["images"][0].update(width=10**400),
        r"the same shape, as 80 x 40, came labels of 10{39} in those of .*a\.jpg\.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", COCO_ERRORS)
def test_faults_of_coco_that_are_refused(fault: str, tmp_path: Path) -> None:
    change, message = COCO_ERRORS[fault]
    with pytest.raises(ConfigError, match=message):
        loaded(coco(tmp_path / "set", change), tmp_path / "cache")


def test_labels_of_the_image_before_exif_turned_it_are_refused(tmp_path: Path) -> None:
    root, exif = coco(tmp_path / "set"), Image.Exif()
    exif[0x0112] = 6
    picture(root / "images" / "train" / "a.jpg", exif=exif)
    message = r"of the image as it is seen, 40 x 80 \(EXIF turns it\), came labels of 80 x 40 in those of .*a\.jpg\."
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(root, tmp_path / "cache")
    assert "Turn the pixels" in str(caught.value)


def test_boxes_stay_where_they_are_if_only_the_sides_of_their_image_are_exchanged(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    file = root / "Annotations" / "a.xml"
    text = file.read_text().replace(f">{HEIGHT}<", ">new<").replace(f">{WIDTH}<", f">{HEIGHT}<")
    file.write_text(text.replace(">new<", f">{WIDTH}<"))
    data = loaded(root, tmp_path / "cache")
    np.testing.assert_allclose(data.train.targets.boxes[0, 0], [24, 8, 40, 24], atol=1e-4)  # type: ignore[attr-defined]
    assert "exchanged" in data.warnings[0]


def test_the_stated_size_of_an_image_without_boxes_is_no_matter(tmp_path: Path) -> None:
    root = voc(tmp_path / "set", "")
    file = root / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace(f">{WIDTH}<", ">55<"))
    assert not loaded(root, tmp_path / "cache").warnings


def test_boxes_follow_a_size_of_nearly_the_same_shape(tmp_path: Path) -> None:
    root = coco(tmp_path / "set", lambda document: document["images"][0].update(width=2 * WIDTH + 2, height=2 * HEIGHT))
    data = loaded(root, tmp_path / "cache")
    boxes: Any = data.train.targets.boxes  # type: ignore[attr-defined]
    np.testing.assert_allclose(boxes[0, 0], np.asarray([11.85, 4, 19.75, 12]), atol=0.01)
    assert "boxes enlarged or shrunk along" in data.warnings[0]


@pytest.mark.parametrize("folder", ["{split}2017", "images/{split}2017"])
def test_coco_as_it_is_handed_out_is_found(folder: str, tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    for split in ("train", "val"):
        to = root / folder.format(split=split)
        to.parent.mkdir(exist_ok=True)
        (root / "images" / split).rename(to)
        (root / "annotations" / f"instances_{split}.json").rename(root / f"annotations/instances_{split}2017.json")
    data = loaded(root, tmp_path / "cache")
    assert (len(data.train), len(data.val or ())) == (2, 1)
    assert not data.warnings
    alone = loaded(root / "annotations" / "instances_val2017.json", tmp_path / "cache")
    assert len(alone.train) == 1


def test_a_coco_file_under_two_ids_is_one_image_with_the_boxes_of_both(tmp_path: Path) -> None:
    def twice(document: dict[str, Any]) -> None:
        document["images"].append({**document["images"][0], "id": 99, "file_name": "../train/a.jpg"})
        other = {**document["annotations"][0], "id": 99, "image_id": 99, "category_id": 7, "bbox": [0, 0, 10, 10]}
        document["annotations"].append(other)

    root = coco(tmp_path / "set", twice)
    tree = read_coco(root)
    assert [image.path.stem for image in tree.images] == ["a", "b", "c"]
    assert [box.sides for box in tree.images[0].boxes] == [(30, 10, 50, 30), (0, 0, 10, 10)]
    assert [box.label for box in tree.images[0].boxes] == [0, 1]
    (told,) = tree.faults.warnings()
    assert "1 images that are listed twice, taken as one with the boxes of both (" in told


@pytest.mark.parametrize("other", ["val", "test"])
def test_an_image_in_two_coco_files_is_in_the_first_split_alone(other: str, tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    file = root / "annotations" / f"instances_{other}.json"
    document = coco_document("cb")
    document["images"][1]["file_name"] = "../images/train/b.jpg"
    file.write_text(json.dumps(document))
    picture(root / "images" / other / "c.jpg")
    tree = read_coco(root)
    assert [image.path.stem for image in tree.images if image.split == "train"] == ["a", "b"]
    assert [image.path.stem for image in tree.images if image.split == other] == ["c"]
    (told,) = tree.faults.warnings()
    assert "1 images that are listed in two files, the second time left out (earlier versions: in both splits)" in told
    assert f"b.jpg in {file})" in told


def test_a_broken_json_file_is_refused_with_its_line(tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    file.write_text('{"images": [],\n "annotations": [,]}')
    with pytest.raises(ConfigError, match=r"expected JSON, came .*instances_train\.json:2"):
        loaded(root, tmp_path / "cache")


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    file.write_bytes(file.read_text().encode("utf-8-sig"))
    assert len(loaded(root, tmp_path / "cache").train) == 2


def test_a_json_file_with_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    root = coco(tmp_path / "set")
    file = root / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"bbox": [30', '"bbox": [3' + 5000 * "0", 1))
    with pytest.raises(ConfigError, match=r"expected JSON, came ValueError in .*instances_train\.json"):
        loaded(root, tmp_path / "cache")


def test_crowds_are_ignored_and_one_file_is_split(tmp_path: Path) -> None:
    root = coco(tmp_path / "set", set_annotation(iscrowd=1))
    tree = read_coco(root / "annotations" / "instances_train.json")
    assert [box.ignored for image in tree.images for box in image.boxes] == [True, False]
    assert not tree.divided
    assert tree.class_names == ("cat", "dog")  # by number: 3, then 7


VOC_ERRORS = {
    "no XML": ({"whole": "<annotation>\n<object>"}, r"expected XML, came .*a\.xml:2"),
    "unknown encoding": (
        {"whole": '<?xml version="1.0" encoding="martian"?><annotation/>'},
        r"XML in the encoding that it declares, came unknown encoding: martian in .*a\.xml",
    ),
    "another encoding": (
        {"whole": '<?xml version="1.0" encoding="gb2312"?><annotation>\u4eba</annotation>'},
        r"XML in the encoding that it declares, came 'gb2312' codec .* in .*a\.xml",
    ),
    "no name": ({"objects": voc_object(name="")}, r"a name, and a bndbox with four numbers.*a\.xml: object 1"),
    "words": ({"objects": voc_object(corners="a 11 50 30")}, r"came name 'cat' and bndbox a, 11.*a\.xml: object 1"),
    "three": ({"objects": voc_object(corners="31 11 50")}, r"four numbers.*object 1"),
}


@pytest.mark.parametrize("fault", VOC_ERRORS)
def test_faults_of_voc_that_are_refused(fault: str, tmp_path: Path) -> None:
    written, message = VOC_ERRORS[fault]
    with pytest.raises(ConfigError, match=message):
        loaded(voc(tmp_path / "set", **written), tmp_path / "cache")


@pytest.mark.parametrize("encoding", ["gb2312", "GBK", "shift_jis", "big5", "iso-8859-1", "utf-16"])
def test_xml_in_any_encoding_that_it_declares_is_read(encoding: str, tmp_path: Path) -> None:
    root, name = voc(tmp_path / "set"), "Tür" if encoding.startswith("iso") else "山"
    text = f'<?xml version="1.0" encoding="{encoding}"?><annotation>{voc_object(name=name)}</annotation>'
    (root / "Annotations" / "a.xml").write_bytes(text.encode(encoding))
    assert read_voc(root).class_names == tuple(sorted(("cat", name)))


def test_difficult_objects_are_ignored_and_counting_from_zero_is_noticed(tmp_path: Path) -> None:
    two = voc_object(extra="<difficult>1</difficult>") + voc_object(corners="0 0 10 10")
    tree = read_voc(voc(tmp_path / "set", two))
    assert [box.ignored for box in tree.images[0].boxes] == [True, False]
    assert tree.images[0].boxes[1].sides == (0, 0, 10, 10)
    assert "from 0" in tree.notes[0]
    assert read_voc(voc(tmp_path / "other")).images[0].boxes[0].sides == (30, 10, 50, 30)


def test_missing_files_of_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    (root / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(ConfigError, match=r"an image for every XML file, came none for 1 of 3: a\.xml"):
        read_voc(root)
    assert "files of labels without an image" in read_voc(root, max_missing=0.5).faults.warnings()[0]
    (root / "Annotations" / "b.xml").unlink()
    assert any("taken for background" in each for each in read_voc(root, max_missing=0.5).faults.warnings())


def test_images_of_voc_with_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    root, inside = tmp_path / "set", (31, 41)
    for film, left in zip("xy", inside, strict=True):
        picture(root / "JPEGImages" / film / "0001.jpg")
        file = root / "Annotations" / film / "0001.xml"
        file.parent.mkdir(parents=True)
        file.write_text(f"<annotation>{voc_object(corners=f'{left} 11 50 30')}</annotation>")
    picture(root / "JPEGImages" / "x" / "own.jpg")
    (root / "Annotations" / "own.xml").write_text(f"<annotation>{voc_object()}</annotation>")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("x/0001\nx/own\n")
    (lists / "val.txt").write_text("y/0001\n")
    tree = read_voc(root)
    assert not tree.faults.warnings()
    found = [(f"{image.path.parent.name}/{image.path.stem}", image.split) for image in tree.images]
    assert found == [("x/own", "train"), ("x/0001", "train"), ("y/0001", "val")]
    assert [image.boxes[0].sides[0] for image in tree.images] == [30, *(left - 1 for left in inside)]
    assert find_source(str(root), BOX_SOURCES).kind == "Pascal VOC"
    (lists / "val.txt").write_text("0001\n")
    with pytest.raises(ConfigError, match=r"one image for each name, came 0001 for .*x/0001\.jpg, .*y/0001\.jpg"):
        read_voc(root)
    (lists / "val.txt").unlink()
    (root / "Annotations" / "x" / "0001.xml").rename(root / "Annotations" / "0001.xml")
    with pytest.raises(ConfigError, match=r"one image for each name, came 0001 for") as caught:
        read_voc(root)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("second", ["JPEGImages/a.png", "Annotations/old/a.xml"])
def test_two_files_of_voc_with_one_name_are_refused(second: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    path = root / second
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        picture(path)
    else:
        path.write_text("<annotation></annotation>")
    with pytest.raises(ConfigError, match=r"a name of its own for every file, came a twice in .*a\.\w+ and .*a\.\w+"):
        read_voc(root)


def test_an_image_of_voc_whose_name_another_one_labels_is_refused(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    picture(root / "JPEGImages" / "small" / "a.jpg")  # it would pass for an image without objects
    with pytest.raises(ConfigError, match=r"one image for each name, came a for .*a\.jpg"):
        read_voc(root)


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"trainval": "ab", "test": "c"}, ["train", "train", "test"]),
        ({"trainval": "ab", "val": "b", "test": "c"}, ["train", "val", "test"]),
        ({"trainval": "abc", "train": "a", "val": "bc"}, ["train", "val", "val"]),
        ({"trainval": "abc"}, ["train", "train", "train"]),
    ],
)
def test_trainval_is_for_training_if_there_is_no_train(
    lists: dict[str, str], splits: list[str], tmp_path: Path
) -> None:
    root = voc(tmp_path / "set")
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for name, images in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(images))
    tree = read_voc(root)
    assert [image.split for image in tree.images] == splits
    assert not tree.faults.warnings()


def test_an_image_in_trainval_and_test_is_refused(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    (folder / "trainval.txt").write_text("a\nb\n")
    (folder / "test.txt").write_text("b\nc\n")
    with pytest.raises(ConfigError, match=r"came b in train and test in .*trainval\.txt:2"):
        read_voc(root)


def test_splits_of_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    tree = read_voc(root)
    assert [(image.path.stem, image.split) for image in tree.images] == [("a", "train"), ("b", "val")]
    assert "images that no split lists" in tree.faults.warnings()[0]
    (lists / "val.txt").write_text("b\na\n")
    with pytest.raises(ConfigError, match=r"every image in one split, came a in val and train in .*val\.txt:2"):
        read_voc(root)


def test_lists_of_voc_may_name_files_with_blanks(tmp_path: Path) -> None:
    root = voc(tmp_path / "set")
    for old, new in (("a", "street 7 a"), ("b", "street 1")):
        (root / "JPEGImages" / f"{old}.jpg").rename(root / "JPEGImages" / f"{new}.jpg")
        (root / "Annotations" / f"{old}.xml").rename(root / "Annotations" / f"{new}.xml")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("street 7 a  -1\nstreet 1\n")
    (lists / "val.txt").write_text("c 0\n")
    tree = read_voc(root)
    assert {image.path.stem: image.split for image in tree.images} == {
        "street 7 a": "train", "street 1": "train", "c": "val",
    }  # fmt: skip
    assert not tree.faults.warnings()
