"""A torch module of the user's as a base network: its identity, its head, its normalisation, and what is refused."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scalesearch.compression.fold import fold_batchnorm, foldable_pairs
from scalesearch.compression.importance import output_layers
from scalesearch.data.normalisation import normalise
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.memory_layouts import layout_of
from scalesearch.networks import find_spec, scale
from scalesearch.networks.build import build
from scalesearch.networks.own_module import code_sha256, normalisation_source, replaced_layer, spec_of
from scalesearch.output_layers import output_layer_names
from scalesearch.tasks.classification.pieces import train
from scalesearch.tasks.classification.task import TASK
from scalesearch.training.answers import answers
from scalesearch.training.weights import trunk_key, weights_key
from scalesearch.values.candidate import Recipe, Scaling, StageScaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import Machine


def spec_at(name: str, *, px: int = 32, classes: int = 10) -> NetworkSpec:
    return scale(find_spec(f"own_modules:{name}"), Scaling(), resolution_px=px, num_classes=classes)


def built(spec: NetworkSpec, seed: int = 0) -> Network:
    return build(spec, TASK.make_module, seed=seed)


def test_a_module_keeps_its_weights_and_is_the_same_in_every_call() -> None:
    random_state = torch.random.get_rng_state()
    spec = spec_at("residual")
    assert (spec.origin, spec.name) == ("own_modules:residual", "own_modules:residual")
    assert torch.equal(random_state, torch.random.get_rng_state())
    one, other = (built(spec, seed).module.state_dict() for seed in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    import own_modules

    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = own_modules.residual().state_dict()
    assert list(one) == list(expected) and all(torch.equal(one[name], expected[name]) for name in expected)
    one["fc.weight"].zero_()
    assert built(spec).module.state_dict()["fc.weight"].any()


def test_the_resolution_is_a_multiple_of_32_unless_the_space_says_otherwise() -> None:
    base = find_spec("own_modules:residual")
    sizes = [scale(base, Scaling(resolution=each), resolution_px=64, num_classes=10) for each in (0.4, 0.75, 1.0)]
    assert [spec.resolution_px for spec in sizes] == [32, 64, 64]
    finer = scale(base, Scaling(resolution=0.75), resolution_px=64, num_classes=10, resolution_multiple=8)
    assert finer.resolution_px == 48


@pytest.mark.parametrize("scaling", [Scaling(depth=2), Scaling(width=0.5), Scaling(stages=(StageScaling(kernel=2),))])
def test_only_the_resolution_is_scaled(scaling: Scaling) -> None:
    with pytest.raises(ConfigError, match="of which only the resolution can be scaled"):
        scale(find_spec("own_modules:residual"), scaling, resolution_px=32, num_classes=10)


def test_other_classes_give_a_new_last_layer_with_seeded_weights_and_nothing_else() -> None:
    spec = spec_at("residual", classes=4)
    one, same, other = (built(spec, seed).module for seed in (1, 1, 2))
    assert one.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    weights = [module.get_parameter("fc.weight") for module in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    body = built(spec_at("residual")).module.state_dict()
    assert all(torch.equal(value, body[name]) for name, value in one.state_dict().items() if "fc" not in name)
    assert "has 10 outputs and the data 4 classes: its last layer (fc)" in replaced_layer(spec)
    assert replaced_layer(spec_at("residual")) == ""


def test_a_last_layer_that_is_registered_twice_is_replaced_under_both_names() -> None:
    module = built(spec_at("twice", classes=4)).module.eval()
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert module.get_submodule("fc") is module.get_submodule("body.fc")
    assert output_layer_names(module) == ("fc",)


def test_a_head_may_be_a_convolution_and_need_not_come_last() -> None:
    spec = spec_at("convolution_head", classes=3)
    module = built(spec).module
    assert spec.image_channels == 1
    assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    assert module.get_parameter("score.weight").shape == (3, 12, 1, 1)
    assert output_layer_names(module) == ("score",)


def test_a_module_keeps_what_it_calls_output_layers_itself() -> None:
    module = built(spec_at("names_outputs")).module.eval()
    assert isinstance(module.output_layers, nn.Sequential)
    assert output_layer_names(module) == ("output_layers.0",)
    assert [module.get_submodule("output_layers.0")] == output_layers(module)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_all_weights_are_float32_and_trained_and_nothing_works_in_place() -> None:
    module = built(spec_at("half_and_frozen")).module
    assert {(weight.dtype, weight.requires_grad) for weight in module.parameters()} == {(torch.float32, True)}
    assert module.training
    assert not any(getattr(layer, "inplace", False) for layer in module.modules())


def test_frozen_constants_are_not_trained() -> None:
    module = built(spec_at("normalising_by_parameters")).module
    assert [name for name, weight in module.named_parameters() if not weight.requires_grad] == ["mean", "std"]


def test_a_module_that_cannot_take_channels_last_images_is_trained_without_them() -> None:
    network = built(spec_at("viewing"))
    assert layout_of(network.module) == torch.contiguous_format
    assert layout_of(built(spec_at("residual")).module) == torch.channels_last
    machine = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
    images, labels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    recipe = Recipe(steps=2, batch_size=4)
    trained = train(network, images, labels, recipe, machine, mean=mean, std=std, seed=0)
    (answer,) = answers(trained.network, images, machine, mean=mean, std=std)
    expected = trained.network.module(normalise(images, mean=mean, std=std))
    torch.testing.assert_close(answer, expected)


def test_a_module_with_computed_weights_is_trained_and_folded() -> None:
    network = built(spec_at("weight_normed"))
    machine = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
    images, labels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    recipe = Recipe(optimizer="muon", steps=2, batch_size=4)
    trained = train(network, images, labels, recipe, machine, mean=mean, std=std, seed=0).network
    before, after = (
        each.module.get_parameter("one.0.parametrizations.weight.original1") for each in (network, trained)
    )
    assert not torch.equal(before, after)
    given = normalise(images, mean=mean, std=std)
    torch.testing.assert_close(fold_batchnorm(trained).module(given), trained.module(given), atol=1e-4, rtol=1e-4)


def test_the_code_of_a_module_is_known_apart_from_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    body = "import torch\nfrom torch import nn\nclass Net(nn.Sequential):\n    def forward(self, x):\n        {}\n"
    make = "def make():\n    torch.manual_seed(0)\n    return Net(nn.Conv2d(3, 8, 3), {})\n"

    def hashes(number: int, forward: str, layer: str = "nn.ReLU()") -> tuple[str, str]:
        name = f"forward_xyz_{number}"
        (tmp_path / f"{name}.py").write_text(body.format(forward) + make.format(layer))
        spec = find_spec(f"{name}:make")
        return spec.origin_sha256, code_sha256(spec)

    plain, code = hashes(0, "return super().forward(x).mean(dim=(2, 3))")
    assert hashes(1, "return super().forward(x).mean(dim=(2, 3))  # the mean") == (plain, code)
    others = (
        hashes(2, "return super().forward(x).amax(dim=(2, 3))"),
        hashes(3, "return super().forward(x).mean(dim=(2, 3))", "nn.SiLU()"),
    )
    assert {weights for weights, _ in others} == {plain}
    assert len({code, *(each for _, each in others)}) == 3


def test_the_normalisation_is_the_modules_where_it_names_one() -> None:
    named = find_spec("own_modules:with_constants")
    assert named.mean == (0.4, 0.5, 0.6) and named.std == pytest.approx((0.2, 0.25, 0.3))
    assert find_spec("own_modules:of_timm").mean == (0.5, 0.5, 0.5)
    assert find_spec("own_modules:residual").mean == ()


def test_a_module_that_normalises_by_itself_gets_pixels_as_they_are() -> None:
    import own_modules

    itself = find_spec("own_modules:normalising")
    assert (itself.mean, itself.std) == ((0.0,) * 3, (1.0,) * 3) and normalisation_source(itself) == "itself"
    by_parameters = find_spec("own_modules:normalising_by_parameters")
    assert (by_parameters.mean, by_parameters.std) == (itself.mean, itself.std)
    assert normalisation_source(by_parameters) == "itself"
    module = own_modules.normalising()
    module.pretrained_cfg = {"mean": (0.5,), "std": (0.25,) * 3}  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="of 3 channels"):
        spec_of(module, "own_modules:normalising")
    module = own_modules.normalising()
    module.register_buffer("mean", torch.zeros(7))  # not of channels
    assert spec_of(module, "own_modules:normalising").mean == ()


FAULTS = {
    "four_channels": "images of 1 .grey. or 3 .RGB. channels, came one whose convolutions take 4, 16, 32",
    "in_bytes": "for pixels in 0..1, came mean .123.7",
    "weightless": "expected a torch module with weights, Flatten has none",
    "lazy": "whose weights have values",
}


@pytest.mark.parametrize("name", FAULTS)
def test_modules_that_cannot_be_taken(name: str) -> None:
    with pytest.raises(ConfigError, match=FAULTS[name]) as caught:
        find_spec(f"own_modules:{name}")
    assert len(str(caught.value).splitlines()) <= 3


MISFITS = {
    "returns_tuple": (10, r"one tensor \(2, classes\) for images \(2, 3, 64, 64\), came a tuple of 2"),
    "returns_map": (10, r"came one of \(2, 3, 64, 64\)"),
    "returns_dict": (10, "came a dict of 1"),
    "of_one_size": (10, "its forward raised ValueError: expected 32 px"),
    "doubled": (4, "it has 20 outputs, and no such layer gives them"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_modules_that_do_not_fit(name: str) -> None:
    classes, words = MISFITS[name]
    with pytest.raises(StageFailed, match=words):
        built(spec_at(name, px=64, classes=classes))


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import torch, own_modules\ndef make():\n    torch.manual_seed({})\n    return own_modules.Residual()\n"
    (tmp_path / "changing_xyz.py").write_text(source.format(1))
    monkeypatch.syspath_prepend(tmp_path)
    spec = find_spec("changing_xyz:make")
    at = scale(spec, Scaling(), resolution_px=32, num_classes=10)
    built(at)
    (tmp_path / "changing_xyz.py").write_text(source.format(22))
    monkeypatch.delitem(sys.modules, "changing_xyz")
    later = find_spec("changing_xyz:make")
    assert later.origin_sha256 != spec.origin_sha256
    keys = {key(each, Recipe(), "data", 0) for key in (trunk_key, weights_key) for each in (spec, later)}
    assert len(keys) == 4
    with pytest.raises(ConfigError, match=f"SHA-256 {spec.origin_sha256[:12]}.*came {later.origin_sha256[:12]}"):
        built(at)
    monkeypatch.delitem(sys.modules, "changing_xyz")
    (tmp_path / "changing_xyz.py").unlink()
    with pytest.raises(ConfigError, match="no module 'changing_xyz', neither installed nor in"):
        built(at)


def test_keys_of_ordinary_networks_are_what_they_were() -> None:
    spec = find_spec("resnet_small")
    assert trunk_key(spec, Recipe(), "data", 0) == TRUNK_KEY
    assert weights_key(spec, Recipe(), "data", 0) == WEIGHTS_KEY
    assert weights_key(replace(spec, origin_sha256="1"), Recipe(), "data", 0) != WEIGHTS_KEY


TRUNK_KEY = "c14c000a9fd351af39daf693554f5a49c6b964c1027e4688984326d943821ca1"
WEIGHTS_KEY = "b86feb03a7dca932210d94b35b40b6fb83ad2fbcd581fe8fbd4c8c37d7d5476d"


def test_a_norm_with_an_activation_inside_is_taken_apart() -> None:
    spec = spec_at("fused_norm")
    module = built(spec).module.eval()
    assert not [layer for layer in module.modules() if type(layer).__name__ == "BatchNormAct2d"]
    import own_modules

    with torch.random.fork_rng():
        torch.manual_seed(0)
        original = own_modules.fused_norm().eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(module(images), original(images))
    assert foldable_pairs(module) == (("0", "1.0"),)
