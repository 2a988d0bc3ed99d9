"""The computed cost of a network: MACs for one image (convolutions and linear layers) and parameters.

`formula_cost` takes milliseconds and is used to check candidates before anything else. `count_cost` is fvcore's count,
the number that is recorded. A test checks that the two are equal for every base network.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scalesearch.values.network import Network
from scalesearch.values.record import Cost

_FREE_LAYERS = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid, nn.Dropout)


def formula_cost(network: Network) -> Cost:
    """Compute MACs and parameters from the shapes of the layers, on a copy without weights.

    A convolution costs OC * OH * OW * KH * KW * IC / groups and a linear layer in * out. The shapes are read from the
    module and not from the spec, so the count is right for pruned networks too.
    """
    skeleton = _without_weights(network.module).eval()
    params = sum(parameter.numel() for parameter in skeleton.parameters())
    _drop_free_layers(skeleton)
    macs = 0

    def add(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal macs
        weight = layer.get_parameter("weight")
        # weight[0] holds KH * KW * IC / groups of a convolution, and the inputs of a linear layer
        macs += output.numel() * weight[0].numel()

    for layer in skeleton.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(add)
    with torch.no_grad():
        skeleton(_one_image(network, device="meta"))
    return Cost(macs=macs, params=params)


def count_cost(network: Network) -> Cost:
    """Count MACs and parameters with fvcore, in one real forward pass on a copy of the module.

    fvcore's "flops" are multiply-accumulates. Its total() also counts BatchNorm and pooling (a tenth more on a
    MobileNet), so only convolutions and linear layers are taken.
    """
    module = copy.deepcopy(network.module).eval()  # a forward pass in training mode would change BatchNorm's statistics
    device = next(module.parameters()).device
    with torch.no_grad(), _quiet():
        from fvcore.nn import FlopCountAnalysis, parameter_count  # here, since its import alone warns of torch.jit

        analysis = FlopCountAnalysis(module, _one_image(network, device=device))
        by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
        params = parameter_count(module)[""]
    return Cost(macs=int(by_operator["conv"] + by_operator["linear"]), params=int(params))


def _without_weights(module: nn.Module) -> nn.Module:
    """Return a copy on the meta device; tensors are replaced while copying, so the weights are never duplicated."""
    memo: dict[int, object] = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in module.buffers()}
    memo |= {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=tensor.requires_grad)
        for tensor in module.parameters()
    }
    return copy.deepcopy(module, memo)


def _drop_free_layers(skeleton: nn.Module) -> None:
    """Replace, in place, layers that cost no MACs and change no shape by an Identity.

    On the meta device these layers take most of the time.
    """
    for parent in list(skeleton.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _FREE_LAYERS):
                setattr(parent, name, nn.Identity())


def _one_image(network: Network, *, device: torch.device | str) -> Tensor:
    dtype = next(network.module.parameters()).dtype
    return torch.zeros(1, network.spec.image_channels, *network.spec.input_size.sides, dtype=dtype, device=device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence fvcore's notes on uncounted operators and torch.jit's deprecation warnings inside the block."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
