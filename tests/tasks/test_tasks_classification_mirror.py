"""Pictures may be mirrored where every class is still recognised in the mirror."""

import pytest
import torch
from torch import Tensor

from scalesearch.tasks.classification.mirror import mirror_verdict

NAMES = ("left", "right", "stop")


def answers(labels: Tensor) -> list[Tensor]:
    """Return logits of these labels, in two batches."""
    return list(torch.split(torch.nn.functional.one_hot(labels, len(NAMES)).float(), 7))


def labels(count: int) -> Tensor:
    return torch.arange(len(NAMES)).repeat_interleave(count)


def test_arrows_that_become_each_other_are_not_mirrored() -> None:
    truth = labels(10)
    swapped = torch.where(truth == 2, 2, 1 - truth)

    verdict = mirror_verdict(answers(truth), answers(swapped), truth, NAMES)

    assert not verdict.flip
    assert verdict.words == (
        "100.0 % of 30 images recognised, 33.3 % of them mirrored; "
        "lost in the mirror: left (10 of 10), right (10 of 10)"
    )


def test_a_few_lost_images_of_each_class_are_no_reason() -> None:
    truth, mirrored = labels(50), labels(50)
    mirrored[[0, 1, 2, 50, 51, 100]] = torch.tensor([1, 1, 1, 0, 0, 0])

    verdict = mirror_verdict(answers(truth), answers(mirrored), truth, NAMES)

    assert verdict.flip
    assert verdict.words == "100.0 % of 150 images recognised, 96.0 % of them mirrored; no class is lost in the mirror"


@pytest.mark.parametrize(
    ("recognised", "gone", "flip"),
    # Lower ends of Wilson's 95 % interval: 0.57, 0.31, 0.22, 0.254, 0.246, 0.27.
    [(5, 5, False), (8, 5, False), (8, 4, True), (12, 6, False), (100, 33, True), (100, 36, False)],
)
def test_a_class_is_lost_if_a_quarter_of_it_is_lost_for_certain(recognised: int, gone: int, flip: bool) -> None:
    truth = torch.zeros(recognised, dtype=torch.int64)
    mirrored = truth.clone()
    mirrored[:gone] = 1

    verdict = mirror_verdict(answers(truth), answers(mirrored), truth, NAMES[:1])

    assert verdict.flip == flip


@pytest.mark.parametrize(("classes", "flip"), [(1, False), (40, True)])
def test_one_of_many_classes_is_not_lost_by_chance(classes: int, flip: bool) -> None:
    """5 of 9: the lower end of Wilson's interval is 0.27 for one class, and 0.16 for the worst of 40."""
    names = tuple(map(str, range(classes)))
    truth = torch.arange(classes).repeat_interleave(9)
    mirrored = truth.clone()
    mirrored[:5] = (truth[:5] + 1) % max(2, classes)
    plain, seen = (list(torch.nn.functional.one_hot(each, max(2, classes)).float()[None]) for each in (truth, mirrored))

    assert mirror_verdict(plain, seen, truth, names).flip == flip


@pytest.mark.parametrize("recognised", [4, 9])
def test_a_class_of_which_little_is_recognised_is_not_judged(recognised: int) -> None:
    """4 of 4 are too few, and 9 of 20 are less than half: all of them are lost, which says nothing."""
    truth = torch.zeros(4 if recognised == 4 else 20, dtype=torch.int64)
    seen = truth.clone()
    seen[recognised:] = 1

    verdict = mirror_verdict(answers(seen), answers(truth + 1), truth, NAMES[:1])

    assert not verdict.flip
    assert verdict.words.endswith("of too few classes to tell (0 of 1 could be judged)")


def test_images_that_were_not_recognised_before_say_nothing() -> None:
    truth = labels(10)
    wrong = (truth + 1) % 3

    verdict = mirror_verdict(answers(wrong), answers(truth), truth, NAMES)

    assert not verdict.flip
    assert verdict.words == (
        "0.0 % of 30 images recognised, 100.0 % of them mirrored: of too few classes to tell (0 of 3 could be judged)"
    )


def test_classes_without_enough_recognised_images_are_told() -> None:
    """The third class has 4 images, of the 5 that it takes."""
    truth = labels(10)[:24]

    verdict = mirror_verdict(answers(truth), answers(truth), truth, NAMES)

    assert verdict.flip
    assert verdict.words.endswith("no class is lost in the mirror (2 of 3 could be judged)")
