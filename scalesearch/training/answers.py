"""What a network answers to images: in torch, batch by batch."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import PerChannel, normalise
from scalesearch.errors import StageFailed
from scalesearch.host import images_at_once
from scalesearch.memory_layouts import laid_out
from scalesearch.training.machine import on_device, torch_threads
from scalesearch.values.network import Network
from scalesearch.values.settings import Machine


def answers(
    network: Network,
    images: Tensor | ImageSource,
    machine: Machine,
    *,
    mean: PerChannel,
    std: PerChannel,
    batch: int | None = None,
) -> Iterator[Any]:
    """Yield what the torch module returns in float32 for each batch of images, in order.

    Args:
        network: It is not changed.
        images: uint8 (N, C, H, W), at the resolution of the network's spec.
        machine: Device, threads and memory layout.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel, of pixels in 0..1.
        batch: Images per batch; None: as many as `images_at_once` says.

    Raises:
        StageFailed: An answer holds NaN or infinity: such answers cannot be ranked.
    """
    answer = answering(network, machine, mean=mean, std=std)
    for chunk in _chunks(images, batch or images_at_once(*images.shape[2:])):
        with torch_threads(machine), torch.inference_mode():  # not while the caller works with what was yielded
            returned = answer(chunk)
            _refuse_broken(returned, len(chunk))
        yield returned


def together(returned: Iterable[Any]) -> Any:
    """Return what a torch module answered batch by batch as if it had answered all images at once."""
    first, *others = returned
    if not others:
        return first
    if isinstance(first, tuple):
        return tuple(torch.cat(parts) for parts in zip(first, *others, strict=True))
    return torch.cat([first, *others])


def answering(network: Network, machine: Machine, *, mean: PerChannel, std: PerChannel) -> Callable[[Tensor], Any]:
    """Return a function of images, uint8 (n, C, H, W), that returns what the torch module answers in eval mode.

    It works on a copy of the module. The caller decides on threads and on gradients.
    """
    module = on_device(network.module, machine).eval()

    def answer(images: Tensor) -> Any:
        given = normalise(images.to(machine.device), mean=mean, std=std)
        return module(laid_out(given, module, channels_last=machine.channels_last))

    return answer


def _chunks(images: Tensor | ImageSource, size: int) -> Iterator[Tensor]:
    """Yield all images in order, uint8 (at most `size`, C, H, W) at a time."""
    if isinstance(images, Tensor):
        yield from torch.split(images, size)
        return
    for start in range(0, len(images), size):
        yield images.take(torch.arange(start, min(start + size, len(images))))


def _refuse_broken(returned: Any, images: int) -> None:
    for tensor in returned if isinstance(returned, tuple) else (returned,):
        broken = int((~tensor.isfinite().flatten(1).all(dim=1)).sum())
        if broken:
            reason = f"the trained network answers NaN or infinity for {broken} of {images} images of a batch"
            raise StageFailed(stage="train", reason=f"{reason}: lower the learning rate")
