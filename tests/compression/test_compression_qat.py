"""The simulation answers as the exported file does, and training in it wins back what rounding took."""

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_networks import gratings, tiny_network, trained_network
from torch import Tensor, nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.qat import QatResult
from scalesearch.compression.qdq import given_ranges, layers_by_weight
from scalesearch.compression.quantize import Calibration, Kept, layers_in_float
from scalesearch.compression.quantize import quantize as write_quantized
from scalesearch.compression.simulation import Simulation, layer_weights
from scalesearch.compression.sparsity import holds_2_4, masked, masks_of_zeros, sparsity_masks
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import StageFailed
from scalesearch.networks import find_spec
from scalesearch.networks.own_module import own_module
from scalesearch.tasks.classification.pieces import quantization_aware, quantize, run_as_written, to_onnx
from scalesearch.tasks.classification.task import TASK
from scalesearch.values.candidate import Precision, Pruning, Quantization, Sparsity, WeightScales
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.network_spec import BlockKind
from scalesearch.values.target import QuantizationProfile

_CALIBRATION, _ = gratings(64, seed=5)
_IMAGES, _LABELS = gratings(400, seed=6)


def _batches(seed: int = 0) -> Callable[[], tuple[Tensor, Tensor]]:
    images, labels = (torch.from_numpy(array) for array in gratings(1024, seed=100 + seed))
    place = iter(range(1000))

    def following() -> tuple[Tensor, Tensor]:
        start = 32 * next(place) % len(images)
        return images[start : start + 32], labels[start : start + 32]

    return following


def _tuned(
    network: Network, quantization: Quantization, *, profile: QuantizationProfile = "openvino", seed: int = 0
) -> QatResult:
    return quantization_aware(
        network,
        quantization,
        profile=profile,
        batches=_batches(seed),
        calibration=torch.from_numpy(_CALIBRATION),
        seed=seed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One network and one way to quantize it."""

    block: BlockKind
    precision: Precision = "int8"
    weights: WeightScales = "per_channel"


_CASES = (
    _Case(block="basic"),
    _Case(block="inverted_residual", precision="fp8"),
)
_MORE_CASES = (
    _Case(block="mbconv", weights="per_tensor"),
    _Case(block="bottleneck"),
    _Case(block="basic", weights="per_tensor"),
    _Case(block="inverted_residual"),
    _Case(block="mbconv"),
    _Case(block="mbconv", precision="fp8", weights="per_tensor"),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[BlockKind], OnnxModel]:
    """The folded tiny network's file; each is written once."""

    @functools.cache
    def model(block: BlockKind) -> OnnxModel:
        to = tmp_path_factory.mktemp(block) / "float.onnx"
        return to_onnx(fold_batchnorm(tiny_network(block)), to=to, check_images=_CALIBRATION[:8])

    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [*_CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in _MORE_CASES)],
    ids=lambda case: f"{case.block} {case.precision} {case.weights}",
)
def test_the_simulation_answers_as_the_exported_file(
    case: _Case, tmp_path: Path, exported: Callable[[BlockKind], OnnxModel]
) -> None:
    """Every projection, identity shortcut and squeeze-excitation has its Q/DQ nodes at the same place."""
    network = fold_batchnorm(tiny_network(case.block))
    quantization = Quantization(precision=case.precision, weights=case.weights, calibration="percentile")
    module = copy.deepcopy(network.module)
    simulation = Simulation(module, quantization, "openvino")
    simulation.calibrate(torch.from_numpy(_CALIBRATION), quantization)
    quantized = quantize(
        exported(case.block),
        # Another calibration, so that equal answers mean that all ranges were handed over.
        Quantization(precision=case.precision, weights=case.weights, calibration="minmax"),
        calibration=(_CALIBRATION / 2).astype(np.float32),
        profile="openvino",
        to=tmp_path / "quantized.onnx",
        input_ranges=simulation.ranges(),
    )
    images = _IMAGES[:40]
    with torch.no_grad():
        answers = simulation.module(torch.from_numpy(images)).numpy()
        exact = network.module(torch.from_numpy(images)).numpy()
    file_answers = run_as_written(read_onnx(quantized.path), images)
    # A value on the border of two codes may round the other way; the images after it then differ by a part of a step.
    difference, rounding = np.abs(file_answers - answers), np.abs(exact - answers)
    assert answers.std(axis=0).mean() > 20 * difference.mean()
    assert np.median(difference) < 0.02 * np.median(rounding)
    assert difference.mean() < 0.2 * rounding.mean()


