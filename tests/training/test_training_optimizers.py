import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from scalesearch.training.optimizers import ConvolutionMuon, make_optimizers, muon_weights, orthogonalize
from scalesearch.values.candidate import OptimizerName, Recipe


def small_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def quintic(singular_values: torch.Tensor) -> torch.Tensor:
    """The scalar iteration that the matrix one performs on every singular value (Jordan et al. 2024)."""
    for _ in range(5):
        singular_values = 3.4445 * singular_values - 4.7750 * singular_values**3 + 2.0315 * singular_values**5
    return singular_values


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8), (16, 1)], ids=str)
def test_orthogonalize_moves_singular_values_as_the_quintic_and_keeps_the_vectors(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    scaled = values / values.norm(dim=1, keepdim=True)
    expected = left @ torch.diag_embed(quintic(scaled)) @ right

    given = orthogonalize(matrices.to(torch.float32))

    torch.testing.assert_close(given, expected.to(torch.float32), atol=1e-4, rtol=1e-4)


def test_orthogonalize_survives_ill_conditioned_and_zero_matrices() -> None:
    generator = torch.Generator().manual_seed(2)
    steep = torch.randn(1, 32, 90, generator=generator) * torch.logspace(0, -8, 90)
    both = torch.cat([steep, torch.zeros_like(steep)])

    given = orthogonalize(both)

    assert torch.linalg.svdvals(given[0]).max() < 1.25
    assert not given[1].any()


def test_one_muon_step_equals_torchs_own_on_the_reshaped_weight() -> None:
    """torch.optim.Muon iterates in bfloat16: agreement to its precision."""
    weight = nn.Parameter(torch.randn(10, 6, 3, 3, generator=torch.Generator().manual_seed(0)))
    twin = nn.Parameter(weight.detach().flatten(1).clone())
    ours = ConvolutionMuon([weight], learning_rate=0.1)
    theirs = torch.optim.Muon([twin], lr=0.1, weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    start = twin.detach().clone()
    for _ in range(3):
        gradient = torch.randn(10, 54, generator=generator)
        weight.grad = gradient.view_as(weight)
        twin.grad = gradient.clone()
        ours.step()
        theirs.step()  # type: ignore[no-untyped-call]

    moved = weight.detach().flatten(1) - start
    assert moved.norm() > 0.1
    assert (moved - (twin.detach() - start)).norm() < 0.03 * moved.norm()


def test_muon_step_is_the_same_for_channels_last_weights() -> None:
    generator = torch.Generator().manual_seed(4)
    weights = [nn.Parameter(torch.randn(8, 4, 3, 3, generator=generator)) for _ in range(2)]
    twins = [nn.Parameter(w.detach().to(memory_format=torch.channels_last)) for w in weights]
    for members in (weights, twins):
        for number, weight in enumerate(members):
            weight.grad = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(number))
            weight.grad = weight.grad.to(
                memory_format=torch.channels_last if weight is twins[number] else torch.contiguous_format
            )
        ConvolutionMuon(members, learning_rate=0.1).step()

    for weight, twin in zip(weights, twins, strict=True):
        assert torch.equal(weight, twin)


def test_muon_takes_every_convolution_but_the_stem() -> None:
    module = small_module()
    assert [id(w) for w in muon_weights(module)] == [id(module[place].weight) for place in (2, 3, 4)]


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_every_parameter_has_exactly_one_optimizer_and_only_matrices_decay(name: OptimizerName) -> None:
    module = small_module()
    optimizers = make_optimizers(module, Recipe(optimizer=name, weight_decay=0.05))
    held = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, module.parameters()))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if group.get("weight_decay", 0.0) > 0:
                assert all(p.ndim > 1 for p in group["params"])


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_weights_that_are_computed_or_shared_are_trained_once(name: OptimizerName) -> None:
    module = small_module()
    weight_norm(module[3])
    module.append(nn.Conv2d(12, 12, 3, padding=1))
    module[-1].weight = module[4].weight
    assert muon_weights(module) == [module[2].weight, module[4].weight]
    optimizers = make_optimizers(module, Recipe(optimizer=name))
    taken = [each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]]
    assert len(taken) == len({id(each) for each in taken})
    assert {id(each) for each in taken} == {id(each) for each in module.parameters()}


def test_muon_without_a_second_convolution_is_adamw_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    (only,) = make_optimizers(module, Recipe(optimizer="muon"))
    assert isinstance(only, torch.optim.AdamW)
