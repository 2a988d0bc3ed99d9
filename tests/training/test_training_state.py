"""A training that is stopped and continued gives the weights of one that was not."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scalesearch.data.mapped import ImageSource
from scalesearch.networks import base_spec, scale
from scalesearch.tasks.classification.pieces import build, train
from scalesearch.training.schedule import branch_rates, rates, trunk_rates
from scalesearch.training.state import TrainingState, restore_moments
from scalesearch.training.train import Trained
from scalesearch.values.candidate import OptimizerName, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

SPEC = scale(base_spec("resnet_small"), Scaling(width=0.5), resolution_px=16, num_classes=4)
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
RECIPE = Recipe(steps=13, branch_fraction=0.4, warmup_steps=3, batch_size=8, flip=True, dropout=0.3)


def images() -> tuple[Tensor | ImageSource, Tensor]:
    """Return 30 images, a number that no batch divides, and their labels."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 4, (30,), generator=generator)


def trained(
    recipe: Recipe = RECIPE,
    *,
    network: Network | None = None,
    rates: Sequence[float] | None = None,
    start: TrainingState | None = None,
) -> Trained:
    """Train from a network (a new one, if none is given)."""
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    network = network or build(SPEC, seed=1)
    return train(network, *images(), recipe, MACHINE, seed=5, rates=rates, start=start, mean=mean, std=std)


def weights(network: Network) -> dict[str, Tensor]:
    return network.module.state_dict()


def in_parts(recipe: Recipe, cuts: tuple[int, ...]) -> Network:
    """Train in as many parts as the cuts make, each from the state of the one before, written out and read again."""
    every = rates(recipe)
    network, state = build(SPEC, seed=1), None
    for first, last in zip((0, *cuts), (*cuts, len(every)), strict=True):
        part = trained(recipe, network=network, rates=every[first:last], start=state)
        network = part.network
        state = TrainingState.of(part.state.tensors(), safe_recipe_used=part.state.safe_recipe_used)
    return network


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
@pytest.mark.parametrize("cuts", [(8,), (1, 2, 12)])
def test_parts_give_the_weights_of_one_training_bit_for_bit(optimizer: OptimizerName, cuts: tuple[int, ...]) -> None:
    recipe = replace(RECIPE, optimizer=optimizer)
    whole = trained(recipe).network

    parts = in_parts(recipe, cuts)

    assert all(torch.equal(tensor, weights(parts)[name]) for name, tensor in weights(whole).items())


def test_a_trunk_with_a_branch_is_the_whole_schedule_with_its_average_of_weights() -> None:
    recipe = replace(RECIPE, ema_decay=0.9)
    whole = trained(recipe).network

    trunk = trained(replace(recipe, ema_decay=0.0), rates=trunk_rates(recipe))
    branch = trained(recipe, network=trunk.network, rates=branch_rates(recipe), start=trunk.state).network

    assert all(torch.equal(tensor, weights(branch)[name]) for name, tensor in weights(whole).items())


def test_without_the_state_a_branch_is_another_training() -> None:
    trunk = trained(rates=trunk_rates(RECIPE))

    first = trained(network=trunk.network, rates=branch_rates(RECIPE), start=trunk.state).network
    other = trained(network=trunk.network, rates=branch_rates(RECIPE)).network

    assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items())


def test_a_training_that_needed_the_safe_recipe_goes_on_with_it() -> None:
    wild = replace(RECIPE, learning_rate=1e30, optimizer="sgd")
    trunk = trained(wild, rates=[1.0] * 3)
    assert trunk.state.safe_recipe_used

    branch = trained(wild, network=trunk.network, rates=[1.0], start=trunk.state)

    assert branch.safe_recipe_used


def test_moments_of_another_shape_are_refused() -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    with pytest.raises(ValueError, match=r"momentum_buffer of weight: expected the shape \(2, 3\), came \(3, 2\)"):
        restore_moments(layer, [optimizer], {"weight": {"momentum_buffer": torch.zeros(3, 2)}})


def test_tensors_of_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"came 'weights\.x'"):
        TrainingState.of({"weights.x": torch.zeros(1)}, safe_recipe_used=False)
