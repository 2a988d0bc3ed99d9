"""What data.yaml and tables beside the masks say of classes and their colours: each colour goes to its own class."""

from pathlib import Path

import pytest

from scalesearch.data.mask_description import classes_of, described_in
from scalesearch.errors import ConfigError

RED, GREEN, BLUE = "[200, 0, 0]", "[0, 200, 0]", "[0, 0, 200]"
NAMES = "names: [road, sky, car]\n"
BY_CLASS = {(200, 0, 0): 0, (0, 200, 0): 1, (0, 0, 200): 2}


def told(root: Path, **files: str) -> tuple[tuple[str, ...], object, tuple[str, ...]]:
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return classes_of(root, described_in(root, root))


@pytest.mark.parametrize(
    "colors",
    [
        f"[{RED}, {GREEN}, {BLUE}]",
        f"{{0: {RED}, 1: {GREEN}, 2: {BLUE}}}",
        f"{{2: {BLUE}, 0: {RED}, 1: {GREEN}}}",
        f"{{road: {RED}, sky: {GREEN}, car: {BLUE}}}",
        f"{{sky: {GREEN}, car: {BLUE}, road: {RED}}}",
        f"{{Road: {RED}, Sky: {GREEN}, Car: {BLUE}}}",
    ],
)
def test_colours_go_to_the_class_of_their_place_number_or_name(colors: str, tmp_path: Path) -> None:
    names, colours, _ = told(tmp_path, data__yaml=f"{NAMES}colors: {colors}\n")
    assert names == ("road", "sky", "car")
    assert colours == BY_CLASS


@pytest.mark.parametrize(
    ("colors", "wanted"),
    [
        (f"{{0: {RED}, 2: {BLUE}}}", {(200, 0, 0): 0, (0, 0, 200): 2}),
        (f"{{1: {RED}, 2: {BLUE}}}", {(200, 0, 0): 1, (0, 0, 200): 2}),
        (f"{{0: {RED}, 1: {GREEN}, 255: {BLUE}}}", {(200, 0, 0): 0, (0, 200, 0): 1, (0, 0, 200): 255}),
    ],
)
def test_numbers_are_the_classes_themselves_and_255_is_none(
    colors: str, wanted: dict[tuple[int, int, int], int], tmp_path: Path
) -> None:
    assert told(tmp_path, data__yaml=f"{NAMES}colors: {colors}\n")[1] == wanted


def test_colours_by_name_go_by_the_names_of_another_file(tmp_path: Path) -> None:
    colors = f"colors: {{car: {BLUE}, road: {RED}, sky: {GREEN}}}\n"
    names, colours, notes = told(tmp_path, data__yaml=colors, classes__txt="road\nsky\ncar\n")
    assert (names, colours) == (("road", "sky", "car"), BY_CLASS)
    (note,) = notes
    assert "colors go by their keys (earlier versions: by the order of the sorted keys)" in note


def test_what_earlier_versions_read_alike_is_not_noted(tmp_path: Path) -> None:
    assert not told(tmp_path, data__yaml=f"{NAMES}colors: {{0: {RED}, 1: {GREEN}, 2: {BLUE}}}\n")[2]
    assert not told(tmp_path, data__yaml=f"names: [car, road]\ncolors: {{road: {RED}, car: {BLUE}}}\n")[2]


