"""The conformance suite of the family: what every base network must do, taken from the registry."""

import copy
import functools
from dataclasses import asdict, replace

import pytest
import torch
from loading import loaded
from pydantic import TypeAdapter

from scalesearch.errors import ConfigError
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import BASES, base_spec, find_spec, scale
from scalesearch.tasks.classification.head import ImageClassifier
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import Cost

SMALL = tuple(name for name in BASES if base_spec(name).resolution_px <= 96 and base_spec(name).input_size.is_square)
every_base = pytest.mark.parametrize("name", BASES)


def quarter(name: str, scaling: Scaling | None = None) -> NetworkSpec:
    """The base at a quarter of its width and 64 px, so that the large ones stay quick to build."""
    scaling = scaling or Scaling()
    narrow = replace(scaling, width=scaling.width / 4)
    return scale(base_spec(name), narrow, resolution_px=64, num_classes=5)


@functools.cache
def shape_cost(spec: NetworkSpec) -> Cost:
    """Cost of a network whose weights nobody needs."""
    with torch.device("meta"):
        return formula_cost(Network(spec=spec, module=ImageClassifier(spec)))


def images(batch: int, side: int) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


@every_base
def test_the_function_the_registry_and_the_spec_share_one_name(name: str) -> None:
    assert base_spec(name).name == name == BASES[name].__name__


@every_base
def test_logits_have_one_column_a_class_in_training_and_in_evaluation(name: str) -> None:
    module = build(quarter(name), dropout=0.1).module
    assert module.training
    assert module(images(2, 64)).shape == (2, 5)
    module.eval()
    assert module(images(1, 64)).shape == (1, 5)


@every_base
def test_untrained_outputs_differ_from_image_to_image(name: str) -> None:
    # Otherwise every comparison of outputs, here and in other rooms, would hold for the wrong reason.
    module = build(quarter(name)).module
    with torch.no_grad():
        logits = module(images(4, 64))
    assert logits.std(dim=0).min() > 1e-3


@every_base
def test_every_weight_receives_a_gradient(name: str) -> None:
    module = build(quarter(name)).module
    module(images(4, 64)).logsumexp(dim=1).sum().backward()
    without = [key for key, weight in module.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


@every_base
def test_works_in_channels_last(name: str) -> None:
    module = build(quarter(name)).module.eval()
    batch = images(2, 64)
    with torch.no_grad():
        plain = module(batch)
        module.to(memory_format=torch.channels_last)
        torch.testing.assert_close(module(batch.to(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)


@every_base
def test_classifier_is_the_last_layer(name: str) -> None:
    module = build(quarter(name)).module
    assert isinstance(module.classifier, torch.nn.Linear)
    assert list(module.modules())[-1] is module.classifier


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL)) for name in BASES])
@pytest.mark.parametrize("axis", ["resolution", "depth", "width", "kernel"])
def test_macs_grow_with_every_multiplier(name: str, axis: str) -> None:
    sizes = [0.5, 1.0, 2.0] if axis != "kernel" else [1.0, 1.67, 2.34]
    costs = [shape_cost(quarter(name, replace(Scaling(), **{axis: size}))) for size in sizes]  # type: ignore[arg-type]
    macs = [cost.macs for cost in costs]
    # The smallest step may round to the same network (one block cannot be halved); upwards nothing may.
    assert macs[0] <= macs[1] < macs[2]
    params = [cost.params for cost in costs]
    assert params == sorted(params)
    assert (params[1] == params[2]) == (axis == "resolution")


@pytest.mark.slow
@every_base
def test_equal_seeds_give_equal_weights_and_others_do_not(name: str) -> None:
    first, again, other = (build(quarter(name), seed=seed).module.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    stem = next(iter(first))  # a layer that pads may come before the convolution
    assert stem.startswith("stem.") and not torch.equal(first[stem], other[stem])


@every_base
def test_the_spec_survives_a_round_trip_through_json(name: str) -> None:
    adapter = TypeAdapter(NetworkSpec)
    spec = base_spec(name)
    assert adapter.validate_json(adapter.dump_json(spec)) == spec
    assert adapter.validate_python(asdict(spec)) == spec


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("side", [16, 24, 48, 96])
def test_small_networks_keep_a_feature_map_at_every_size(name: str, side: int) -> None:
    spec = scale(base_spec(name), Scaling(), resolution_px=side, num_classes=5)
    assert spec.resolution_px == side
    module = build(spec).module
    with torch.no_grad():
        features = module.get_submodule("stages")(module.get_submodule("stem")(images(1, side)))
    assert features.shape[-1] == side // spec.total_stride >= 2


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_are_small(name: str) -> None:
    cost = formula_cost(build(base_spec(name)))
    assert 5e6 <= cost.macs <= 10e6
    assert 5e4 <= cost.params <= 6e5


@pytest.mark.parametrize("name", ["resnet_small", "efficientnet_small"])
def test_a_module_survives_a_deep_copy(name: str) -> None:
    module = build(quarter(name)).module.eval()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(module)(images(2, 64)), module(images(2, 64)))


def test_an_unknown_name_suggests_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"no base network is called 'resnet_smal'\. Did you mean 'resnet_small'\?"):
        base_spec("resnet_smal")


def test_a_name_near_nothing_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"There are: resnet_small, .*mobilenet_small, .*package\.module:function"):
        find_spec("zzz")


def test_importing_the_room_loads_no_torch() -> None:
    assert not loaded("import scalesearch.networks", of={"torch"})
