"""Sizes of images: squares by one number, rectangles by height and width."""

from scalesearch.values.network_spec import InputSize

WIDE = InputSize(height_px=720, width_px=1280)


def test_a_number_stands_for_a_square() -> None:
    assert InputSize.of(64) == InputSize.square(64) == InputSize(height_px=64, width_px=64)
    assert InputSize.of(WIDE) is WIDE


def test_a_square_is_shown_by_one_number_and_a_rectangle_by_two() -> None:
    square = InputSize.square(64)
    assert (square.label, str(square), square.cell) == ("64", "64 px", 64)
    assert (WIDE.label, str(WIDE), WIDE.cell) == ("720x1280", "720x1280 px", "720x1280")


def test_height_comes_first_as_in_arrays() -> None:
    assert (WIDE.sides, WIDE.pixels, WIDE.is_square) == ((720, 1280), 921_600, False)
