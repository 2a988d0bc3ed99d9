"""Quality of answers, with scikit-learn and scipy as the second opinion."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics

from scalesearch.errors import StageFailed
from scalesearch.measurement.metric import wilson_interval
from scalesearch.measurement.quality import measure_quality
from scalesearch.measurement.thin_curve import thin_curve
from scalesearch.tasks.classification.curves import average_precision
from scalesearch.tasks.classification.quality import Top1
from scalesearch.values.quality import ClassDetail, ClassQuality, Quality

Floats = NDArray[np.float64]
Batch = NDArray[np.float32]


def make_answers(
    images: int, classes: int, *, signal: float, seed: int, decimals: int = 8
) -> tuple[Floats, NDArray[np.int64]]:
    """Noisy logits that lean to the right class; few decimals make many equal scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += signal
    return np.round(logits, decimals), labels


def quality_of(logits: Floats, labels: NDArray[np.int64], warnings: list[str] | None = None) -> Quality:
    """Score given logits: the network is a look-up of its image's only pixel."""
    images = np.arange(len(logits), dtype=np.float32).reshape(-1, 1, 1, 1)

    def run(part: Batch) -> dict[str, Batch]:
        return {"logits": np.asarray(logits[part[:, 0, 0, 0].astype(int)], dtype=np.float32)}

    metric = Top1([f"class {k}" for k in range(logits.shape[1])])
    heard: list[str] = []
    batches = (images[start : start + 7] for start in range(0, len(images), 7))
    quality = measure_quality(run, batches, labels, metric, warn=heard.append)
    if warnings is None:
        assert heard == []
    else:
        warnings += heard
    return quality


def detail_of(quality: Quality) -> ClassDetail:
    assert isinstance(quality.detail, ClassDetail)
    return quality.detail


def farthest_off(recall: Floats, precision: Floats, thinned: ClassQuality) -> float:
    """Largest distance of a point of the full curve from the thinned curve's line (sampled densely)."""
    thin = np.array(thinned.curve)
    steps = np.linspace(0.0, 1.0, 200)[:, None, None]
    line = (thin[:-1] + steps * np.diff(thin, axis=0)).reshape(-1, 2)
    return max(float(np.hypot(line[:, 0] - r, line[:, 1] - p).min()) for r, p in zip(recall, precision, strict=True))


@pytest.mark.parametrize("decimals", [8, 0], ids=["distinct scores", "many equal scores"])
@pytest.mark.parametrize(("images", "classes"), [(30, 2), (300, 5), (400, 43)])
def test_every_number_is_that_of_scikit_learn(images: int, classes: int, decimals: int) -> None:
    logits, labels = make_answers(images, classes, signal=2.0, seed=classes, decimals=decimals)
    assert len(set(labels)) == classes
    quality = quality_of(logits, labels)
    predicted = logits.argmax(axis=1)
    assert quality.images == images
    assert quality.score == metrics.accuracy_score(labels, predicted)
    assert 0.2 < quality.score < 0.98
    average = {"average": "macro", "zero_division": 0}
    assert detail_of(quality).macro_precision == pytest.approx(metrics.precision_score(labels, predicted, **average))
    assert detail_of(quality).macro_recall == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    each = {"average": None, "zero_division": 0, "labels": range(classes)}
    precisions, recalls, _, supports = metrics.precision_recall_fscore_support(labels, predicted, **each)
    assert [one.precision for one in quality.classes] == pytest.approx(precisions)
    assert [one.recall for one in quality.classes] == pytest.approx(recalls)
    assert [one.support for one in quality.classes] == supports.tolist()
    scores = softmax(logits.astype(np.float32).astype(np.float64), axis=1)
    for k, one in enumerate(quality.classes):
        assert one.name == f"class {k}"
        assert one.average_precision == pytest.approx(metrics.average_precision_score(labels == k, scores[:, k]))
        precision, recall, _ = metrics.precision_recall_curve(labels == k, scores[:, k])
        assert one.curve[0] == (0.0, 1.0)
        assert one.curve[-1] == pytest.approx((recall[0], precision[0]))
        assert {(round(r, 9), round(p, 9)) for r, p in one.curve} <= {
            (round(r, 9), round(p, 9)) for r, p in zip(recall, precision, strict=True)
        }


