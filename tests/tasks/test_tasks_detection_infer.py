"""From an image file to boxes in its own pixels: infer.py, what `predict` prints, and what is drawn."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from scalesearch.cli import predict
from scalesearch.data.boxes import placement
from scalesearch.data.decode import Reading, decode
from scalesearch.data.framing import framed
from scalesearch.tasks.detection.average_precision import BoxesByClass, Truth, average_precisions
from scalesearch.tasks.detection.box_pictures import with_boxes
from scalesearch.tasks.detection.decoding import Detections, points_of
from scalesearch.tasks.detection.infer import as_objects, draw_detections, original_to_input, upright_size
from scalesearch.tasks.detection.task import TASK
from scalesearch.tasks.infer_parts.preprocessing import Preprocessing
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

SIDES = (64, 96)
STRIDES = (8, 16, 32)
POINTS = sum(SIDES[0] * SIDES[1] // stride**2 for stride in STRIDES)
BOX = (24.0, 16.0, 56.0, 48.0)
NAMES = ("cat", "dog")


def constant_detector(path: Path, *, fit: str = "stretch", threshold: float = 0.3) -> Path:
    """Write a network that answers with one dog in the same box whatever it sees, and with a cat of a score of 0.1."""
    raw = np.full((1, 7, POINTS), -20, np.float32)
    points, strides = points_of(SIDES, STRIDES)
    for label, score, stride in ((1, 0.9, 8), (0, 0.1, 16)):
        place = int(np.flatnonzero((strides == stride) & (points > BOX[:2]).all(1) & (points < BOX[2:]).all(1))[0])
        raw[0, :4, place] = np.concatenate([points[place] - BOX[:2], BOX[2:] - points[place]]) / stride
        raw[0, 4 + label, place], raw[0, -1, place] = 20, np.log(score / (1 - score))
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=1, axes=[1, 2, 3]),
        helper.make_node("Flatten", ["mean"], ["flat"], axis=2),
        helper.make_node("Mul", ["flat", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "answer"], ["raw"]),
    ]
    nodes[1] = helper.make_node("Reshape", ["mean", "shape"], ["flat"])
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIDES])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["batch", 7, POINTS])],
        [
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            numpy_helper.from_array(np.asarray([-1, 1, 1]), "shape"),
            numpy_helper.from_array(raw, "answer"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(
        proto,
        {
            "scalesearch.preprocessing": "3",
            "scalesearch.class_names": json.dumps(NAMES),
            "scalesearch.mean": "[0.5, 0.5, 0.5]",
            "scalesearch.std": "[0.25, 0.25, 0.25]",
            "scalesearch.storage_px": json.dumps(SIDES),
            "scalesearch.resolution_px": json.dumps(SIDES),
            "scalesearch.fit": json.dumps(fit),
            "scalesearch.threshold": json.dumps(threshold),
            "scalesearch.task": "detection",
        },
    )
    onnx.save(proto, path)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture of twice the network's size."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8)).save(path)
    return path


def test_boxes_are_in_the_pixels_of_the_picture(tmp_path: Path, photo: Path) -> None:
    predictor = TASK.open_export(constant_detector(tmp_path / "model.onnx"), threads=1)
    answer = predictor.answer(photo, top=2)
    assert answer.fields == {"objects": [{"class": "dog", "score": 0.9, "box": [48.0, 32.0, 112.0, 96.0]}]}
    assert answer.cells == ("1", "dog", "0.90", "48 32 112 96")
    assert len(predictor.heads(4)) == 4
    assert predictor.draws


def test_a_lower_threshold_reports_more(tmp_path: Path, photo: Path) -> None:
    predictor = TASK.open_export(constant_detector(tmp_path / "model.onnx", threshold=0.05), threads=1)
    objects = predictor.answer(photo, top=1).fields["objects"]
    assert [each["class"] for each in objects] == ["dog", "cat"]  # type: ignore[attr-defined]


def test_drawn_pictures_show_the_box(tmp_path: Path, photo: Path) -> None:
    predictor = TASK.open_export(constant_detector(tmp_path / "model.onnx"), threads=1)
    predictor.answer(photo, top=1, to=tmp_path / "drawn")
    before, after = (np.asarray(Image.open(path)) for path in (photo, tmp_path / "drawn" / "photo.png"))
    changed = np.flatnonzero((before != after).any(axis=2).any(axis=1))
    assert after.shape == before.shape
    assert (changed.min(), changed.max()) == (20, 96)  # the name stands above the box, which ends at 96


def drawn_by(way: str, folder: Path, images: Sequence[str], to: str) -> tuple[int, str]:
    """Draw by `predict` or by the export's script from within a folder; return the exit code and what is told."""
    model = constant_detector(folder / "model.onnx")
    if way == "predict":
        alone = typer.Typer()
        alone.command()(predict.predict)
        done = CliRunner().invoke(alone, [str(model), *images, "--to", to], standalone_mode=False)
        return (2, str(done.exception)) if done.exception else (int(done.return_value or 0), done.stderr)
    (folder / "infer.py").write_bytes(TASK.infer_script())
    command = [sys.executable, "-I", "infer.py", *images, "--to", to]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("way", ["predict", "infer.py"])
