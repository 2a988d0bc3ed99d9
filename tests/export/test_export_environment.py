"""requirements.lock pins what is installed, and what the study was run with where that differs."""

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from scalesearch.export.environment import installed_closure, write_lock


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("--"))


def test_everything_that_a_result_depends_on_is_pinned(tmp_path: Path) -> None:
    found = pins(write_lock(tmp_path, tmp_path))
    for name in ("torch", "optuna", "onnx", "onnxruntime", "numpy", "torch-pruning", "pillow", "sqlalchemy"):
        assert found[name] == importlib.metadata.version(name)
    assert "scalesearch" not in found and "pytest" not in found


def test_the_studys_own_version_wins(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[versions]\npython = "3.12.1"\nnumpy = "1.2.3"\n"torch-pruning" = "9.9"\n')
    path = write_lock(tmp_path, tmp_path)
    found = pins(path)
    assert (found["numpy"], found["torch-pruning"]) == ("1.2.3", "9.9")
    assert re.search(r"numpy==1\.2\.3  # of the study's run; exported with 2\.", path.read_text())
    assert "Python 3.12.1" in path.read_text()


def test_a_package_that_is_not_there_is_left_out() -> None:
    assert installed_closure("no-such-package-of-anyone") == {}


def test_the_oldest_versions_for_a_device_are_told_and_pin_nothing(tmp_path: Path) -> None:
    path = write_lock(tmp_path, tmp_path, oldest={"python": "3.8", "pillow": "8.0"})
    assert "# Older ones serve on a device: python>=3.8, pillow>=8.0" in path.read_text()
    assert pins(path)["pillow"] == importlib.metadata.version("pillow")


class _Package:
    def __init__(self, version: str, requires: tuple[str, ...] = ()) -> None:
        self.version, self.requires = version, requires


def _install(monkeypatch: pytest.MonkeyPatch, packages: Mapping[str, str]) -> None:
    """Let these packages alone be installed. scalesearch requires ONNX Runtime for CPUs, and all others of them."""
    there = {name: _Package(version) for name, version in packages.items()}
    there["scalesearch"] = _Package("0.1.0", ("onnxruntime>=1.30", *(packages.keys() - {"onnxruntime-gpu"})))

    def distribution(name: str) -> _Package:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


def test_onnx_runtime_for_gpus_is_pinned_where_it_is_in_place_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"numpy": "2.3.1", "pillow": "12.3.0"}
    for name in ("onnxruntime-gpu", "onnxruntime"):
        _install(monkeypatch, both | {name: "1.31.1"})
        path = write_lock(tmp_path, tmp_path)
        assert pins(path) == both | {name: "1.31.1"}
        (told,) = (line for line in path.read_text().splitlines() if "pip install numpy" in line)
        assert told.startswith("# infer.py needs 3 of them: ") and f" {name}==1.31.1" in told


def test_builds_of_torchs_own_index_can_be_installed_and_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"torch": "2.14.1+cpu", "torchvision": "0.29.1+cu130", "fvcore": "0.1.5+git.abc", "numpy": "2.3.1"}
    _install(monkeypatch, installed)
    lines = write_lock(tmp_path, tmp_path).read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "--extra-index-url https://download.pytorch.org/whl/cpu",
        "--extra-index-url https://download.pytorch.org/whl/cu130",
        "fvcore==0.1.5  # 0.1.5+git.abc, a build that no index has",
        "numpy==2.3.1",
        "torch==2.14.1+cpu",
        "torchvision==0.29.1+cu130",
    ]
    (tmp_path / "run.toml").write_text('[versions]\ntorch = "2.13.0+rocm6.4"\n')
    text = write_lock(tmp_path, tmp_path).read_text()
    assert "\n--extra-index-url https://download.pytorch.org/whl/rocm6.4\n" in text and "/whl/cpu" not in text
    assert "\ntorch==2.13.0+rocm6.4  # of the study's run; exported with 2.14.1+cpu\n" in text
