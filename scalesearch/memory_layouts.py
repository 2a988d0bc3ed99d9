"""The order of images and weights in memory: channels-last, which trains faster, but where a module cannot take it."""

from typing import Any, Final

import torch
from torch import Tensor, nn

_MARK: Final = "contiguous_only"


def mark_contiguous_only(module: nn.Module) -> None:
    """Note in the module, and in every later copy of it, that it does not run on channels-last images.

    A forward that calls `view` on a feature map, for example, raises an error in that order.
    """
    setattr(module, _MARK, True)


def layout_of(module: nn.Module, *, channels_last: bool = True) -> torch.memory_format:
    """Return the order in which a module and its images are held: channels-last if asked for and possible."""
    return torch.channels_last if channels_last and not getattr(module, _MARK, False) else torch.contiguous_format


def moved(module: nn.Module, layout: torch.memory_format, *, device: str | torch.device = "cpu") -> nn.Module:
    """Move the module, in place, to the device and into this order; return it."""
    to: Any = module.to  # torch's stubs know `memory_format` only without other arguments
    to(device=device, memory_format=layout)
    return module


def laid_out(images: Tensor, module: nn.Module, *, channels_last: bool = True) -> Tensor:
    """Return the images (N, C, H, W) in the order of the module."""
    return images.contiguous(memory_format=layout_of(module, channels_last=channels_last))