@pytest.mark.parametrize("profile", ["openvino", "onnxruntime_cpu"])
def test_layers_in_float_and_biases_are_deployed_as_they_were_trained(
    profile: QuantizationProfile, tmp_path: Path
) -> None:
    """The layers that were chosen before the training stay in float after it; biases are not corrected."""
    network = _uneven_network()
    asked = Quantization(precision="int8", weights="per_tensor", qat_steps=4, keep_float=2, bias_correction=True)
    before = to_onnx(network, to=tmp_path / "before.onnx", check_images=_CALIBRATION[:8])
    known = Calibration(images=_CALIBRATION, divergence=TASK.divergence)
    weights = layer_weights(network.module)
    kept = layers_in_float(before, asked, calibration=known, profile=profile, weights=weights)
    assert len(kept.nodes) == len(kept.weights) == 2
    nodes = layers_by_weight(read_onnx(before.path), weights.keys(), weights)
    others = frozenset(sorted(weights.keys() - kept.weights)[-2:])  # which a ranking after the training would not name
    kept = Kept(nodes=frozenset(nodes[name].name for name in others), weights=others)
    result = quantization_aware(
        network,
        asked,
        profile=profile,
        batches=_batches(),
        calibration=torch.from_numpy(_CALIBRATION),
        seed=0,
        skip=kept.weights,
    )
    after = to_onnx(result.network, to=tmp_path / "after.onnx", check_images=_CALIBRATION[:8])
    learnt = replace(known, input_ranges=result.ranges, weights=result.weights, kept=kept)
    file = write_quantized(after, asked, calibration=learnt, profile=profile, to=tmp_path / "int8.onnx")
    simulation = Simulation(result.network.module, asked, profile, skip=kept.weights)
    simulation.set_ranges(result.ranges)
    plain = replace(asked, bias_correction=False)
    uncorrected = write_quantized(after, plain, calibration=learnt, profile=profile, to=tmp_path / "plain.onnx")
    assert file.sha256 == uncorrected.sha256
    images = _IMAGES[:100]
    with torch.no_grad():
        trained = simulation.module(torch.from_numpy(images)).numpy()
    answers = run_as_written(read_onnx(file.path), images)
    # ONNX Runtime's style also rounds between the layers, which the simulation leaves out.
    assert np.square(answers - trained).mean() < (0.01 if profile == "openvino" else 0.1) * trained.var(axis=0).mean()


def test_a_layer_in_float_whose_input_is_rounded_for_a_sum_hands_its_range_over() -> None:
    network = fold_batchnorm(tiny_network("basic"))
    weights = frozenset(layer_weights(network.module))
    quantization = Quantization(precision="int8", calibration_images=16)
    simulation = Simulation(copy.deepcopy(network.module), quantization, "openvino", skip=weights)
    simulation.calibrate(torch.from_numpy(_CALIBRATION), quantization)
    assert not simulation.scales and simulation.ranges() == {}
    last = {name for name in weights if name.endswith("body.1.0.weight")}
    simulation = Simulation(copy.deepcopy(network.module), quantization, "openvino", skip=weights - last)
    simulation.calibrate(torch.from_numpy(_CALIBRATION), quantization)
    assert len(simulation.ranges()) >= len(simulation.scales) > len(last)


@pytest.mark.slow
def test_ranges_are_kept_under_the_names_that_the_exported_weights_have(
    exported: Callable[[BlockKind], OnnxModel],
) -> None:
    network = fold_batchnorm(tiny_network("basic"))
    result = _tuned(network, Quantization(precision="int8", qat_steps=1, calibration_images=16))
    weights = {
        tensor.name for tensor in read_onnx(exported("basic").path).graph.initializer if tensor.name.endswith("weight")
    }
    assert weights == {key for key in result.ranges if not key.startswith("output of ")}
    assert {key for key in result.ranges if key not in weights} == {"output of stages.0.0.shortcut.0.weight"}