@pytest.mark.parametrize(
    ("colors", "words"),
    [
        (f"{{road: {RED}, sky: {GREEN}}}", "the 3 classes that are named already, came 2 of which not all"),
        (f"{{road: {RED}, sky: {GREEN}, lorry: {BLUE}}}", "not all are the same: car, lorry"),
        (f"{{1: {RED}, 2: {GREEN}, 3: {BLUE}}}", "keys of colors from 0 to 2, the numbers of the classes, or 255"),
        (f"{{-1: {RED}, 0: {GREEN}}}", "colors of classes from 0 to 254, came one of class -1"),
        (f"{{0: {RED}, sky: {GREEN}}}", "or their numbers, came both: 'sky' and 0"),
        (f"{{no: {RED}, sky: {GREEN}, car: {BLUE}}}", "came False, as YAML reads it"),
        (f"{{1.5: {RED}}}", "came 1.5, as YAML reads it"),
        ("{road: red, sky: green, car: blue}", "as a list of [red, green, blue], one a class, or as a table"),
        ("['123', '456', '789']", "as a list of [red, green, blue], one a class, or as a table"),
        (f"[{RED}, {GREEN}, [0, 0, 256]]", "colours from 0 to 255, came (0, 0, 256) for car"),
        (f"[{', '.join([RED] * 257)}]", "came one of class 256"),
    ],
)
def test_colours_whose_class_is_not_clear_are_refused(colors: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        told(tmp_path, data__yaml=f"{NAMES}colors: {colors}\n")
    assert words in str(caught.value)
    assert str(tmp_path / "data.yaml") in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_colours_by_name_without_names_are_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"came none\.\nAdd them .* names: \[road, sky\]"):
        told(tmp_path, data__yaml=f"colors: {{road: {RED}, sky: {GREEN}}}\n")


def test_an_empty_table_is_none(tmp_path: Path) -> None:
    assert told(tmp_path, data__yaml=f"{NAMES}colors: []\n")[1] is None


@pytest.mark.parametrize(
    "files",
    [
        {"data__yaml": "names: [car, plate, sky]\ncolors: [[0, 0, 142], [0, 0, 142], [1, 1, 1]]\n"},
        {"data__yaml": "names: [car, plate]\ncolors: {plate: [0, 0, 142], car: [0, 0, 142]}\n"},
        {"class_dict__csv": "name,r,g,b\ncar,0,0,142\nsky,1,1,1\nplate,0,0,142\n"},
        {"label_colors__txt": "0 0 142\tcar\n0 0 142\tplate\n"},
        {"data__yaml": "names: [plate, car]\n", "class_dict__csv": "car,0,0,142\nplate,0,0,142\n"},
    ],
)
def test_two_classes_of_one_colour_are_refused_with_both_and_the_colour(files: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        told(tmp_path, **files)
    words = str(caught.value)
    assert "came (0, 0, 142) for car, plate." in words or "came (0, 0, 142) for plate, car." in words
    assert str(tmp_path / list(files)[-1].replace("__", ".")) in words
    assert len(words.splitlines()) <= 3


def test_entries_of_a_palette_beyond_the_names_take_no_colour_of_a_class(tmp_path: Path) -> None:
    padded = f"names: [road, sky]\ncolors: [[0, 0, 0], {GREEN}{', [0, 0, 0]' * 9}, {BLUE}]\n"
    assert told(tmp_path, data__yaml=padded)[1] == {(0, 0, 0): 0, (0, 200, 0): 1, (0, 0, 200): 11}


ROWS = "road,200,0,0\nsky,0,200,0\ncar,0,0,200\n"


@pytest.mark.parametrize("header", ["name,r,g,b", "name,red,green,blue", "Class, Red, Green, Blue", "label,rgb", ""])
def test_a_first_line_without_numbers_is_a_header(header: str, tmp_path: Path) -> None:
    names, colours, _ = told(tmp_path, class_dict__csv=f"{header}\n{ROWS}")
    assert names == ("road", "sky", "car")
    assert colours == BY_CLASS


def test_a_header_of_words_alone_and_lines_that_are_none(tmp_path: Path) -> None:
    rows = "200 0 0 road\n0 200 0 sky\n0 0 200 car\n"
    names, colours, _ = told(tmp_path, label_colors__txt=f"Red Green Blue Name\n{rows}")
    assert (names, colours) == (("road", "sky", "car"), BY_CLASS)
    (tmp_path / "label_colors.txt").write_text(f"background\n{rows}")  # a class whose colour is missing
    assert told(tmp_path)[0] == ("background", "road", "sky", "car")
    (tmp_path / "label_colors.txt").write_text("traffic light, red\nroad\nsky\n")
    assert told(tmp_path)[0] == ("traffic light red", "road", "sky")
