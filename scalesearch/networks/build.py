"""Build a torch module with seeded weights from a spec."""

import copy
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.host import available_bytes
from scalesearch.networks.backbone import Backbone
from scalesearch.networks.own_module import own_module
from scalesearch.networks.validity import check_spec
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec


class MakeModule(Protocol):
    """Makes a task's module from a spec: the backbone with the task's head on it."""

    def __call__(self, spec: NetworkSpec, *, dropout: float = 0.0) -> nn.Module:
        """Return the module; its weights are not initialised."""
        ...


def build(spec: NetworkSpec, make_module: MakeModule, *, dropout: float = 0.0, seed: int = 0) -> Network:
    """Build the network of a spec on the CPU, in float32 and training mode.

    Equal spec and seed give equal weights; torch's global random state is neither read nor changed. A user's own module
    keeps its weights and its dropout; only a new last layer gets seeded weights.

    Args:
        spec: The network's shape.
        make_module: Makes the task's module.
        dropout: Share of the features that the head drops in training, in [0, 1).
        seed: Seed of the weights.

    Raises:
        ConfigError: The spec cannot be built, `dropout` is not in [0, 1), or the task's module holds a weight or buffer
            that nothing initialises.
        StageFailed: The weights would not fit into memory, or a user's own module does not fit the spec.
    """
    check_spec(spec)
    if not 0.0 <= dropout < 1.0:
        message = f"dropout must be at least 0 and below 1, not {dropout!r}"
        raise ConfigError(message)
    if spec.origin:
        return Network(spec=spec, module=own_module(spec, seed=seed))
    # On the meta device layers draw no random numbers; every tensor is set below.
    with torch.device("meta"):
        module = make_module(spec, dropout=dropout)
    _require_memory(spec, module)
    module.to_empty(device="cpu")
    _mark_unset(module)
    generator = torch.Generator().manual_seed(seed)
    _fill(module, generator)
    if isinstance(module, Backbone):
        module.start_outputs(generator)
    _require_set(module)
    return Network(spec=spec, module=module)


def _require_memory(spec: NetworkSpec, module: nn.Module) -> None:
    """Raise StageFailed if the weights alone would take more than half of the available memory."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size_bytes > available_bytes() / 2:
        reason = (
            f"the weights of {spec.name} would take {size_bytes / 1e9:.3g} GB, expected at most half of the "
            f"{available_bytes() / 1e9:.1f} GB of memory available: use smaller multipliers of width, depth or kernel"
        )
        raise StageFailed(stage="build", reason=reason)


def outline(spec: NetworkSpec, make_module: MakeModule) -> Network:
    """Build the network without weights (on torch's meta device), to get shapes and costs of any size in milliseconds.

    A user's own module is built with its weights, since its forward may need them.

    Raises:
        ConfigError: The spec cannot be built.
    """
    check_spec(spec)
    if spec.origin:
        return Network(spec=spec, module=own_module(spec, seed=0))
    with torch.device("meta"):
        return Network(spec=spec, module=make_module(spec))


def settle_norms(network: Network, images: NDArray[np.float32]) -> Network:
    """Return a copy in eval mode whose BatchNorm statistics are those of these images.

    An untrained network with the usual statistics (mean 0, variance 1) gives nearly the same answer to every image, so
    comparing or calibrating on it would mean nothing.

    Args:
        network: It is not changed.
        images: (N, C, H, W), normalised, float32.
    """
    module = copy.deepcopy(network.module).train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # a plain mean over the batches; there is only one
            layer.reset_running_stats()
    with torch.no_grad():
        module(torch.from_numpy(images))
    return Network(spec=network.spec, module=module.eval())


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    """Initialise weights by He's method (arXiv 1502.01852, equation 14), as torchvision except in depthwise layers.

    torch counts a depthwise layer's fan-out as if every input reached every output, and so starts its weights too small
    by the square root of its groups. EfficientNet's reference code counts k * k instead, and so does this function.
    Layers of other kinds start as torch starts them (`reset_parameters`).
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.weight[:, 0].numel() // layer.groups
            nn.init.normal_(layer.weight, std=(2.0 / fan_out) ** 0.5, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()  # ones, zeros and fresh running statistics: no random numbers
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif next(_own_tensors("", layer), None):
            _reset(layer, generator)


def _reset(layer: nn.Module, generator: torch.Generator) -> None:
    """Let a layer of another kind initialise itself, if it can, with random numbers of the generator."""
    reset = getattr(layer, "reset_parameters", None)
    if reset:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.set_state(generator.get_state())
            reset()
            generator.set_state(torch.default_generator.get_state())


def _mark_unset(module: nn.Module) -> None:
    """Set all floats of the module to NaN, by which `_require_set` knows what nothing has initialised."""
    with torch.no_grad():
        for name, layer in module.named_modules():
            for _, tensor in _own_tensors(name, layer):
                if tensor.is_floating_point():
                    tensor.fill_(math.nan)


def _require_set(module: nn.Module) -> None:
    """Raise ConfigError if a tensor of the module still holds whatever was in memory.

    Whole numbers bear no mark: those of a layer that cannot initialise itself count as not set.
    """
    for name, layer in module.named_modules():
        for own, tensor in _own_tensors(name, layer):
            in_float = tensor.is_floating_point()
            if bool(tensor.isnan().any()) if in_float else not hasattr(layer, "reset_parameters"):
                message = (
                    f"{type(module).__name__}: {own} is not initialised. A task's module may hold weights in Conv2d, "
                    "BatchNorm2d, Linear and layers with `reset_parameters` only (they are initialised here), and in "
                    "parameters and buffers of floats that its `start_outputs` sets."
                )
                raise ConfigError(message)


def _own_tensors(name: str, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the layer's own parameters and buffers, without those of its children, by their names in the module."""
    yield from layer.named_parameters(name, recurse=False)
    yield from layer.named_buffers(name, recurse=False)