@pytest.mark.parametrize("profile", ["openvino", "onnxruntime_cpu"])
def test_rounding_and_its_gradients_are_those_of_torchs_learnable_fake_quantization(
    profile: QuantizationProfile,
) -> None:
    """Second tool: torch's own operator of Esser et al. (LSQ), for a layer whose weight is the identity."""
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4))
    quantization = Quantization(precision="int8")
    simulation = Simulation(nn.Sequential(layer), quantization, profile)
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    simulation.set_ranges({"0.weight": (-1.0, 1.5)})  # some values lie outside
    least, greatest = (0, 255) if profile == "onnxruntime_cpu" else (-127, 127)
    step = 2.5 / 255 if profile == "onnxruntime_cpu" else 1.5 / 127
    zero = round(1.0 / step) if profile == "onnxruntime_cpu" else 0
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    scale, zero_point = torch.tensor([step], requires_grad=True), torch.tensor([float(zero)])
    expected = torch._fake_quantize_learnable_per_tensor_affine(theirs, scale, zero_point, least, greatest, 1.0)
    weighting = torch.from_numpy(np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32))
    rounded = simulation.module(ours)
    torch.testing.assert_close(rounded, expected, atol=1e-5, rtol=1e-5)
    (rounded * weighting).sum().backward()
    (expected * weighting).sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert 0 < (ours.grad == 0).sum() < 100
    torch.testing.assert_close(ours.grad, theirs.grad)
    (log_scale,) = simulation.scales
    assert log_scale.grad is not None
    assert scale.grad is not None
    # d/d log(scale) = scale * d/d scale
    torch.testing.assert_close(log_scale.grad, (scale.grad * step).squeeze(), rtol=1e-3, atol=1e-5)


@functools.cache
def _uneven_network() -> Network:
    """A trained network whose channels are scaled apart without changing its answers: one scale cannot hold them.

    Nagel et al., 2019, section 3.1 (ReLU is homogeneous), the other way round.
    """
    network = fold_batchnorm(trained_network("basic"))
    module = copy.deepcopy(network.module)
    for block in ("stages.0.0", "stages.0.1"):
        first, second = (module.get_submodule(f"{block}.body.{place}.0") for place in (0, 1))
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.bias is not None
        factors = 2.0 ** torch.linspace(-4, 4, first.out_channels)
        with torch.no_grad():
            first.weight *= factors[:, None, None, None]
            first.bias *= factors
            second.weight /= factors[None, :, None, None]
    return Network(spec=network.spec, module=module)


def _top1(logits: NDArray[np.float32]) -> float:
    return float((logits.argmax(axis=1) == _LABELS).mean())


_UNEVEN = Quantization(precision="int8", weights="per_tensor", qat_steps=60)


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["openvino", "onnxruntime_cpu"])
def test_training_wins_back_what_rounding_took(profile: QuantizationProfile) -> None:
    network = _uneven_network()
    images, calibration = torch.from_numpy(_IMAGES), torch.from_numpy(_CALIBRATION)
    rounded = Simulation(copy.deepcopy(network.module), _UNEVEN, profile)
    rounded.calibrate(calibration, _UNEVEN)
    result = _tuned(network, _UNEVEN, profile=profile)
    tuned = Simulation(result.network.module, _UNEVEN, profile)
    tuned.set_ranges(result.ranges)
    with torch.no_grad():
        exact, before, after = (
            _top1(module(images).numpy()) for module in (network.module, rounded.module, tuned.module)
        )
    assert exact > 0.7
    assert before < exact - 0.2
    assert after > exact - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["openvino", "onnxruntime_cpu"])
