"""Assignment and losses of a detector: who is to find what, and what a perfect answer costs."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from scalesearch.data.boxes import NO_CLASS
from scalesearch.tasks.detection import assignment
from scalesearch.tasks.detection.assignment import CENTRE_RADIUS, Assigned, assign
from scalesearch.tasks.detection.decoding import decode_answers, points_of
from scalesearch.tasks.detection.divergence import mean_divergence
from scalesearch.tasks.detection.losses import box_overlaps, decoded, detection_losses
from scalesearch.tasks.detection.task import TASK
from scalesearch.tasks.detection.teaching import resized, taught_losses, torch_divergence
from scalesearch.values.candidate import LossWeights, Recipe

SIDES = (64, 96)
STRIDES = (8, 16, 32)
POINTS = sum(SIDES[0] * SIDES[1] // stride**2 for stride in STRIDES)
RECIPE = Recipe(loss="bce", label_smoothing=0.0)


def targets(*images: Sequence[tuple[float, ...]]) -> Tensor:
    """Return targets of images whose boxes are (left, top, right, bottom, class[, ignored])."""
    most = max(len(each) for each in images)
    rows = torch.zeros(len(images), 1 + most, 6)
    rows[:, 0, 2:5] = torch.tensor([SIDES[1], SIDES[0], NO_CLASS])
    rows[:, 1:, 4] = NO_CLASS
    for place, boxes in enumerate(images):
        for number, box in enumerate(boxes, 1):
            rows[place, number, : len(box)] = torch.tensor(box)
    return rows


def by_definition(box: tuple[float, float, float, float]) -> set[int]:
    """Return the points that find a single box, straight from the rule."""
    points, strides = points_of(SIDES, STRIDES)
    left, top, right, bottom = box
    found = set()
    for place, ((x, y), stride) in enumerate(zip(points.tolist(), strides.tolist(), strict=True)):
        reach = [x - left, y - top, right - x, bottom - y]
        low, high = {8: (0, 4), 16: (2, 4), 32: (2, math.inf)}[int(stride)]
        off = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2))
        if min(reach) > 0 and off < CENTRE_RADIUS * stride and low * stride <= max(reach) < high * stride:
            found.add(place)
    return found


@pytest.mark.parametrize("box", [(20, 20, 36, 40), (10, 5, 70, 60), (3, 3, 93, 61), (40, 30, 52, 60)])
def test_points_near_the_centre_on_the_level_that_fits(box: tuple[float, float, float, float]) -> None:
    found = assign(targets([(*box, 1)]), POINTS)
    chosen = set(np.flatnonzero(found.positive[0].numpy()).tolist())
    assert chosen == by_definition(box)
    assert chosen
    place = next(iter(chosen))
    assert found.boxes[0, place].tolist() == list(box)
    assert found.classes[0, place] == 1


def test_a_box_between_the_points_goes_to_the_nearest_one() -> None:
    box = (17.0, 17.0, 19.5, 19.5)  # the nearest centres of cells are 12 and 20
    assert not by_definition(box)
    found = assign(targets([(*box, 0)]), POINTS)
    (place,) = np.flatnonzero(found.positive[0].numpy())
    assert found.points[place].tolist() == [20, 20]
    assert found.strides[place] == 8


def test_the_smaller_box_wins_and_ignored_ones_are_left_out() -> None:
    found = assign(targets([(16, 16, 40, 40, 0), (20, 20, 36, 36, 1), (60, 8, 90, 40, 2, 1)]), POINTS)
    inner = [place for place in by_definition((20, 20, 36, 36)) if found.positive[0, place]]
    assert {int(found.classes[0, place]) for place in inner} == {1}
    assert not (found.classes[0][found.positive[0]] == 2).any()
    inside = (found.points > torch.tensor([60, 8])).all(1) & (found.points < torch.tensor([90, 40])).all(1)
    assert torch.equal(found.left_out[0], inside & ~found.positive[0])


def test_an_image_without_boxes_has_no_positive_point() -> None:
    for rows in (targets([]), targets([], [(8, 8, 40, 40, 0)])[:1]):
        assert not assign(rows, POINTS).positive.any()
        losses = detection_losses(torch.zeros(1, 8, POINTS), rows, RECIPE)
        assert losses["box"] == losses["class"] == 0
        assert losses["objectness"] == pytest.approx(POINTS * math.log(2), rel=1e-5)


def perfect(rows: Tensor, classes: int) -> Tensor:
    """Return raw answers that say exactly what the targets ask for."""
    found = assign(rows, POINTS)
    raw = torch.full((len(rows), POINTS, 5 + classes), -20.0)
    raw[..., :4] = 1.0
    reach = torch.cat([found.points - found.boxes[..., :2], found.boxes[..., 2:] - found.points], dim=-1)
    raw[..., :4] = torch.where(found.positive[..., None], reach / found.strides[:, None], raw[..., :4])
    raw[..., -1] = torch.where(found.positive, 20.0, -20.0)
    places = found.positive.nonzero(as_tuple=True)
    raw[(*places, 4 + found.classes[places])] = 20.0
    return raw.transpose(1, 2)


SCENE = [(20.0, 20.0, 36.0, 40.0, 1.0), (50.0, 4.0, 94.0, 60.0, 0.0)]


@pytest.mark.parametrize("loss", ["bce", "cross_entropy", "focal"])
def test_a_perfect_answer_costs_nothing_and_is_decoded_to_the_boxes(loss: str) -> None:
    rows = targets(SCENE, [])
    raw = perfect(rows, 3)
    recipe = Recipe(loss=loss, label_smoothing=0.0)  # type: ignore[arg-type]
    for name, term in detection_losses(raw, rows, recipe).items():
        assert float(term) == pytest.approx(0, abs=1e-4), name
    found, nothing = decode_answers(raw.numpy(), SIDES, least_score=0.5)
    assert not len(nothing.boxes)
    wanted = {tuple(box) for box in SCENE}
    assert {
        (*box.round(3).tolist(), float(label)) for box, label in zip(found.boxes, found.classes, strict=True)
    } == wanted


def test_terms_are_weighted() -> None:
    rows, raw = targets(SCENE), torch.randn(1, 8, POINTS, generator=torch.Generator().manual_seed(0))
    once = detection_losses(raw, rows, Recipe(loss="bce", loss_weights=LossWeights(class_=1, box=1, objectness=1)))
    more = detection_losses(raw, rows, Recipe(loss="bce", loss_weights=LossWeights(class_=2, box=3, objectness=5)))
    for name, factor in (("class", 2), ("box", 3), ("objectness", 5)):
        torch.testing.assert_close(more[name], factor * once[name])


def test_overlaps_of_boxes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [2, 0, 3, 1]])
    overlap, generalised = box_overlaps(boxes, others)
    torch.testing.assert_close(overlap, torch.tensor([1, 1 / 7, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(generalised, torch.tensor([1, 1 / 7 - 2 / 9, -1 / 3]), atol=1e-5, rtol=0)


def test_gradients_reach_every_output() -> None:
    raw = torch.randn(2, 8, POINTS, generator=torch.Generator().manual_seed(0)).requires_grad_()
    torch.autograd.backward(sum(detection_losses(raw, targets(SCENE, SCENE[:1]), RECIPE).values(), torch.zeros(())))
    assert raw.grad is not None
    assert (raw.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_divergence_is_zero_for_equal_answers_grows_and_is_the_same_in_torch() -> None:
    rows = targets(SCENE)
    raw = 0.2 * perfect(rows, 3)
    noise = torch.randn(raw.shape, generator=torch.Generator().manual_seed(0))
    assert mean_divergence(raw.numpy(), raw.numpy()) == 0
    near, far = (mean_divergence(raw.numpy(), (raw + size * noise).numpy()) for size in (0.01, 0.1))
    assert 0 < near < far
    torch.testing.assert_close(float(torch_divergence(raw, raw + 0.1 * noise)), far, rtol=1e-3, atol=1e-5)
    boxes_only = torch.cat([raw[:, :4] + 0.1, raw[:, 4:]], dim=1)
    assert mean_divergence(raw.numpy(), boxes_only.numpy()) > 0


def test_a_teachers_terms_are_least_at_its_own_answers() -> None:
    taught = 0.3 * perfect(targets(SCENE), 3)
    own = sum(float(term) for term in taught_losses(taught, taught).values())
    for place in range(8):
        other = taught.clone()
        other[:, place] += 0.5
        assert sum(float(term) for term in taught_losses(other, taught).values()) > own


@pytest.mark.parametrize("to_px", [(32, 64), (128, 160), (64, 96)])
def test_a_box_seen_at_another_size_is_that_box_there(to_px: tuple[int, int]) -> None:
    left, top, right, bottom = box = torch.tensor([5.0, 9.0, 70.0, 50.0])
    points, strides = map(torch.from_numpy, points_of(SIDES, STRIDES))
    x, y = points.T
    raw = torch.zeros(2, 7, POINTS)
    raw[:, :4] = torch.stack([x - left, y - top, right - x, bottom - y]) / strides
    raw[:, 4:] = (x / SIDES[1] + 2 * y / SIDES[0]) * torch.tensor([1.0, -2.0, 3.0])[:, None]
    found = resized(raw, SIDES, to_px)
    there, steps = map(torch.from_numpy, points_of(to_px, STRIDES))
    assert found.shape == (2, 7, len(there))
    # A ramp is enlarged exactly but at the edges, where the outermost cells are repeated.
    down, across = to_px[0] / SIDES[0], to_px[1] / SIDES[1]
    margin = torch.stack([steps * across, steps * down], dim=1) / 2
    inner = ((there >= margin) & (there <= torch.tensor([to_px[1], to_px[0]]) - margin)).all(dim=1)
    assert inner.sum() > 8
    boxes = decoded(found[0, :4].T, there, steps)[inner]
    wanted = box * torch.tensor([across, down, across, down])
    torch.testing.assert_close(boxes, wanted.expand_as(boxes), atol=1e-3, rtol=0)
    ramp = there[:, 0] / to_px[1] + 2 * there[:, 1] / to_px[0]
    logits = ramp * torch.tensor([1.0, -2.0, 3.0])[:, None]
    torch.testing.assert_close(found[1][4:, inner], logits[:, inner], atol=1e-4, rtol=0)


def same(one: Assigned, other: Assigned) -> bool:
    """Tell whether two assignments are equal; points that are not positive have no box and no class to compare."""
    at = one.positive
    return (
        torch.equal(at, other.positive)
        and torch.equal(one.left_out, other.left_out)
        and torch.equal(one.boxes[at], other.boxes[at])
        and torch.equal(one.classes[at], other.classes[at])
    )


def test_empty_rows_and_few_images_at_a_time_change_no_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = targets(
        [*SCENE, (60, 8, 90, 40, 2, 1)], [], [(16, 16, 40, 40, 0), (20, 20, 36, 36, 1), (17, 17, 19.5, 19.5, 2)]
    )
    plain = assign(rows, POINTS)
    assert plain.positive[0].any() and plain.left_out[0].any() and not plain.positive[1].any()
    padded = targets(*([(0, 0, 0, 0, NO_CLASS)] * 40 for _ in rows))
    padded[:, :2], padded[:, 20:22] = rows[:, :2], rows[:, 2:]  # as where the boxes between them were moved out
    assert assignment._without_empty(padded).shape == rows.shape
    assigned, images = assignment._assigned, list[int]()

    def counted(some: Tensor, grid: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images.append(len(some))
        return assigned(some, grid)

    monkeypatch.setattr(assignment, "_assigned", counted)
    assert same(assign(padded, POINTS), plain)
    monkeypatch.setattr(assignment, "_MOST_PAIRS", 2 * 3 * POINTS)  # three boxes an image: two images at a time
    assert same(assign(padded, POINTS), plain)
    assert images == [3, 2, 1]


def test_made_up_targets_look_like_real_ones() -> None:
    from scalesearch.networks import base_spec

    spec = base_spec("resnet_scene")
    rows = TASK.made_up_targets(spec, 4, torch.Generator().manual_seed(0))
    assert rows[:, 0, 2:4].tolist() == [[160, 96]] * 4
    assert (rows[:, 1:, 2:4] >= rows[:, 1:, :2]).all()
    points = sum(96 * 160 // stride**2 for stride in STRIDES)
    assert assign(rows, points).positive.any()
