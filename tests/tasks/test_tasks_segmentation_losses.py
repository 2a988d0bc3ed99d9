"""Losses of masks: torch's own cross entropy at the masks' size, class weights, the Dice term, and the teacher's."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate, kl_div

from scalesearch.data.masks import UNLABELLED
from scalesearch.tasks.segmentation import losses
from scalesearch.tasks.segmentation.losses import WeightedMasks, class_weights, distillation, divergence, terms
from scalesearch.values.candidate import LossName, LossWeights, Recipe

RECIPE = Recipe(label_smoothing=0.0)
CLASSES = 3


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, CLASSES, 3, 4, generator=random)
    masks = torch.randint(0, CLASSES, (4, 12, 16), generator=random).to(torch.uint8)
    masks[:, :3] = UNLABELLED
    return logits, masks


def enlarged(logits: torch.Tensor) -> torch.Tensor:
    return interpolate(logits, size=(12, 16), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("graded", [True, False])
def test_cross_entropy_is_torch_s_at_the_size_of_the_masks(
    smoothing: float, graded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, masks = batch()
    monkeypatch.setattr(losses, "_MOST_VALUES", CLASSES * 12 * 16)  # without gradients: one image at a time
    (term,) = terms(logits.requires_grad_(graded), masks, replace(RECIPE, label_smoothing=smoothing)).values()
    wanted = cross_entropy(enlarged(logits), masks.long(), ignore_index=UNLABELLED, label_smoothing=smoothing)
    assert term.item() == pytest.approx(wanted.item(), rel=1e-5)
    if graded:
        ours, theirs = (torch.autograd.grad(each, logits)[0] for each in (term, wanted))
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_weights_of_classes_are_those_of_torch() -> None:
    logits, masks = batch()
    weights = torch.tensor([1.0, 3.0, 0.5] + [1.0] * 252)
    (term,) = terms(logits, WeightedMasks(masks=masks, class_weights=weights), RECIPE).values()
    wanted = cross_entropy(enlarged(logits), masks.long(), weight=weights[:CLASSES], ignore_index=UNLABELLED)
    assert term.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("graded", [True, False])
@pytest.mark.parametrize("name", ["focal", "bce"])
def test_weights_of_classes_count_with_every_loss(
    name: LossName, graded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, masks = batch()
    monkeypatch.setattr(losses, "_MOST_VALUES", CLASSES * 12 * 16)  # without gradients: one image at a time
    weights = torch.tensor([1.0, 3.0, 0.5] + [1.0] * 252)
    targets, recipe = WeightedMasks(masks=masks, class_weights=weights), replace(RECIPE, loss=name)
    (term,) = terms(logits.requires_grad_(graded), targets, recipe).values()
    labelled = masks != UNLABELLED
    rows, classes = enlarged(logits).detach().permute(0, 2, 3, 1)[labelled], masks[labelled].long()
    if name == "focal":
        chance = rows.softmax(dim=1).gather(1, classes[:, None])[:, 0]
        each = -((1 - chance) ** 2) * chance.log()
    else:
        truth = torch.nn.functional.one_hot(classes, CLASSES)
        each = -torch.where(truth > 0, rows.sigmoid().log(), (-rows).sigmoid().log()).sum(dim=1)
    wanted = (weights[classes] * each).sum() / weights[classes].sum()
    assert term.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_masks_alone_are_weighted_by_their_own_frequencies() -> None:
    logits, masks = batch()
    masks[0, 3:9] = 0
    (term,) = terms(logits, masks, replace(RECIPE, class_weights="root")).values()
    weights = class_weights(masks, "root")[:CLASSES]
    wanted = cross_entropy(enlarged(logits), masks.long(), weight=weights, ignore_index=UNLABELLED)
    assert term.item() == pytest.approx(wanted.item(), rel=1e-5)
    (plain,) = terms(logits, masks, RECIPE).values()
    assert abs(term.item() - plain.item()) > 1e-4


def test_rare_classes_weigh_more_and_the_mean_weight_is_one() -> None:
    masks = torch.zeros(2, 10, 10, dtype=torch.uint8)
    masks[0, 0, :4] = 1  # 4 of 190 labelled pixels; 16 are of class 2
    masks[1, :2, :8] = 2
    masks[0, 5] = UNLABELLED
    shares = torch.tensor([170, 4, 16]) / 190
    inverse, root = class_weights(masks, "inverse")[:3], class_weights(masks, "root")[:3]
    assert torch.allclose(inverse, (1 / shares) / 3)  # the sum of share times 1 / share is the number of classes
    assert torch.allclose(root / root[0], (shares[0] / shares) ** 0.5)
    assert float((root * shares).sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["focal", "bce"])
def test_other_losses_are_those_of_single_pixels(name: str) -> None:
    from scalesearch.training.losses import LOSSES

    logits, masks = batch()
    (term,) = terms(logits, masks, replace(RECIPE, loss=name)).values()  # type: ignore[arg-type]
    labelled = masks != UNLABELLED
    rows = enlarged(logits).permute(0, 2, 3, 1)[labelled]
    assert term.item() == pytest.approx(LOSSES[name](rows, masks[labelled].long(), 0.0).item(), rel=1e-5)  # type: ignore[index]


def test_dice_is_named_weighted_and_falls_to_zero() -> None:
    logits, masks = batch()
    recipe = replace(RECIPE, loss_weights=LossWeights(dice=2.0))
    found = terms(logits, masks, recipe)
    assert set(found) == {"cross_entropy", "dice"}
    chances, wanted = enlarged(logits).softmax(dim=1), []
    labelled = masks != UNLABELLED
    for place in range(CLASSES):
        truth = ((masks == place) & labelled).float()
        mine = chances[:, place] * labelled
        wanted.append(2 * (mine * truth).sum() / (mine.sum() + truth.sum()))
    assert found["dice"].item() == pytest.approx(2 * (1 - torch.stack(wanted).mean()).item(), rel=1e-5)
    right = 100 * torch.nn.functional.one_hot(masks.long().clamp(max=2), CLASSES).permute(0, 3, 1, 2).float()
    assert terms(right, masks, recipe)["dice"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_a_batch_without_labels_has_no_loss_but_a_gradient(dice: float) -> None:
    logits, masks = batch()
    nothing = torch.full_like(masks, UNLABELLED)
    names: tuple[LossName, ...] = ("cross_entropy", "focal")
    for name in names:
        recipe = replace(RECIPE, loss=name, loss_weights=LossWeights(dice=dice))
        total = torch.stack(list(terms(logits.requires_grad_(), nothing, recipe).values())).sum()
        assert total.item() == 0
        (gradient,) = torch.autograd.grad(total, logits)
        assert gradient.abs().sum().item() == 0


def test_a_teacher_s_answers_are_followed_place_by_place() -> None:
    logits, _ = batch()
    taught, _ = batch(1)
    per_place = [each.permute(0, 2, 3, 1).reshape(-1, CLASSES) for each in (logits / 2, taught / 2)]
    ours, theirs = (each.log_softmax(dim=1) for each in per_place)
    wanted = 4 * kl_div(ours, theirs, reduction="batchmean", log_target=True)
    assert distillation(logits, taught, 2.0).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert divergence(taught, taught).item() == pytest.approx(0, abs=1e-7)
    larger = interpolate(taught, scale_factor=2.0, mode="nearest")
    assert distillation(logits, larger, 2.0).isfinite()
