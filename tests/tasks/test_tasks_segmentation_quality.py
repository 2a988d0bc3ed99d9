"""Mean intersection over union: equal to scikit-learn's, in parts and whole, at the masks' own sizes."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score
from torch.nn.functional import interpolate

from scalesearch.data.masks import UNLABELLED, Masks, MaskStore
from scalesearch.errors import StageFailed
from scalesearch.tasks.segmentation.infer import class_map
from scalesearch.tasks.segmentation.quality import MeanIoU, mean_divergence
from scalesearch.values.network_spec import InputSize
from scalesearch.values.quality import MaskDetail

NAMES = ("sky", "road", "car", "never")
SIZES = ((24, 32), (30, 40), (17, 23), (24, 32), (9, 50))


def masks(sizes: Sequence[tuple[int, int]] = SIZES, *, values: Sequence[int] = (0, 1, 2, UNLABELLED)) -> Masks:
    random = np.random.default_rng(0)
    found = [random.choice(values, size, p=None).astype(np.uint8) for size in sizes]
    return Masks(
        store=MaskStore.pack(found), places=np.arange(len(found)), storage=InputSize(height_px=12, width_px=16)
    )


def logits(number: int = len(SIZES), classes: int = len(NAMES)) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((number, classes, 6, 8)).astype(np.float32)


def answers(given: NDArray[np.float32], targets: Masks) -> list[NDArray[np.int64]]:
    """Each image's classes at its mask's size, by torch's own enlargement."""
    found = []
    for place, each in enumerate(given):
        wide = interpolate(
            torch.from_numpy(each)[None], size=targets.own(place).shape, mode="bilinear", align_corners=False
        )
        found.append(wide[0].argmax(dim=0).numpy())
    return found