def test_the_exported_file_has_what_training_won(profile: QuantizationProfile, tmp_path: Path) -> None:
    network = _uneven_network()
    result = _tuned(network, _UNEVEN, profile=profile)

    def deployed(network: Network, name: str, ranges: Mapping[str, tuple[float, float]] | None) -> float:
        model = to_onnx(network, to=tmp_path / f"{name}.onnx", check_images=_CALIBRATION[:8])
        to = tmp_path / f"{name}.int8.onnx"
        file = quantize(model, _UNEVEN, calibration=_CALIBRATION, profile=profile, to=to, input_ranges=ranges)
        return _top1(run_as_written(read_onnx(file.path), _IMAGES))

    before, after = deployed(network, "before", None), deployed(result.network, "after", result.ranges)
    assert before < 0.8 < 0.9 < after


def test_what_comes_back_is_an_ordinary_network_and_what_was_given_stays() -> None:
    network = fold_batchnorm(tiny_network("mbconv"))
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    random = torch.random.get_rng_state()
    quantization = Quantization(precision="int8", qat_steps=2, calibration_images=16)
    result = _tuned(network, quantization)
    assert torch.equal(torch.random.get_rng_state(), random)
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    module = result.network.module
    assert str(module) == str(network.module)
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert list(module.state_dict()) == list(before)
    assert not any(layer.training for layer in module.modules())
    assert all(tensor.is_contiguous() for tensor in module.state_dict().values())
    changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
    assert set(changed) == set(before)
    again = _tuned(network, quantization)
    assert again.ranges == result.ranges
    for name, tensor in again.network.module.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])


def test_it_breathes_before_every_step() -> None:
    breaths: list[int] = []
    quantization = Quantization(precision="int8", qat_steps=3, calibration_images=8)
    quantization_aware(
        fold_batchnorm(tiny_network("basic")),
        quantization,
        profile="tensorrt",
        batches=_batches(),
        calibration=torch.from_numpy(_CALIBRATION),
        seed=0,
        breathe=lambda: breaths.append(len(breaths)),
    )
    assert breaths == [0, 1, 2]


@pytest.mark.parametrize("sparsity", ["2:4", "unstructured"])
def test_zeros_of_sparsity_stay_and_everything_else_is_trained(sparsity: Sparsity) -> None:
    network = tiny_network("basic")
    network = fold_batchnorm(masked(network, sparsity_masks(network, Pruning(sparsity=sparsity), wide_from=16)))
    masks = masks_of_zeros(network.module)
    result = quantization_aware(
        network,
        Quantization(precision="int8", qat_steps=3, calibration_images=8),
        profile="openvino",
        batches=_batches(),
        masks=masks,
        calibration=torch.from_numpy(_CALIBRATION),
        seed=0,
    )
    assert "stages.0.0.body.1.0.weight" in masks
    for name, before in network.module.state_dict().items():
        after = result.network.module.state_dict()[name]
        assert not torch.equal(after, before)
        if name in masks:
            assert not after[before == 0].any()
    if sparsity == "2:4":
        assert all(holds_2_4(result.network.module.get_parameter(name)) for name in masks)


@pytest.mark.parametrize(
    "quantization", [Quantization(precision="fp16", qat_steps=5), Quantization(precision="int8", qat_steps=0)]
)
def test_nothing_to_simulate_or_no_step_is_refused(quantization: Quantization) -> None:
    with pytest.raises(StageFailed, match="qat: needs int8 or fp8 and at least 1 step, got"):
        _tuned(fold_batchnorm(tiny_network("basic")), quantization)


def test_training_that_diverges_fails_by_its_step() -> None:
    images, labels = torch.full((4, 3, 16, 16), float("nan")), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(StageFailed, match="qat: loss not finite at step 1 of 5"):
        quantization_aware(
            fold_batchnorm(tiny_network("basic")),
            Quantization(precision="int8", qat_steps=5),
            profile="openvino",
            batches=lambda: (images, labels),
            calibration=torch.from_numpy(_CALIBRATION),
            seed=0,
        )


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(values))
        return out


