"""Image files of every mode, depth and orientation, and damaged ones."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data.decode import (
    FORMATS,
    UNREADABLE,
    Reading,
    decode,
    decode_square,
    is_on_its_side,
    is_turned,
    to_square,
)
from scalesearch.values.network_spec import InputSize

GREY = 128


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    make: Callable[[], Image.Image]
    suffix: str
    expected: tuple[int, int, int]
    tolerance: int = 2


def _filled(mode: str, color: object) -> Image.Image:
    return Image.new(mode, (40, 30), color)  # type: ignore[arg-type]


def _grey16(value: int) -> Image.Image:
    return Image.fromarray(np.full((30, 40), value, np.uint16))


def _palette() -> Image.Image:
    return _filled("RGB", (200, 30, 60)).quantize(4)


def _palette_with_transparency() -> Image.Image:
    image = Image.new("P", (40, 30), 0)
    image.putpalette([200, 30, 60] + [0] * 765)
    image.info["transparency"] = 0
    return image


CASES = (
    Case(name="rgb", make=lambda: _filled("RGB", (200, 30, 60)), suffix=".png", expected=(200, 30, 60)),
    Case(name="jpeg", make=lambda: _filled("RGB", (200, 30, 60)), suffix=".jpg", expected=(200, 30, 60), tolerance=4),
    Case(name="webp", make=lambda: _filled("RGB", (200, 30, 60)), suffix=".webp", expected=(200, 30, 60), tolerance=6),
    Case(name="grey", make=lambda: _filled("L", GREY), suffix=".png", expected=(GREY,) * 3),
    Case(name="one bit", make=lambda: _filled("1", 1), suffix=".png", expected=(255,) * 3),
    Case(name="palette", make=_palette, suffix=".png", expected=(200, 30, 60)),
    Case(name="gif", make=_palette, suffix=".gif", expected=(200, 30, 60)),
    Case(name="cmyk", make=lambda: _filled("CMYK", (0, 255, 255, 0)), suffix=".jpg", expected=(255, 0, 0), tolerance=6),
    Case(name="16-bit grey", make=lambda: _grey16(GREY * 257), suffix=".png", expected=(GREY,) * 3),
    Case(name="16-bit tiff", make=lambda: _grey16(GREY * 257), suffix=".tif", expected=(GREY,) * 3),
    Case(name="16-bit pgm", make=lambda: _grey16(GREY * 257), suffix=".pgm", expected=(GREY,) * 3),
    Case(name="float", make=lambda: _filled("F", 0.5), suffix=".tif", expected=(GREY,) * 3),
    Case(name="half clear", make=lambda: _filled("RGBA", (0, 0, 0, 127)), suffix=".png", expected=(GREY,) * 3),
    Case(name="grey clear", make=lambda: _filled("LA", (0, 0)), suffix=".png", expected=(255,) * 3),
    Case(name="palette clear", make=_palette_with_transparency, suffix=".png", expected=(255,) * 3),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_mode_becomes_rgb(case: Case, tmp_path: Path) -> None:
    path = tmp_path / f"image{case.suffix}"
    case.make().save(path)
    pixels = decode_square(path, 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(case.expected)).max() <= case.tolerance


def quarters() -> Image.Image:
    """Red, green over blue, white: every turn of it differs."""
    corners = np.asarray([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
    return Image.fromarray(corners.repeat(40, axis=0).repeat(40, axis=1))


@pytest.mark.parametrize(("orientation", "turn"), [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90),
                                                   (8, Image.Transpose.ROTATE_270)])  # fmt: skip
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_exif_orientation_is_undone(orientation: int, turn: Image.Transpose, suffix: str, tmp_path: Path) -> None:
    upright = quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    upright.transpose(turn).save(path, exif=exif)
    expected = to_square(upright, 16)[[2, 2, 13, 13], [2, 13, 2, 13]]
    given = decode_square(path, 16)[[2, 2, 13, 13], [2, 13, 2, 13]]
    assert np.abs(given.astype(int) - expected).max() < 60  # JPEG's colours bleed a little


def test_the_centre_square_is_kept() -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 250
    assert (to_square(Image.fromarray(pixels), 10) == 250).all()


def test_large_jpegs_are_read_small_without_harm(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8))
    large = noise.resize((960, 960), Image.Resampling.BICUBIC)
    large.save(tmp_path / "large.jpg", quality=95)
    difference = decode_square(tmp_path / "large.jpg", 48).astype(int) - to_square(large, 48)
    assert np.abs(difference).mean() < 3


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert decode_square(tmp_path / "moving.gif", 8)[0, 0].tolist() == [255, 0, 0]


def bomb(side_px: int) -> bytes:
    """A PNG of a few kilobytes that claims side_px x side_px pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side_px", [12000, 60000])
