"""The oldest versions that pyproject.toml allows, read from it."""

from pathlib import Path

import pytest
from lowest_versions import lowest_versions

PYPROJECT = """
[project]
dependencies = ["torch>=2.10", "fvcore>=0.1.5.post20221221"]
[project.optional-dependencies]
datasets = ["torchvision>=0.25"]
dashboard = ["optuna-dashboard>=0.21"]
report = []
postgresql = ["psycopg[binary]>=3.2"]
openvino = []
c = []
rtx = ["tensorrt-rtx-cu13>=1.7,<2; sys_platform == 'linux'"]
dev = ["scalesearch[datasets,c]", "pytest>=8.3", "mypy>=1.18"]
"""


def test_bounds_are_read_with_extras_and_markers_and_without_tools(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    assert lowest_versions(tmp_path / "pyproject.toml") == {
        "torch": "2.10", "fvcore": "0.1.5.post20221221", "torchvision": "0.25", "optuna-dashboard": "0.21",
        "psycopg": "3.2", "tensorrt-rtx-cu13": "1.7", "pytest": "8.3",
    }  # fmt: skip


def test_a_requirement_without_a_lower_bound_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("pytest>=8.3", "pytest"))
    with pytest.raises(ValueError, match=r"expected a lower bound such as 'name>=1\.2', came 'pytest'"):
        lowest_versions(tmp_path / "pyproject.toml")


def test_every_requirement_of_the_project_has_one() -> None:
    assert {"torch", "optuna", "onnxruntime", "numpy", "pillow"} <= set(lowest_versions())
