import math
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scalesearch.training.losses import LOSSES, bce, cross_entropy, distillation, each_bce, each_focal, focal
from scalesearch.values.candidate import LossName

# Softmax of (ln 9, 0) is (0.9, 0.1); sigmoid of ln 9 is 0.9, of 0 it is 0.5.
LOGITS = torch.tensor([[math.log(9.0), 0.0]])
FIRST, SECOND = torch.tensor([0]), torch.tensor([1])


def test_cross_entropy_is_minus_log_p() -> None:
    assert cross_entropy(LOGITS, FIRST, 0.0).item() == pytest.approx(-math.log(0.9))


def test_focal_weighs_the_sure_image_down_by_the_squared_doubt() -> None:
    assert focal(LOGITS, FIRST, 0.0).item() == pytest.approx(-(0.1**2) * math.log(0.9), rel=1e-4)
    assert focal(LOGITS, SECOND, 0.0).item() == pytest.approx(-(0.9**2) * math.log(0.1), rel=1e-4)


def test_bce_sums_over_classes_one_against_the_rest() -> None:
    assert bce(LOGITS, FIRST, 0.0).item() == pytest.approx(-math.log(0.9) - math.log(0.5))


def test_smoothing_mixes_in_the_uniform_target() -> None:
    smoothed = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)  # targets 0.9 and 0.1 at smoothing 0.2 of two classes
    assert cross_entropy(LOGITS, FIRST, 0.2).item() == pytest.approx(smoothed)
    focused = -0.9 * 0.1**2 * math.log(0.9) - 0.1 * 0.9**2 * math.log(0.1)
    assert focal(LOGITS, FIRST, 0.2).item() == pytest.approx(focused, rel=1e-4)
    against = -0.9 * math.log(0.9) - 0.1 * math.log(0.1) - math.log(0.5)
    assert bce(LOGITS, FIRST, 0.2).item() == pytest.approx(against)


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_is_a_mean_over_images_that_learning_lowers(name: LossName) -> None:
    loss = LOSSES[name]
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    one_by_one = [loss(logits[i : i + 1], labels[i : i + 1], 0.1).item() for i in range(6)]
    assert loss(logits, labels, 0.1).item() == pytest.approx(sum(one_by_one) / 6, rel=1e-5)

    logits = logits.requires_grad_()
    before = loss(logits, labels, 0.1)
    (gradient,) = torch.autograd.grad(before, logits)
    assert loss(logits - 0.1 * gradient, labels, 0.1).item() < before.item()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_losses_of_single_images_are_those_of_batches_of_one(smoothing: float) -> None:
    logits, labels = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 0])
    for each, mean in ((each_focal, focal), (each_bce, bce)):
        one_by_one = [mean(logits[place, None], labels[place, None], smoothing) for place in range(6)]
        torch.testing.assert_close(each(logits, labels, smoothing), torch.stack(one_by_one))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_distillation_is_the_softened_divergence_from_the_teacher_times_the_squared_temperature(
    temperature: float,
) -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0, 3, (2, 6, 5))

    def softened(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        powers: NDArray[np.float64] = np.exp(logits / temperature)
        powers /= powers.sum(axis=1, keepdims=True)
        return powers

    p, q = softened(theirs), softened(ours)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    given = distillation(torch.tensor(ours), torch.tensor(theirs), temperature)
    assert given.item() == pytest.approx(expected)
    assert distillation(torch.tensor(theirs), torch.tensor(theirs), temperature).item() == pytest.approx(0, abs=1e-12)


def test_a_high_temperature_pulls_about_as_hard_as_the_difference_of_logits() -> None:
    # Hinton et al. 2015, equation 4, times T^2: the gradient tends to (z - v) / classes for logits z, v of mean 0.
    ours, theirs = torch.tensor([[1.0, -1.0]], requires_grad=True), torch.tensor([[-0.5, 0.5]])
    (gradient,) = torch.autograd.grad(distillation(ours, theirs, 500.0), ours)
    torch.testing.assert_close(gradient, (ours.detach() - theirs) / 2, atol=1e-3, rtol=0)
