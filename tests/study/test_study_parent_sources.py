"""What a file of another library's weights tells of padding, epsilon and normalisation, and what is said where not."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.export.metadata import write_config
from scalesearch.export.target import WEIGHTS
from scalesearch.networks import base_spec
from scalesearch.networks.foreign_names import FOREIGN
from scalesearch.networks.state_dicts import _layer
from scalesearch.study.parent_sources import RESULT, find_parent
from scalesearch.tasks.classification.pieces import build
from scalesearch.training.weights import KeptTraining, WeightStore
from scalesearch.values.candidate import Candidate, Pruning, Recipe, ScheduleName
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]
IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)


def small(name: str, **changes: object) -> NetworkSpec:
    """The first two stages of that base network: its names hold for any number of them."""
    base = base_spec(name)
    return replace(base, stages=base.stages[:2], num_classes=3, **changes)  # type: ignore[arg-type]


LITE, B0 = small("efficientnet_lite0"), small("efficientnet_b0")
LITE_OF_TIMM = small("efficientnet_lite0", padding="symmetric", norm_eps=1e-5)
B0_OF_TENSORFLOW = small("efficientnet_b0", padding="same", norm_eps=1e-3)


def foreign_state(spec: NetworkSpec, library: str) -> dict[str, Tensor]:
    """Return a state dict under the names of that library."""
    module = build(spec).module
    names = {_layer(ours, module): theirs for ours, theirs in FOREIGN[spec.name][library](spec)}

    def foreign(name: str) -> str:
        layer, _, tensor = name.rpartition(".")
        return f"{names[layer]}.{tensor}"

    return {foreign(name): each for name, each in module.state_dict().items()}


def written(path: Path, spec: NetworkSpec, library: str) -> str:
    """Write a state dict under the names of that library; return the path as a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(foreign_state(spec, library), path)
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


def test_a_grey_network_s_weights_need_a_mean_and_std_of_one_channel(tmp_path: Path) -> None:
    grey = small("resnet18", image_channels=1)
    source = written(tmp_path / "weights.pth", grey, "torchvision")
    with pytest.raises(ConfigError, match=r"of which there are 1; came mean \(0\.485, 0\.456, 0\.406\)") as refused:
        find_parent(source, grey)
    assert len(str(refused.value).splitlines()) <= 3 and "NetworkSpec" in str(refused.value)
    found = find_parent(source, replace(grey, mean=(0.4,), std=(0.2,)))
    assert (found.mean, found.std) == ((0.4,), (0.2,))


@pytest.mark.parametrize(("schedule", "shorter", "longer"), [("wsd", 40, 160), ("cosine", 120, 480)])
def test_of_several_trainings_in_a_folder_the_last_is_taken_whenever_its_files_were_written(
    session: Session, make_record: MakeRecord, tmp_path: Path, schedule: ScheduleName, shorter: int, longer: int
) -> None:
    """A branch of 120 updates has 40 of them, one of 480 has 160."""
    asked = make_record(4)
    recipe = Recipe(steps=60, branch_fraction=1 / 3, schedule=schedule)
    record = replace(asked, candidate=Candidate(recipe=recipe))
    write_config(record, session, tmp_path)
    store, networks = WeightStore(tmp_path / "weights"), dict[int, Network]()
    for age, made in enumerate((shorter, longer)):
        networks[made] = build(record.spec, seed=made)
        key = f"{made:064x}"
        kept = KeptTraining(
            float_score=0.5, train_s=1.0, final_loss=0.5, losses=(0.5,), steps=made, safe_recipe_used=False
        )
        store.save(key, networks[made].module, kept)
        os.utime(tmp_path / "weights" / f"{key}.safetensors", (age, age))
    (tmp_path / "weights" / f"{0:064x}-80.safetensors").write_bytes(b"a trunk")

    def taken() -> int:
        tensors = find_parent(str(tmp_path), record.spec).tensors
        (made,) = (
            made
            for made, network in networks.items()
            if all(torch.equal(each, tensors[name]) for name, each in network.module.state_dict().items())
        )
        return made

    assert taken() == longer, "nothing tells which was the last"
    for steps, made in ((120, shorter), (480, longer)):
        (tmp_path / RESULT).write_text(json.dumps({"steps": steps}))
        assert taken() == made
    os.utime(tmp_path / "weights" / f"{shorter:064x}.safetensors", (9, 9))
    assert taken() == longer