def test_no_average_precision_is_above_one() -> None:
    recall = np.array([0, 2, 4, 5, 6, 7, 8, 9, 20]) / 20  # steps whose sum is rounded to 1.0000000000000002
    assert average_precision(recall, np.ones(len(recall))) == 1


def test_thinned_curves_keep_their_shape() -> None:
    logits, labels = make_answers(4000, 3, signal=1.0, seed=1)
    quality = quality_of(logits, labels)
    scores = softmax(logits.astype(np.float32).astype(np.float64), axis=1)
    for k, one in enumerate(quality.classes):
        precision, recall, _ = metrics.precision_recall_curve(labels == k, scores[:, k])
        assert len(recall) > 3000
        assert len(one.curve) == 50
        assert np.all(np.diff([r for r, _ in one.curve]) >= 0)
        assert farthest_off(recall[::7], precision[::7], one) < 0.012
        area = np.trapezoid([p for _, p in one.curve], [r for r, _ in one.curve])
        assert area == pytest.approx(-np.trapezoid(precision, recall), abs=0.004)


def test_short_curves_lose_only_points_inside_vertical_drops() -> None:
    recall = np.array([0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0])
    precision = np.array([1.0, 1.0, 0.5, 0.33, 0.25, 0.4, 0.3])
    thin_recall, thin_precision = thin_curve(recall, precision)
    assert thin_recall.tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert thin_precision.tolist() == [1.0, 1.0, 0.25, 0.4, 0.3]


def test_a_straight_line_needs_its_ends_only() -> None:
    line = np.linspace(0.0, 1.0, 1025)
    thin_recall, thin_precision = thin_curve(line, 1 - line)
    assert thin_recall.tolist() == [0.0, 1.0]
    assert thin_precision.tolist() == [1.0, 0.0]


def test_classes_without_labels_stay_out_of_macro_recall_and_have_no_curve() -> None:
    # Labels know classes 0 and 1; one image is taken for class 2, none for class 3.
    labels = np.array([0, 0, 0, 1])
    logits = 5.0 * np.eye(4)[[0, 0, 2, 1]] + np.arange(4) * 0.01
    quality = quality_of(logits, labels)
    assert detail_of(quality).macro_recall == pytest.approx((2 / 3 + 1) / 2)
    assert detail_of(quality).macro_precision == pytest.approx((1 + 1 + 0) / 3)
    for absent in quality.classes[2:]:
        assert (absent.support, absent.precision, absent.recall, absent.average_precision) == (0, 0.0, 0.0, 0.0)
        assert absent.curve == ()


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (10, 10), (1, 3), (250, 296), (1, 100_000)])
def test_wilson_interval_is_scipys(correct: int, images: int) -> None:
    oracle = binomtest(correct, images).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(correct, images) == pytest.approx((oracle.low, oracle.high), abs=1e-7)


def test_batches_of_any_size_give_what_the_whole_array_gives() -> None:
    logits, labels = make_answers(50, 4, signal=2.0, seed=3)
    metric = Top1(["a", "b", "c", "d"])
    found = []
    for cuts in ([], [1], [20, 33], list(range(50))):
        metric.reset()
        for part, truth in zip(np.split(logits, cuts), np.split(labels, cuts), strict=True):
            metric.update({"logits": part.astype(np.float32)}, truth)
        found.append(metric.result())
        assert metric.score() == found[0].score
    assert all(each == found[0] for each in found)


