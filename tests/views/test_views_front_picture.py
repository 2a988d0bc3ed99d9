from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loading import loaded
from matplotlib.collections import PathCollection

from scalesearch.errors import NoFeasibleTrialError
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.views.front_picture import draw_front, front_picture

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def records(make_record: MakeRecord) -> list[TrialRecord]:
    return [
        make_record(0, top1=0.7, p50_ms=1.0, precision="int8"),
        make_record(1, top1=0.9, p50_ms=4.0),
        make_record(2, top1=0.6, p50_ms=2.0),
        make_record(3, top1=0.95, p50_ms=12.0, excess=0.5),
        make_record(4, top1=None),
        make_record(5, top1=0.7, p50_ms=1.0, state="cached", same_as=0, charged=False),
    ]


def test_picture_is_a_png_of_useful_size(records: list[TrialRecord], tmp_path: Path) -> None:
    draw_front(records, front={0, 1}, to=tmp_path / "front.png", title="study", caption="signs (synthetic)", knee=0)
    content = (tmp_path / "front.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert (int.from_bytes(content[16:20]), int.from_bytes(content[20:24])) == (1350, 840)
    assert [path.name for path in tmp_path.iterdir()] == ["front.png"]


def test_figure_shows_every_measured_trial_once_and_labels_the_front(records: list[TrialRecord]) -> None:
    figure = front_picture(records, front={0, 1}, title="study", caption="signs (synthetic)", knee=1)
    axes = figure.axes[0]
    clouds = [cloud for cloud in axes.collections if isinstance(cloud, PathCollection)]
    drawn = sorted((float(x), float(y)) for cloud in clouds for x, y in np.asarray(cloud.get_offsets()))
    # The two lesser trials and the knee's ring; the cached trial and the failed one are not there.
    assert drawn == [(2.0, 60.0), (4.0, 90.0), (12.0, 95.0)]
    assert [text.get_text() for text in axes.texts] == ["0", "1"]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "fp32",
        "int8",
        "front, with 95 % intervals",
        "dominated",
        "breaks a limit",
        "knee: best trade",
        "limit 2 ms",  # 1 ms with an excess of -0.5
    ]
    assert axes.get_xscale() == "log"


def test_axes_name_every_metric_and_latency_that_is_drawn(make_record: MakeRecord) -> None:
    one, other = make_record(0), make_record(1, p50_ms=2.0)
    other = replace(
        other,
        quality=replace(other.quality, metric="map50"),
        latency=replace(other.latency, objective="end_to_end"),
    )
    axes = front_picture([one, other], front={0, 1}, title="studies").axes[0]
    assert axes.get_ylabel() == "top-1 accuracy / mAP50 of the deployed engine, %"
    kinds = ("p50 latency, ms, of the deployed engine", "end-to-end latency, ms, post-processing included")
    assert axes.get_xlabel() == f"{' / '.join(kinds)} (batch 1, log scale)"


def test_caption_names_device_and_data(records: list[TrialRecord]) -> None:
    caption = front_picture(records, front={0, 1}, title="study", caption="signs (synthetic)").get_supxlabel()
    assert caption == "AMD EPYC (2 cores), onnxruntime 1.32.0, 1 thread  |  signs (synthetic)"


def test_names_are_text_and_neither_formulas_nor_a_reason_to_fail(make_record: MakeRecord, tmp_path: Path) -> None:
    draw_front([make_record(0)], front={0}, to=tmp_path / "front.png", title=r"$\frac{ 標識", caption="100 $ and 50 $_")
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_nothing_measured_is_said(make_record: MakeRecord, tmp_path: Path) -> None:
    with pytest.raises(NoFeasibleTrialError, match="study: no trial has both a score and a latency"):
        draw_front([make_record(0, top1=None)], front=(), to=tmp_path / "front.png", title="study")


def test_matplotlib_loads_only_when_drawing() -> None:
    assert not loaded("import scalesearch.views.front_picture", of={"matplotlib", "pandas"})
