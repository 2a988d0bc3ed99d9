import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_modules import Residual
from tiny_training import SPEC
from torch import Tensor, nn

from scalesearch.data.mapped import MappedImages, planes
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.tasks.classification.pieces import build, score, train
from scalesearch.training.answers import answers
from scalesearch.training.train import Trained
from scalesearch.values.candidate import OptimizerName, Recipe
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
RECIPE = Recipe(steps=30, batch_size=16)


def coloured_squares(count: int = 60) -> tuple[Tensor, Tensor]:
    """Three classes: the colour channel of a bright square on noise."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 200, (count, 3, 16, 16), dtype=torch.uint8, generator=random)
    labels = torch.arange(count) % 3
    for image, label in zip(images, labels, strict=True):
        image[label, 5:11, 5:11] = 255
    return images, labels


def run(
    recipe: Recipe = RECIPE, *, network: Network | None = None, machine: Machine = MACHINE, seed: int = 0
) -> Trained:
    return train(network or build(SPEC), *coloured_squares(), recipe, machine, mean=MEAN, std=STD, seed=seed)


def test_images_that_are_read_batch_by_batch_train_to_the_same_weights(tmp_path: Path) -> None:
    images, labels = coloured_squares()
    np.save(tmp_path / "images.npy", images.permute(0, 2, 3, 1).numpy())
    source = planes(MappedImages(np.load(tmp_path / "images.npy", mmap_mode="r")))
    trained = train(build(SPEC), source, labels, RECIPE, MACHINE, mean=MEAN, std=STD, seed=0)
    assert equal(weights(trained.network), weights(run().network))
    first, second = (
        torch.cat(list(answers(trained.network, given, MACHINE, mean=MEAN, std=STD, batch=16)))
        for given in (source, images)
    )
    assert torch.equal(first, second)


def top1(trained: Trained) -> float:
    return score(trained.network, *coloured_squares(), MACHINE, MEAN, STD)


def weights(network: Network) -> dict[str, Tensor]:
    return copy.deepcopy(network.module.state_dict())


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    id: str
    recipe: Recipe
    machine: Machine = MACHINE


CASES = (
    Case(id="muon", recipe=RECIPE),
    Case(id="adamw", recipe=replace(RECIPE, optimizer="adamw", learning_rate=0.005)),
    Case(id="sgd", recipe=replace(RECIPE, optimizer="sgd", learning_rate=0.05, weight_decay=1e-4)),
    Case(id="focal", recipe=replace(RECIPE, loss="focal")),
    Case(id="bce", recipe=replace(RECIPE, loss="bce")),
    Case(id="ema", recipe=replace(RECIPE, ema_decay=0.9)),
    Case(id="contiguous", recipe=RECIPE, machine=replace(MACHINE, channels_last=False)),
    Case(id="bf16", recipe=replace(RECIPE, steps=12), machine=replace(MACHINE, bf16=True)),
    Case(id="flip", recipe=replace(RECIPE, flip=True)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_recipe_learns_and_repeats_bit_for_bit(case: Case) -> None:
    untrained = score(build(SPEC), *coloured_squares(), MACHINE, MEAN, STD)
    trained = run(case.recipe, machine=case.machine)
    again = run(case.recipe, machine=case.machine)

    assert top1(trained) > max(0.6, untrained)
    assert trained.final_loss < (math.log(3) if case.recipe.loss == "cross_entropy" else math.inf)
    assert len(trained.losses) == min(40, trained.steps) and trained.losses[-1] < trained.losses[0]
    assert not trained.safe_recipe_used
    assert trained.steps == case.recipe.steps
    assert equal(weights(trained.network), weights(again.network))
    assert trained.final_loss == again.final_loss


def test_another_seed_gives_other_weights() -> None:
    assert not equal(weights(run(seed=0).network), weights(run(seed=1).network))


def test_the_result_is_new_float32_and_in_eval_mode_and_the_input_untouched() -> None:
    network = build(SPEC)
    network.module.train()
    before = weights(network)
    random_before, threads_before = torch.get_rng_state(), torch.get_num_threads()

    trained = run(network=network)

    assert equal(weights(network), before)
    assert network.module.training
    assert all(weight.grad is None for weight in network.module.parameters())
    assert not trained.network.module.training
    assert trained.network.spec == SPEC
    assert {tensor.dtype for tensor in trained.network.module.state_dict().values()} == {torch.float32, torch.int64}
    assert all(tensor.is_contiguous() for tensor in trained.network.module.state_dict().values())
    assert torch.equal(torch.get_rng_state(), random_before)
    assert torch.get_num_threads() == threads_before


def test_steps_and_rates_are_obeyed_and_breathe_comes_once_per_step() -> None:
    calls: list[int] = []
    network = build(SPEC)

    def moved(scale: float) -> float:
        trained = train(
            network,
            *coloured_squares(),
            replace(
                RECIPE,
                steps=7,
                learning_rate=scale * RECIPE.learning_rate,
                muon_learning_rate=scale * RECIPE.muon_learning_rate,
            ),
            MACHINE,
            mean=MEAN,
            std=STD,
            seed=0,
            breathe=lambda: calls.append(1),
        )
        assert trained.steps == 7
        start, end = weights(network), weights(trained.network)
        return sum(float((end[name] - start[name]).norm()) for name in start if name.endswith("weight"))

    assert moved(0.01) < 0.1 * moved(1.0)
    assert len(calls) == 14


def test_after_step_changes_the_module_under_training_before_averages_see_it() -> None:
    """A mask, as 2:4 sparsity sets it after every update."""
    frozen = "stem.0.weight"
    network = build(SPEC)
    with torch.no_grad():
        network.module.get_parameter(frozen)[:, 0] = 0.0
    seen: list[bool] = []

    def mask(module: nn.Module) -> None:
        weight = module.get_parameter(frozen)
        seen.append(bool((weight[:, 0] != 0).any()))
        with torch.no_grad():
            weight[:, 0] = 0.0

    for recipe in (RECIPE, replace(RECIPE, ema_decay=0.9)):
        trained = train(
            network,
            *coloured_squares(),
            replace(recipe, steps=7),
            MACHINE,
            mean=MEAN,
            std=STD,
            seed=0,
            after_step=mask,
        )
        weight = trained.network.module.get_parameter(frozen)
        assert not weight[:, 0].any()
        assert (weight[:, 1:] != network.module.get_parameter(frozen)[:, 1:]).any()
    assert len(seen) == 14
    assert all(seen)  # every update moved them


def test_dropout_is_the_recipes() -> None:
    network = build(SPEC, dropout=0.5)
    without = run(replace(RECIPE, dropout=0.0), network=network)
    assert equal(weights(without.network), weights(run(replace(RECIPE, dropout=0.0)).network))
    assert not equal(weights(without.network), weights(run(replace(RECIPE, dropout=0.5), network=network).network))


@pytest.mark.parametrize("own", [0.3, 0.0])
def test_a_module_of_the_users_own_keeps_its_own_dropout(own: float) -> None:
    module = Residual(classes=3)
    module.drop.p = own
    network = Network(spec=replace(SPEC, stages=(), origin="mine:network", origin_sha256="a" * 64), module=module)
    seen = list[float]()

    def note(training: nn.Module) -> None:
        assert isinstance(training, Residual) and training.training
        seen.append(training.drop.p)

    trained = train(
        network, *coloured_squares(), replace(RECIPE, steps=2, dropout=0.1), MACHINE, mean=MEAN, std=STD, seed=0,
        after_step=note,
    )  # fmt: skip
    assert seen == [own, own]
    assert isinstance(trained.network.module, Residual) and trained.network.module.drop.p == own


def test_average_holds_the_batchnorm_statistics_too() -> None:
    plain, averaged = run(), run(replace(RECIPE, ema_decay=0.9))
    name = next(name for name in weights(plain.network) if name.endswith("running_mean"))
    assert not torch.equal(weights(plain.network)[name], weights(averaged.network)[name])
    assert plain.final_loss == averaged.final_loss  # the same path, only read differently


def test_fewer_images_than_a_batch_and_batches_of_one_train() -> None:
    images, labels = coloured_squares(5)
    few = replace(RECIPE, steps=2, batch_size=64)
    single = replace(RECIPE, steps=2, batch_size=1)
    deep = replace(SPEC, stages=SPEC.stages * 3)  # the last feature map is 1 x 1: BatchNorm needs two images
    for recipe in (few, single):
        trained = train(build(deep), images, labels, recipe, MACHINE, mean=MEAN, std=STD, seed=0)
        assert math.isfinite(trained.final_loss)


class Fragile(nn.Module):
    """Its gradient is infinite on the first `bad` backward passes; counts outlive copies, being shared."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.inner = build(SPEC).module
        self.left = SharedCount(bad)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        if self.training and self.left.take():
            logits = logits * torch.tensor(math.inf)
        return logits