class _Branching(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values if values.sum() > 0 else -values


class _ByName(nn.Module):
    def __init__(self, *, named: bool) -> None:
        super().__init__()
        self.conv, self.drop, self.fc = nn.Conv2d(3, 4, 3), nn.Dropout(), nn.Linear(4, 5)
        self.named = named

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(input=images) if self.named else self.conv(images)
        pooled = torch.relu(features).mean(dim=(2, 3))
        pooled = self.drop(input=pooled) if self.named else self.drop(pooled)
        out: Tensor = self.fc(input=pooled) if self.named else self.fc(pooled)
        return out


def test_layers_that_get_their_input_by_its_name_are_simulated() -> None:
    images, asked = torch.from_numpy(_CALIBRATION), Quantization(precision="int8")
    answers, ranges = list[Tensor](), list[Mapping[str, tuple[float, float]]]()
    placed = _ByName(named=False).eval()
    for named in (False, True):
        module = _ByName(named=named).eval()
        module.load_state_dict(placed.state_dict())
        simulation = Simulation(module, asked, "openvino")
        simulation.calibrate(images, asked)
        answers.append(simulation.module(images))
        ranges.append(simulation.ranges())
    assert ranges[0] == ranges[1] and ranges[1].keys() == {"conv.weight", "fc.weight"}
    assert torch.equal(*answers) and not torch.equal(answers[1], placed(images))


class _Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 4, 3)
        self.after = nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.after(self.conv(images, output_size=(34, 34)))
        return out


def test_layers_of_other_kinds_may_have_several_inputs() -> None:
    assert Simulation(_Sized(), Quantization(precision="int8"), "openvino").ranges().keys() == {"after.weight"}


def test_networks_that_cannot_be_simulated_say_why() -> None:
    with pytest.raises(StageFailed, match="qat: layer runs twice, so that its input has no one range"):
        Simulation(_Twice(), Quantization(precision="int8"), "openvino")
    with pytest.raises(StageFailed, match=r"qat: the network cannot be traced by torch\.fx"):
        Simulation(_Branching(), Quantization(precision="int8"), "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["openvino", "onnxruntime_cpu"])
def test_linear_layers_on_tokens_are_deployed_with_the_ranges_that_they_learnt(
    profile: QuantizationProfile, tmp_path: Path
) -> None:
    """The exported file has their weights transposed, under other names."""
    spec = replace(find_spec("own_modules:tokens"), num_classes=10, resolution_px=32)
    network = fold_batchnorm(Network(spec=spec, module=own_module(spec, seed=0).eval()))
    images = np.random.default_rng(0).normal(size=(32, 3, 32, 32)).astype(np.float32)
    result = quantization_aware(
        network,
        Quantization(precision="int8", qat_steps=1, calibration_images=16),
        profile=profile,
        batches=lambda: (torch.from_numpy(images), torch.arange(32) % 10),
        calibration=torch.from_numpy(images),
        seed=0,
    )
    exported = to_onnx(result.network, to=tmp_path / "float.onnx", check_images=images[:8])
    proto = read_onnx(exported.path)
    given = given_ranges(proto, result.ranges, result.weights)
    inputs = [node.input[0] for node in proto.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    assert len(inputs) == 5 and set(inputs) <= given.keys()
    known = Calibration(images=images, input_ranges=result.ranges, weights=result.weights)
    quantized = write_quantized(exported, Quantization(), calibration=known, profile=profile, to=tmp_path / "fp32.onnx")
    assert quantized.size_bytes == exported.size_bytes
    eight = Quantization(precision="int8")
    assert write_quantized(exported, eight, calibration=known, profile=profile, to=tmp_path / "int8.onnx").size_bytes


def test_a_module_that_cannot_take_channels_last_images_is_tuned_without_them() -> None:
    spec = replace(find_spec("own_modules:viewing"), num_classes=10, resolution_px=32)
    network = fold_batchnorm(Network(spec=spec, module=own_module(spec, seed=0).eval()))
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype(np.float32))
    result = quantization_aware(
        network,
        Quantization(precision="int8", qat_steps=2, calibration_images=8),
        profile="openvino",
        batches=lambda: (images.contiguous(memory_format=torch.channels_last), torch.arange(8)),
        calibration=images,
        seed=0,
    )
    assert result.network.module(images).shape == (8, 10)
    assert result.ranges.keys() == result.weights.keys() == {"body.weight", "fc.weight"}
