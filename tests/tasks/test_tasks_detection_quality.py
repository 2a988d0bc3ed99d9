"""The metric of detection: what it keeps, and the numbers that it tells beside the score."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.data.boxes import Boxes, ImageBoxes, boxes_at
from scalesearch.errors import StageFailed
from scalesearch.tasks.detection.decoding import (
    Detections,
    decode_answers,
    overlaps,
    points_of,
    strides_for,
    suppressed,
)
from scalesearch.tasks.detection.quality import MOST_TIMED, MeanAveragePrecision
from scalesearch.tasks.detection.task import TASK
from scalesearch.tasks.detection.views import DetectionViews
from scalesearch.values.network_spec import InputSize
from scalesearch.values.quality import DetectionDetail, Quality

SIZE = InputSize(height_px=64, width_px=96)
STRIDES = (8, 16, 32)
POINTS = sum(SIZE.pixels // stride**2 for stride in STRIDES)
NAMES = ("cat", "dog")
ORIGINAL = np.asarray([[192, 128]])
"""Images were twice as large before."""


def answers(*found: tuple[tuple[float, ...], int, float]) -> NDArray[np.float32]:
    """Return raw answers (1, 7, points) for boxes in pixels of the input, with their class and logit."""
    raw = np.full((1, 7, POINTS), -20, np.float32)
    points, strides = points_of(SIZE.sides, STRIDES)
    free = np.ones(POINTS, bool)
    for box, label, logit in found:
        inside = free & (points > box[:2]).all(1) & (points < box[2:]).all(1) & (strides == 8)
        place = int(np.flatnonzero(inside)[0])
        free[place] = False
        raw[0, :4, place] = np.concatenate([points[place] - box[:2], box[2:] - points[place]]) / 8
        raw[0, 4 + label, place], raw[0, -1, place] = 20, logit
    return raw


def truth(*boxes: tuple[tuple[float, ...], int, bool]) -> Boxes:
    held = ImageBoxes(
        boxes=2 * np.asarray([box for box, _, _ in boxes], np.float32).reshape(-1, 4),
        classes=np.asarray([label for _, label, _ in boxes], np.int64),
        ignored=np.asarray([ignored for _, _, ignored in boxes], np.bool_),
    )
    return boxes_at([held], ORIGINAL, SIZE, "stretch")


LEFT, RIGHT, LOW = (8.0, 8.0, 40.0, 40.0), (50.0, 8.0, 90.0, 56.0), (10.0, 44.0, 30.0, 60.0)


def measured(*images: tuple[NDArray[np.float32], Boxes]) -> MeanAveragePrecision:
    metric = MeanAveragePrecision(NAMES)
    for raw, boxes in images:
        metric.update({"raw": raw}, boxes)
    return metric


def detail_of(metric: MeanAveragePrecision) -> DetectionDetail:
    detail = metric.result().detail
    assert isinstance(detail, DetectionDetail)
    return detail


def test_perfect_answers_score_one() -> None:
    metric = measured(
        (answers((LEFT, 0, 5.0), (RIGHT, 1, 4.0)), truth((LEFT, 0, False), (RIGHT, 1, False))),
        (answers(), truth()),
    )
    assert metric.score() == pytest.approx(1)
    detail = detail_of(metric)
    assert (detail.precision, detail.recall, detail.map50, detail.map75) == pytest.approx((1, 1, 1, 1))
    assert detail.f1 == pytest.approx(1)
    # 64 x 64 and 80 x 96 pixels of the original images, so both are of medium size.
    assert [detail.small, detail.large] == [None, None]
    assert detail.medium == pytest.approx(1)
    assert detail.confusion == ((1, 0, 0), (0, 1, 0), (0, 0, 0))


def test_mistakes_are_counted_as_what_they_are() -> None:
    metric = measured(
        (answers((LEFT, 1, 5.0), (RIGHT, 1, 4.0)), truth((LEFT, 0, False), (RIGHT, 1, False), (LOW, 0, False))),
        (answers((LOW, 1, 3.0)), truth()),
    )
    # cat: taken for a dog once, missed once; dog: found, and once made up; the threshold is that of the best F1.
    detail = detail_of(metric)
    assert detail.threshold == pytest.approx(1 / (1 + np.exp(-4)), abs=2e-3)
    assert detail.confusion == ((0, 1, 1), (0, 1, 0), (0, 0, 0))
    cat, dog = detail.classes
    assert (cat.support, cat.recall, cat.average_precision) == (2, 0, 0)
    assert (dog.support, dog.recall) == (1, 1)
    assert dog.precision == pytest.approx(1 / 2)


def test_detections_in_ignored_regions_count_for_nothing() -> None:
    kept = (answers((LEFT, 0, 5.0), (RIGHT, 1, 4.0)), truth((LEFT, 0, False), (RIGHT, 1, True)))
    assert measured(kept).score() == pytest.approx(1)
    assert detail_of(measured(kept)).confusion == ((1, 0, 0), (0, 0, 0), (0, 0, 0))


def test_a_class_without_objects_counts_in_no_mean() -> None:
    boxes = truth((LEFT, 0, False), (RIGHT, 1, False))
    two, three = MeanAveragePrecision(NAMES), MeanAveragePrecision((*NAMES, "thing"))
    raw = answers((LEFT, 0, 5.0), (LOW, 1, 4.0))
    more = np.insert(raw, 6, -20, axis=1)
    more[0, :4, :9], more[0, 6, :9], more[0, -1, :9] = 1, 20, 4  # things, of which there are none
    two.update({"raw": raw}, boxes)
    three.update({"raw": more}, boxes)
    assert three.score() == two.score() == pytest.approx(1 / 2)  # the cat is found, the dog is not
    detail, quality = detail_of(three), three.result()
    assert detail.map50 == pytest.approx(1 / 2)
    assert (quality.score_low, quality.score_high) == (two.result().score_low, two.result().score_high)
    assert [entry.support for entry in detail.classes] == [1, 1, 0]
    record = SimpleNamespace(quality=quality)
    _, weakest, _ = DetectionViews().sections(record)  # type: ignore[arg-type]  # it reads nothing else
    assert [name for name, _ in weakest.lines] == ["dog", "cat"]


def test_without_answers_or_objects_there_is_no_score() -> None:
    with pytest.raises(StageFailed, match="at least one image"):
        MeanAveragePrecision(NAMES).score()
    with pytest.raises(StageFailed, match="at least one object"):
        measured((answers(), truth())).score()


def test_answers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StageFailed, match=r"expected answers of shape \(1, 7, points\)"):
        measured((answers()[:, :6], truth()))
    broken = answers()
    broken[0, 0, 0] = np.nan
    with pytest.raises(StageFailed, match="expected finite raw"):
        measured((broken, truth()))


def test_doubts_about_few_objects_and_networks_that_found_nothing() -> None:
    few, nothing = measured((answers(), truth((LEFT, 0, False)))).doubts()
    assert "only 1 objects" in few
    assert "hardly learnt" in nothing


def test_only_a_hundred_detections_of_an_image_are_kept() -> None:
    raw = np.random.default_rng(0).normal(0, 1, (1, 7, POINTS)).astype(np.float32)
    (found,) = decode_answers(raw, SIZE.sides)
    assert 0 < len(found.scores) <= 100
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [96, 64, 96, 64]).all()


def test_suppression_is_that_of_torchvision() -> None:
    import torch

    ops = pytest.importorskip("torchvision.ops")
    random = np.random.default_rng(1)
    corner = random.uniform(0, 60, (200, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 40, (200, 2))], axis=1).astype(np.float32)
    labels = random.integers(0, 3, 200)
    scores = np.linspace(1, 0, 200, dtype=np.float32)
    expected = ops.batched_nms(*(torch.from_numpy(each) for each in (boxes, scores, labels)), 0.6)
    np.testing.assert_array_equal(suppressed(boxes, labels), expected.numpy())
    np.testing.assert_allclose(
        overlaps(boxes[:9], boxes), ops.box_iou(*map(torch.from_numpy, (boxes[:9], boxes))).numpy(), atol=1e-5
    )


def test_strides_follow_from_the_number_of_points() -> None:
    for strides in ((8, 16, 32), (8,), (8, 16), (16, 32)):
        assert strides_for(SIZE.sides, sum(SIZE.pixels // stride**2 for stride in strides)) == strides
    with pytest.raises(ValueError, match="have 7 points"):
        strides_for(SIZE.sides, 7)


def test_objects_that_are_found_in_the_mirror_too_allow_mirroring() -> None:
    import torch

    scene = (LEFT, 0, False), (LOW, 1, False)
    turned = [((96 - box[2], box[1], 96 - box[0], box[3]), label, 5.0) for box, label, _ in scene]
    rows = truth(*scene).tensor().repeat(12, 1, 1)
    plain = torch.from_numpy(answers(*((box, label, 5.0) for box, label, _ in scene))).repeat(12, 1, 1)
    same = torch.from_numpy(answers(*turned)).repeat(12, 1, 1)
    swapped = torch.from_numpy(answers(*((box, 1 - label, logit) for box, label, logit in turned))).repeat(12, 1, 1)
    assert TASK.mirror_verdict([plain], [same], rows, NAMES).flip
    verdict = TASK.mirror_verdict([plain], [swapped], rows, NAMES)
    assert not verdict.flip
    assert "lost in the mirror: cat (12 of 12), dog (12 of 12)" in verdict.words
    unused = torch.zeros(12, 3, plain.shape[2]) - 20  # classes of which there is no object say nothing
    wider = [torch.cat([each[:, :-1], unused, each[:, -1:]], dim=1) for each in (plain, same)]
    assert TASK.mirror_verdict(wider[:1], wider[1:], rows, (*NAMES, "x", "y", "z")).flip
    nothing = torch.from_numpy(answers()).repeat(12, 1, 1)
    assert "too few classes to tell" in TASK.mirror_verdict([nothing], [nothing], rows, NAMES).words


def test_post_processing_is_what_an_export_does_at_the_exported_threshold() -> None:
    images = [
        (answers((LEFT, 1, 5.0), (RIGHT, 1, 4.0)), truth((LEFT, 0, False), (RIGHT, 1, False))),
        (answers((LOW, 1, -0.5), (RIGHT, 0, -3.0)), truth((LOW, 1, False))),
    ]
    metric = measured(*images)
    threshold = detail_of(metric).threshold
    # The best F1 keeps the detection with a score of 0.38, and not that with 0.05.
    assert threshold == pytest.approx(1 / (1 + np.exp(0.5)), abs=2e-3)
    calls = metric.postprocessing()
    assert len(calls) == 2
    for call, (raw, _) in zip(calls, images, strict=True):
        found = call()
        assert isinstance(found, Detections)
        (expected,) = decode_answers(raw, SIZE.sides)
        kept = expected.above(threshold)
        np.testing.assert_allclose(found.boxes, 2 * kept.boxes, atol=1e-4)
        np.testing.assert_array_equal(found.classes, kept.classes)
        np.testing.assert_array_equal(found.scores, kept.scores)


def test_of_many_images_some_are_timed_and_the_engine_may_use_its_memory_again() -> None:
    metric, raw = MeanAveragePrecision(NAMES), np.zeros((1, 7, POINTS), np.float32)
    for place in range(MOST_TIMED + 40):
        raw[:] = answers((LEFT if place % 2 else RIGHT, 0, 5.0))
        metric.update({"raw": raw}, truth((LEFT, 0, False)))
    metric.result()
    found = [call() for call in metric.postprocessing()]
    assert len(found) == MOST_TIMED
    assert len({tuple(each.boxes[0]) for each in found if isinstance(each, Detections)}) == 2


def test_reports_of_nothing_are_counted_from_the_threshold_on() -> None:
    detail = detail_of(measured((answers((LEFT, 0, 5.0)), truth((LEFT, 0, False)))))
    half = Quality(score=1, score_low=1, score_high=1, images=1, detail=replace(detail, threshold=0.5))
    sure, unsure = answers((LEFT, 0, 2.0), (RIGHT, 1, 3.0)), answers((LEFT, 0, -2.0))
    assert measured((sure, truth())).made_up(half) == 2
    assert measured((unsure, truth())).made_up(half) == 0
    assert measured((sure, truth((LEFT, 0, True)))).made_up(half) == 1  # nobody asks for what is ignored
    assert measured((sure, truth((LEFT, 0, False), (RIGHT, 0, False)))).made_up(half) == 0
    assert measured((unsure, truth())).made_up(replace(half, detail=replace(detail, threshold=0.1))) == 1
