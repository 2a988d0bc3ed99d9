"""Keep clear of a fault of torch's CPU kernels: they write outside their memory in some backward passes.

torch 2.14.1 crashes ("double free", SIGSEGV) in the backward pass of a 1x1 convolution with a stride that has fewer
than 16 input channels, in channels-last layout: within 60 steps in 14 of 17 shapes of 48 px and more that were tried,
and in none of 10 with 16 channels or more. Picking the pixels that the stride meets first gives the same numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_LEAST_CHANNELS: Final = 16


@contextmanager
def sound_convolutions(module: nn.Module) -> Iterator[None]:
    """Compute the convolutions that may crash in a sound way inside the block.

    Costs nothing where the module has no such layer. Otherwise every call of a torch function takes longer: an update
    of a small detector at 64 x 96 px took 7 % more (16 images, one thread, 22 ms).
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if not any(_may_crash(layer.weight, layer.stride, layer.padding, layer.groups) for layer in layers):
        yield
        return
    with _Sliced():
        yield


class _Sliced(TorchFunctionMode):
    """Computes convolutions that may crash with stride 1, on the pixels that the stride would have met."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7:
            images, weight, bias, stride, padding, dilation, groups = args
            if _may_crash(weight, stride, padding, groups):
                images = images[:, :, :: stride[0], :: stride[1]]
                return func(images, weight, bias, (1, 1), padding, dilation, groups)
        return func(*args, **(kwargs or {}))


def _may_crash(weight: Tensor, stride: Any, padding: Any, groups: int) -> bool:
    """Tell whether a convolution is one of those, given its weight (O, I / groups, KH, KW)."""
    return (
        weight.device.type == "cpu"
        and groups == 1
        and tuple(weight.shape[2:]) == (1, 1)
        and weight.shape[1] < _LEAST_CHANNELS
        and padding in {0, (0, 0)}
        and not isinstance(stride, int)
        and max(stride) > 1
    )
