"""What `build` promises beyond the conformance suite: random state, initialisation, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.networks import build as building
from scalesearch.networks.backbone import Backbone
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec


def test_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = build(base_spec("efficientnet_small"), seed=5).module.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = build(base_spec("efficientnet_small"), seed=5).module.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_convolutions_start_with_he_deviation(name: str) -> None:
    # Equation 14 of arXiv 1502.01852: the variance is 2 / fan-out, and a depthwise layer's fan-out is k * k.
    checked = 0
    for layer in build(base_spec(name)).module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.numel() >= 3000:
            fan_out = layer.out_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
            assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.06)
            checked += 1
    assert checked > 10


def test_depthwise_layers_are_among_those_checked() -> None:
    layers = build(base_spec("mobilenet_v2")).module.modules()
    assert any(isinstance(layer, torch.nn.Conv2d) and layer.groups > 350 for layer in layers)


def test_norms_start_neutral() -> None:
    for layer in build(base_spec("resnet_small")).module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            assert layer.num_batches_tracked is not None
            assert bool((layer.weight == 1).all() and (layer.bias == 0).all())
            assert bool((layer.running_mean == 0).all() and (layer.running_var == 1).all())
            assert int(layer.num_batches_tracked) == 0


def test_the_spec_decides_eps_activation_and_image_channels() -> None:
    spec = replace(base_spec("mobilenet_small"), norm_eps=1e-3, activation="silu", image_channels=1)
    module = build(spec).module
    layers = list(module.modules())
    assert {layer.eps for layer in layers if isinstance(layer, torch.nn.BatchNorm2d)} == {1e-3}
    assert not any(isinstance(layer, torch.nn.ReLU6) for layer in layers)
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 43)


def test_dropout_acts_in_training_only() -> None:
    module = build(base_spec("resnet_small"), dropout=0.5).module
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.equal(module(batch), module(batch))
        module.eval()
        assert torch.equal(module(batch), module(batch))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_impossible_dropout_is_refused(dropout: float) -> None:
    with pytest.raises(ConfigError, match="dropout must be at least 0 and below 1"):
        build(base_spec("resnet_small"), dropout=dropout)


class _Headed(Backbone):
    """A backbone with layers, weights and buffers of a task's own on it, which are never run."""

    def __init__(self, spec: NetworkSpec, *layers: nn.Module, dropout: float = 0.0) -> None:
        super().__init__(spec)
        self.own = nn.ModuleList(layers)


def _own_layers(seed: int) -> nn.ModuleList:
    def make(spec: NetworkSpec, *, dropout: float = 0.0) -> nn.Module:
        up, norms = nn.ConvTranspose2d(64, 64, 2), (nn.GroupNorm(2, 8), nn.LayerNorm(8), nn.PReLU(3))
        return _Headed(spec, up, *norms, nn.Linear(8, 4, bias=False))

    module = building.build(base_spec("resnet_small"), make, seed=seed).module
    assert isinstance(module, _Headed)
    return module.own


