import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from tiny_networks import BLOCK_KINDS, spread_norms, tiny_network, tiny_spec
from torch import Tensor, nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.errors import StageFailed
from scalesearch.networks.build import build
from scalesearch.values.network import Network
from scalesearch.values.network_spec import BlockKind

_SPEC = tiny_spec("basic")


@dataclass(frozen=True, kw_only=True)
class _Case:
    name: str
    layers: Callable[[], nn.Sequential]
    input_shape: tuple[int, ...]


_CASES = [
    _Case(
        name="no_bias",
        layers=lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)),
        input_shape=(2, 3, 7, 7),
    ),
    _Case(name="bias", layers=lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), input_shape=(2, 3, 7, 7)),
    _Case(
        name="grouped",
        layers=lambda: nn.Sequential(nn.Conv2d(6, 8, 3, groups=2), nn.BatchNorm2d(8)),
        input_shape=(2, 6, 7, 7),
    ),
    _Case(
        name="depthwise",
        layers=lambda: nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)),
        input_shape=(2, 6, 7, 7),
    ),
    _Case(
        name="padded_strided",
        layers=lambda: nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2, padding_mode="reflect"), nn.BatchNorm2d(8)
        ),
        input_shape=(2, 3, 9, 9),
    ),
    _Case(
        name="large_eps",
        layers=lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, eps=0.5)),
        input_shape=(2, 3, 5, 5),
    ),
    _Case(
        name="not_affine",
        layers=lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, affine=False)),
        input_shape=(2, 3, 5, 5),
    ),
    _Case(name="conv1d", layers=lambda: nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8)), input_shape=(2, 3, 9)),
    _Case(name="linear", layers=lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)), input_shape=(4, 5)),
    _Case(
        name="linear_no_bias",
        layers=lambda: nn.Sequential(nn.Linear(5, 8, bias=False), nn.BatchNorm1d(8)),
        input_shape=(4, 5),
    ),
]


def _norms(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def _ready(module: nn.Module) -> Network:
    """In float64, where rounding cannot hide a wrong term, with spread statistics, in eval mode."""
    spread_norms(module)
    return Network(spec=_SPEC, module=module.double().eval())


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_folded_layers_answer_the_same(case: _Case) -> None:
    torch.manual_seed(0)
    network = _ready(case.layers())
    folded = fold_batchnorm(network)
    assert not _norms(folded.module)
    x = torch.randn(case.input_shape, dtype=torch.float64)
    expected = network.module(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(folded.module(x), expected, rtol=1e-12, atol=1e-12)


def test_weights_follow_the_formula() -> None:
    """w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta, written out by hand."""
    torch.manual_seed(1)
    convolution, norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=0.25)
    network = _ready(nn.Sequential(convolution, norm))
    folded = fold_batchnorm(network).module.get_submodule("0")
    assert isinstance(folded, nn.Conv2d)
    assert folded.bias is not None
    assert convolution.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for channel in range(3):
        scale = norm.weight[channel] / (norm.running_var[channel] + 0.25) ** 0.5
        torch.testing.assert_close(folded.weight[channel], convolution.weight[channel] * scale)
        shift = (convolution.bias[channel] - norm.running_mean[channel]) * scale + norm.bias[channel]
        torch.testing.assert_close(folded.bias[channel], shift)


@pytest.mark.parametrize("block", BLOCK_KINDS)
def test_whole_networks_answer_the_same_without_any_batchnorm(block: BlockKind) -> None:
    network = tiny_network(block)
    network.module.double()
    before = copy.deepcopy(network.module.state_dict())
    folded = fold_batchnorm(network)
    assert _norms(network.module)
    assert not _norms(folded.module)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = network.module(images)
    assert expected.std(dim=0).mean() > 1e-3 * expected.abs().max()
    torch.testing.assert_close(folded.module(images), expected, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())


class _ReadTwice(nn.Module):
    """The convolution's own output is used besides that of the BatchNorm: nothing may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        z: Tensor = self.norm(y)
        return y + z


class _RunsTwice(nn.Module):
    """One convolution runs twice, with a BatchNorm behind the second run only."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(self.convolution(x)))
        return y


class _NormFirst(nn.Module):
    """The BatchNorm stands before the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.convolution = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(self.norm(x))
        return y


@pytest.mark.parametrize("kind", [_ReadTwice, _RunsTwice, _NormFirst])
def test_what_cannot_be_folded_stays_right_and_it_says_so(
    kind: type[nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = _ready(kind())
    with caplog.at_level(logging.INFO):
        folded = fold_batchnorm(network)
    assert len(_norms(folded.module)) == 1
    assert "nothing folded" in caplog.text
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(folded.module(x), network.module(x))


def test_training_mode_is_refused() -> None:
    network = build(tiny_spec("basic"))
    network.module.train()
    with pytest.raises(StageFailed, match="fold: tiny_basic is in training mode"):
        fold_batchnorm(network)


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(StageFailed, match=r"fold: the network cannot be traced by torch\.fx"):
        fold_batchnorm(Network(spec=_SPEC, module=_Branching().eval()))
