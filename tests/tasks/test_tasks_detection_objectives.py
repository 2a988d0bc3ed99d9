"""What a detector is judged by: scores counted by hand and by brute force, their names and their settings."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.config.settings import load_run
from scalesearch.errors import ConfigError
from scalesearch.tasks.detection.average_precision import Matches, average_precisions
from scalesearch.tasks.detection.objectives import ScoreObjective, recall_at_precision
from scalesearch.tasks.detection.quality import MeanAveragePrecision, counts_at
from scalesearch.tasks.registry import task_for, views_of
from scalesearch.values.quality import DetectionDetail, Quality, metric_title, recall_metric
from scalesearch.values.settings import RunSettings

IMAGES = 30


def matches_of(scores: NDArray[np.float64], right: NDArray[np.bool_], wanted: NDArray[np.int64]) -> Matches:
    hits = np.repeat(right[None], 10, axis=0)
    images = np.arange(len(scores)) % len(wanted)
    return Matches(scores=scores, images=images, right=hits, left_out=np.zeros_like(hits), wanted=wanted)


def single(*scored: tuple[float, bool], wanted: int) -> Matches:
    scores, right = (np.asarray([each[place] for each in scored]) for place in (0, 1))
    return matches_of(scores, right.astype(bool), np.asarray([wanted]))


def made_up(seed: int) -> list[Matches]:
    """Return matches of three classes, the more certain the more often right."""
    random, found = np.random.default_rng(seed), []
    for _ in range(3):
        scores = np.sort(random.uniform(0, 1, 120))[::-1].copy()
        right = random.uniform(0, 1, 120) < scores
        found.append(matches_of(scores, right, np.full(IMAGES, 3)))
    return found


def test_recall_at_a_precision_counted_by_hand() -> None:
    # Precision is 1, 1/2, 2/3, 3/4 as the threshold falls; recall is 1/4, 1/4, 2/4, 3/4.
    matches = [single((0.9, True), (0.8, False), (0.7, True), (0.6, True), wanted=4)]
    assert recall_at_precision(matches, 0.75) == (0.75, 0.6)
    assert recall_at_precision(matches, 0.8) == (0.25, 0.9)
    assert recall_at_precision([single((0.9, False), (0.8, True), wanted=2)], 0.9)[0] == 0
    assert np.isnan(recall_at_precision([single((0.9, False), wanted=0)], 0.9)[0])
    assert recall_at_precision([single(wanted=3)], 0.9)[0] == 0


def test_detections_of_equal_exported_scores_are_reported_together() -> None:
    # Both are reported from 0.9 on, so the precision there is 1/2.
    assert recall_at_precision([single((0.9004, True), (0.9001, False), wanted=1)], 0.9)[0] == 0


@pytest.mark.parametrize("precision", [0.5, 0.7, 0.9, 1.0])
def test_no_threshold_that_an_export_may_have_gives_a_larger_recall(precision: float) -> None:
    for seed in range(3):
        matches = made_up(seed)
        recalls = [0.0]
        for threshold in np.arange(1000) / 1000:
            right, reported, wanted = (int(each.sum()) for each in counts_at(matches, threshold))
            if reported and right / reported >= precision:
                recalls.append(right / wanted)
        recall, threshold = recall_at_precision(matches, precision)
        assert recall == pytest.approx(max(recalls))
        right, reported, wanted = (int(each.sum()) for each in counts_at(matches, threshold))
        if recall:
            assert right / reported >= precision
            assert right / wanted == pytest.approx(recall)


@pytest.mark.parametrize("kind", ["map50_95", "map50", "recall_at_precision"])
def test_weights_are_images_that_are_there_several_times_and_the_interval_holds_the_score(kind: str) -> None:
    objective = ScoreObjective(kind=kind, precision=0.7)  # type: ignore[arg-type]
    matches = made_up(1)
    assert objective.score(matches, np.full(IMAGES, 2)) == pytest.approx(objective.score(matches))
    low, high = objective.interval(matches, IMAGES)
    assert low < objective.score(matches) < high
    assert (low, high) == objective.interval(matches, IMAGES)


def test_map50_is_that_of_the_first_overlap() -> None:
    matches = made_up(2)
    for each in matches:
        each.right[5:] = False
    first = np.mean([average_precisions(each)[0] for each in matches])
    assert ScoreObjective(kind="map50").score(matches) == pytest.approx(first)
    assert ScoreObjective().score(matches) == pytest.approx(first / 2)


def test_the_threshold_of_recall_is_that_with_the_precision_and_else_that_of_the_best_f1() -> None:
    matches = made_up(0)
    objective = ScoreObjective(kind="recall_at_precision", precision=0.8)
    right, reported, _ = counts_at(matches, objective.threshold(matches))
    assert right.sum() / reported.sum() >= 0.8
    hopeless = [single((0.9, False), (0.8, True), (0.7, True), wanted=2)]
    assert objective.threshold(hopeless) == ScoreObjective().threshold(hopeless) == 0.7


def settings_of(*overrides: str) -> RunSettings:
    return load_run(space="resnet_scene_boxes", overrides=("task=detection", *overrides))[0]


@pytest.mark.parametrize(
    ("overrides", "metric", "title"),
    [
        ((), "map50_95", "mAP50-95"),
        (("detection.objective=map50",), "map50", "mAP50"),
        (("detection.objective=recall_at_precision",), "recall_at_precision_90", "recall at 90 % precision"),
        (
            ("detection.objective=recall_at_precision", "detection.precision=0.925"),
            "recall_at_precision_92_5",
            "recall at 92.5 % precision",
        ),
    ],
)
def test_the_score_has_the_name_that_the_settings_ask_for(
    overrides: tuple[str, ...], metric: str, title: str, make_record: "object"
) -> None:
    task = task_for(settings_of(*overrides))
    assert (task.metric, metric_title(task.metric)) == (metric, title)
    made = task.make_metric(("cat",))
    assert isinstance(made, MeanAveragePrecision)
    quality = Quality(score=0.5, score_low=0.4, score_high=0.6, images=9, metric=metric)
    assert callable(make_record)
    views = views_of(make_record(0, quality=quality))
    assert type(views).__name__ == "DetectionViews"


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"detection\.precision = 1\.5 is out of range"):
        settings_of("detection.precision=1.5")
    with pytest.raises(ConfigError, match=r"detection\.objective"):
        settings_of("detection.objective=map")
    settings, _ = load_run(overrides=("detection.objective=map50",))
    with pytest.raises(ConfigError, match="expected --task detection, came classification"):
        task_for(settings)


def test_the_other_scores_stay_in_the_detail() -> None:
    detail = DetectionDetail(
        threshold=0.4, precision=0.8, recall=0.6, f1=0.7, map50=0.5, map75=0.2, small=None, medium=0.3, large=None,
        classes=(), confusion=(), map50_95=0.25, recall_at_precision=0.45, at_precision=0.9,
    )  # fmt: skip
    numbers = {number.name: number.value for number in detail.numbers}
    assert (numbers["map50_95"], numbers["map50"], numbers[recall_metric(0.9)]) == (0.25, 0.5, 0.45)
