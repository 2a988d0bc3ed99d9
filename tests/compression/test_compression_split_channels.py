"""Which operations between two layers take channels apart, and which do not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from scalesearch.compression.importance import graph_of
from scalesearch.compression.split_channels import split_layers


class Between(nn.Module):
    """A convolution to 8 channels of 8x8, an operation, and a linear layer."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.operation = nn.Conv2d(3, 8, 1), operation
        self.fc = nn.LazyLinear(4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.operation(self.body(x)))
        return logits


def _apart(operation: Callable[[Tensor], Tensor]) -> bool:
    module, images = Between(operation).eval(), torch.zeros(1, 3, 8, 8)
    module(images)
    return module.body in split_layers(graph_of(module, images))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: torch.chunk(x, 2, dim=1)[0].flatten(1),
        lambda x: x.unbind(1)[3].flatten(1),
        lambda x: x[:, :4].flatten(1),
        lambda x: x[:, 2].flatten(1),
        lambda x: functional.glu(x, dim=1).flatten(1),
        lambda x: x.unflatten(1, (2, 4)).mean(1).flatten(1),
        lambda x: x.view(1, 2, 4, 8, 8).transpose(1, 2).flatten(1),
        lambda x: functional.pixel_shuffle(x, 2).flatten(1),
        lambda x: functional.channel_shuffle(x, 2).flatten(1),
        lambda x: torch.cat([x, x], dim=1).view(1, 2, 8, 64).transpose(1, 2).flatten(1),
        lambda x: x.flatten(2).transpose(1, 2).reshape(1, 64, 2, 4).flatten(1),
        lambda x: x.permute(0, 2, 3, 1).flatten(1),  # a channel's positions lie apart
        lambda x: x.mean(dim=(2, 3)).view(1, 2, 4).sum(2),
    ],
)
def test_channels_are_taken_apart(operation: Callable[[Tensor], Tensor]) -> None:
    assert _apart(operation)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.flatten(1),
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: x.flatten(2).transpose(-1, -2).reshape(1, 8, 8, 8).mean(dim=(1, 2)),
        lambda x: x.permute(0, 2, 3, 1).reshape(1, 4, 2, 4, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8),
        lambda x: x[:, :, ::2, 1:].flatten(1),
        lambda x: torch.cat(torch.chunk(x, 2, dim=3), dim=2).flatten(1),
        lambda x: x.flatten(1).view(1, 8, 8, 8).mean(dim=(2, 3)),
        lambda x: (x * x.mean(dim=(2, 3), keepdim=True)).mean(dim=(2, 3))[:, :],
        lambda x: torch.cat([x, x], dim=1).flatten(1),
        lambda x: x.mean(dim=(2, 3))[:, :, None, None].flatten(1),
    ],
)
def test_channels_stay_whole(operation: Callable[[Tensor], Tensor]) -> None:
    assert not _apart(operation)
