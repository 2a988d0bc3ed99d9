"""Boxes as targets: they move with their images, are split, joined and told apart by their content."""

import numpy as np
import pytest
from PIL import Image

from scalesearch.data.boxes import NO_CLASS, Boxes, CropLosses, ImageBoxes, boxes_at, no_boxes, placed, placement
from scalesearch.data.framing import framed
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

WIDE = InputSize(height_px=32, width_px=64)


def one_box(*sides: float, label: int = 0, ignored: bool = False) -> ImageBoxes:
    return ImageBoxes(boxes=np.asarray([sides], np.float32), classes=np.asarray([label]), ignored=np.asarray([ignored]))


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (128, 64)])
def test_boxes_go_where_the_pixels_go(fit: Fit, shape: tuple[int, int]) -> None:
    width, height = shape
    picture = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = width // 2 - 10, height // 2 - 8, width // 2 + 12, height // 2 + 6
    picture[top:bottom, left:right] = 255
    moved = np.asarray(framed(Image.fromarray(picture), WIDE, fit))[..., 0] > 130
    rows, columns = np.flatnonzero(moved.any(axis=1)), np.flatnonzero(moved.any(axis=0))
    seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    box = np.asarray([[left, top, right, bottom]], np.float32)
    expected = placed(box, placement(width, height, WIDE, fit))[0]
    np.testing.assert_allclose(expected, seen, atol=1.0)


def test_boxes_return_to_their_original_pixels() -> None:
    given = one_box(10, 20, 50, 40)
    for fit in ("stretch", "pad"):
        found = boxes_at([given], np.asarray([[100, 60]]), WIDE, fit).at(InputSize(height_px=16, width_px=32))
        np.testing.assert_allclose(found.original(0).boxes, given.boxes, rtol=1e-5)


def test_what_leaves_the_picture_is_cut_ignored_or_dropped() -> None:
    # The centre crop of 100 x 20 to 2:1 keeps x from 30 to 70, at a scale of 1.6.
    images = [one_box(30, 0, 50, 20), one_box(20, 0, 50, 20), one_box(20, 0, 33, 20), one_box(0, 0, 20, 20)]
    found = boxes_at(images, np.tile([100, 20], (4, 1)), WIDE, "crop")
    np.testing.assert_allclose(found.boxes[0, 0], [0, 0, 32, 32])
    np.testing.assert_allclose(found.boxes[1, 0], [0, 0, 32, 32])
    assert found.ignored[:, 0].tolist() == [False, False, True, False]
    assert found.classes[:, 0].tolist() == [0, 0, 0, NO_CLASS]


def test_what_the_centre_crop_takes_is_counted_and_said() -> None:
    # The centre crop of 100 x 20 to 2:1 keeps x from 30 to 70.
    images = [one_box(30, 0, 50, 20), one_box(20, 0, 33, 20), one_box(0, 0, 20, 20), no_boxes()]
    images.append(one_box(0, 0, 20, 20, ignored=True))
    sizes, losses = np.tile([100, 20], (len(images), 1)), CropLosses()
    boxes_at(images, sizes, WIDE, "crop", losses)
    assert losses == CropLosses(boxes=3, outside=1, mostly=1, images=5, emptied=2)
    assert losses.warnings("plates", WIDE, "crop") == (
        "data plates: 1 of 3 boxes lie outside the centre crop to 32x64 px, 1 more mostly: neither trained on nor "
        "scored, which leaves 2 of 5 images without any; --set data.fit=pad keeps all",
    )
    (few,) = CropLosses(boxes=9, mostly=2, images=5).warnings("plates", WIDE, "crop")
    assert few.startswith(
        "data plates: 2 of 9 boxes lie mostly outside the centre crop to 32x64 px: neither trained on"
    )
    for fit in ("pad", "stretch"):
        losses = CropLosses()
        boxes_at(images, sizes, WIDE, fit, losses)
        assert (losses.outside, losses.mostly, losses.emptied) == (0, 0, 0)


def several() -> Boxes:
    images = [one_box(0, 0, 8, 8, label=2), no_boxes(), one_box(4, 4, 9, 9, label=1), one_box(1, 1, 5, 5, label=1)]
    return boxes_at(images, np.tile([64, 32], (4, 1)), WIDE, "stretch")


def test_parts_and_joins_keep_each_image_with_its_boxes() -> None:
    boxes = several()
    two = ImageBoxes(boxes=np.asarray([[0, 0, 3, 3]] * 2, np.float32), classes=np.zeros(2, np.int64),
                     ignored=np.zeros(2, np.bool_))  # fmt: skip
    other = boxes_at([two], np.asarray([[64, 32]]), WIDE, "stretch")
    joined = boxes[np.asarray([2, 0])].joined(other)
    assert joined.classes.tolist() == [[1, NO_CLASS], [2, NO_CLASS], [0, 0]]
    with pytest.raises(ValueError, match="cannot be joined"):
        boxes.joined(boxes.at(InputSize(height_px=16, width_px=32)))


def test_content_depends_on_boxes_and_not_on_padding() -> None:
    boxes = several()
    padded = boxes._padded(5)
    assert b"".join(boxes.content()) == b"".join(padded.content())
    other = boxes.boxes.copy()
    other[0, 0, 0] += 1
    changed = Boxes(
        boxes=other, classes=boxes.classes, ignored=boxes.ignored, placements=boxes.placements,
        originals=boxes.originals, size=boxes.size,
    )  # fmt: skip
    assert b"".join(boxes.content()) != b"".join(changed.content())


def test_strata_are_the_rarest_classes() -> None:
    assert several().class_counts(4).tolist() == [0, 2, 1, 0]
    both = ImageBoxes(boxes=np.asarray([[0, 0, 4, 4], [5, 5, 9, 9]], np.float32), classes=np.asarray([1, 2]),
                      ignored=np.zeros(2, np.bool_))  # fmt: skip
    mixed = several().joined(boxes_at([both], np.asarray([[64, 32]]), WIDE, "stretch"))
    assert mixed.strata().tolist() == [3, 0, 2, 2, 3]  # 1 + class; 0 without boxes


def test_the_tensor_tells_size_boxes_and_classes() -> None:
    rows = several().tensor()
    assert rows.shape == (4, 2, 6)
    assert rows[:, 0].tolist() == [[0, 0, 64, 32, NO_CLASS, 0]] * 4
    assert rows[2, 1].tolist() == [4, 4, 9, 9, 1, 0]
    assert rows[1, 1, 4] == NO_CLASS
