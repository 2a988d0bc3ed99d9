"""Average precision by COCO's rules: equal to pycocotools and to faster-coco-eval on the same detections."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.tasks.detection import average_precision
from scalesearch.tasks.detection.average_precision import (
    OVERLAPS,
    SIZES,
    BoxesByClass,
    Matches,
    Truth,
    average_precisions,
    curve,
)
from scalesearch.tasks.detection.decoding import Detections
from scalesearch.tasks.detection.objectives import ScoreObjective, mean_of

CLASSES, IMAGES = 3, 60
Boxes = NDArray[np.float32]


def boxes(random: np.random.Generator, number: int) -> Boxes:
    """Return boxes in an image of 400 x 300 px, from small to large."""
    corner = random.uniform(0, 1, (number, 2)) * [300, 200]
    sides = np.exp(random.uniform(np.log(8), np.log(180), (number, 2)))
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def made_up(seed: int) -> tuple[list[Truth], list[Detections]]:
    """Return objects, some of them crowds, and detections: near them, of wrong class, twice, or anywhere."""
    random, truths, found = np.random.default_rng(seed), [], []
    for _ in range(IMAGES):
        number = int(random.integers(0, 7))
        truth = Truth(
            boxes=boxes(random, number),
            classes=random.integers(0, CLASSES - (seed % 2), number),
            ignored=random.random(number) < 0.15,
        )
        near = np.repeat(truth.boxes, 2, axis=0) + random.normal(0, 6, (2 * number, 4)).astype(np.float32)
        labels = np.repeat(truth.classes, 2)
        labels[random.random(2 * number) < 0.2] = random.integers(0, CLASSES)
        stray = int(random.integers(0, 9))
        all_boxes = np.concatenate([near, boxes(random, stray)])
        all_boxes[:, 2:] = np.maximum(all_boxes[:, 2:], all_boxes[:, :2] + 1)
        scores = random.uniform(0, 1, len(all_boxes)).round(2).astype(np.float32)  # with ties
        order = np.argsort(-scores, kind="stable")
        labels = np.concatenate([labels, random.integers(0, CLASSES, stray)])
        truths.append(truth)
        found.append(Detections(all_boxes[order], labels[order].astype(np.int64), scores[order]))
    return truths, found


def as_coco(truths: list[Truth], found: list[Detections]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    def wide(box: Boxes) -> list[float]:
        left, top, right, bottom = (float(side) for side in box)
        return [left, top, right - left, bottom - top]

    annotations = [
        {"image_id": image, "category_id": int(label), "bbox": wide(box), "iscrowd": int(crowd),
         "area": wide(box)[2] * wide(box)[3]}
        for image, truth in enumerate(truths)
        for box, label, crowd in zip(truth.boxes, truth.classes, truth.ignored, strict=True)
    ]  # fmt: skip
    document = {
        "info": {},
        "images": [{"id": image, "width": 400, "height": 300} for image in range(len(truths))],
        "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations, 1)],
    }
    results = [
        {"image_id": image, "category_id": int(label), "bbox": wide(box), "score": float(score)}
        for image, answer in enumerate(found)
        for box, label, score in zip(answer.boxes, answer.classes, answer.scores, strict=True)
    ]
    return document, results


def match(truths: list[Truth], found: list[Detections], label: int, size: str = "all") -> Matches:
    return BoxesByClass(truths, found).match(label, size)[0]


def ours(truths: list[Truth], found: list[Detections]) -> list[float]:
    """Return mAP50-95, mAP50, mAP75 and those of small, medium and large objects."""
    by_size = {
        size: np.stack([average_precisions(match(truths, found, label, size)) for label in range(CLASSES)])
        for size in SIZES
    }
    whole = by_size["all"]
    return [
        mean_of(whole), float(np.nanmean(whole[:, 0])), float(np.nanmean(whole[:, 5])),
        *(mean_of(by_size[size]) for size in ("small", "medium", "large")),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed: int) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    truths, found = made_up(seed)
    document, results = as_coco(truths, found)
    with contextlib.redirect_stdout(io.StringIO()):
        known = tools.COCO()
        known.dataset = document
        known.createIndex()
        oracle = evaluation.COCOeval(known, known.loadRes(results), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    np.testing.assert_allclose(ours(truths, found), oracle.stats[:6], atol=1e-6)


def test_equal_to_faster_coco_eval() -> None:
    faster = pytest.importorskip("faster_coco_eval")
    truths, found = made_up(5)
    document, results = as_coco(truths, found)
    known = faster.COCO(document)
    oracle = faster.COCOeval_faster(known, known.loadRes(results), "bbox", print_function=lambda *_: None)
    oracle.run()
    np.testing.assert_allclose(ours(truths, found), list(oracle.stats)[:6], atol=1e-6)


def one_by_one(truths: list[Truth], found: list[Detections], label: int, size: str) -> Matches:
    """Match as COCO's `evaluateImg` does: image by image, overlap by overlap, detection by detection."""
    low, high = SIZES[size]
    rows, wanted = list[tuple[float, int, list[bool], list[bool]]](), np.zeros(len(truths), np.int64)
    for image, (truth, answer) in enumerate(zip(truths, found, strict=True)):
        asked = truth.boxes[truth.classes == label].astype(np.float64)
        crowd = truth.ignored[truth.classes == label]
        sides = asked[:, 2:] - asked[:, :2]
        out = crowd | (sides.prod(axis=1) < low) | (sides.prod(axis=1) > high)
        wanted[image] = (~out).sum()
        places = np.flatnonzero(answer.classes == label)
        taken = np.zeros((len(OVERLAPS), len(asked)), np.bool_)
        for place in places:
            box = answer.boxes[place].astype(np.float64)
            area = float((box[2:] - box[:2]).prod())
            inner = np.clip(np.minimum(box[2:], asked[:, 2:]) - np.maximum(box[:2], asked[:, :2]), 0, None).prod(axis=1)
            overlaps = inner / np.where(crowd, area, area + sides.prod(axis=1) - inner)
            right, left_out = [], []
            for at, least in enumerate(OVERLAPS):
                fits = [
                    each for each in range(len(asked))
                    if overlaps[each] >= min(least, 1 - 1e-10) and (crowd[each] or not taken[at, each])
                ]  # fmt: skip
                best = max(
                    (each for each in fits if not out[each] or all(out[other] for other in fits)),
                    key=lambda each: (overlaps[each], each),
                    default=-1,
                )
                taken[at, best : best + 1] = True
                right.append(best >= 0 and not out[best])
                left_out.append(bool(out[best]) if best >= 0 else area < low or area > high)
            rows.append((float(answer.scores[place]), image, right, left_out))
    rows.sort(key=lambda row: -row[0])
    return Matches(
        scores=np.asarray([row[0] for row in rows]), images=np.asarray([row[1] for row in rows]),
        right=np.asarray([row[2] for row in rows]).T, left_out=np.asarray([row[3] for row in rows]).T, wanted=wanted,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_match_is_that_of_images_matched_one_by_one(seed: int) -> None:
    truths, found = made_up(seed)
    boxes = BoxesByClass(truths, found)
    for label in range(CLASSES):
        for size, matched in zip(SIZES, boxes.match(label, *SIZES), strict=True):
            expected = one_by_one(truths, found, label, size)
            for part in ("scores", "images", "right", "left_out", "wanted"):
                np.testing.assert_array_equal(getattr(matched, part), getattr(expected, part), err_msg=f"{part} {size}")


def test_only_images_that_hold_a_class_are_matched_and_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    truths, found = made_up(0)
    plain, seen = average_precision._overlaps, list[int]()

    def counting(boxes: Any, objects: Any, ignored: Any) -> Any:
        seen.append(len(boxes))
        return plain(boxes, objects, ignored)

    monkeypatch.setattr(average_precision, "_overlaps", counting)
    BoxesByClass(truths, found).match(1, *SIZES)
    holding = [
        int((answer.classes == 1).sum())
        for truth, answer in zip(truths, found, strict=True)
        if (answer.classes == 1).any() and (truth.classes == 1).any()
    ]
    assert seen == holding
    assert 0 < len(holding) < IMAGES


def test_a_class_that_no_image_holds_has_no_matches() -> None:
    for matches in BoxesByClass(*made_up(1)).match(CLASSES, *SIZES):
        assert len(matches.scores) == len(matches.images) == 0
        assert matches.right.shape == matches.left_out.shape == (len(OVERLAPS), 0)
        assert matches.wanted.tolist() == [0] * IMAGES


def single(*scored: tuple[float, bool], wanted: int) -> Matches:
    right = np.asarray([[hit for _, hit in scored]] * 10)
    return Matches(
        scores=np.asarray([score for score, _ in scored]), images=np.zeros(len(scored), np.int64), right=right,
        left_out=np.zeros_like(right), wanted=np.asarray([wanted]),
    )  # fmt: skip


def test_average_precision_of_a_curve_that_is_counted_by_hand() -> None:
    # Right, wrong, right of 4 objects: precision 1 up to a recall of 1/4, then 2/3 up to 1/2, then nothing.
    matches = single((0.9, True), (0.8, False), (0.7, True), wanted=4)
    expected = (26 * 1 + 25 * 2 / 3) / 101  # recalls 0, .01, ... .25 and .26, ... .50
    np.testing.assert_allclose(average_precisions(matches), expected)
    recall, precision, score = curve(matches)
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 2 / 4])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(score, [0.9, 0.8, 0.7])


def test_a_class_without_objects_has_no_average_precision() -> None:
    assert np.isnan(average_precisions(single((0.9, False), wanted=0))).all()


def test_weights_count_images_as_often_as_if_they_were_there() -> None:
    truths, found = made_up(2)
    weights = np.random.default_rng(0).integers(0, 3, IMAGES)
    again = [place for place in range(IMAGES) for _ in range(int(weights[place]))]
    for label in range(CLASSES):
        weighted = average_precisions(match(truths, found, label), weights)
        repeated = match([truths[place] for place in again], [found[place] for place in again], label)
        # Detections of equal scores come in another order, so only nearly equal.
        np.testing.assert_allclose(weighted, average_precisions(repeated), atol=0.02)


def test_the_interval_holds_the_score_and_shrinks_with_the_number_of_images() -> None:
    truths, found = made_up(0)
    widths = []
    for times in (1, 8):
        matches = [match(truths * times, found * times, label) for label in range(CLASSES)]
        low, high = ScoreObjective().interval(matches, IMAGES * times)
        assert low < mean_of(np.stack([average_precisions(each) for each in matches])) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 8**0.5, rel=0.35)
