"""What a file of another library's weights tells of padding, epsilon and normalisation, and what is said where not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.networks.foreign_names import FOREIGN
from scalesearch.networks.state_dicts import _layer
from scalesearch.study.parent_sources import find_parent
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network_spec import NetworkSpec

IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)


def small(name: str, **changes: object) -> NetworkSpec:
    """The first two stages of that base network: its names hold for any number of them."""
    base = base_spec(name)
    return replace(base, stages=base.stages[:2], num_classes=3, **changes)  # type: ignore[arg-type]


LITE, B0 = small("efficientnet_lite0"), small("efficientnet_b0")
LITE_OF_TIMM = small("efficientnet_lite0", padding="symmetric", norm_eps=1e-5)
B0_OF_TENSORFLOW = small("efficientnet_b0", padding="same", norm_eps=1e-3)


def written(path: Path, spec: NetworkSpec, library: str) -> str:
    """Write a state dict under the names of that library; return the path as a text."""
    module = build(spec).module
    names = {_layer(ours, module): theirs for ours, theirs in FOREIGN[spec.name][library](spec)}

    def foreign(name: str) -> str:
        layer, _, tensor = name.rpartition(".")
        return f"{names[layer]}.{tensor}"

    held: dict[str, Tensor] = {foreign(name): each for name, each in module.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(held, path)
    return str(path)


@pytest.mark.parametrize(
    ("base", "library", "name", "mean"),
    [
        (LITE, "efficientnet_lite_pytorch", "weights.pth", HALF),
        (LITE, "timm", "tf_efficientnet_lite0.pth", HALF),
        (LITE_OF_TIMM, "timm", "efficientnet_lite0.ra_in1k/model.pth", IMAGENET),
        (B0, "torchvision", "weights.pth", IMAGENET),
        (B0, "timm", "models--timm--efficientnet_b0.ra_in1k/snapshots/1/model.pth", IMAGENET),
        (B0_OF_TENSORFLOW, "efficientnet_pytorch", "weights.pth", IMAGENET),
        (B0_OF_TENSORFLOW, "timm", "tf_efficientnet_b0_ns.pth", IMAGENET),
        (replace(B0_OF_TENSORFLOW, mean=HALF, std=HALF), "timm", "tf_efficientnet_b0.ap_in1k/model.pth", HALF),
    ],
)
def test_weights_of_the_network_s_own_padding_are_taken_without_a_word(
    base: NetworkSpec, library: str, name: str, mean: tuple[float, ...], tmp_path: Path
) -> None:
    found = find_parent(written(tmp_path / name, base, library), base)
    assert (found.untold, found.mean) == ("", mean)
    assert found.spec == base


@pytest.mark.parametrize(
    ("base", "library", "name"),
    [
        (B0, "efficientnet_pytorch", "weights.pth"),
        (B0, "timm", "models--timm--tf_efficientnet_b0.ns_jft_in1k/snapshots/1/model.pth"),
        (LITE, "timm", "efficientnet_lite0_ra.pth"),
        (LITE_OF_TIMM, "timm", "tf_efficientnet_lite0.pth"),
    ],
)
def test_weights_of_another_padding_are_refused_with_a_way_out(
    base: NetworkSpec, library: str, name: str, tmp_path: Path
) -> None:
    source = written(tmp_path / name, base, library)
    with pytest.raises(ConfigError, match=r"expected weights trained with .*; these were trained with") as refused:
        find_parent(source, base)
    text = str(refused.value)
    assert len(text.splitlines()) <= 3
    # The network that the way out asks for takes them.
    other = {LITE: LITE_OF_TIMM, LITE_OF_TIMM: LITE, B0: B0_OF_TENSORFLOW}[base]
    changes = f"padding='{other.padding}', norm_eps={other.norm_eps:g}"
    assert text.endswith(f"returns replace(base_spec('{base.name}'), {changes}).")
    assert find_parent(source, other).untold == ""


@pytest.mark.parametrize(
    ("base", "taken"),
    [
        (LITE, "TensorFlow's SAME padding and norms of eps 0.001, on images of mean (0.5, 0.5, 0.5)"),
        (B0, "symmetric padding and norms of eps 1e-05, on images of mean (0.485, 0.456, 0.406)"),
    ],
)
def test_where_nothing_tells_it_is_said_what_was_taken_for_granted(
    base: NetworkSpec, taken: str, tmp_path: Path
) -> None:
    # ra4 is of the same network as ra, but was trained on images of another mean.
    for name in ("weights.pth", f"{base.name}.ra4_e3600_r224_in1k/model.pth"):
        found = find_parent(written(tmp_path / name, base, "timm"), base)
        assert found.untold.startswith(f"parent: taken as trained with {taken}")
