"""Find the last layer of a user's own module, and replace it."""

import copy
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from scalesearch.errors import StageFailed
from scalesearch.memory_layouts import laid_out, layout_of, moved
from scalesearch.registered_layers import replace_layer_everywhere
from scalesearch.strided_convolutions import sound_convolutions
from scalesearch.values.network_spec import NetworkSpec

STAGE: Final = "build"


def outputs_and_layer(module: nn.Module, spec: NetworkSpec) -> tuple[int, str]:
    """Return the module's number of outputs, and the name of the layer that gives them (empty if none is found).

    The module is run on two images of zeros. The last layer is the convolution or linear layer that runs last among
    those with as many outputs as the module.

    Raises:
        StageFailed: As `logits_of_zeros`.
    """
    ran: list[tuple[str, int]] = []
    names: dict[nn.Module, str] = {
        layer: name for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }

    def note(layer: nn.Module, *_: object) -> None:
        ran.append((names[layer], _width(layer)))

    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        with torch.no_grad():
            outputs = logits_of_zeros(module, spec).shape[1]
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, next((name for name, width in reversed(ran) if width == outputs), "")


def logits_of_zeros(module: nn.Module, spec: NetworkSpec, *, channels_last: bool = False) -> Tensor:
    """Return what the module answers to two images of zeros (2, C, H, W): one tensor (2, classes).

    Args:
        module: In eval or training mode.
        spec: Tells the images.
        channels_last: Whether the images lie channels-last in memory, if the module can take that.

    Raises:
        StageFailed: Its forward raises an error, or returns anything else.
    """
    shape, mode = (2, spec.image_channels, *spec.input_size.sides), " in training mode" if module.training else ""
    try:
        returned = module(laid_out(torch.zeros(shape), module, channels_last=channels_last))
    except Exception as error:  # whatever the user's forward raises
        reason = f"{spec.origin}: expected a module that takes images {shape}, its forward raised {_told(error)}{mode}"
        raise StageFailed(STAGE, reason) from error
    if not isinstance(returned, Tensor) or returned.ndim != 2 or len(returned) != shape[0]:
        reason = (
            f"{spec.origin}: expected one tensor ({shape[0]}, classes) for images {shape}, came {_kind(returned)}"
            f"{mode}: wrap it in a module that returns the logits alone"
        )
        raise StageFailed(STAGE, reason)
    return returned


def require_trainable(module: nn.Module, spec: NetworkSpec) -> None:
    """Raise StageFailed if a copy of the module does not answer in training mode as it does in eval mode, or learn.

    Some modules return auxiliary logits, too, in training mode.
    """
    copied = moved(copy.deepcopy(module), layout_of(module)).train()
    forked = torch.random.fork_rng(devices=[])  # dropout draws from torch's global generator
    with forked, torch.enable_grad(), sound_convolutions(copied):
        logits = logits_of_zeros(copied, spec, channels_last=True)
        try:
            torch.autograd.backward(logits.sum())
        except RuntimeError as error:
            reason = f"{spec.origin}: expected a module that can be trained, its backward pass raised {_told(error)}"
            raise StageFailed(STAGE, reason) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def replace_layer(module: nn.Module, layer_name: str, spec: NetworkSpec, outputs: int, seed: int) -> None:
    """Replace the last layer by one for the spec's classes, in place."""
    layer = module.get_submodule(layer_name) if layer_name else None
    bias = layer is not None and layer.bias is not None
    with torch.device("meta"):  # draws no random numbers
        if isinstance(layer, nn.Linear):
            new: nn.Linear | nn.Conv2d = nn.Linear(layer.in_features, spec.num_classes, bias=bias)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
            new = nn.Conv2d(layer.in_channels, spec.num_classes, 1, bias=bias)
        else:
            reason = (
                f"{spec.origin}: expected {spec.num_classes} outputs, or a last linear layer or 1x1 convolution to "
                f"replace; it has {outputs} outputs, and no such layer gives them: let the function return a module "
                f"with {spec.num_classes} outputs"
            )
            raise StageFailed(STAGE, reason)
    new.to_empty(device="cpu")
    nn.init.normal_(new.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    replace_layer_everywhere(module, layer_name, new.eval())


def _width(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def _kind(returned: object) -> str:
    if isinstance(returned, Tensor):
        return f"one of {tuple(returned.shape)}"
    if isinstance(returned, tuple | list | Mapping):
        return f"a {type(returned).__name__} of {len(returned)}"
    return f"a {type(returned).__name__}"