def flat(given: NDArray[np.float32], targets: Masks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    truth = np.concatenate([targets.own(place).ravel() for place in range(len(targets))])
    answered = np.concatenate([each.ravel() for each in answers(given, targets)])
    return truth[truth != UNLABELLED].astype(np.int64), answered[truth != UNLABELLED]


def test_scikit_learn_finds_the_same_numbers() -> None:
    targets, given = masks(), logits()
    metric = MeanIoU(NAMES)
    for start in (0, 2, 4):  # in parts of 2, 2 and 1
        metric.update({"logits": given[start : start + 2]}, targets[start : start + 2])
    quality = metric.result()
    truth, answered = flat(given, targets)
    assert metric.confusion.tolist() == confusion_matrix(truth, answered, labels=range(4)).tolist()
    # `never` is answered but not in the truth: it counts in no mean
    each = jaccard_score(truth, answered, labels=range(4), average=None, zero_division=0)
    assert quality.score == pytest.approx(each[:3].mean(), abs=1e-12)
    assert quality.metric == "miou" and quality.images == 5
    detail = quality.detail
    assert isinstance(detail, MaskDetail)
    assert detail.pixel_accuracy == pytest.approx(accuracy_score(truth, answered), abs=1e-12)
    assert [entry.iou for entry in detail.classes] == pytest.approx([*each[:3], 0.0])
    assert [entry.pixels for entry in detail.classes] == [(truth == place).sum() for place in range(4)]
    recalls = [(answered[truth == place] == place).mean() for place in range(3)]
    assert detail.mean_accuracy == pytest.approx(np.mean(recalls))
    assert [entry.name for entry in detail.weakest_first][-1] != "never" and len(detail.weakest_first) == 3


def test_it_is_no_mean_over_images() -> None:
    """One image all sky, one all road: each alone has a score of 1 or 0, both together have neither."""
    found = [np.zeros((8, 8), np.uint8), np.ones((4, 4), np.uint8)]
    targets = Masks(store=MaskStore.pack(found), places=np.arange(2), storage=InputSize.square(8))
    given = np.zeros((2, 2, 2, 2), np.float32)
    given[:, 0] = 1  # sky everywhere
    metric = MeanIoU(("sky", "road"))
    metric.update({"logits": given}, targets)
    assert metric.score() == pytest.approx((64 / 80 + 0) / 2)


def test_the_interval_is_that_of_draws_of_images() -> None:
    targets, given = masks(), logits()
    metric = MeanIoU(NAMES)
    metric.update({"logits": given}, targets)
    quality = metric.result()
    random, scores = np.random.default_rng(5), []
    each = [confusion_matrix(*flat(given[[place]], targets[[place]]), labels=range(4)) for place in range(5)]  # type: ignore[index]
    for _ in range(2000):  # a second bootstrap, of whole matrices and with other random numbers
        total = sum(each[place] for place in random.integers(0, 5, 5))
        union = total.sum(axis=0) + total.sum(axis=1) - np.diag(total)
        scores.append(np.mean((np.diag(total) / np.maximum(union, 1))[total.sum(axis=1) > 0]))
    low, high = np.quantile(scores, (0.025, 0.975))
    assert (quality.score_low, quality.score_high) == pytest.approx((low, high), abs=0.15 * (high - low))
    assert quality.score_low <= quality.score <= quality.score_high
    assert metric.result() == quality  # seeded


@pytest.mark.parametrize("size", [(24, 32), (37, 53), (6, 8), (3, 4)])
def test_logits_are_enlarged_as_torch_does(size: tuple[int, int]) -> None:
    given = logits(1, 7)[0]
    wide = interpolate(torch.from_numpy(given)[None], size=size, mode="bilinear", align_corners=False)[0]
    chosen = class_map(given, size, (0.0, 0.0, 1.0, 1.0))
    best, at_chosen = wide.max(dim=0).values, wide.gather(0, torch.from_numpy(chosen).long()[None])[0]
    assert torch.allclose(best, at_chosen, atol=1e-5)  # but for ties by rounding it is the largest
    assert (chosen == wide.argmax(dim=0).numpy()).mean() > 0.999


def test_padded_images_are_scored_without_their_bars() -> None:
    """The logits of the inner part alone, enlarged by torch, give the same answer as the whole with its bars."""
    mask = np.zeros((16, 32), np.uint8)  # in a square of 32: bars of 8 pixels above and below
    targets = Masks(store=MaskStore.pack([mask]), places=np.arange(1), storage=InputSize.square(32), fit="pad")
    given = logits(1, 3)[:, :, :, :].repeat(1, axis=0)
    square = np.random.default_rng(2).standard_normal((3, 32, 32)).astype(np.float32)
    answer = class_map(square, mask.shape, targets.part(0))
    assert np.array_equal(answer, square[:, 8:24].argmax(axis=0))
    assert given.shape == (1, 3, 6, 8)


def test_what_cannot_be_scored_is_refused() -> None:
    targets, metric = masks(), MeanIoU(NAMES)
    with pytest.raises(StageFailed, match="at least one image"):
        metric.score()
    with pytest.raises(StageFailed, match="expected logits of 5 images and 4 classes"):
        metric.update({"logits": logits()[:, :3]}, targets)
    broken = logits()
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(StageFailed, match="NaN or infinity for 1 of 5"):
        metric.update({"logits": broken}, targets)
    empty = masks(SIZES[:1], values=(UNLABELLED,))
    metric.update({"logits": logits(1)}, empty)
    with pytest.raises(StageFailed, match="at least one labelled pixel"):
        metric.score()
    with pytest.raises(StageFailed, match="mask values from 0 to 1"):
        MeanIoU(("a", "b")).update({"logits": logits(1, 2)}, masks(SIZES[:1], values=(0, 3)))


def test_one_answer_for_everything_is_said() -> None:
    targets, given = masks(), logits()
    given[:, 1] += 50
    metric = MeanIoU(NAMES)
    metric.update({"logits": given}, targets)
    (doubt,) = metric.doubts()
    assert doubt.startswith("100 % of the pixels got one answer (road)")
    metric.reset()
    metric.update({"logits": logits()}, targets)
    assert not metric.doubts()


def test_divergence_is_zero_for_equal_answers_and_torch_s_for_others() -> None:
    one, other = logits(), logits() + 0.3 * np.random.default_rng(3).standard_normal(logits().shape).astype(np.float32)
    assert mean_divergence(one, one) == pytest.approx(0, abs=1e-12)
    p, q = (torch.from_numpy(each).double().log_softmax(dim=1) for each in (one, other))
    wanted = float((p.exp() * (p - q)).sum(dim=1).mean())
    assert mean_divergence(one, other) == pytest.approx(wanted)
