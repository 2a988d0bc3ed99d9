import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from scalesearch.values.record import MeasuredTrial
from scalesearch.views.class_picture import draw_classes

SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_is_inert_xml_with_a_curve_and_two_bars_a_class(
    make_record: Callable[..., MeasuredTrial], tmp_path: Path
) -> None:
    names = ("<script>alert(1)</script>", '"onload="x', "bell \x07", "a\u2028b")
    draw_classes(make_record(4, classes=names), tmp_path / "classes.svg")
    root = ElementTree.parse(tmp_path / "classes.svg").getroot()
    assert {element.tag for element in root.iter()} == {
        f"{SVG}{name}" for name in ("svg", "rect", "text", "path", "polyline")
    }
    assert len(root.findall(f"{SVG}polyline")) == 4
    bars = [float(bar.attrib["width"]) for bar in root.findall(f"{SVG}rect")[1:]]
    assert len(bars) == 8
    # Recall of the weakest class is 0.8 - 3 x 0.03, on 200 px.
    assert bars[0] == 142.0
    words = [element.text for element in root.findall(f"{SVG}text")]
    assert "<script>alert(1)</script>"[:24] + "..." in words
