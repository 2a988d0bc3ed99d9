"""The optimizers a recipe can name, each as a list of torch optimizers whose learning rates follow one schedule."""

import math
from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from scalesearch.values.candidate import OptimizerName, Recipe

# Jordan et al. 2024 (kellerjordan.github.io/posts/muon): the quintic that is steepest at zero, and their defaults.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_NEWTON_SCHULZ_STEPS: Final = 5
_MOMENTUM: Final = 0.95
_EPS: Final = 1e-7
_SGD_MOMENTUM: Final = 0.9


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return the matrices with their singular values moved to about 1 (0.7 to 1.2) and their singular vectors kept.

    This is the same Newton-Schulz iteration as in `torch.optim.Muon`, X <- (a + b G + c G^2) X with G = X X^T, but it
    is carried out on G. The factors P are polynomials in G, so they commute, the next G is P^2 G, and the wide X is
    used twice instead of eleven times. It computes in float32, since torch's version insists on bfloat16, which a CPU
    without it emulates: one step on a small ResNet took 165 ms with torch's version, 10 ms in float32, and 6 ms this
    way (AVX2, one thread).

    Args:
        matrices: (n, rows, columns).

    Returns:
        A tensor of the same shape.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    norm: Tensor = torch.linalg.matrix_norm(wide, keepdim=True)
    wide = wide / norm.clamp(min=_EPS)
    gram = wide @ wide.mT
    product = _factor(gram)
    factor = product
    for _ in range(_NEWTON_SCHULZ_STEPS - 1):
        gram = factor @ (factor @ gram)
        factor = _factor(gram)
        product = factor @ product
    wide = product @ wide
    return wide.mT if tall else wide


def _factor(gram: Tensor) -> Tensor:
    factor = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
    factor.diagonal(dim1=-2, dim2=-1).add_(_A)
    return factor


class ConvolutionMuon(torch.optim.Optimizer):
    """Muon for convolution weights, each seen as a matrix (out channels, everything else); without weight decay.

    `torch.optim.Muon` takes only 2-D parameters, one at a time; here layers of equal shape share one batched step.
    """

    def __init__(self, weights: list[nn.Parameter], *, learning_rate: float) -> None:
        super().__init__(weights, {"lr": learning_rate})
        shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for weight in weights:
            shapes.setdefault((weight.shape[0], weight[0].numel()), []).append(weight)
        self._shapes = shapes
        self._momenta = {
            shape: torch.zeros((len(members), *shape), device=members[0].device) for shape, members in shapes.items()
        }
        for shape, members in shapes.items():
            for weight, momentum in zip(members, self._momenta[shape], strict=True):
                self.state[weight]["momentum"] = momentum.view(weight.shape)  # the same memory

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # closure: never used
        """Update every weight along its orthogonalized Nesterov momentum, by rate * sqrt(max(1, rows / columns))."""
        rate = cast("float", self.param_groups[0]["lr"])
        for shape, members in self._shapes.items():
            gradients = torch.stack([_matrix_gradient(weight, shape) for weight in members])
            momentum = self._momenta[shape].lerp_(gradients, 1 - _MOMENTUM)
            updates = orthogonalize(gradients.lerp_(momentum, _MOMENTUM))
            scale = rate * math.sqrt(max(1.0, shape[0] / shape[1]))
            for weight, update in zip(members, updates, strict=True):
                weight.sub_(update.reshape(weight.shape), alpha=scale)


def _matrix_gradient(weight: nn.Parameter, shape: tuple[int, int]) -> Tensor:
    # A layer that the loss does not depend on has no gradient; zeros keep its place in the batch of its shape.
    return torch.zeros(shape, device=weight.device) if weight.grad is None else weight.grad.reshape(shape)


def muon_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return the convolution weights that Muon trains: all but the stem's (the first in registration order).

    Depthwise weights are included, as matrices (channels, k x k). On mobilenet_small (grocery42, 32 px, 300 steps, two
    seeds) that gave 51.9 and 54.8 %, against 48.2 and 49.6 % with AdamW on them, in the same time.

    A weight of several layers is there once. One that is computed from others (`torch.nn.utils.parametrizations`) is
    not: AdamW trains those others.
    """
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    weights: list[object] = [layer.weight for layer in convolutions[1:]]
    return list(dict.fromkeys(weight for weight in weights if isinstance(weight, nn.Parameter)))


def _muon(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    taken = muon_weights(module)
    rest = _decay_groups(module, recipe.weight_decay, without=taken)
    adamw: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=recipe.learning_rate, fused=True)]
    return [ConvolutionMuon(taken, learning_rate=recipe.muon_learning_rate), *adamw] if taken else adamw


def _adamw(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(_decay_groups(module, recipe.weight_decay), lr=recipe.learning_rate, fused=True)]


def _sgd(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    groups = _decay_groups(module, recipe.weight_decay)
    return [torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=_SGD_MOMENTUM, nesterov=True, fused=True)]


def _decay_groups(
    module: nn.Module, weight_decay: float, without: list[nn.Parameter] | None = None
) -> list[dict[str, Any]]:
    """Return the parameter groups: matrices and filters with weight decay, biases and norms without.

    Decay of biases and norms would only shift activations.
    """
    taken = {id(weight) for weight in without or []}
    left = [weight for weight in module.parameters() if weight.requires_grad and id(weight) not in taken]
    groups = [
        {"params": [weight for weight in left if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in left if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


_OPTIMIZERS: Final[dict[OptimizerName, Callable[[nn.Module, Recipe], list[torch.optim.Optimizer]]]] = {
    "muon": _muon,
    "adamw": _adamw,
    "sgd": _sgd,
}


def make_optimizers(module: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Make the optimizers, which together hold every parameter of the module once, at the recipe's peak rates."""
    return _OPTIMIZERS[recipe.optimizer](module, recipe)
