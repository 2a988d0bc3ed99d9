import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_networks import BLOCK_KINDS, CLASSES, gratings, spread_norms, tiny_network, tiny_spec
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.prune import prune
from scalesearch.compression.sparsity import (
    apply_masks,
    holds_2_4,
    mask_2_4,
    masked,
    masks_of_zeros,
    sparsity_masks,
    zeros_any,
)
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends.tensorrt.library import is_installed
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import build, quantize, score, to_onnx, train
from scalesearch.values.candidate import Precision, Pruning, Quantization, Recipe
from scalesearch.values.network import Network
from scalesearch.values.network_spec import BlockKind, HeadSpec
from scalesearch.values.settings import Machine, TensorRtSettings

torch_pruning = pytest.importorskip("torch.ao.pruning")

TWO_FOUR = Pruning(sparsity="2:4")
MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)


def _wide(block: BlockKind = "basic", *, channels: int = 256) -> Network:
    network = build(tiny_spec(block, channels=channels, stem=64), seed=1)
    spread_norms(network.module)
    network.module.eval()
    return network


def _weight(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_two_largest_of_four_inputs_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.1, 0.0, 0.0, -0.2], [5.0, 5.0, 5.0, 5.0, 9.0, -8.0, 7.0, 6.0]])
    kept = [[False, True, True, False, True, False, False, True], [True, True, False, False, True, True, False, False]]
    assert mask_2_4(weight).tolist() == kept


def test_groups_run_along_the_inputs_for_each_output_and_place_of_the_kernel() -> None:
    weight = _weight(6, 8, 3, 3)
    mask = mask_2_4(weight)
    for output in range(6):
        for start in (0, 4):
            for y in range(3):
                for x in range(3):
                    four = weight[output, start : start + 4, y, x].abs()
                    expected = set(four.topk(2).indices.tolist())
                    found = mask[output, start : start + 4, y, x].nonzero().flatten().tolist()
                    assert set(found) == expected


def test_the_zeros_that_are_there_are_found_again_in_the_folded_network() -> None:
    network = tiny_network("basic")
    masks = sparsity_masks(network, Pruning(sparsity="unstructured", sparse_fraction=0.3))
    found = masks_of_zeros(fold_batchnorm(masked(network, masks)).module)
    assert found.keys() <= masks.keys()  # by the same names; a layer that lost nothing has none
    for name, mask in masks.items():
        assert torch.equal(found.get(name, torch.ones_like(mask)), mask)
    assert masks_of_zeros(fold_batchnorm(network).module) == {}


@pytest.mark.parametrize("shape", [(8, 16), (8, 32, 1, 1), (16, 16, 3, 3)])
def test_the_mask_is_that_of_torchs_own_tool(shape: tuple[int, ...]) -> None:
    """It groups the columns of a matrix: a convolution is one with a row for each output and place of the kernel."""
    weight = _weight(*shape)
    matrix = weight.movedim(1, -1).reshape(-1, shape[1])
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
    layer.load_state_dict({"weight": matrix})
    module = nn.Sequential(layer)
    sparsifier = torch_pruning.WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(module, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    sparsifier.squash_mask()
    expected = module.get_parameter("0.weight") != 0
    assert torch.equal(mask_2_4(weight).movedim(1, -1).reshape(-1, shape[1]), expected)


def test_holds_2_4_sees_the_pattern_and_only_it() -> None:
    weight = _weight(4, 8, 3, 3)
    assert not holds_2_4(weight)
    sparse = weight * mask_2_4(weight)
    assert holds_2_4(sparse)
    assert holds_2_4(sparse.numpy())
    assert holds_2_4(torch.zeros(4, 8, 1, 1))
    # Two zeros of four along the outputs, and two of four that straddle two groups.
    assert not holds_2_4(sparse.transpose(0, 1).contiguous())
    assert not holds_2_4(sparse.roll(2, dims=1))
    spoilt = sparse.clone()
    spoilt[3, 4:8, 2, 2] = 1e-30
    assert not holds_2_4(spoilt)
    assert not holds_2_4(torch.zeros(4, 6))
    assert not holds_2_4(torch.zeros(8))


def test_only_wide_dense_layers_are_masked() -> None:
    masks = sparsity_masks(_wide(), TWO_FOUR)
    assert set(masks) == {f"stages.0.{name}.weight" for name in ("0.body.1.0", "1.body.0.0", "1.body.1.0")}
    lower = sparsity_masks(_wide(), TWO_FOUR, wide_from=64)
    assert set(lower) == set(masks) | {"stages.0.0.body.0.0.weight", "stages.0.0.shortcut.0.weight"}
    assert all(mask.float().mean() == 0.5 for mask in lower.values())


@pytest.mark.parametrize("block", ["inverted_residual", "mbconv"])
def test_depthwise_layers_and_the_classifier_stay_dense(block: BlockKind) -> None:
    """All its layers are wide: 8 classes, hidden layers of 1024, 256 outputs."""
    spec = replace(tiny_spec(block, channels=256), num_classes=8, head=HeadSpec(channels=256))
    network = build(spec)
    masks = sparsity_masks(network, TWO_FOUR, wide_from=8)
    assert masks
    for name in masks:
        layer = network.module.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, nn.Conv2d)
        assert layer.groups == 1
    assert "classifier.weight" not in masks
    assert "head.0.weight" in masks