def test_many_scores_are_counted_in_bins_and_give_nearly_the_exact_curves() -> None:
    logits, labels = make_answers(3000, 6, signal=1.5, seed=11)
    exact, binned = Top1("abcdef"), Top1("abcdef", most_scores=1000)
    for start in range(0, 3000, 100):
        for metric in (exact, binned):
            metric.update({"logits": logits[start : start + 100].astype(np.float32)}, labels[start : start + 100])
    assert binned._logits == []  # nothing is kept of single images
    wanted, got = exact.result(), binned.result()
    assert (got.score, got.score_low, got.images) == (wanted.score, wanted.score_low, wanted.images)
    assert detail_of(got).macro_recall == detail_of(wanted).macro_recall
    for one, other in zip(wanted.classes, got.classes, strict=True):
        assert (other.support, other.precision, other.recall) == (one.support, one.precision, one.recall)
        assert other.average_precision == pytest.approx(one.average_precision, abs=2e-3)
        recall, precision = np.array(one.curve).T
        assert farthest_off(recall, precision, other) < 0.02  # both are thinned
    assert binned.doubts() == exact.doubts() == ()


def test_answers_that_hardly_depend_on_the_images_are_said() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 5, 200)
    one_answer, barely = rng.normal(size=(200, 5)), np.array([0.0, 1.0, 2.0, 3.0, 3.0]) + np.zeros((200, 1))
    one_answer[:190, 2] += 20
    barely = barely + 1e-3 * rng.normal(size=(200, 5))
    warnings: list[str] = []
    quality_of(one_answer, labels, warnings)
    assert len(warnings) == 1
    assert "one answer (class 2)" in warnings[0]
    quality_of(barely, labels, warnings)
    assert len(warnings) == 2
    assert "hardly depend on the images" in warnings[1]


def test_one_answer_is_fine_where_the_labels_have_one_class() -> None:
    logits, _ = make_answers(40, 3, signal=0.0, seed=5)
    logits[:, 1] += 9
    quality = quality_of(logits, np.full(40, 1))
    assert (quality.score, detail_of(quality).macro_recall, quality.classes[1].average_precision) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_fail_the_trial_and_are_counted(bad: float) -> None:
    logits, labels = make_answers(30, 3, signal=2.0, seed=6)
    logits[[4, 9, 9], [0, 1, 2]] = bad
    with pytest.raises(StageFailed, match=r"quality: expected finite logits, got .* 2 of 30 images"):
        quality_of(logits, labels)


def test_counts_that_do_not_fit_are_told_apart() -> None:
    logits, labels = make_answers(12, 3, signal=2.0, seed=7)
    with pytest.raises(StageFailed, match=r"expected logits of shape \(4, 3\).*got \(5, 3\)"):
        quality_of(logits, labels[:11])
    with pytest.raises(StageFailed, match="got 7 images and 12 targets"):
        measure_quality(lambda part: {"logits": part}, [logits[:7].astype(np.float32)], labels, Top1("abc"))
    with pytest.raises(StageFailed, match=r"expected labels from 0 to 2, got \d to 3"):
        quality_of(logits, np.where(labels == 2, 3, labels))
    with pytest.raises(StageFailed, match="at least one image"):
        measure_quality(lambda part: {"logits": part}, [], np.empty(0, np.int64), Top1("a"))


@pytest.mark.parametrize("images", [1, 2, 7, 31, 97, 296, 1000, 4999])
@pytest.mark.parametrize("wrong", [0, 1])
def test_the_interval_holds_the_share_at_both_ends(images: int, wrong: int) -> None:
    for correct in (wrong, images - wrong):
        low, high = wilson_interval(correct, images)
        assert 0 <= low <= correct / images <= high <= 1


def test_an_interval_stored_a_rounding_error_beside_its_share_is_mended() -> None:
    def quality(top1: float, low: float, high: float) -> Quality:
        return Quality(score=top1, score_low=low, score_high=high, images=9)

    full, none = quality(1.0, 0.7, 0.9999999999999998), quality(0.0, 1e-17, 0.3)
    assert (full.score_high, none.score_low) == (1.0, 0.0)
    assert quality(0.5, 0.6, 0.7).score_low == 0.6  # that is no rounding: it stays to be seen