def test_a_tasks_own_layers_of_other_kinds_start_as_torch_starts_them() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    layers, again, other = (_own_layers(seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    first, second = layers.state_dict(), again.state_dict()
    assert len(first) == 8 and all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other.state_dict()["0.weight"])
    assert first["0.weight"].std().item() == pytest.approx(1 / (3 * 64 * 4) ** 0.5, rel=0.06)  # uniform, by its inputs
    for norm in ("1", "2"):
        assert bool((first[f"{norm}.weight"] == 1).all() and (first[f"{norm}.bias"] == 0).all())
    assert first["3.weight"].tolist() == [0.25] * 3
    assert first["4.weight"].abs().max() < 0.1


class _Scaled(_Headed):
    def __init__(self, spec: NetworkSpec, *layers: nn.Module, dropout: float = 0.0) -> None:
        super().__init__(spec, *layers)
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("offset", torch.zeros(3), persistent=False)


class _Started(_Scaled):
    def start_outputs(self, generator: torch.Generator) -> None:
        nn.init.normal_(self.scale, generator=generator)
        nn.init.ones_(self.get_buffer("offset"))


class _Numbered(_Headed):
    def __init__(self, spec: NetworkSpec, *layers: nn.Module, dropout: float = 0.0) -> None:
        super().__init__(spec, *layers)
        self.register_buffer("places", torch.arange(3))


def test_weights_and_buffers_that_nothing_initialises_are_refused() -> None:
    spec = base_spec("resnet_small")
    with pytest.raises(ConfigError, match=r"_Scaled: scale is not initialised\. A task's module may hold weights in"):
        building.build(spec, _Scaled)
    with pytest.raises(ConfigError, match="_Numbered: places is not initialised"):
        building.build(spec, _Numbered)
    with pytest.raises(ConfigError, match=r"_Headed: own\.0\.in_proj_weight is not initialised"):
        building.build(spec, lambda spec, *, dropout=0.0: _Headed(spec, nn.MultiheadAttention(8, 2)))
    started = building.build(spec, _Started, seed=3).module.state_dict()
    assert torch.equal(started["scale"], building.build(spec, _Started, seed=3).module.state_dict()["scale"])


def stage(**changes: object) -> StageSpec:
    values: dict[str, object] = {"block": "basic", "depth": 1, "channels": 16, "kernel": 3, "stride": 1}
    return StageSpec(**(values | changes))  # type: ignore[arg-type]


BAD_SPECS = {
    "stages is empty": {"stages": ()},
    r"stages.1.depth must be a whole number of at least 1, not 0": {"stages": (stage(depth=0),)},
    r"stages.2.channels must be a whole number of at least 1, not 16.5": {"stages": (stage(), stage(channels=16.5))},
    r"stages.1.kernel must be odd, not 4": {"stages": (stage(kernel=4),)},
    r"stages.1.block must be one of basic, bottleneck, .*, not 'dense'": {"stages": (stage(block="dense"),)},
    r"stages.1.channels \(18\) must be a multiple of its expansion \(4\)": {
        "stages": (stage(block="bottleneck", channels=18, expansion=4),)
    },
    r"stages.1.expansion must be 1 in a basic block, not 2": {"stages": (stage(expansion=2),)},
    r"stages.1.expansion must be a whole number of at least 1, not '4'": {
        "stages": (stage(block="bottleneck", expansion="4"),)
    },
    r"activation must be one of relu, relu6, silu, not 'gelu'": {"activation": "gelu"},
    r"head.width_rule must be one of": {"head": HeadSpec(width_rule="wide")},  # type: ignore[arg-type]
    r"norm_eps must be positive and below 1, not 0": {"norm_eps": 0.0},
    r"image_channels must be 1 \(grey\) or 3 \(RGB\), not 4": {"image_channels": 4},
    r"image_channels must be 1 \(grey\) or 3 \(RGB\), not 2.5": {"image_channels": 2.5},
    r"mean and std must have as many numbers as image_channels \(3\), not \(0.5,\) and \(0.5,\)": {
        "mean": (0.5,),
        "std": (0.5,),
    },
    r"mean and std must have as many numbers as image_channels \(3\), not \(\) and \(0.5, 0.5, 0.5\)": {
        "std": (0.5,) * 3
    },
    r"mean and std must have as many numbers as image_channels \(1\)": {
        "image_channels": 1,
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    },
    r"mean must be finite and std above 0, not \(0.5, 0.5, 0.5\) and \(0.2, 0.0, 0.2\)": {
        "mean": (0.5,) * 3,
        "std": (0.2, 0.0, 0.2),
    },
    r"mean must be finite and std above 0, not \(0.5, nan, 0.5\)": {"mean": (0.5, math.nan, 0.5), "std": (0.2,) * 3},
    r"std must be a tuple of numbers, not 0.5": {"mean": (0.5,) * 3, "std": 0.5},
    r"width_px must be a whole number of at least 0, not -8": {"width_px": -8},
    r"width_px must be at most 16384, not 100000": {"width_px": 100_000},
    r"resolution_px .* num_classes .* image_channels .* \(and 2 more\)": {
        "resolution_px": 0,
        "num_classes": -1,
        "image_channels": 0,
        "norm_eps": 0.0,
        "activation": "gelu",
    },
}


@pytest.mark.parametrize("message", BAD_SPECS)
def test_a_spec_that_cannot_be_built_says_where(message: str) -> None:
    spec: NetworkSpec = replace(base_spec("resnet_small"), **BAD_SPECS[message])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"network 'resnet_small' cannot be built: {message}"):
        build(spec)


def test_a_classifier_of_one_class_is_refused_by_its_task() -> None:
    with pytest.raises(ConfigError, match=r"'resnet_small': expected at least two classes to tell apart, came 1"):
        build(replace(base_spec("resnet_small"), num_classes=1))
