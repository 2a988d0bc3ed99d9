import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scalesearch.compression.fold import fold_batchnorm
from scalesearch.deployment import export_cache
from scalesearch.deployment.export_cache import ExportCache
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import StageFailed
from scalesearch.tasks.classification.pieces import build
from scalesearch.values.network import Network
from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec

_SPEC = NetworkSpec(
    name="tiny",
    resolution_px=8,
    num_classes=3,
    stem=StemSpec(channels=4, kernel=3, stride=2),
    stages=(StageSpec(block="basic", depth=1, channels=4, kernel=3, stride=1),),
    head=HeadSpec(),
    activation="relu",
)
_NAMES = ("logits",)
_IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


def _network(seed: int = 0, spec: NetworkSpec = _SPEC) -> Network:
    """A network as it is deployed: its norms are folded, so that one trace by torch serves all of equal layers."""
    network, generator = build(spec, dropout=0.0, seed=seed), torch.Generator().manual_seed(seed)
    for layer in network.module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, 0.1, 1.0, generator=generator)
    network.module.eval()
    return fold_batchnorm(network)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where an export was really written."""
    done: list[Path] = []

    def counted(
        network: Network, *, to: Path, check_images: np.ndarray, output_names: tuple[str, ...], graphs: Path
    ) -> object:
        done.append(to)
        assert output_names == _NAMES
        return to_onnx(network, to=to, check_images=check_images, output_names=output_names, graphs=graphs)

    monkeypatch.setattr(export_cache, "to_onnx", counted)
    return done


def _kept(study: Path) -> list[Path]:
    return sorted((study / "exported").glob("*.onnx"))


@pytest.mark.slow
def test_an_equal_network_is_exported_once_and_both_files_are_the_same(tmp_path: Path, exports: list[Path]) -> None:
    first = ExportCache(tmp_path).to_onnx(
        _network(), to=tmp_path / "a.onnx", check_images=_IMAGES, output_names=("logits",)
    )
    # Another cache stands for another process; a name of the space changes no file.
    renamed = _network(spec=replace(_SPEC, name="other"))
    second = ExportCache(tmp_path).to_onnx(
        renamed, to=tmp_path / "b.onnx", check_images=_IMAGES, output_names=("logits",)
    )
    assert exports == [tmp_path / "a.onnx"]
    assert replace(second, path=first.path) == first
    assert second.path == tmp_path / "b.onnx"
    assert second.path.read_bytes() == first.path.read_bytes()
    plain = to_onnx(_network(), to=tmp_path / "plain.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert plain.sha256 == second.sha256


def _other_weights() -> Network:
    network = _network()
    with torch.no_grad():
        next(network.module.parameters())[0] += 1e-6
    return network


def _other_layer() -> Network:
    """Equal tensors and an equal spec, and yet another graph."""
    network = _network()
    name = next(name for name, layer in network.module.named_modules() if isinstance(layer, nn.ReLU))
    network.module.set_submodule(name, nn.SiLU())
    network.module.eval()
    return network


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [_other_weights, _other_layer, lambda: _network(spec=replace(_SPEC, activation="silu"))],
    ids=["weights", "layer", "spec"],
)
def test_another_network_is_exported_anew(tmp_path: Path, exports: list[Path], other: object) -> None:
    assert callable(other)
    cache = ExportCache(tmp_path)
    first = cache.to_onnx(_network(), to=tmp_path / "a.onnx", check_images=_IMAGES, output_names=_NAMES)
    second = cache.to_onnx(other(), to=tmp_path / "b.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert len(exports) == 2
    assert second.sha256 != first.sha256


def test_a_network_in_training_mode_is_refused_though_its_file_is_there(tmp_path: Path) -> None:
    cache, network = ExportCache(tmp_path), _network()
    cache.to_onnx(network, to=tmp_path / "a.onnx", check_images=_IMAGES, output_names=_NAMES)
    network.module.train()
    with pytest.raises(StageFailed, match="training mode"):
        cache.to_onnx(network, to=tmp_path / "b.onnx", check_images=_IMAGES, output_names=_NAMES)


@pytest.mark.parametrize("how", ["cut", "changed", "empty"])
def test_a_damaged_file_is_made_anew(tmp_path: Path, exports: list[Path], how: str) -> None:
    cache = ExportCache(tmp_path)
    first = cache.to_onnx(_network(), to=tmp_path / "a.onnx", check_images=_IMAGES, output_names=_NAMES)
    (kept,) = _kept(tmp_path)
    content = kept.read_bytes()
    changed = bytearray(content)
    # A weight's byte: the file stays readable.
    changed[len(content) // 2] ^= 1
    kept.write_bytes({"cut": content[:-100], "changed": bytes(changed), "empty": b""}[how])
    second = cache.to_onnx(_network(), to=tmp_path / "b.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert len(exports) == 2
    assert second.sha256 == first.sha256
    assert second.path.read_bytes() == content
    assert [path.read_bytes() for path in _kept(tmp_path)] == [content]


def test_the_oldest_goes_first_beyond_the_limit(tmp_path: Path, exports: list[Path]) -> None:
    size = (
        ExportCache(tmp_path)
        .to_onnx(_network(0), to=tmp_path / "0.onnx", check_images=_IMAGES, output_names=_NAMES)
        .path.stat()
        .st_size
    )
    # Clocks of file systems are coarse.
    os.utime(_kept(tmp_path)[0], (1, 1))
    cache = ExportCache(tmp_path, most_bytes=int(2.5 * size))
    cache.to_onnx(_network(1), to=tmp_path / "1.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert len(_kept(tmp_path)) == 2
    cache.to_onnx(_network(2), to=tmp_path / "2.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert len(_kept(tmp_path)) == 2
    for seed in (1, 2, 0):
        cache.to_onnx(_network(seed), to=tmp_path / "again.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert [path.name for path in exports] == ["0.onnx", "1.onnx", "2.onnx", "again.onnx"]


def test_where_nothing_can_be_kept_the_export_is_whole(tmp_path: Path, exports: list[Path]) -> None:
    (tmp_path / "exported").write_text("a file where the folder should be")
    for name in ("a.onnx", "b.onnx"):
        model = ExportCache(tmp_path).to_onnx(
            _network(), to=tmp_path / name, check_images=_IMAGES, output_names=("logits",)
        )
        assert model.path.is_file()
    assert len(exports) == 2


def test_clearing_leaves_nothing(tmp_path: Path, exports: list[Path]) -> None:
    cache = ExportCache(tmp_path)
    cache.clear()  # nothing is there yet
    cache.to_onnx(_network(), to=tmp_path / "a.onnx", check_images=_IMAGES, output_names=_NAMES)
    cache.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx"]
    cache.to_onnx(_network(), to=tmp_path / "b.onnx", check_images=_IMAGES, output_names=_NAMES)
    assert len(exports) == 2