def test_pictures_replace_neither_images_nor_one_another(
    way: str, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = photo.read_bytes()
    code, told = drawn_by(way, tmp_path, ["photo.png"], ".")
    assert code == 2
    assert "expected a folder where no picture replaces an image, came photo.png, which is one of them" in told
    assert photo.read_bytes() == before
    for film in ("film1", "film2"):
        (tmp_path / film).mkdir()
        (tmp_path / film / "0001.png").write_bytes(before)
    code, told = drawn_by(way, tmp_path, ["film1/0001.png", "film2/0001.png", "photo.png"], "out")
    assert (code, told) == (0, "")
    found = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert found == {"out/film1/0001.png", "out/film2/0001.png", "out/photo.png"}
    Image.open(photo).convert("RGB").save(tmp_path / "photo.jpg")
    code, told = drawn_by(way, tmp_path, ["photo.png", "photo.jpg"], "both")
    assert (code, told) == (0, "")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"photo.png.png", "photo.jpg.png"}


@pytest.mark.parametrize("way", ["predict", "infer.py"])
def test_a_picture_that_no_run_wrote_is_not_replaced(
    way: str, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan beside its JPEG, which is not among the images that are asked for."""
    monkeypatch.chdir(tmp_path)
    Image.open(photo).save(tmp_path / "photo.jpg")
    before = photo.read_bytes()
    code, told = drawn_by(way, tmp_path, ["photo.jpg"], ".")
    assert code == 2
    assert "expected a folder where no picture replaces a file, came photo.png, which no --to wrote" in told
    assert photo.read_bytes() == before
    for _ in range(2):  # the second run replaces the pictures of the first
        assert drawn_by(way, tmp_path, ["photo.jpg"], "drawn") == (0, "")
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["photo.png"]


@pytest.mark.parametrize("way", ["predict", "infer.py"])
def test_a_folder_that_cannot_be_written_is_named(
    way: str, tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file where the folder should be")
    code, told = drawn_by(way, tmp_path, ["photo.png"], "taken/drawn")
    assert code == 2
    assert "cannot write " in told and "Not a directory" in told and "taken" in told
    assert "image that can be read" not in told and "Traceback" not in told


def test_pictures_of_an_earlier_run_are_no_images_of_the_next(
    tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo.rename(tmp_path / "photos" / photo.name)
    for _ in range(2):
        code, told = drawn_by("predict", tmp_path, ["photos"], "photos/drawn")
        assert (code, told) == (0, "")
        assert [path.name for path in (tmp_path / "photos" / "drawn").iterdir()] == ["photo.png"]


def test_the_script_stands_alone(tmp_path: Path, photo: Path) -> None:
    constant_detector(tmp_path / "model.onnx")
    script = tmp_path / "infer.py"
    script.write_bytes(TASK.infer_script())
    assert b"import scalesearch" not in script.read_bytes()
    assert b"from scalesearch" not in script.read_bytes()
    command = [sys.executable, "-I", str(script), str(photo), "--json", "--to", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["objects"] == [{"class": "dog", "score": 0.9, "box": [48.0, 32.0, 112.0, 96.0]}]
    assert (tmp_path / "out" / "photo.png").is_file()
    (tmp_path / "none.png").write_bytes(b"no image")
    done = subprocess.run([*command[:3], str(tmp_path / "none.png")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no image that can be read" in done.stderr


def test_printed_objects_score_as_the_detections_themselves() -> None:
    """Small objects in small pictures, found to a few tenths of a pixel, by scores most of which are low."""
    random = np.random.default_rng(0)
    truths, exact, printed = list[Truth](), list[Detections](), list[Detections]()
    for _ in range(200):
        corner = random.uniform(0, 60, (4, 2))
        boxes = np.concatenate([corner, corner + random.uniform(6, 14, (4, 2))], axis=1)
        found = np.repeat(boxes, 8, axis=0) + random.normal(0, 1, (32, 4))
        scores = np.sort(np.exp(random.uniform(np.log(0.001), 0, 32)))[::-1].astype(np.float32)
        truths.append(Truth(boxes=boxes.astype(np.float32), classes=np.zeros(4, np.int64), ignored=np.zeros(4, bool)))
        order = random.permutation(32)
        exact.append(Detections(found[order].astype(np.float32), np.zeros(32, np.int64), scores))
        objects = json.loads(json.dumps(as_objects(exact[-1], NAMES)))
        printed.append(
            Detections(
                np.asarray([each["box"] for each in objects], np.float32),
                np.zeros(32, np.int64),
                np.asarray([each["score"] for each in objects], np.float32),
            )
        )
    ours, scripts = (
        float(average_precisions(BoxesByClass(truths, found).match(0, "all")[0]).mean()) for found in (exact, printed)
    )
    assert ours > 0.05
    assert abs(ours - scripts) < 5e-5


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("size", [(300, 100), (100, 300), (192, 128)])
def test_the_script_places_boxes_as_the_data_do(fit: Fit, size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(
        class_names=NAMES, mean=(0.5,) * 3, std=(0.5,) * 3, storage_px=(64, 96), resolution_px=(32, 48), fit=fit
    )
    at = placement(*size, InputSize(height_px=64, width_px=96), fit)
    expected = (at.scale_x / 2, at.scale_y / 2, at.offset_x / 2, at.offset_y / 2)
    np.testing.assert_allclose(original_to_input(size, preprocessing), expected)
    assert framed(Image.new("RGB", size), InputSize(height_px=64, width_px=96), fit).size == (96, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_the_size_of_a_turned_picture_is_that_of_the_data(tmp_path: Path, ending: str, orientation: int) -> None:
    path, exif = tmp_path / f"turned.{ending}", Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    _, fact = decode(path, Reading(size=InputSize.square(16)))
    assert upright_size(path) == fact.size == ((20, 40) if orientation >= 5 else (40, 20))


NO_DOUBLE = b"Exif\0\0II*\0\x08\0\0\0\2\0" + b"".join(
    tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    for tag, kind, value in ((0x0100, 12, 0), (0x0112, 3, 6))  # a number that Pillow reads and cannot write again
) + bytes(4)  # fmt: skip


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("block", [b"Exif\0\0garbage!!", b"Exif\0\0II", NO_DOUBLE], ids=["words", "cut", "double"])
def test_a_damaged_exif_block_is_no_reason_to_refuse_a_picture(tmp_path: Path, ending: str, block: bytes) -> None:
    path = tmp_path / f"damaged.{ending}"
    Image.new("RGB", (40, 20)).save(path, exif=block)
    _, fact = decode(path, Reading(size=InputSize.square(16)))
    assert upright_size(path) == fact.size == (40, 20)


def test_the_size_of_a_large_photo_on_its_side_is_that_of_the_data(tmp_path: Path) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1283, 1281)).save(path, exif=exif)
    _, fact = decode(path, Reading(size=InputSize.square(16)))
    assert upright_size(path) == fact.size == (1281, 1283)


def test_boxes_in_a_tiff_that_lies_on_its_side_are_in_its_upright_pixels(tmp_path: Path) -> None:
    path, exif = tmp_path / "turned.tif", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 192)).save(path, exif=exif)  # upright 192 wide, twice the network's size
    answer = TASK.open_export(constant_detector(tmp_path / "model.onnx"), threads=1).answer(path, top=1)
    assert answer.fields == {"objects": [{"class": "dog", "score": 0.9, "box": [48.0, 32.0, 112.0, 96.0]}]}


def test_names_beyond_the_built_in_font_are_drawn() -> None:
    found = Detections(np.asarray([[2, 2, 30, 30]], np.float32), np.asarray([0]), np.asarray([0.5], np.float32))
    image = Image.new("RGB", (64, 64))
    assert np.asarray(draw_detections(image, found, ("猫",))).any()
    assert not np.asarray(image).any()


def test_pictures_of_truth_and_answer_stand_side_by_side() -> None:
    rows = np.asarray([[[0, 0, 96, 64, -1, 0], [*BOX, 1, 0], [1, 1, 9, 9, 0, 1]]], np.float32)
    images = np.zeros((1, *SIDES, 3), np.uint8)
    (alone,) = with_boxes(images, rows, NAMES, None)
    raw = np.full((1, 7, POINTS), -20, np.float32)
    (both,) = with_boxes(images, rows, NAMES, raw)
    assert both.shape[1] > 2 * alone.shape[1] - 1
    assert len(np.unique(alone[: 3 * 64].reshape(-1, 3), axis=0)) >= 3  # black, and a colour for each of the two boxes
