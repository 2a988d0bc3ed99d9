"""What is shown of a classifier's classes: the weakest first, and no class without images as the weakest."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from scalesearch.tasks.classification.views import ClassificationViews
from scalesearch.values.quality import ClassDetail
from scalesearch.values.record import MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def record(make_record: MakeRecord) -> MeasuredTrial:
    """A trial whose first class has no validation images, and with it no recall."""
    made = make_record(0, classes=("never there", "strong", "weak"))
    assert isinstance(made.quality.detail, ClassDetail)
    support, recall = (0, 10, 10), (0.0, 0.9, 0.4)
    classes = tuple(
        replace(each, support=images, recall=found)
        for each, images, found in zip(made.quality.classes, support, recall, strict=True)
    )
    return replace(made, quality=replace(made.quality, detail=replace(made.quality.detail, classes=classes)))


def test_a_class_without_images_is_not_among_the_weakest(record: MeasuredTrial) -> None:
    (section,) = ClassificationViews().sections(record)
    assert [name for name, _ in section.lines] == ["weak", "strong"]


def test_the_report_shows_classes_without_images_last(record: MeasuredTrial) -> None:
    part = ClassificationViews().report([record], record)
    rows = re.findall(r"<tr.*?</tr>", part.html, re.DOTALL)[1:]
    assert [re.findall(r">([^<]+)<", row)[0] for row in rows] == ["weak", "strong", "never there"]
    assert (part.data["noun"], part.data["weakest_by"]) == ("images", "recall")