def test_widths_that_sparse_kernels_do_not_take_stay_dense() -> None:
    """ASP: inputs in multiples of 16, outputs of 8."""
    assert sparsity_masks(_wide(channels=264), TWO_FOUR) == {}  # 264 inputs are 16 x 16.5
    assert sparsity_masks(_wide(channels=260), TWO_FOUR) == {}
    assert len(sparsity_masks(_wide(channels=272), TWO_FOUR)) == 3


@pytest.mark.parametrize("channels", [64, 256, 264, 272])
@pytest.mark.parametrize(
    "pruning",
    [TWO_FOUR, Pruning(), *(Pruning(sparsity="unstructured", sparse_fraction=each) for each in (0.5, 1e-9))],
    ids=["2:4", "none", "half", "hardly any"],
)
def test_whether_any_weight_becomes_zero_is_told_without_weights(channels: int, pruning: Pruning) -> None:
    network = _wide(channels=channels)
    masked_some = any(not bool(mask.all()) for mask in sparsity_masks(network, pruning).values())
    network.module.to("meta")
    assert zeros_any(network, pruning) is masked_some


def test_widths_that_are_still_to_be_cut_need_not_be_multiples() -> None:
    assert not zeros_any(_wide(channels=264), TWO_FOUR)
    assert zeros_any(_wide(channels=264), TWO_FOUR, aligned=False)
    assert not zeros_any(_wide(channels=248), TWO_FOUR, aligned=False)


def test_a_narrow_network_has_no_masks_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert sparsity_masks(tiny_network("basic"), TWO_FOUR) == {}
    assert "no weight masked: tiny_basic has no layer that 2:4 can pay on" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert sparsity_masks(_wide(), Pruning()) == {}
    assert not caplog.text


@pytest.mark.parametrize("block", BLOCK_KINDS)
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_unstructured_masks_the_smallest_of_all_convolutions(block: BlockKind, fraction: float) -> None:
    network = tiny_network(block)
    masks = sparsity_masks(network, Pruning(sparsity="unstructured", sparse_fraction=fraction))
    convolutions = [name for name, layer in network.module.named_modules() if isinstance(layer, nn.Conv2d)]
    assert list(masks) == [f"{name}.weight" for name in convolutions]
    kept, gone = [], []
    for name, mask in masks.items():
        weight = network.module.get_parameter(name)
        assert mask.shape == weight.shape
        kept.append(weight[mask].detach().abs())
        gone.append(weight[~mask].detach().abs())
    all_kept, all_gone = torch.cat(kept), torch.cat(gone)
    assert len(all_gone) == round(fraction * (len(all_kept) + len(all_gone)))
    if len(all_gone):
        assert all_gone.max() <= all_kept.min()


def test_masking_copies_and_applying_is_in_place() -> None:
    network = _wide()
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    masks = sparsity_masks(network, TWO_FOUR)
    sparse = masked(network, masks)
    after = network.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    for name, tensor in sparse.module.state_dict().items():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(tensor, expected), name
    apply_masks(network.module, masks)
    assert all(holds_2_4(network.module.get_parameter(name)) for name in masks)


def test_a_weight_that_is_computed_cannot_be_masked() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 1))
    weight_norm(module[0])
    with pytest.raises(StageFailed, match=r"0\.weight is no parameter, but computed from others"):
        apply_masks(module, {"0.weight": torch.zeros(4, 4, 1, 1, dtype=torch.bool)})


