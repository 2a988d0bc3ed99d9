"""requirements.lock pins what is installed, and what the study was run with where that differs."""

import importlib.metadata
import re
from pathlib import Path

from scalesearch.export.environment import installed_closure, write_lock


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line)


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
