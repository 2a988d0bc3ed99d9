"""Convolutions with a stride: the same numbers as torch's own, without its crash."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from scalesearch.strided_convolutions import sound_convolutions

TRAINING = """
import torch
from scalesearch.strided_convolutions import sound_convolutions
torch.set_num_threads(1)
layer = torch.nn.Conv2d({channels}, 16, 1, 2).to(memory_format=torch.channels_last)
with sound_convolutions(layer):
    for _ in range(60):
        images = torch.rand(4, {channels}, 64, 112, requires_grad=True)
        layer(images.to(memory_format=torch.channels_last)).pow(2).mean().backward()
print("trained")
"""


@pytest.mark.parametrize("channels", [8, 12])
def test_training_that_crashes_torch_ends(channels: int) -> None:
    code = TRAINING.format(channels=channels)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "trained\n"), ended.stderr


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 16, 1, 2),
        nn.Conv2d(8, 16, 1, (1, 3), bias=False),
        nn.Conv2d(8, 16, 1, 2, padding=1),
        nn.Conv2d(8, 16, 1, 2, groups=2),
        nn.Conv2d(8, 16, 3, 2, padding=1),
        nn.Conv2d(32, 16, 1, 2),
    ],
    ids=lambda layer: str(layer)[6:],
)
def test_answers_and_gradients_are_those_of_torch(layer: nn.Conv2d) -> None:
    images = torch.rand(2, layer.in_channels, 9, 12, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (nn.Sequential(nn.Conv2d(8, 8, 1, 2), layer), nn.Sequential(layer)):  # the first has such a layer
        images_in = images.clone().requires_grad_()
        module.zero_grad()
        with sound_convolutions(module):
            answer = layer(images_in)
            torch.autograd.backward(answer.pow(2).sum())
        found.append((answer.detach(), gradient_of(images_in), gradient_of(layer.weight)))
    plain = images.clone().requires_grad_()
    layer.zero_grad()
    wanted = layer(plain)
    torch.autograd.backward(wanted.pow(2).sum())
    for answer, image_gradient, weight_gradient in found:
        torch.testing.assert_close(answer, wanted.detach())
        torch.testing.assert_close(image_gradient, gradient_of(plain))
        torch.testing.assert_close(weight_gradient, gradient_of(layer.weight))


def gradient_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor's gradient."""
    assert tensor.grad is not None
    return tensor.grad.clone()