class SharedCount:
    def __init__(self, value: int) -> None:
        self.value = value

    def take(self) -> bool:
        self.value -= 1
        return self.value >= 0

    def __deepcopy__(self, memo: dict[int, object]) -> "SharedCount":
        return self


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_training_that_diverges_starts_over_with_the_safe_recipe(
    optimizer: OptimizerName, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(spec=SPEC, module=Fragile(bad=1))
    trained = run(replace(RECIPE, optimizer=optimizer, learning_rate=0.005), network=network)

    assert trained.safe_recipe_used
    assert trained.steps == RECIPE.steps
    assert all(torch.isfinite(tensor).all() for tensor in weights(trained.network).values())
    assert top1(trained) > 0.6
    assert f"not finite by step 1 of 30 with {optimizer}: starting over with the safe recipe" in caplog.text


def test_a_training_that_diverges_twice_fails_with_the_reason() -> None:
    network = Network(spec=SPEC, module=Fragile(bad=1000))
    with pytest.raises(
        StageFailed, match=r"^train: loss or gradient not finite by step 1 of 30 with muon, then .* safe"
    ) as e:
        run(network=network)
    assert e.value.stage == "train"


class Refusing(nn.Module):
    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self.inner = build(SPEC).module
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


def test_memory_that_runs_out_fails_the_trial_and_any_other_fault_stays_a_bug() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory") as real:
        torch.empty(10**16)
    network = Network(spec=SPEC, module=Refusing(real.value))
    with pytest.raises(StageFailed, match=r"train: out of memory at 16 images of 16 px: lower training\.batch_size"):
        run(network=network)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(network=Network(spec=SPEC, module=Refusing(RuntimeError("shapes cannot be multiplied"))))


def test_weights_that_only_the_last_update_spoils_are_noticed() -> None:
    """An absurd rate overflows float32 without one bad loss: a single step, so no later loss can show it."""
    recipe = replace(RECIPE, optimizer="sgd", learning_rate=math.inf, steps=1)
    assert run(recipe).safe_recipe_used


def test_ctrl_c_passes_through() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(build(SPEC), *coloured_squares(), RECIPE, MACHINE, mean=MEAN, std=STD, seed=0, breathe=interrupt)


def test_impossible_inputs_are_told_apart() -> None:
    images, labels = coloured_squares()
    arguments: dict[str, Any] = {"mean": MEAN, "std": STD, "seed": 0}
    with pytest.raises(ConfigError, match=r"at least 1 step, got 0: raise training\.steps"):
        train(build(SPEC), images, labels, replace(RECIPE, steps=0), MACHINE, **arguments)
    with pytest.raises(ConfigError, match="got 60 images and 59 targets"):
        train(build(SPEC), images, labels[1:], RECIPE, MACHINE, **arguments)
    with pytest.raises(StageFailed, match=r"expects images of 16 x 16 px, got \(8, 8\)"):
        train(build(SPEC), images[:, :, ::2, ::2], labels, RECIPE, MACHINE, **arguments)


def test_score_is_the_share_of_right_answers() -> None:
    trained = run()
    images, labels = coloured_squares()
    whole = score(trained.network, images, labels, MACHINE, MEAN, STD)
    right = sum(score(trained.network, images[i : i + 1], labels[i : i + 1], MACHINE, MEAN, STD) for i in range(60))
    assert whole == pytest.approx(right / 60)
    assert score(trained.network, images, (labels + 1) % 3, MACHINE, MEAN, STD) <= 1 - whole + 1e-9


@pytest.mark.gpu
def test_cuda_trains_by_the_same_code() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no NVIDIA GPU here")
    machine = Machine(device="cuda", threads=1, bf16=True, channels_last=True)
    trained = run(machine=machine)
    assert {tensor.device.type for tensor in weights(trained.network).values()} == {"cpu"}
    assert top1(trained) > 0.6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_network_that_answers_no_number_has_no_score(bad: float) -> None:
    network = build(SPEC)
    torch.nn.init.constant_(network.module.get_parameter("classifier.bias"), bad)
    with pytest.raises(StageFailed, match="NaN or infinity for 60 of 60 images"):
        score(network, *coloured_squares(), MACHINE, MEAN, STD)