def test_decompression_bombs_are_errors(side_px: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side_px))
    with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError)):
        decode_square(tmp_path / "bomb.png", 16)


def test_empty_and_oversized_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ValueError, match="empty file"):
        decode_square(tmp_path / "empty.jpg", 16)
    monkeypatch.setattr("scalesearch.data.decode.MAX_FILE_BYTES", 10)
    (tmp_path / "large.png").write_bytes(bomb(10))
    with pytest.raises(ValueError, match="bytes"):
        decode_square(tmp_path / "large.png", 16)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".webp", ".tif", ".bmp"])
def test_damaged_files_are_read_or_refused_but_never_crash(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"image{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
    image.save(path, exif=exif) if suffix in (".jpg", ".png", ".webp", ".tif") else image.save(path)
    whole = path.read_bytes()
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, min(len(damaged), 400), 6):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert decode_square(path, 8).shape == (8, 8, 3)
        except UNREADABLE:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO"])
def test_a_file_of_another_kind_under_an_images_name_is_not_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (32, 32), "red").save(path, kind)

    def looked(*_: object, **__: object) -> None:
        raise AssertionError("a program was looked for")

    for place in ("shutil.which", "subprocess.check_call", "subprocess.run", "subprocess.Popen"):
        monkeypatch.setattr(place, looked)
    with pytest.raises(OSError, match="cannot identify image file"):
        decode_square(path, 8)
    from scalesearch.tasks.infer_parts import images as infer_images

    with pytest.raises(OSError, match="cannot identify image file"):
        infer_images.decode(path, (8, 8))
    assert infer_images.FORMATS == FORMATS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "MPO"])
def test_every_promised_kind_is_opened_whatever_its_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.gif"
    Image.new("RGB", (32, 32), "red").save(path, kind)
    assert tuple(decode_square(path, 8)[4, 4] // 200) == (1, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_what_exif_turns_is_known_from_the_beginning_of_a_file(kind: str, tmp_path: Path) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, kind, exif=exif)
        assert is_turned(path) == (orientation != 1)
    Image.fromarray(pixels).save(path, kind)
    assert not is_turned(path)
    path.write_bytes(b"no image")
    assert not is_turned(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("side", [64, 2000])
def test_the_size_of_a_turned_photo_is_upright_however_small_it_is_decoded(
    orientation: int, side: int, tmp_path: Path
) -> None:
    path, exif = tmp_path / "photo.jpg", Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (1283, 1281)).save(path, exif=exif)  # at an eighth of its size both sides are equal
    _, fact = decode(path, Reading(size=InputSize.square(side)))
    assert fact.size == ((1281, 1283) if orientation >= 5 else (1283, 1281))
    assert is_on_its_side(path, fact.size) == (orientation >= 5)


def test_an_image_whose_exif_stands_after_its_pixels_lies_on_its_side(tmp_path: Path) -> None:
    path, exif = tmp_path / "late.png", Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    _, fact = decode(path, Reading(size=InputSize.square(16)))
    assert fact.size == (20, 40)
    assert is_on_its_side(path, fact.size)
    path.write_bytes(b"no image")
    assert not is_on_its_side(path, fact.size)