def test_masks_do_not_hide_what_is_not_finite() -> None:
    """Only the masked places change: a training gone bad is still seen."""
    network = _wide()
    masks = sparsity_masks(network, TWO_FOUR)
    name = next(iter(masks))
    with torch.no_grad():
        network.module.get_parameter(name).fill_(float("nan"))
    apply_masks(network.module, masks)
    weight = network.module.get_parameter(name)
    assert torch.equal(weight.isnan(), masks[name])


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_retraining_learns_and_keeps_the_zeros(ema_decay: float) -> None:
    network = build(tiny_spec("basic"), seed=1)
    masks = sparsity_masks(network, TWO_FOUR, wide_from=16)
    assert len(masks) == 5
    floats, classes = gratings(320, seed=0)
    images = torch.from_numpy(np.clip(floats * 32 + 128, 0, 255).astype(np.uint8))
    labels = torch.from_numpy(classes)
    mean, std = (0.5, 0.5, 0.5), (0.125, 0.125, 0.125)
    recipe = Recipe(steps=30, batch_size=32, ema_decay=ema_decay, shift_fraction=0.0, jitter=0.0)
    trained = train(
        masked(network, masks),
        images,
        labels,
        recipe,
        MACHINE,
        mean=mean,
        std=std,
        seed=0,
        after_step=lambda module: apply_masks(module, masks),
    ).network
    for name, mask in masks.items():
        weight = trained.module.get_parameter(name)
        assert torch.equal(weight != 0, mask)
        assert not torch.equal(weight, masked(network, masks).module.get_parameter(name))
    assert score(trained, images, labels, MACHINE, mean, std) > 2 / CLASSES


def _onnx_weights(path: Path) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    tensors = onnx.load(path).graph.initializer
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) == 4}


@pytest.fixture(scope="module")
def sparse_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Path]:
    """A masked network of all-different BatchNorms, folded and exported, in any precision; and its images."""
    folder = tmp_path_factory.mktemp("sparse")
    network = _wide(channels=64)
    sparse = masked(network, sparsity_masks(network, TWO_FOUR, wide_from=64))
    images, _ = gratings(16, seed=0)
    model = to_onnx(fold_batchnorm(sparse), to=folder / "fp32.onnx", check_images=images[:4])

    def file(precision: Precision) -> Path:
        quantization = Quantization(precision=precision, calibration_images=16)
        to = folder / f"{precision}.quantized.onnx"
        return quantize(model, quantization, calibration=images, profile="tensorrt", to=to).path

    return file


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_the_file_holds_two_zeros_in_each_four(sparse_files: Callable[[Precision], Path], precision: Precision) -> None:
    """Folding scales whole output channels and symmetric quantization maps 0 to 0: both keep the zeros."""
    weights = _onnx_weights(sparse_files(precision))
    wide = {name: values for name, values in weights.items() if values.shape[0] == 64 and values.shape[1] == 64}
    others = [values for name, values in weights.items() if name not in wide]
    assert len(wide) == 5
    assert all(holds_2_4(values) for values in wide.values())
    # Rounding to eight bits makes a few more.
    assert all(0.5 <= float((values == 0).mean()) < 0.6 for values in wide.values())
    assert others
    assert not any(holds_2_4(values) for values in others)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_nvidias_compiler_takes_it_with_the_flag(
    sparse_files: Callable[[Precision], Path], precision: Precision
) -> None:
    """Accepted is all that it tells: TensorRT for RTX chooses its kernels on the GPU, and the plan is the same one."""
    build = Gate("8.9", TensorRtSettings(sparse_weights=True)).build(sparse_files(precision))
    assert sum(count.kernels for count in build.convolutions) == 7
    assert build.warnings == ()


def test_pruned_channels_are_masked_afterwards() -> None:
    pruned = prune(_wide(channels=128), Pruning(channel_fraction=0.5), channel_multiple=16)
    masks = sparsity_masks(pruned, TWO_FOUR, wide_from=64)
    assert {tuple(mask.shape) for mask in masks.values()} == {(64, 64, 3, 3)}
    assert all(holds_2_4(masked(pruned, masks).module.get_parameter(name)) for name in masks)


@pytest.mark.parametrize(
    ("pruning", "wide_from"), [(Pruning(sparse_fraction=1.0), 256), (Pruning(sparse_fraction=-0.1), 256), (TWO_FOUR, 0)]
)
def test_settings_out_of_range_are_refused(pruning: Pruning, wide_from: int) -> None:
    with pytest.raises(StageFailed, match=r"sparsity: sparse_fraction must be in \[0, 1\) and wide_from at least 1"):
        sparsity_masks(_wide(), pruning, wide_from=wide_from)
