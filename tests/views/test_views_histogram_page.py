import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from loading import loaded

from scalesearch.values.histogram import LayerHistogram, TensorHistogram
from scalesearch.views.histogram_figure import overview_figure
from scalesearch.views.histogram_page import clipped_text, range_text, sqnr_text, summary, write_histogram_page
from scalesearch.views.histogram_picture import draw_histograms, histogram_figure

_TENSOR = TensorHistogram(
    low=-1.0,
    high=1.0,
    first_edge=-1.0,
    last_edge=1.0,
    counts=(1, 20, 79, 0),
    clip_low=-1.0,
    clip_high=1.0,
    clipped_fraction=0.0,
    sqnr_db=40.0,
)
_LAYER = LayerHistogram(
    name="stages.0.body.0",
    node="Conv_0",
    kind="Conv",
    shape=(16, 3, 3, 3),
    weights=_TENSOR,
    activations=replace(
        _TENSOR, low=0.0, first_edge=0.0, clip_low=0.0, clip_high=0.5, clipped_fraction=0.012, sqnr_db=25.0
    ),
    within_99=0.7,
)
NETWORK = (_LAYER, replace(_LAYER, name="<script>alert(1)</script>", within_99=0.2), replace(_LAYER, name="head"))


def test_numbers_in_words() -> None:
    assert range_text(-0.0, 1.23456) == "0 .. 1.23"
    assert sqnr_text(replace(_TENSOR, sqnr_db=None)) == "exact"
    assert clipped_text(replace(_TENSOR, clipped_fraction=0.000512)) == "0.051 %"
    assert clipped_text(_TENSOR) == "none"


def test_the_summary_names_what_to_look_at() -> None:
    lossy = replace(NETWORK[2], activations=replace(_TENSOR, sqnr_db=12.34), weights=replace(_TENSOR, sqnr_db=None))
    first, weights, activations = summary((*NETWORK[:2], lossy))
    assert first == "1 of 3 layers keep 99 % of their weights in a quarter of the range: <script>alert(1)</script>"
    assert weights == "weights lose most at stages.0.body.0: signal over rounding noise 40.0 dB"
    assert activations == "activations lose most at head: signal over rounding noise 12.3 dB"
    many = summary([replace(NETWORK[1], name=f"layer{number}") for number in range(11)])[0]
    assert many.endswith("layer6, layer7 and 3 more")
    exact = replace(_TENSOR, sqnr_db=None)
    assert len(summary([replace(_LAYER, weights=exact, activations=exact)])) == 1


@pytest.fixture
def page(tmp_path: Path) -> str:
    write_histogram_page(NETWORK, tmp_path / "page.html", "first & <last>")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_runs_and_loads_nothing_and_names_are_text(page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert not re.search(r"<script|<link|<iframe|<object|\son\w+=|src=|href=|url\(|@import", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<h1>first &amp; &lt;last&gt;</h1>" in page


def test_the_page_has_a_row_for_each_layer_and_marks_the_wasted(page: str) -> None:
    table = page[page.index("<tbody>") : page.index("</table>")]
    body = ElementTree.fromstring(table.replace("<br>", "<br/>"))
    rows = body.findall("tr")
    assert [row.get("class") for row in rows] == [None, "wasted", None]
    assert [len(row.findall(".//svg")) for row in rows] == [2, 2, 2]
    words = "".join(rows[1].itertext())
    for part in ("Conv 16x3x3x3", "99 % within 20 %", "SQNR 40.0 dB", "wasted range", "clipped 1.2 %", "clip 0 .. 0.5"):
        assert part in words
    assert "wasted range" not in "".join(rows[0].itertext())


def test_a_histogram_is_drawn_to_scale(page: str) -> None:
    """Of four bins on 300 x 60 px with 1, 20, 79 and no values, the third reaches the top, the first 60 / 79 px."""
    dark = re.findall(r'<path d="(M[^"]*Z)" fill="#0072B2"/>', page)[0]
    assert dark == "M0.0 60V59.2H75.0V44.8H150.0V0.0H225.0V60.0H300.0V60Z"
    # clipped above the middle of 0..1: red from there on, and a dashed line
    assert '<rect x="150.0" width="150.0" height="60" fill="#f6cdb4"/>' in page
    assert '<path d="M150.0 0V60"' in page


def test_the_page_is_small(tmp_path: Path) -> None:
    layers = [
        replace(_LAYER, name=f"layer{number}", weights=replace(_TENSOR, counts=tuple(range(64))))
        for number in range(60)
    ]
    write_histogram_page(layers, tmp_path / "page.html", "sixty layers")
    assert (tmp_path / "page.html").stat().st_size < 400_000


@pytest.mark.slow
def test_the_picture_is_a_png_that_grows_with_the_layers(tmp_path: Path) -> None:
    sizes = []
    for count in (1, 5):
        draw_histograms([NETWORK[1]] * count, tmp_path / "histogram.png", r"$\frac{ 標識")
        content = (tmp_path / "histogram.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        sizes.append((int.from_bytes(content[16:20]), int.from_bytes(content[20:24])))
    assert sizes[0][0] == sizes[1][0] == 1650
    assert sizes[1][1] > sizes[0][1] + 200
    assert [path.name for path in tmp_path.iterdir()] == ["histogram.png"]


def test_the_picture_shows_each_layer_twice_and_says_what_is_wasted() -> None:
    figure = histogram_figure(NETWORK, "study")
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown[::2]] == [f"{layer.name}  Conv 16x3x3x3" for layer in NETWORK]
    assert [axes.get_title(loc="left") for axes in shown[1::2]] == ["reads 0 .. 1, clip 0 .. 0.5"] * 3
    notes = [axes.texts[0].get_text() for axes in shown]
    assert ["WASTED" in note for note in notes] == [False, False, True, False, False, False]
    assert notes[1] == "25.0 dB\nclipped 1.2 %"
    assert [text.get_text() for text in figure.texts][:2] == ["study", summary(NETWORK)[0]]


def test_the_overview_is_a_line_for_each_layer_with_inert_names() -> None:
    figure = json.loads(overview_figure(NETWORK, "trial <7>").to_json())
    weights, read, *marks = figure["data"]
    assert [len(weights["z"]), len(read["z"]), len(weights["z"][0])] == [3, 3, 4]
    assert weights["z"][0][3] == 0 and weights["z"][0][2] == max(weights["z"][0]) < 1
    assert (weights["x0"], weights["dx"]) == (-0.75, 0.5)
    assert [mark["x"] for mark in marks] == [[-0.7, -0.2, -0.7], [0.7, 0.2, 0.7], [0, 0, 0], [0.5, 0.5, 0.5]]
    labels = figure["layout"]["yaxis"]["ticktext"]
    assert labels[1] == "<b>&lt;script&gt;alert(1)&lt;/script&gt;, wasted</b>"
    assert "<script" not in json.dumps(figure)
    assert figure["layout"]["title"]["text"].startswith("trial &lt;7&gt;<br>1 of 3 layers")


def test_a_clip_range_beyond_all_values_has_no_mark() -> None:
    symmetric = replace(NETWORK[0], activations=replace(NETWORK[0].activations, clip_low=-0.5))
    marks = json.loads(overview_figure([symmetric], "t").to_json())["data"][4:]
    assert [mark["x"] for mark in marks] == [[None], [0.5]]


def test_nothing_heavy_is_loaded_before_it_is_drawn() -> None:
    code = "\n".join(f"import scalesearch.views.histogram_{kind}" for kind in ("page", "picture", "figure"))
    assert not loaded(code, of={"matplotlib", "plotly", "numpy", "torch", "optuna"})
