import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from tiny_networks import BLOCK_KINDS, tiny_network, tiny_spec
from torch import Tensor, nn

from scalesearch.compression.fold import fold_batchnorm, foldable_pairs, unfold_batchnorm
from scalesearch.errors import StageFailed
from scalesearch.networks import base_spec
from scalesearch.tasks.classification.pieces import build
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
    _Case(
        name="conv3d",
        layers=lambda: nn.Sequential(nn.Conv3d(2, 4, 3, groups=2, bias=False), nn.BatchNorm3d(4)),
        input_shape=(2, 2, 5, 5, 5),
    ),
    _Case(
        name="transposed",
        layers=lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3, stride=2, output_padding=1), nn.BatchNorm2d(8)),
        input_shape=(2, 3, 7, 7),
    ),
    _Case(
        name="transposed_no_bias",
        layers=lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 2, bias=False), nn.BatchNorm2d(8)),
        input_shape=(2, 3, 7, 7),
    ),
    _Case(
        name="transposed_grouped",
        layers=lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)),
        input_shape=(2, 4, 7, 7),
    ),
    _Case(
        name="transposed_depthwise",
        layers=lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)),
        input_shape=(2, 6, 7, 7),
    ),
    _Case(
        name="transposed1d",
        layers=lambda: nn.Sequential(nn.ConvTranspose1d(4, 8, 3, groups=2, dilation=2), nn.BatchNorm1d(8)),
        input_shape=(2, 4, 9),
    ),
    _Case(
        name="transposed3d",
        layers=lambda: nn.Sequential(nn.ConvTranspose3d(2, 3, 3, stride=2, padding=1), nn.BatchNorm3d(3)),
        input_shape=(2, 2, 4, 4, 4),
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
    generator = torch.Generator().manual_seed(7)
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.2, 2.0, generator=generator)
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


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_float32_weights_are_the_exact_ones_rounded_once(case: _Case) -> None:
    torch.manual_seed(0)
    single = _ready(case.layers())
    single.module.float()
    exact = fold_batchnorm(Network(spec=_SPEC, module=copy.deepcopy(single.module).double())).module.state_dict()
    for name, tensor in fold_batchnorm(single).module.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, exact[name].float())


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


class _NormRunsTwice(_RunsTwice):
    """One BatchNorm behind two runs of layers: with it inside one, the other would lose it."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x)) + self.norm(self.other(x))
        return y


class _OutputRead(_ReadTwice):
    """What comes out of the BatchNorm and what went in are both results of the network."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x)
        return torch.cat((self.norm(y), y))


class _WeightsRead(_NormFirst):
    """The network reads the weights of both layers besides running them."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x))
        return y + self.norm.bias.mean() + self.convolution.weight.mean()


class _NoStatistics(_NormFirst):
    """The BatchNorm takes the statistics of every batch, so that it is no constant factor."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.convolution(x))
        return y


class _Positions(nn.Module):
    """The linear layer runs on (N, 4 positions, 3 features), and BatchNorm normalizes the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x.flatten(1)[:, :20].reshape(-1, 4, 5)))
        return y


class _NormWithActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: a BatchNorm by class, and more than that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class _Subclass(_NoStatistics):
    def __init__(self) -> None:
        super().__init__()
        self.norm = _NormWithActivation(3)


class _Parametrized(_NoStatistics):
    """The weights are computed anew in every run, from other ones."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
        self.norm = nn.BatchNorm2d(3)


class _Hooked(_NoStatistics):
    """Somebody looks at what comes out of the convolution, and changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.convolution.register_forward_hook(lambda layer, arguments, output: output.relu())


_KINDS = [
    _ReadTwice,
    _RunsTwice,
    _NormFirst,
    _NormRunsTwice,
    _OutputRead,
    _WeightsRead,
    _NoStatistics,
    _Positions,
    _Subclass,
    _Parametrized,
    _Hooked,
]


@pytest.mark.parametrize("kind", _KINDS)
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


class _Tied(nn.Module):
    """Two convolutions share one weight, and each has a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2))
        self.second[0].weight = self.first[0].weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


def test_a_shared_weight_is_folded_on_each_side_apart() -> None:
    torch.manual_seed(0)
    network = _ready(_Tied())
    folded = fold_batchnorm(network)
    assert not _norms(folded.module)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(folded.module(x), network.module(x), rtol=1e-12, atol=1e-12)


def test_a_users_own_network_is_folded_where_it_can_be() -> None:
    """A BatchNorm in front that must stay, a convolution, a transposed one, and a skip around them all."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.ConvTranspose2d(4, 3, 2, stride=2), nn.BatchNorm2d(3))

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.branch, self.head = nn.BatchNorm2d(3), branch, head

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(nn.functional.max_pool2d(self.branch(self.norm(x)), 2))
            return y + x

    network = _ready(Mixed())
    assert foldable_pairs(network.module) == (("branch.0", "branch.1"), ("head.0", "head.1"))
    folded = fold_batchnorm(network)
    assert len(_norms(folded.module)) == 1
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(folded.module(x), network.module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("whole", [True, False], ids=["network", "one_norm"])
def test_training_mode_is_refused(whole: bool) -> None:
    network = build(tiny_spec("basic"))
    network.module.eval()
    (network.module if whole else _norms(network.module)[2]).train()
    with pytest.raises(StageFailed, match="fold: tiny_basic is in training mode"):
        fold_batchnorm(network)


class _Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(StageFailed, match=r"fold: the network cannot be traced by torch\.fx"):
        fold_batchnorm(Network(spec=_SPEC, module=_Branching().eval()))


def test_unfolding_gives_back_the_function_and_norms_that_training_needs() -> None:
    network = build(replace(base_spec("mobilenet_small"), num_classes=7), seed=1)
    generator = torch.Generator().manual_seed(0)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.bias, generator=generator)
    images = torch.randn(64, 3, 64, 64, generator=generator)
    network.module.train()(images)  # statistics that are not the usual ones
    network.module.eval()
    folded = fold_batchnorm(network).module
    unfolded = unfold_batchnorm(build(network.spec, seed=5), folded.state_dict(), images)
    other = torch.randn(8, 3, 64, 64, generator=generator)
    with torch.no_grad():
        expected = folded(other)
        assert torch.allclose(unfolded.module.eval()(other), expected, atol=1e-4 * float(expected.abs().max()))
        unfolded.module.train()
        dropout = [each for each in unfolded.module.modules() if isinstance(each, nn.Dropout)]
        assert all(each.p == 0 for each in dropout)
        # In training, the statistics are those of the batch: of the very images, the function is the same.
        assert torch.allclose(unfolded.module(images), folded(images), atol=1e-3 * float(expected.abs().max()))


def test_unfolding_refuses_the_weights_of_another_network() -> None:
    network = build(base_spec("mobilenet_small"))
    network.module.eval()
    held = dict(fold_batchnorm(network).module.state_dict())
    held.pop("classifier.bias")
    with pytest.raises(
        StageFailed, match=r"1 weights are not those of mobilenet_small, folded, first 'classifier.bias'"
    ):
        unfold_batchnorm(network, held, torch.zeros(2, 3, 64, 64))
