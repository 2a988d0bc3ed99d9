from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from scalesearch.values.record import MeasuredTrial
from scalesearch.views.comparison_picture import draw_fronts
from scalesearch.views.front_picture import png


def test_every_study_is_in_the_legend_whatever_its_name(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Figure]()

    def kept(figure: Figure) -> bytes:
        drawn.append(figure)
        return png(figure)

    monkeypatch.setattr("scalesearch.views.comparison_picture.png", kept)
    front = [make_record(0, top1=0.5, p50_ms=1.0), make_record(1, top1=0.7, p50_ms=2.0)]
    names = ["_first", "$second$", "third"]
    draw_fronts(dict.fromkeys(names, front), to=tmp_path / "fronts.png", title="Fronts")
    legend = drawn[0].axes[0].get_legend()
    assert legend and [text.get_text() for text in legend.get_texts()] == names
