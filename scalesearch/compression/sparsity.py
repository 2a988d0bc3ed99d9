"""Sparsity: choose which weights become zero, and keep them zero while the network is retrained."""

import copy
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.compression.importance import output_layers
from scalesearch.compression.pattern_2_4 import GROUP, KEPT, WIDE_FROM, has_pattern
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Pruning, Sparsity
from scalesearch.values.network import Network

_log = logging.getLogger(__name__)

_INPUT_MULTIPLE, _OUTPUT_MULTIPLE = 16, 8


def sparsity_masks(network: Network, pruning: Pruning, *, wide_from: int = WIDE_FROM) -> dict[str, Tensor]:
    """Return masks by weight name, each of the shape of its weight, True where a value stays.

    `2:4` keeps the two largest magnitudes of every four consecutive input channels, for each output channel and place
    of the kernel. This is the pattern of NVIDIA's sparse tensor cores (Mishra et al., arXiv 2104.08378); of two equal
    magnitudes the first stays. Only convolutions and linear layers that can gain by it are masked: they are not grouped
    (TensorRT considers no sparse kernel for grouped ones, its issue 4054), and have at least `wide_from` input and
    output channels, the inputs a multiple of 16 and the outputs a multiple of 8, as NVIDIA's own ASP asks. The
    classifier stays dense: its outputs are the classes, seldom a multiple of 8, and for one image it is a matrix times
    one vector, which is limited by memory speed.

    `unstructured` masks the `sparse_fraction` smallest magnitudes of all convolutions together (Han et al., arXiv
    1506.02626).

    Returns:
        The masks; empty if no weight is to be masked.

    Raises:
        StageFailed: `sparse_fraction` is not in [0, 1), or `wide_from` is below 1.
    """
    if not 0 <= pruning.sparse_fraction < 1 or wide_from < 1:
        reason = (
            f"sparse_fraction must be in [0, 1) and wide_from at least 1: {pruning.sparse_fraction} and {wide_from}"
        )
        raise StageFailed(stage="sparsity", reason=reason)
    masks = _MASKS[pruning.sparsity](network.module, pruning.sparse_fraction, wide_from)
    if pruning.sparsity != "none" and not masks:
        _log.info("no weight masked: %s has no layer that %s can pay on", network.spec.name, pruning.sparsity)
    return masks


def zeros_any(network: Network, pruning: Pruning, *, aligned: bool = True, wide_from: int = WIDE_FROM) -> bool:
    """Tell whether `sparsity_masks` would mask any weight of a network of this shape.

    Args:
        network: Only its shape is read: it may be without weights, on torch's meta device.
        pruning: The kind of zeros, and their share.
        aligned: Whether widths must be the multiples that sparse kernels take. Without this, the answer is also right
            for a network whose channels are still to be cut to such multiples.
        wide_from: As in `sparsity_masks`.
    """
    if pruning.sparsity == "2:4":
        return bool(_paying_layers(network.module, wide_from, aligned=aligned))
    weights = sum(layer.weight.numel() for layer in network.module.modules() if isinstance(layer, nn.Conv2d))
    return pruning.sparsity == "unstructured" and round(pruning.sparse_fraction * weights) > 0


def masks_of_zeros(module: nn.Module) -> dict[str, Tensor]:
    """Return masks by weight name, each of the shape of its weight, False where a weight is zero already.

    For a network that was trained with `apply_masks`, they keep its zeros through further training. They are found in
    convolutions and linear layers; one without a zero has no mask.
    """
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    masks = {f"{name}.weight": layer.weight.detach() != 0 for name, layer in layers}
    return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set every masked weight of the module to zero, in place.

    Called after each optimizer step, this keeps the pattern of zeros.

    Args:
        module: Holds weights of the masks' names.
        masks: By weight name, each of the shape of its weight, False where the weight becomes zero.

    Raises:
        StageFailed: A weight is computed from others, so that it has no zeros that stay.
    """
    with torch.no_grad():
        for name, mask in masks.items():
            try:
                weight = module.get_parameter(name)
            except AttributeError:
                reason = (
                    f"{name} is no parameter, but computed from others (torch.nn.utils.parametrizations): it cannot be "
                    "made zero"
                )
                raise StageFailed(stage="sparsity", reason=reason) from None
            weight.masked_fill_(~mask.to(weight.device), 0.0)


def masked(network: Network, masks: Mapping[str, Tensor]) -> Network:
    """Return a copy with the masked weights set to zero, from which a retraining with `apply_masks` starts.

    Averages of the weights over the steps (EMA) keep the zeros only if these are there from the first step.

    Args:
        network: It is not changed.
        masks: As in `apply_masks`.
    """
    module = copy.deepcopy(network.module)
    apply_masks(module, masks)
    return Network(spec=network.spec, module=module)


def holds_2_4(weight: NDArray[Any] | Tensor) -> bool:
    """Tell whether a weight has the 2:4 pattern of zeros; see `pattern_2_4.has_pattern`."""
    return has_pattern(weight.detach().cpu().numpy() if isinstance(weight, Tensor) else weight)


def mask_2_4(weight: Tensor) -> Tensor:
    """Return a mask that is True at the two largest magnitudes of every four consecutive input channels (axis 1).

    Args:
        weight: (outputs, inputs, ...), the inputs a multiple of four.

    Returns:
        A boolean tensor of the weight's shape.
    """
    groups = torch.unflatten(weight.detach().abs(), 1, (-1, GROUP))
    order = groups.argsort(dim=2, descending=True, stable=True)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, order[:, :, :KEPT], True)
    return kept.flatten(1, 2)


def _two_of_four(module: nn.Module, _: float, wide_from: int) -> dict[str, Tensor]:
    return {f"{name}.weight": mask_2_4(layer.weight) for name, layer in _paying_layers(module, wide_from).items()}


def _paying_layers(module: nn.Module, wide_from: int, *, aligned: bool = True) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers on which a sparse kernel can pay, by name; see `sparsity_masks`."""
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    answering = output_layers(module)
    return {
        name: layer
        for name, layer in layers.items()
        if not any(layer is each for each in answering) and _can_pay(layer, wide_from, aligned=aligned)
    }


def _can_pay(layer: nn.Conv2d | nn.Linear, wide_from: int, *, aligned: bool) -> bool:
    outputs, inputs = layer.weight.shape[:2]
    grouped = isinstance(layer, nn.Conv2d) and layer.groups != 1
    taken = inputs % _INPUT_MULTIPLE == 0 and outputs % _OUTPUT_MULTIPLE == 0
    return not grouped and (taken or not aligned) and min(inputs, outputs) >= wide_from


def _smallest(module: nn.Module, fraction: float, _: int) -> dict[str, Tensor]:
    weights = {
        f"{name}.weight": layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }
    if not weights:
        return {}
    magnitudes = torch.cat([weight.abs().flatten() for weight in weights.values()])
    kept = torch.ones_like(magnitudes, dtype=torch.bool)
    kept[magnitudes.argsort(stable=True)[: round(fraction * len(magnitudes))]] = False
    parts = torch.split(kept, [weight.numel() for weight in weights.values()])
    return {name: part.view(weight.shape).clone() for (name, weight), part in zip(weights.items(), parts, strict=True)}


_MASKS: Mapping[Sparsity, Callable[[nn.Module, float, int], dict[str, Tensor]]] = MappingProxyType(
    {"none": lambda *_: {}, "2:4": _two_of_four, "unstructured": _smallest}
)