@pytest.mark.parametrize(
    ("pruning", "refused"),
    [
        (Pruning(sparsity="2:4"), False),  # it has no layer of 256 channels, so nothing was made zero
        (Pruning(sparsity="unstructured"), True),
        (Pruning(channel_fraction=0.25), True),
    ],
    ids=str,
)
def test_only_what_was_really_cut_is_refused(
    session: Session, make_record: MakeRecord, tmp_path: Path, pruning: Pruning, refused: bool
) -> None:
    record = replace(make_record(4), candidate=Candidate(pruning=pruning))
    write_config(record, session, tmp_path)
    save_file(build(record.spec).module.state_dict(), tmp_path / WEIGHTS)
    if refused:
        with pytest.raises(ConfigError, match=r"its network was pruned \("):
            find_parent(str(tmp_path), record.spec)
    else:
        assert find_parent(str(tmp_path), record.spec).folded


class Timm:
    """What is asked of timm, with weights of a network of ours under timm's names."""

    def __init__(self, spec: NetworkSpec, *, fails: str = "", library: str = "timm", name: str = "") -> None:
        self.models, self._spec, self._fails = self, spec, fails
        self._library, self._name = library, name or NAME
        self.made = list[str]()

    def get_pretrained_cfg(self, name: str) -> SimpleNamespace | None:
        if name.startswith("efficientnet_b0") and name != NAME:
            raise RuntimeError("Invalid pretrained tag")
        known = SimpleNamespace(has_weights=True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), license="apache-2.0")
        return known if name == self._name else None

    def list_models(self, pattern: str, *, pretrained: bool) -> list[str]:
        return [NAME] if pretrained and pattern.strip("*") in NAME else []

    def create_model(self, name: str, *, pretrained: bool) -> SimpleNamespace:
        assert pretrained
        if self._fails:
            raise OSError(self._fails)
        self.made.append(name)
        return SimpleNamespace(state_dict=lambda: foreign_state(self._spec, self._library))


NAME = "efficientnet_b0.ra_in1k"


def test_timm_s_weights_come_with_their_own_mean_and_are_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = Timm(B0)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found, again = (find_parent(f"timm:{NAME}", B0) for _ in range(2))
    assert timm.made == [NAME]
    assert found.sha256 == again.sha256
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert found.licence == f"timm's {NAME}, apache-2.0"
    assert found.untold == "", "the name tells padding and epsilon"
    ours = build(B0).module.state_dict()
    assert {name: each.shape for name, each in found.tensors.items()} == {n: each.shape for n, each in ours.items()}
    with pytest.raises(ConfigError, match="symmetric"):  # another padding than the network's
        find_parent(f"timm:{NAME}", B0_OF_TENSORFLOW)


@pytest.mark.parametrize(
    ("base", "name", "taken"),
    [
        ("resnet50", "resnetaa50.d_in12k", False),
        ("resnet50", "resnetblur50.bt_in1k", False),
        ("resnet50", "resnet50.a1_in1k", True),
        ("resnet18", "resnet50.a1_in1k", False),
        ("mobilenet_v2", "mobilenetv2_100.ra_in1k", True),
        ("mobilenet_v2", "mobilenetv2_110d.ra_in1k", False),
    ],
)
def test_a_network_of_timm_that_computes_something_else_is_refused_whatever_its_weights(
    base: str, name: str, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = small(base)
    timm = Timm(spec, library="timm" if base == "mobilenet_v2" else "torchvision", name=name)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    if taken:
        assert find_parent(f"timm:{name}", spec).spec == spec
        return
    with pytest.raises(ConfigError, match=rf"expected timm's \S+, the network that computes what {base} does here"):
        find_parent(f"timm:{name}", spec)
    assert not timm.made, "nothing is downloaded"


def test_a_name_that_timm_lacks_and_weights_that_it_cannot_load_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "timm", Timm(B0, fails="no internet"))
    with pytest.raises(ConfigError, match=rf"came 'efficientnet_b0\.wrong'\.\nNear it: {NAME}\.$"):
        find_parent("timm:efficientnet_b0.wrong", B0)
    with pytest.raises(ConfigError, match="came 'nonsense'"):
        find_parent("timm:nonsense", B0)
    with pytest.raises(ConfigError, match=r"timm cannot load it \(no internet\)"):
        find_parent(f"timm:{NAME}", B0)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingBackendError, match="pip install timm"):
        find_parent(f"timm:{NAME}", B0)
