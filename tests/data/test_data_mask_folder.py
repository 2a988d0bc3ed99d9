"""Folders of images and masks: what is understood, what is counted, what is refused and how that is said."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from scalesearch.data import Dataset, load_dataset, mask_folder, mask_reading
from scalesearch.data.decode import Reading, known_formats
from scalesearch.data.mask_tree import scan_masks
from scalesearch.data.masks import UNLABELLED, Masks
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

SIZE = (20, 30)  # height, width
NAMES = ("sky", "road", "car")


def a_mask(seed: int = 0, values: tuple[int, ...] = (0, 1, 2, UNLABELLED)) -> np.ndarray:
    return np.random.default_rng(seed).choice(values, SIZE).astype(np.uint8)


def put(root: Path, name: str, mask: Image.Image, *, split: str = "train", suffix: str = ".png") -> Path:
    image = root / "images" / split / f"{name}.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(abs(hash(name)) % 2**32)
    Image.fromarray(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
    path = root / "masks" / split / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)
    return path


def folder(root: Path, *, images: int = 12, names: tuple[str, ...] = NAMES) -> Path:
    for place in range(images):
        for split in ("train", "val", "test"):
            put(root, f"{split}{place}", Image.fromarray(a_mask(place)), split=split)
    if names:
        (root / "classes.txt").write_text("\n".join(names))
    return root


STORAGE = InputSize(height_px=10, width_px=15)
READING = Reading(size=STORAGE)


def load(root: Path, *, storage: InputSize = STORAGE, **more: object) -> Dataset:
    settings = DataSettings(source=str(root), calibration_images=4, **more)  # type: ignore[arg-type]
    return load_dataset(settings, (mask_folder.SOURCE,), storage_px=storage, cache_folder=root.parent / "cache")


def masks_of(data: Dataset) -> Masks:
    """Return all training masks of the set, those of calibration too."""
    assert isinstance(data.train.targets, Masks)
    return data.train.targets.joined(data.calibration.targets)  # type: ignore[arg-type]


def everything(masks: Masks) -> list[list[list[int]]]:
    return sorted(masks.own(place).tolist() for place in range(len(masks)))


def test_images_and_masks_in_split_folders(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "t"))
    assert (len(data.train), len(data.val), len(data.calibration), len(data.test)) == (8, 12, 4, 12)
    assert data.class_names == NAMES
    assert everything(masks_of(data)) == sorted(a_mask(place).tolist() for place in range(12))
    assert not data.warnings
    again = load(tmp_path / "t")
    assert again.fingerprint == data.fingerprint
    on_disk = load(tmp_path / "t", memory="disk")
    assert on_disk.on_disk
    assert on_disk.fingerprint == data.fingerprint


def test_ultralytics_yaml_names_folders_and_classes(tmp_path: Path) -> None:
    root = folder(tmp_path / "t", names=())
    (root / "masks").rename(root / "annotated")
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\ntest: images/test\nmasks_dir: annotated\n"
        "names:\n  0: sky\n  1: road\n  2: car\n"
    )
    assert load(root).fingerprint == load(root / "data.yaml").fingerprint
    assert load(root).class_names == NAMES


@pytest.mark.parametrize("nested", [True, False])
def test_other_shapes_of_the_folder(nested: bool, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    if nested:  # train/images and train/masks
        for split in ("train", "val", "test"):
            (root / split).mkdir()
            for kind in ("images", "masks"):
                (root / kind / split).rename(root / split / kind)
        for kind in ("images", "masks"):
            (root / kind).rmdir()
        assert len(load(root).val) == 12
        return
    for split in ("val", "test"):  # images/ and masks/ alone
        for kind in ("images", "masks"):
            for path in (root / kind / split).iterdir():
                path.unlink()
            (root / kind / split).rmdir()
    for kind in ("images", "masks"):
        for path in (root / kind / "train").iterdir():
            path.rename(root / kind / (f"{path.stem}_mask.png" if kind == "masks" else path.name))
        (root / kind / "train").rmdir()
    data = load(root, val_fraction=0.25)
    assert len(data.train) + len(data.val) + len(data.calibration) + len(data.test) == 12


def palette(mask: np.ndarray) -> Image.Image:
    picture = Image.fromarray(mask)
    picture.putpalette([7 * place % 256 for place in range(768)])
    return picture


def in_colours(mask: np.ndarray, table: dict[int, tuple[int, int, int]]) -> Image.Image:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    for value, colour in table.items():
        pixels[mask == value] = colour
    return Image.fromarray(pixels)


WHOLE = a_mask(3, (0, 1, 2))
COLOURS = {0: (70, 130, 180), 1: (128, 64, 128), 2: (0, 0, 142)}


@pytest.mark.parametrize(
    ("picture", "remark"),
    [
        (palette(WHOLE), ""),
        (Image.fromarray(WHOLE.astype(np.uint16)), "1 of 37 masks have 16 bits"),
        (Image.fromarray(WHOLE).convert("RGB"), "1 of 37 masks are RGB with three equal channels"),
        (Image.merge("LA", (Image.fromarray(WHOLE), Image.new("L", SIZE[::-1], 255))), ""),
    ],
)
def test_other_modes_give_the_same_classes(picture: Image.Image, remark: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    put(root, "special", picture)
    data = load(root)
    assert WHOLE.tolist() in everything(masks_of(data))
    assert any(remark in text for text in data.warnings) if remark else not data.warnings


def test_transparent_pixels_have_no_class(tmp_path: Path) -> None:
    seen = np.full(SIZE, 255, np.uint8)
    seen[0] = 0
    root = folder(tmp_path / "t")
    put(root, "special", Image.merge("LA", (Image.fromarray(WHOLE), Image.fromarray(seen))))
    data = load(root)
    wanted = WHOLE.copy()
    wanted[0] = UNLABELLED
    assert wanted.tolist() in everything(masks_of(data))
    assert any("1 of 37 masks have transparent pixels" in text for text in data.warnings)


@pytest.mark.parametrize("where", ["data.yaml", "class_dict.csv", "label_colors.txt"])
def test_colours_are_looked_up(where: str, tmp_path: Path) -> None:
    root = tmp_path / "t"
    for place in range(15):
        put(root, f"{place}", in_colours(a_mask(place, (0, 1, 2)), COLOURS))
    lines = {
        "data.yaml": "names: [sky, road, car]\ncolors: " + json.dumps(list(map(list, COLOURS.values()))),
        "class_dict.csv": "name,r,g,b\n"
        + "\n".join(f"{name},{r},{g},{b}" for name, (r, g, b) in zip(NAMES, COLOURS.values(), strict=True)),
        "label_colors.txt": "\n".join(
            f"{r} {g} {b}\t{name}" for name, (r, g, b) in zip(NAMES, COLOURS.values(), strict=True)
        ),
    }
    (root / where).write_text(lines[where])
    data = load(root)
    assert data.class_names == NAMES
    parts = [data.train, data.val, data.calibration, data.test]
    found = sorted(mask for part in parts for mask in everything(part.targets))  # type: ignore[arg-type]
    assert found == sorted(a_mask(place, (0, 1, 2)).tolist() for place in range(15))


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for place in range(12):
        put(root, f"{place}", Image.fromarray(a_mask(place, (0, 255))))
    data = load(root)
    assert data.class_names == ("background", "foreground")
    assert set(np.unique(data.train.targets.tensor())) == {0, 1}
    assert any("0 and 255 alone, which are read as two classes" in text for text in data.warnings)


def see_through(values: dict[int, int], mode: str = "RGBA") -> Image.Image:
    """Return a mask of rows of grey values, each with its opacity, from top to bottom."""
    grey, alpha = (np.resize(list(each), SIZE[0])[:, None].repeat(SIZE[1], 1) for each in (values, values.values()))
    bands = [Image.fromarray(grey.astype(np.uint8))] * (len(mode) - 1)
    return Image.merge(mode, (*bands, Image.fromarray(alpha.astype(np.uint8))))


OPAQUE_AND_NOT = {0: 255, 255: 255, 40: 0}  # black, white, transparent


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("names", [(), ("ground", "thing")])
def test_transparent_pixels_of_black_and_white_masks_have_no_class(
    mode: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    root = folder(tmp_path / "t", names=names)
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(a_mask(len(path.name), (0, 255))).save(path)
    put(root, "special", see_through(OPAQUE_AND_NOT, mode))
    put(root, "half", see_through({0: 255, 40: 0}, mode))
    put(root, "unseen", see_through({255: 0}, mode))
    put_turned(root, "turned", 6, WHOLE)
    see_through(OPAQUE_AND_NOT, mode).save(root / "masks/train/turned.png")
    for _ in range(2):  # decoded, and from the cache
        data = load(root, fit="stretch")
        found = everything(masks_of(data))
        for rows in ((0, 1, UNLABELLED), (0, UNLABELLED), (UNLABELLED,)):
            assert np.resize(rows, SIZE[0])[:, None].repeat(SIZE[1], 1).tolist() in found
        assert np.resize((0, 1, UNLABELLED), SIZE[0])[None, ::-1].repeat(SIZE[1], 0).tolist() in found
        assert data.class_names == (names or ("background", "foreground"))
        assert any("4 of 40 masks have transparent pixels, which are taken as unlab" in text for text in data.warnings)
        assert any("1 of 40 masks have no labelled pixel: masks/train/unseen.png" in text for text in data.warnings)
        told = "255 as the second; transparent pixels and colours of no class have none (earlier versions: the second)"
        assert any(told in text for text in data.warnings)


def test_a_white_mask_of_a_black_and_white_set_has_labelled_pixels(tmp_path: Path) -> None:
    root = folder(tmp_path / "t", names=("other", "thing"))
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(a_mask(len(path.name), (0, 255))).save(path)
    put(root, "white", Image.fromarray(np.full(SIZE, 255, np.uint8)))
    for _ in range(2):  # decoded, and from the cache
        data = load(root, fit="stretch")
        assert np.ones(SIZE).tolist() in everything(masks_of(data))
        assert not any("no labelled pixel" in line for line in data.warnings)


def test_where_masks_hold_more_than_black_and_white_255_has_no_class_beside_transparency(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    put(root, "special", see_through(OPAQUE_AND_NOT))
    found = everything(masks_of(load(root)))
    assert np.resize((0, UNLABELLED, UNLABELLED), SIZE[0])[:, None].repeat(SIZE[1], 1).tolist() in found


def test_three_named_classes_keep_255_for_no_class_in_black_and_white_masks(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    for path in (root / "masks").rglob("*.png"):
        see_through(OPAQUE_AND_NOT).save(path)
    data = load(root)
    assert np.unique(everything(masks_of(data))).tolist() == [0, UNLABELLED]
    assert data.class_names == NAMES


def test_pixels_of_unknown_colours_are_no_second_class(tmp_path: Path) -> None:
    root = folder(tmp_path / "t", names=())
    black = np.zeros((*SIZE, 3), np.uint8)
    black[0, :3] = 9  # half a percent
    for path in (root / "masks").rglob("*.png"):
        Image.fromarray(black).save(path)
    put(root, "white", Image.fromarray(np.full((*SIZE, 3), 255, np.uint8)))
    (root / "class_dict.csv").write_text("name,r,g,b\nsky,0,0,0\nroad,255,255,255\n")
    assert np.unique(everything(masks_of(load(root)))).tolist() == [0, 1, UNLABELLED]
    (root / "masks/train/white.png").unlink()
    (root / "images/train/white.jpg").unlink()
    assert np.unique(everything(masks_of(load(root)))).tolist() == [0, UNLABELLED]


@pytest.mark.parametrize("names", [(), ("ground", "thing")])
def test_one_value_on_a_transparent_ground_is_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    root = folder(tmp_path / "t", names=names)
    for path in (root / "masks").rglob("*.png"):
        see_through({0: 255, 40: 0}).save(path)
    with pytest.raises(
        ConfigError, match="came one value beside transparent pixels, which have no class: masks/train/"
    ):
        load(root)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    data = load(folder(tmp_path / "t", names=()))
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert any("nothing names the classes" in text for text in data.warnings)


def put_turned(root: Path, name: str, orientation: int, mask: np.ndarray, *, split: str = "train") -> None:
    """Write an image of SIZE that EXIF turns, and a mask that it does not."""
    pixels = np.random.default_rng(orientation).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    held = Image.Exif()
    held[0x0112] = orientation
    put(root, name, Image.fromarray(mask), split=split)
    Image.fromarray(pixels).save(root / f"images/{split}/{name}.jpg", exif=held)


def exif(root: Path) -> None:
    """Turn an image by EXIF, but not its mask."""
    put_turned(root, "turned", 6, WHOLE)


def small(root: Path) -> None:
    put(root, "small", Image.fromarray(WHOLE[::2, ::2]))


def empty(root: Path) -> None:
    put(root, "empty", Image.fromarray(np.full(SIZE, UNLABELLED, np.uint8)))


def spare(root: Path) -> None:
    Image.fromarray(WHOLE).save(root / "masks/train/spare.png")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (exif, "1 of 37 masks lie as the file of their image does, and are turned as its EXIF says: "),
        (small, "1 of 37 masks have another size than their image, of the same shape: "),
        (empty, "1 of 37 masks have no labelled pixel: "),
        (spare, "1 masks have no image"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_odd_is_counted_and_named(fault: object, words: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    fault(root)  # type: ignore[operator]
    data = load(root, fit="stretch")
    assert any(words in text for text in data.warnings), data.warnings
    if fault is exif:
        turned = np.asarray(Image.fromarray(WHOLE).transpose(Image.Transpose.ROTATE_270))
        assert turned.tolist() in everything(masks_of(data))


UPSIDE_DOWN = a_mask(4, (0, 1, 2))


@pytest.mark.parametrize(
    ("others", "turns", "words"),
    [
        ("none", False, "1 of 37 masks belong to images that EXIF turns to the same shape: they must be those of the "),
        ("as files", True, "2 of 38 masks lie as the file of their image does, and are turned as its EXIF says: "),
        ("upright", False, ""),
        ("both", False, "1 of 39 masks belong to images that EXIF turns to the same shape: they must be those of the "),
    ],
)
def test_masks_of_images_that_keep_their_shape_lie_as_those_whose_shape_tells(
    others: str, turns: bool, words: str, tmp_path: Path
) -> None:
    root = folder(tmp_path / "t")
    put_turned(root, "half", 3, UPSIDE_DOWN)
    if others in ("as files", "both"):
        put_turned(root, "quarter", 6, WHOLE)
    if others in ("upright", "both"):
        put_turned(root, "other_quarter", 8, np.rot90(WHOLE), split="val")
    data = load(root, fit="stretch")
    assert (UPSIDE_DOWN[::-1, ::-1].tolist() in everything(masks_of(data))) == turns
    assert (UPSIDE_DOWN.tolist() in everything(masks_of(data))) == (not turns)
    assert any(words in text for text in data.warnings) if words else not data.warnings
    assert load(root, fit="stretch").warnings == data.warnings  # from the cache


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_are_turned_as_pillow_turns_their_images(orientation: int, tmp_path: Path) -> None:
    root, square = folder(tmp_path / "t"), a_mask(5, (0, 1, 2))[:, :20]
    put_turned(root, "telling", 6, WHOLE)
    put_turned(root, "special", orientation, square)
    picture, held = Image.fromarray(square), Image.Exif()
    held[0x0112] = orientation
    picture.save(tmp_path / "special.png", exif=held)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images/train/special.jpg", exif=held)
    with Image.open(tmp_path / "special.png") as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored))
    assert wanted.tolist() in everything(masks_of(load(root, fit="stretch")))


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("orientation", [3, 5])
def test_of_a_mask_that_is_turned_the_part_is_kept_that_its_turned_image_shows(
    orientation: int, turns: bool, tmp_path: Path
) -> None:
    """The crop to 10 x 15 takes 13 of 20 rows: 3 above them, 4 below."""
    root, square = folder(tmp_path / "t"), a_mask(5, (0, 1, 2))[:, :20]
    put_turned(root, "telling", 6, WHOLE if turns else np.rot90(WHOLE))
    put_turned(root, "special", orientation, square)
    held = Image.Exif()
    held[0x0112] = orientation
    Image.new("RGB", (20, 20)).save(root / "images/train/special.jpg", exif=held)
    lies = {3: square[::-1, ::-1], 5: square.T}[orientation] if turns else square
    assert lies[3:16].tolist() in everything(masks_of(load(root)))


def test_masks_are_not_held_as_they_are_while_a_folder_is_read(tmp_path: Path) -> None:
    root, number, side = folder(tmp_path / "t", images=1), 40, 512
    for place in range(number):
        mask, held = Image.fromarray(np.full((side, side), place % 3, np.uint8)), Image.Exif()
        if place % 4 == 0:  # whether the mask lies as its file does shows only once all are read
            held[0x0112] = 3
        if place % 4 == 1:  # what 255 stands for in it, too
            mask = Image.merge("LA", (Image.new("L", (side, side)), Image.linear_gradient("L").resize((side, side))))
        put(root, f"large{place}", mask)
        Image.new("RGB", (side, side)).save(root / f"images/train/large{place}.jpg", exif=held)
    settings = DataSettings(source=str(root))
    mask_folder.load(settings, storage=STORAGE, cache_folder=tmp_path / "first")  # imports what it needs
    tracemalloc.start()
    try:
        data = mask_folder.load(settings, storage=STORAGE, cache_folder=tmp_path / "second")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(data.train) == number + 1
    assert peak < number * side * side


@pytest.mark.parametrize("ending", ["_mask", "_seg", "_label", "_gt", "_L"])
def test_a_mask_of_the_images_own_name_is_found_whatever_it_ends_in(ending: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    put(root, f"a{ending}", Image.fromarray(WHOLE))
    put(root, "b", Image.fromarray(UPSIDE_DOWN))
    (root / "masks/train/b.png").rename(root / f"masks/train/b{ending}.png")
    data = load(root)
    assert not data.warnings
    assert WHOLE.tolist() in everything(masks_of(data))
    assert UPSIDE_DOWN.tolist() in everything(masks_of(data))
    put(root, f"b{ending}", Image.fromarray(UPSIDE_DOWN))  # the mask is its own now, and none is left for b
    with pytest.raises(ConfigError, match=r"none for 1 of 39: images/train/b\.jpg"):
        load(root)


def broken(root: Path) -> None:
    (root / "masks/train/train3.png").write_bytes(b"no picture")


def missing(root: Path) -> None:
    (root / "masks/train/train3.png").unlink()


@pytest.mark.parametrize(
    ("fault", "words"),
    [(broken, "1 of 36: masks/train/train3.png"), (missing, "none for 1 of 36: images/train/train3.jpg")],
)
def test_pairs_that_cannot_be_used_are_an_error_or_counted(fault: object, words: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    fault(root)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="data.max_skipped_fraction") as caught:  # noqa: RUF043
        load(root)
    assert words in str(caught.value)
    data = load(root, max_skipped_fraction=0.1)
    assert len(data.train) + len(data.calibration) == 11
    assert any("train3" in text for text in data.warnings)


def jpeg(root: Path) -> None:
    put(root, "bad", Image.fromarray(WHOLE), suffix=".jpg")


def avif(root: Path) -> None:
    put(root, "bad", Image.fromarray(WHOLE).convert("RGB"), suffix=".avif")


def webp(root: Path) -> None:
    put(root, "bad", Image.fromarray(WHOLE), suffix=".webp")


def webp_with_more(root: Path) -> None:
    held = Image.Exif()
    held[0x0131] = "scissors"
    Image.fromarray(WHOLE).save(put(root, "bad", Image.fromarray(WHOLE), suffix=".webp"), exif=held)


def webp_with_frames(root: Path) -> None:
    picture = Image.fromarray(WHOLE).convert("RGB")
    path = put(root, "bad", picture, suffix=".webp")
    picture.save(path, save_all=True, append_images=[ImageOps.invert(picture)])
    assert b"ANMF" in path.read_bytes()


def tiff(root: Path) -> None:
    Image.fromarray(WHOLE).save(put(root, "bad", Image.fromarray(WHOLE), suffix=".tif"), compression="jpeg")


def beyond(root: Path) -> None:
    put(root, "bad", Image.fromarray(np.where(WHOLE == 2, 7, WHOLE).astype(np.uint8)))


def instances(root: Path) -> None:
    put(root, "bad", Image.fromarray((1000 * WHOLE.astype(np.uint16)).astype(np.uint16)))


def colours(root: Path) -> None:
    put(root, "bad", in_colours(WHOLE, COLOURS))


def other_shape(root: Path) -> None:
    put(root, "bad", Image.fromarray(WHOLE[:, :15]))


def blurred_colours(root: Path) -> None:
    colours(root)
    (root / "class_dict.csv").write_text("name,r,g,b\nsky,1,2,3\nroad,4,5,6\ncar,7,8,9")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (jpeg, "masks/train/bad.jpg (JPEG, which blurs class numbers)"),
        pytest.param(
            avif,
            "masks/train/bad.avif (AVIF, which blurs class numbers)",
            marks=pytest.mark.skipif("AVIF" not in known_formats(), reason="this Pillow reads no AVIF"),
        ),
        (webp, "masks/train/bad.webp (lossy WebP, which blurs class numbers)"),
        (webp_with_more, "masks/train/bad.webp (lossy WebP, which blurs class numbers)"),
        (webp_with_frames, "masks/train/bad.webp (lossy WebP, which blurs class numbers)"),
        (tiff, "masks/train/bad.tif (TIFF of JPEG, which blurs class numbers)"),
        (beyond, "expected values from 0 to 2 (the 3 classes) and 255, came 7 in 1 masks: masks/train/bad.png"),
        (instances, "masks/train/bad.png (the value 2000, which is no class number"),
        (colours, "masks/train/bad.png (3 colours ((0, 0, 142), (70, 130, 180), (128, 64, 128), ...) and no table"),
        (other_shape, "masks/train/bad.png (15 x 20 for an image of 30 x 20)"),
        (blurred_colours, "masks/train/bad.png (colours of no class on 100 % of its pixels, e.g. (0, 0, 142))"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_masks_that_cannot_be_understood_are_refused(fault: object, words: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    fault(root)  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load(root, max_skipped_fraction=1.0)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("more", ["nothing", "exif", "frames", "tiff"])
def test_masks_of_lossless_webp_and_tiff_are_read(more: str, tmp_path: Path) -> None:
    root, picture, held = folder(tmp_path / "t"), Image.fromarray(WHOLE).convert("RGB"), Image.Exif()
    held[0x0131] = "scissors"
    path = put(root, "special", picture, suffix=".tif" if more == "tiff" else ".webp")
    if more == "frames":
        picture.save(path, lossless=True, save_all=True, append_images=[ImageOps.invert(picture)])
    elif more == "tiff":
        picture.save(path, compression="tiff_deflate")
    elif more == "exif":
        picture.save(path, lossless=True, exif=held)
    else:
        picture.save(path, lossless=True)
    assert WHOLE.tolist() in everything(masks_of(load(root)))


def test_lossy_masks_that_an_earlier_version_kept_in_the_cache_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "t")
    with monkeypatch.context() as earlier:
        earlier.setattr(mask_folder, "MAY_BE_LOSSY", ())
        earlier.setattr(mask_reading, "_lossy", lambda image, path: "")
        png_only = mask_folder._key(scan_masks(root), READING)
        put(root, "bad", Image.fromarray(np.full(SIZE, 1, np.uint8)), suffix=".webp")
        load(root)
    with pytest.raises(ConfigError, match="lossy WebP"):
        load(root)
    for path in root.rglob("bad.*"):
        path.unlink()
    assert mask_folder._key(scan_masks(root), READING) == png_only  # other sets are not read again


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: (root / "apples").mkdir(parents=True), "a folder of images and one of masks in it, came apples/"),
        (lambda root: folder(root) and (root / "data.yaml").write_text("names: [a, a]"), "different names of classes"),
        (lambda root: folder(root) and (root / "data.yaml").write_text("names: {1: a, 2: b}"), "by numbers from 0"),
        (lambda root: folder(root) and (root / "data.yaml").write_text("["), "expected a data.yaml, came"),
        (
            lambda root: folder(root) and (root / "data.yaml").write_text("names: [no, road, car]"),
            "came False, as YAML",
        ),
        (lambda root: folder(root) and (root / "data.yaml").write_text("names: {0: a, 1: 2.5}"), "came 2.5, as YAML"),
        (lambda root: folder(root) and (root / "data.yaml").write_text("colors: 3"), "as a list of [red, green, blue]"),
    ],
)
def test_folders_that_say_something_else_are_refused(make: object, words: str, tmp_path: Path) -> None:
    make(tmp_path / "t")  # type: ignore[operator]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "t")
    assert words in str(caught.value)


YAML = "names: [sky, road, car]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: images/train\nval: images/vall\n", "one folder of images for val, came 'images/vall', which is none"),
        ("train: image/train\nval: images/val\n", "one folder of images for train, came 'image/train', which is none"),
        ("train: images/train\nval: [images/val]\n", "images for val, came ['images/val'], which is none"),
        ("train: train.txt\n", "images for train, came 'train.txt', which is none"),
        ("trian: images/train\nval: images/val\ntest: images/test\n", "expected the key train beside those of other"),
    ],
)
def test_a_data_yaml_whose_splits_lead_nowhere_is_refused(text: str, words: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    (root / "train.txt").write_text("images/train/train0.jpg\n")
    (root / "data.yaml").write_text(YAML + text)
    with pytest.raises(ConfigError) as caught:
        load(root)
    assert words in str(caught.value)
    assert str(root / "data.yaml") in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    "text",
    [
        "path: /nowhere/else\ntrain: images/train\nval: images/val\ntest:\n",
        "train: ../images/train\nvalid: ../images/val\n",  # as Roboflow writes it
    ],
)
def test_a_data_yaml_of_another_place_is_read_from_its_own(text: str, tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    (root / "data.yaml").write_text(YAML + text)
    data = load(root)
    assert len(data.val) == 12
    assert len(data.train) + len(data.calibration) + len(data.test) == 12  # test is drawn from train


def test_test_images_that_were_left_out_are_noted(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    (root / "data.yaml").write_text(f"{YAML}train: images/train\nval: images/val\ntest: ../images/gone\n")
    data = load(root)
    assert len(data.train) + len(data.calibration) + len(data.test) == 12
    (told,) = [line for line in data.warnings if "images for test" in line]
    assert "'../images/gone', which is none. Test images are taken from the others" in told


def test_masks_of_another_usual_name_are_found_beside_the_images_of_data_yaml(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    plain = load(root)
    (root / "masks").rename(root / "annotations")
    (root / "data.yaml").write_text(f"{YAML}train: ../images/train\nval: ../images/val\ntest: ../images/test\n")
    assert load(root).fingerprint == plain.fingerprint


def unlabelled(root: Path, split: str) -> None:
    for path in (root / "masks" / split).iterdir():
        Image.fromarray(np.full(SIZE, UNLABELLED, np.uint8)).save(path)


def test_test_masks_without_a_labelled_pixel_are_left_out_and_validation_ones_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    unlabelled(root, "test")
    data = load(root)
    assert len(data.train) + len(data.calibration) + len(data.test) == 12
    assert data.test.targets.class_counts(3).all()
    assert any("none of its 12 test images is labelled, so they are left out" in text for text in data.warnings)
    unlabelled(root, "val")
    with pytest.raises(ConfigError, match="came none in the 12 images of val"):
        load(root)


PALETTE = [channel for colour in COLOURS.values() for channel in colour]


def table(root: Path) -> None:
    lines = "\n".join(f"{name},{r},{g},{b}" for name, (r, g, b) in zip(NAMES, COLOURS.values(), strict=True))
    (root / "class_dict.csv").write_text(f"name,r,g,b\n{lines}")


def test_colours_of_a_table_are_matched_with_the_names_of_data_yaml(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for place in range(15):
        put(root, f"{place}", in_colours(a_mask(place, (0, 1, 2)), COLOURS))
    lines = [f"{name},{r},{g},{b}" for name, (r, g, b) in zip(NAMES, COLOURS.values(), strict=True)]
    (root / "class_dict.csv").write_text("\n".join(["name,r,g,b", *reversed(lines)]))
    (root / "data.yaml").write_text("names: [Sky, road, car]\n")
    data = load(root)
    assert data.class_names == ("Sky", "road", "car")
    parts = [data.train, data.val, data.calibration, data.test]
    found = sorted(mask for part in parts for mask in everything(part.targets))  # type: ignore[arg-type]
    assert found == sorted(a_mask(place, (0, 1, 2)).tolist() for place in range(15))
    (root / "data.yaml").write_text("names: [sky, road, lorry]\n")
    with pytest.raises(
        ConfigError, match=r"class_dict\.csv: expected the 3 classes .* came 3 of .* car, lorry"
    ) as caught:
        load(root)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_palette_is_looked_up_where_there_is_a_table(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    mixed = Image.fromarray(np.where(WHOLE == 2, UNLABELLED, 2 - WHOLE).astype(np.uint8))
    # Entries 2 and 1 are sky and road; entry 255, of a colour that the table lacks, is no class.
    mixed.putpalette([*PALETTE[6:], *PALETTE[3:6], *PALETTE[:3], *[0] * 756, 224, 224, 192])
    put(root, "special", mixed)
    table(root)
    data = load(root)
    wanted = np.where(WHOLE == 2, UNLABELLED, WHOLE)
    assert wanted.tolist() in everything(masks_of(data))
    assert not data.warnings


def test_a_palette_of_other_colours_than_the_table_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "t")
    put(root, "bad", palette(WHOLE))
    load(root)  # without a table, the palette means nothing
    table(root)
    with pytest.raises(ConfigError) as caught:
        load(root)
    told = str(caught.value)
    assert "masks/train/bad.png (mode P, whose palette gives colours of no class on 100 % of its pixels, e.g. (" in told
    assert "take the table away" in told
    assert len(told.splitlines()) <= 3


def pixels_told(data: Dataset) -> list[str]:
    return [text for text in data.warnings if "of the labelled pixels" in text]


@pytest.mark.parametrize("white", [1, 255], ids=["classes", "black and white"])
def test_labelled_pixels_that_the_centre_crop_takes_are_told(white: int, tmp_path: Path) -> None:
    """Of 20 x 30 pixels a square keeps the 20 columns in the middle; one mask is labelled beside them alone."""
    root = tmp_path / "t"
    for place in range(12):
        mask = np.zeros(SIZE, np.uint8)
        mask[:, 15:] = white
        put(root, f"{place}", Image.fromarray(mask))
    aside = np.full((*SIZE, 2), (0, 0), np.uint8)  # grey and alpha
    aside[:, :5, 1] = 255
    put(root, "aside", Image.fromarray(aside))
    square = InputSize.square(16)
    share = 100 * (12 * 20 * 10 + 20 * 5) / (12 * 600 + 20 * 5)
    told = (
        f"data {root}: {share:.1f} % of the labelled pixels lie outside the centre crop to 16 px: neither trained "
        "on nor scored, which leaves 1 of 13 images without any; --set data.fit=pad keeps all"
    )
    for memory in ("ram", "ram", "disk"):  # the second time from the cache
        assert pixels_told(load(root, storage=square, memory=memory)) == [told]
    for fit in ("pad", "stretch"):
        assert not pixels_told(load(root, storage=square, fit=fit))


def test_masks_of_cropped_images_that_an_earlier_version_stored_are_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "t")
    decoded = mask_folder._decode

    def uncounted(*given: object) -> dict[str, object]:
        arrays = dict(decoded(*given))  # type: ignore[arg-type]
        del arrays["uncropped"]
        return arrays  # type: ignore[return-value]

    with monkeypatch.context() as earlier:
        earlier.setattr(mask_folder, "_decode", uncounted)
        before = load(root, storage=InputSize.square(16))
    assert not pixels_told(before)
    now = load(root, storage=InputSize.square(16))
    assert now.fingerprint == before.fingerprint
    assert pixels_told(now)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_mask_shows_what_its_image_does(fit: str, tmp_path: Path) -> None:
    """The image is drawn from its mask: where they are framed alike, both still agree."""
    root = tmp_path / "t"
    for place in range(12):
        left = np.zeros(SIZE, np.uint8)
        left[:, : 10 + place] = 1
        put(root, f"{place}", Image.fromarray(left))
        Image.fromarray(np.repeat(200 * left[..., None], 3, axis=2)).save(
            root / f"images/train/{place}.jpg", quality=95
        )
    data = load(root, storage=InputSize.square(16), fit=fit)
    images, masks = data.train.images[:].mean(axis=3), data.train.targets.tensor().numpy()
    sure = (masks != UNLABELLED) & ((images < 30) | (images > 170))
    bars = masks == UNLABELLED
    assert ((images > 100) == (masks == 1))[sure & ~bars].all()
    assert sure.mean() > 0.6 * (1 - bars.mean())
    assert bars.any() == (fit == "pad")
    if fit == "pad":
        assert np.abs(images[bars] - 114).max() < 12
