"""Print the oldest versions that pyproject.toml allows, as constraints for pip.

    python benchmarks/lowest_versions.py > lowest.txt
    python -m pip install --editable '.[dev]' --constraint lowest.txt

`make test-lowest` runs the unit tests with them, so that a lower bound which is not true is found out.
"""

import re
import tomllib
from pathlib import Path
from typing import Final

PYPROJECT: Final = Path(__file__).resolve().parents[1] / "pyproject.toml"
_BOUND: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?>=(?P<version>[\w.]+)")
_TOOLS: Final = frozenset(("ruff", "mypy", "import-linter", "pandas-stubs", "types-psutil"))
"""Never imported: `make static` runs them, in their newest versions."""
_EXTRAS: Final = ("datasets", "dashboard", "report", "postgresql", "openvino", "c", "rtx", "dev")


def lowest_versions(pyproject: Path = PYPROJECT) -> dict[str, str]:
    """Return the lower bound of each package that the unit tests need, by the package's name.

    Raises:
        ValueError: A requirement states no lower bound.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    extras = project["optional-dependencies"]
    lowest = dict[str, str]()
    for requirement in (*project["dependencies"], *(line for extra in _EXTRAS for line in extras[extra])):
        if requirement.startswith("scalesearch["):
            continue
        bound = _BOUND.match(requirement)
        if bound is None:
            message = f"{pyproject}: expected a lower bound such as 'name>=1.2', came {requirement!r}."
            raise ValueError(message)
        if bound["name"] not in _TOOLS:
            lowest[bound["name"]] = bound["version"]
    return lowest


if __name__ == "__main__":
    for name, version in sorted(lowest_versions().items()):
        print(f"{name}=={version}" if "post" in version else f"{name}=={version}.*")
