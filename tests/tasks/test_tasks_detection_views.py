"""What is shown of a detector: boxes from its own threshold on, and what it takes for something else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from scalesearch.data.boxes import NO_CLASS
from scalesearch.tasks.base import ReportingViews
from scalesearch.tasks.detection.task import TASK
from scalesearch.tasks.detection.views import DetectionViews
from scalesearch.tasks.pictures import CAPTION_PX, Pixels
from scalesearch.values.quality import ClassQuality, DetectionDetail, Quality
from scalesearch.values.record import MeasuredTrial

RecordFactory = Callable[..., MeasuredTrial]
NAMES = ("cat", "<b>dog|")


def quality_of(threshold: float) -> Quality:
    """Return a quality whose mistakes are told: four cats were taken for dogs, two dogs missed, five boxes made up."""
    classes = tuple(
        ClassQuality(name=name, support=9, precision=0.5, recall=0.5, average_precision=0.4, curve=((0.0, 1.0),))
        for name in NAMES
    )
    detail = DetectionDetail(
        threshold=threshold, precision=0.5, recall=0.5, f1=0.5, map50=0.5, map75=0.3, small=None, medium=0.4,
        large=None, classes=classes, confusion=((5, 4, 0), (0, 7, 2), (5, 0, 0)), map50_95=0.4,
    )  # fmt: skip
    return Quality(score=0.4, score_low=0.3, score_high=0.5, images=20, metric="map50_95", detail=detail)


def answer_half(views: DetectionViews) -> Pixels:
    """Return the drawn answer, without its caption, for an image with one box whose score is 0.5."""
    image, raw = np.full((1, 32, 320, 3), 90, np.uint8), np.full((1, 7, 40 * 4 + 20 * 2 + 10), -20.0, np.float32)
    raw[0, :4, 45], raw[0, 4, 45], raw[0, -1, 45] = 1.0, 20.0, 0.0
    targets = torch.tensor([[[0, 0, 320, 32, NO_CLASS, 0]]], dtype=torch.float32)
    (picture,) = views.draw_targets(image, targets, NAMES, outputs={"raw": raw})
    return picture[:-CAPTION_PX, -320:]


@pytest.mark.parametrize(("threshold", "drawn"), [(0.45, True), (0.55, False), (0.2, True)])
def test_boxes_are_drawn_from_the_member_s_own_threshold_on(threshold: float, drawn: bool) -> None:
    views = TASK.views()
    assert isinstance(views, ReportingViews)
    own = views.with_quality(quality_of(threshold))
    assert isinstance(own, DetectionViews)
    assert bool((answer_half(own) != 90).any()) == drawn


def test_without_a_threshold_of_its_own_a_quarter_is_enough() -> None:
    views = DetectionViews()
    assert (answer_half(views) != 90).any()
    plain = Quality(score=0.4, score_low=0.3, score_high=0.5, images=20, metric="map50_95")
    assert views.with_quality(plain) is views


def test_report_and_card_tell_what_is_taken_for_something_else(make_record: RecordFactory) -> None:
    record = make_record(7, quality=quality_of(0.4))
    html = DetectionViews().report([make_record(6, quality=quality_of(0.3)), record], record).html
    assert "Taken for something else by trial 7 at its threshold" in html
    for line in (
        "cat: 4 times reported as &lt;b&gt;dog|", "missed: 2 objects", "made up: 5 reports where there is no object",
    ):  # fmt: skip
        assert f"<li>{line}</li>" in html
    card = DetectionViews().card(record, None).details
    told = card.index("Taken for something else at that threshold, on the validation images:")
    assert card[told + 1 : told + 5] == (
        "",
        "* cat: 4 times reported as &lt;b&gt;dog\\|",
        "* missed: 2 objects",
        "* made up: 5 reports where there is no object",
    )


def test_the_page_is_told_what_it_counts_and_which_class_is_weakest(make_record: RecordFactory) -> None:
    part = DetectionViews().report([make_record(6, quality=quality_of(0.3))], None)
    assert (part.data["noun"], part.data["weakest_by"]) == ("objects", "average")
