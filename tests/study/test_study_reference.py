"""The reference engine of a study: known by its hash, built again where it is lost, never another one."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.deployment.onnx_file import onnx_model
from scalesearch.errors import ConfigError
from scalesearch.study import reference
from scalesearch.study.reference import rebuild_reference, with_reference
from scalesearch.values.network import OnnxModel
from scalesearch.values.session import Session, reference_path
from scalesearch.values.settings import DataSettings


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng, path = np.random.default_rng(4), tmp_path / "grain.npz"
    np.savez(path, images=rng.integers(0, 256, (120, 64, 64, 3), dtype=np.uint8), labels=np.arange(120) % 4)
    return load_dataset(
        DataSettings(source=str(path), calibration_images=16, val_fraction=0.3), LABEL_SOURCES, storage_px=64
    )


def builds(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    def build(session: Session, dataset: Dataset, to: Path) -> OnnxModel:
        to.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        return OnnxModel(path=to, sha256=sha256, size_bytes=len(content), input_shape=(1, 3, 64, 64))

    monkeypatch.setattr(reference, "_build", build)


def test_a_study_of_old_takes_the_hash_of_its_file(session: Session, dataset: Dataset) -> None:
    reference_path(session.folder).write_bytes(b"as it is")
    said: list[str] = []
    opened = with_reference(session, dataset, say=said.append)
    assert opened == replace(session, reference_sha256=hashlib.sha256(b"as it is").hexdigest())
    assert said == []


def test_a_lost_file_is_built_again_only_if_it_is_the_same(
    session: Session, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reference_path(session.folder)
    known = replace(session, reference_sha256=hashlib.sha256(b"then").hexdigest())
    builds(monkeypatch, b"now")
    with pytest.raises(ConfigError, match=r"reference\.onnx is missing, and torch .* builds another one"):
        with_reference(known, dataset)
    assert not path.exists()
    builds(monkeypatch, b"then")
    said: list[str] = []
    assert with_reference(known, dataset, say=said.append) == known
    assert path.read_bytes() == b"then" and said == ["reference: its file is missing, building it again"]
    path.write_bytes(b"now")
    with pytest.raises(ConfigError, match="is not the file"):
        with_reference(known, dataset)


@pytest.mark.slow
def test_what_is_built_again_is_the_same_file(session: Session, dataset: Dataset, tmp_path: Path) -> None:
    """So the advice to delete a file that was replaced is true."""
    first = rebuild_reference(session, dataset, to=tmp_path / "first.onnx")
    known = replace(session, reference_sha256=onnx_model(first).sha256)
    assert rebuild_reference(known, dataset, to=tmp_path / "second.onnx").read_bytes() == first.read_bytes()
