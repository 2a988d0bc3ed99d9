"""infer.py, which ships with every export, makes the very input that training made, and gives the engine's answers."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from small_graphs import CLASSES, IMAGES, small_model

from scalesearch.data import to_input
from scalesearch.data.dataset import ImageSplit, make_dataset
from scalesearch.data.decode import UNREADABLE, Reading, decode, decode_square
from scalesearch.data.resize import resize_images, to_grey
from scalesearch.data.targets import Labels
from scalesearch.deployment.backends import EngineOptions, get_backend
from scalesearch.deployment.onnx_file import annotate
from scalesearch.tasks.classification import infer
from scalesearch.tasks.classification.task import TASK
from scalesearch.tasks.infer_parts import images as infer_images
from scalesearch.tasks.infer_parts import preprocessing as infer_preprocessing
from scalesearch.tasks.infer_parts import versions as infer_versions
from scalesearch.values.candidate import Precision
from scalesearch.values.network import OnnxModel
from scalesearch.values.network_spec import InputSize
from scalesearch.values.target import QuantizationProfile

REAL = os.environ.get("SCALESEARCH_TEST_PHOTOS", "")
"""A folder of at least 30 photographs to test with; without it, made-up images alone are tested."""
MEAN, STD = (0.5286342464393345, 0.39688537881713964, 0.25869245573350935), (0.23037124517, 0.20829021480, 0.19334187)
NAMES = tuple(f"class {place}, é" for place in range(CLASSES))
METADATA = {
    "scalesearch.preprocessing": infer_preprocessing.VERSION,
    "scalesearch.class_names": json.dumps(NAMES),
    "scalesearch.mean": json.dumps(MEAN),
    "scalesearch.std": json.dumps(STD),
    "scalesearch.storage_px": "64",
    "scalesearch.resolution_px": "8",
}


def photo(seed: int) -> Image.Image:
    """A made-up photograph: smooth shapes, edges and noise, neither square nor small."""
    rng = np.random.default_rng(seed)
    width, height = int(rng.integers(90, 240)), int(rng.integers(90, 240))
    coarse = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def written(images: list[Image.Image], folder: Path) -> Iterator[Path]:
    """Each image in another mode, file format or orientation, in turn."""
    for place, image in enumerate(images):
        kind = place % 10
        path = folder / f"{place:02d}{('.jpg', '.png', '.webp', '.gif', '.tif')[kind // 2]}"
        if kind == 0:
            image.save(path, quality=80)
        elif kind == 1:
            image.convert("CMYK").save(path.with_suffix(".jpg"))
            path = path.with_suffix(".jpg")
        elif kind == 2:
            image.convert("L").save(path)
        elif kind == 3:
            layer = image.convert("RGBA")
            layer.putalpha(Image.linear_gradient("L").resize(image.size))
            layer.save(path)
        elif kind == 4:
            image.save(path, lossless=True)
        elif kind == 5:
            exif = Image.Exif()
            exif[0x0112] = 1 + place % 8
            path = path.with_suffix(".jpg")
            image.save(path, exif=exif.tobytes(), quality=90)
        elif kind == 6:
            image.quantize(64).save(path)
        elif kind == 7:
            path = path.with_suffix(".png")
            image.convert("1").save(path)
        elif kind == 8:
            grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(path)
        else:
            path = path.with_suffix(".jpg")
            exif = Image.Exif()
            exif[0x0112] = 6
            image.convert("L").resize((500, 400)).save(path, exif=exif.tobytes())
        yield path


def real_photos(count: int) -> list[Image.Image]:
    paths = sorted(Path(REAL).rglob("*.jpg"))
    return [Image.open(path).convert("RGB") for path in paths[:: len(paths) // count][:count]]


@pytest.fixture(params=["made up", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    if request.param == "real":
        if not REAL:
            pytest.skip("SCALESEARCH_TEST_PHOTOS names no folder of photographs")
        photos = real_photos(30)
    else:
        photos = [photo(seed) for seed in range(20)]
    return list(written(photos, tmp_path))


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    return annotate(small_model(tmp_path), METADATA, tmp_path / "model.onnx")


def ours(path: Path, storage_px: int, resolution_px: int) -> np.ndarray:
    pixels = resize_images(decode_square(path, storage_px)[np.newaxis], resolution_px)
    return to_input(pixels, mean=MEAN, std=STD)


@pytest.mark.parametrize("sides", [(64, 48), (64, 64), (96, 8), (33, 32), (150, 101)], ids=str)
def test_the_input_is_that_of_training_bit_for_bit(files: list[Path], sides: tuple[int, int]) -> None:
    storage_px, resolution_px = sides
    told = infer_preprocessing.Preprocessing(
        class_names=NAMES, mean=MEAN, std=STD, storage_px=(storage_px,) * 2, resolution_px=(resolution_px,) * 2
    )
    seen = set()
    for path in files:
        expected = ours(path, storage_px, resolution_px)
        np.testing.assert_array_equal(infer_images.read_input(path, told), expected, err_msg=path.name)
        seen.add(expected.tobytes())
    assert len(seen) == len(files) >= 20  # the images differ, so equal inputs mean something


RECTANGLES = {
    "wide": ((48, 80), (24, 40)),
    "rounded": ((64, 96), (40, 64)),
    "height kept": ((48, 80), (48, 56)),
    "width kept": ((50, 30), (30, 30)),
    "as stored": ((20, 90), (20, 90)),
}


@pytest.mark.parametrize("fit", infer_preprocessing.FITS)
@pytest.mark.parametrize(("storage", "wanted"), RECTANGLES.values(), ids=RECTANGLES)
def test_rectangles_are_those_of_training_bit_for_bit(
    storage: tuple[int, int], wanted: tuple[int, int], fit: Any, tmp_path: Path
) -> None:
    told = infer_preprocessing.Preprocessing(
        class_names=NAMES, mean=MEAN, std=STD, storage_px=storage, resolution_px=wanted, fit=fit
    )
    stored, small = (InputSize(height_px=height, width_px=width) for height, width in (storage, wanted))
    seen = set()
    for path in written([photo(seed) for seed in range(12)], tmp_path):
        pixels, _ = decode(path, Reading(size=stored, fit=fit))
        split = ImageSplit(images=pixels[np.newaxis], targets=Labels(np.zeros(1, np.int64)))
        data = make_dataset(name="one", class_names=NAMES, splits=(split,) * 4)
        expected = to_input(data.at(small).test.images[:], mean=MEAN, std=STD)
        found = infer_images.read_input(path, told)
        assert found.shape == (1, 3, *wanted)
        np.testing.assert_array_equal(found, expected, err_msg=path.name)
        seen.add(found.tobytes())
    assert len(seen) == 12


@pytest.mark.parametrize(("text", "sides"), [("64", (64, 64)), ("[48, 80]", (48, 80))])
def test_one_number_is_a_square_and_two_are_height_and_width(text: str, sides: tuple[int, int]) -> None:
    assert infer_preprocessing.read_sides(text) == sides


@pytest.mark.parametrize("text", ["0", "[48]", "[48, 80, 3]", "[48, -80]", '"48x80"', "48x80", "1.5"])
def test_sides_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        infer_preprocessing.read_sides(text)


READINGS = {
    "stretched": {"fit": "stretch"},
    "padded": {"fit": "pad"},
    "grey": {"channels": 1},
    "windowed": {"window": (9000.0, 30000.5)},
    "all three": {"window": (-300.0, 52000.0), "fit": "pad", "channels": 1},
}


def deep_files(folder: Path) -> list[Path]:
    """Pictures of more than 8 bits in every mode that Pillow has for them, none of them square."""
    rng = np.random.default_rng(3)
    values = rng.integers(0, 65536, (70, 110))
    images = {
        "png": Image.fromarray(values.astype(np.uint16)),
        "big.tif": Image.fromarray(values.astype(">u2")),
        "signed.tif": Image.fromarray((values - 30000).astype(np.int32)),
        "float.tif": Image.fromarray((values / 2).astype(np.float32)),
        "pgm": Image.fromarray(values.astype(np.uint16)),
    }
    for name, image in images.items():
        image.save(folder / f"deep.{name}")
    return [folder / f"deep.{name}" for name in images]


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
@pytest.mark.parametrize("sides", [(64, 48), (33, 33)], ids=str)
def test_window_fit_and_channels_are_those_of_training_bit_for_bit(
    reading: dict[str, Any], sides: tuple[int, int], tmp_path: Path
) -> None:
    storage_px, resolution_px = sides
    channels = reading.get("channels", 3)
    mean, std = MEAN[:channels], STD[:channels]
    told = infer_preprocessing.Preprocessing(
        class_names=NAMES,
        mean=mean,
        std=std,
        storage_px=(storage_px,) * 2,
        resolution_px=(resolution_px,) * 2,
        **reading,
    )
    files = [*written([photo(seed) for seed in range(10)], tmp_path), *deep_files(tmp_path)]
    if "window" not in reading:
        files = [path for path in files if path.name != "deep.float.tif"]  # refused by both: floats outside 0..1
    seen = set()
    for path in files:
        square = decode_square(path, storage_px, window=reading.get("window", "full"), fit=reading.get("fit", "crop"))
        pixels = square[np.newaxis] if channels == 3 else to_grey(square[np.newaxis])
        expected = to_input(resize_images(pixels, resolution_px), mean=mean, std=std)
        found = infer_images.read_input(path, told)
        assert found.shape == (1, channels, resolution_px, resolution_px)
        np.testing.assert_array_equal(found, expected, err_msg=path.name)
        seen.add(expected.tobytes())
    assert len(seen) >= len(files) - 2  # the png and the big-endian tiff and the pgm hold the same numbers


def test_the_second_version_of_the_metadata_is_read_and_the_first_means_what_it_did() -> None:
    plain = infer_preprocessing.read_preprocessing(METADATA)
    assert (plain.window, plain.fit, plain.channels) == (None, "crop", 3)
    more = {"preprocessing": "2", "window": "[0.0, 4095.0]", "fit": '"pad"', "channels": "1"}
    told = infer_preprocessing.read_preprocessing(
        {**METADATA, **{f"scalesearch.{key}": value for key, value in more.items()}}
    )
    assert (told.window, told.fit, told.channels) == ((0.0, 4095.0), "pad", 1)


@pytest.mark.parametrize(
    "more", [{"preprocessing": "4"}, {"fit": '"letterbox"'}, {"channels": "4"}], ids=lambda more: next(iter(more))
)
def test_what_this_script_cannot_do_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        infer_preprocessing.read_preprocessing(
            {**METADATA, **{f"scalesearch.{key}": value for key, value in more.items()}}
        )


def test_grey_is_pillows_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(
        infer_images.to_grey(pixels)[..., 0], np.asarray(Image.fromarray(pixels).convert("L"))
    )


def test_the_answers_are_the_engines(files: list[Path], model: OnnxModel) -> None:
    labeller = infer.Labeller(model.path)
    answers = []
    with get_backend("onnxruntime").compile(model, EngineOptions()) as engine:
        for path in files:
            logits = engine.run(ours(path, 64, 8))["logits"][0].astype(np.float64)
            shares = np.exp(logits - logits.max())
            label, probability = labeller.label(path)[0]
            mine = labeller.logits(infer_images.read_input(path, labeller.preprocessing))
            np.testing.assert_array_equal(mine[0], logits.astype(np.float32))
            answers.append(mine.tobytes())
            assert label == NAMES[int(logits.argmax())]
            assert probability == pytest.approx(shares.max() / shares.sum(), rel=1e-9)
    assert len(set(answers)) >= 20, "one answer to every image would compare nothing"


@pytest.mark.parametrize(
    ("precision", "profile"),
    [("fp8", "tensorrt"), ("int8", "tensorrt"), ("int8", "onnxruntime_cpu"), ("fp16", "onnxruntime_cpu")],
)
def test_every_precision_answers_as_it_was_scored(
    tmp_path: Path, precision: Precision, profile: QuantizationProfile
) -> None:
    model = small_model(tmp_path, precision, profile)
    session = infer_versions.open_session(model.path, 1)
    (found,) = session.run(None, {"image": IMAGES})
    with get_backend("onnxruntime").compile(model, EngineOptions()) as engine:
        expected = engine.run(IMAGES)["logits"]
    np.testing.assert_array_equal(found, expected)
    with get_backend("onnxruntime").compile(small_model(tmp_path), EngineOptions()) as plain:
        classes = plain.run(IMAGES)["logits"].argmax(axis=1)
    assert (expected.argmax(axis=1) == classes).mean() > 0.8


def test_the_script_runs_alone_and_imports_no_more_than_it_says(files: list[Path], model: OnnxModel) -> None:
    script = model.path.with_name("infer.py")
    script.write_bytes(TASK.infer_script())
    broken = model.path.with_name("broken.jpg")
    broken.write_bytes(b"no image")
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['infer.py', {str(files[0])!r}, {str(broken)!r}, '--top', '1']\n"
        "try: runpy.run_path('infer.py', run_name='__main__')\n"
        "finally: print(sorted({name.partition('.')[0] for name in sys.modules} &"
        " {'scalesearch', 'torch', 'onnx', 'pandas', 'typer', 'numpy', 'onnxruntime', 'PIL'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=model.path.parent, capture_output=True, text=True, check=False
    )
    label, probability = infer.Labeller(model.path).label(files[0])[0]
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"{files[0]}: {label} {100 * probability:.1f} %",
        "['PIL', 'numpy', 'onnxruntime']",
    ]
    assert "broken.jpg" in done.stderr and "Traceback" not in done.stderr


def test_a_file_without_our_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected an ONNX file with metadata 'scalesearch.preprocessing' = '1'"):
        infer.Labeller(small_model(tmp_path).path)


def test_the_two_decoders_refuse_the_same() -> None:
    assert infer_images.UNREADABLE == UNREADABLE


@pytest.mark.parametrize(("side", "to"), [(64, 63), (64, 1), (5, 3), (100, 99), (224, 160)])
def test_shrinking_is_torchs_own_on_the_hardest_pixels(side: int, to: int) -> None:
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    images[1] = 255 * (images[1] > 127)
    images[2], images[3] = 255, 0
    for channels in (3, 1):
        some = images[..., :channels]
        mine = np.stack([infer_images.shrink(image, (to, to)) for image in some])
        np.testing.assert_array_equal(mine, resize_images(some, to))


def test_the_text_is_python_3_8_and_evaluates_no_newer_type() -> None:
    text = TASK.infer_script().decode()
    tree = ast.parse(text, feature_version=(3, 8))
    first = next(node for node in tree.body if isinstance(node, ast.ImportFrom))
    assert (first.module, first.names[0].name) == ("__future__", "annotations")
    newer = {"removeprefix", "removesuffix", "has_transparency_data", "Resampling.", "zip(strict", "match "}
    assert not [word for word in newer if f".{word}" in text or f"Image.{word}" in text]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert "strict" not in [keyword.arg for keyword in node.keywords], "zip's strict is of Python 3.10"
            assert "slots" not in [keyword.arg for keyword in node.keywords], "dataclass's slots is of Python 3.10"


@pytest.mark.parametrize(
    ("precision", "profile", "needed"),
    [
        ("fp32", "onnxruntime_cpu", "1.14"),
        ("fp16", "onnxruntime_cpu", "1.15"),
        ("int8", "onnxruntime_cpu", "1.14"),
        ("int8", "openvino", "1.14"),
        ("int8", "tensorrt", "1.30"),
        ("fp8", "tensorrt", "1.30"),
        ("bf16", "tensorrt", "1.21"),
    ],
)
def test_each_model_names_the_onnxruntime_that_runs_it(
    tmp_path: Path, precision: Precision, profile: QuantizationProfile, needed: str
) -> None:
    path = small_model(tmp_path, precision, profile).path
    proto = onnx.load(path)
    read = infer_versions.read_versions(path)
    assert (read.ir_version, read.opset) == (proto.ir_version, proto.opset_import[0].version)
    assert infer_versions.onnxruntime_needed(path) == needed
    assert infer_versions.oldest_versions(path) == {**infer_versions.OLDEST, "onnxruntime": needed}


def test_a_runtime_that_is_too_old_is_told_before_it_sees_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load(small_model(tmp_path).path)
    proto.ir_version, proto.opset_import[0].version = 10, 18  # as an older scalesearch wrote it
    path = tmp_path / "old.onnx"
    onnx.save(proto, path)
    monkeypatch.setattr("onnxruntime.__version__", "1.15.1")
    told = r"onnxruntime 1.18 or newer for its IR version 10, opset 18, this is 1.15.1: pip install --upgrade"
    with pytest.raises(ValueError, match=told):
        infer.Labeller(path)
    monkeypatch.setattr("onnxruntime.__version__", "1.18.0")
    with pytest.raises(ValueError, match="metadata"):
        infer.Labeller(path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07", b"\x3a\xff\xff\xff\x7f", b"\xff" * 9])
def test_what_is_no_model_gets_the_runtimes_own_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    infer_versions.ensure_new_enough(path)
    infer_versions.ensure_new_enough(tmp_path / "missing.onnx")
    with pytest.raises((ValueError, IndexError)):
        infer_versions.onnxruntime_needed(path)


@pytest.mark.parametrize(
    ("module", "version", "told"),
    [
        ("PIL", "7.2.0", "pillow 8.0 or newer (this is 7.2.0)"),
        ("numpy", "1.20.3", "numpy 1.21 or newer (this is 1.20.3)"),
        ("onnxruntime", "1.13.1", "onnxruntime 1.14 or newer (this is 1.13.1)"),
    ],
)
def test_packages_that_are_too_old_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: str, version: str, told: str
) -> None:
    assert infer_versions.too_old() == ""
    monkeypatch.setattr(f"{module}.__version__", version)
    monkeypatch.setattr(sys, "argv", ["infer.py", "photo.jpg"])
    assert infer.main() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert told in printed.err and "pip install --upgrade" in printed.err


def test_a_package_that_is_missing_is_told_without_a_traceback(tmp_path: Path) -> None:
    script = tmp_path / "infer.py"
    script.write_bytes(TASK.infer_script())
    code = (
        "import runpy, sys\nsys.modules['onnxruntime'] = None\nsys.argv = ['infer.py', 'x.jpg']\n"
        "runpy.run_path('infer.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "pip install" in done.stderr and "onnxruntime" in done.stderr


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "I", "F"])
def test_transparency_is_what_the_newest_pillow_calls_so(mode: str) -> None:
    image = Image.new(mode, (4, 4))
    clear = image.copy()
    clear.info["transparency"] = 0
    for each in (image, clear):
        assert infer_images.has_transparency(each) == each.has_transparency_data


def test_a_tiff_that_an_old_pillow_turned_is_not_turned_again() -> None:
    image = photo(3)
    image.getexif()[0x0112] = 6
    assert infer_images.turned_upright(image).size == image.size[::-1]
    image._tile_orientation = 6  # type: ignore[attr-defined]  # of Pillow below 10
    assert infer_images.turned_upright(image) is image
