"""requirements.lock of an export: the exact package versions that made it, for pip."""

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.records.run_file import NAME as RUN_FILE
from scalesearch.toml_file import read_toml

LOCK = "requirements.lock"
INFER = ("numpy", "onnxruntime", "pillow")
"""The packages that `infer.py` imports."""


def write_lock(study: Path, folder: Path, *, oldest: Mapping[str, str] | None = None) -> Path:
    """Write requirements.lock into `folder` and return its path.

    It lists the packages of this environment that scalesearch needs. If the study in `study` was run with another
    version of a package, that version is pinned. `oldest` names the oldest versions that run the export's `infer.py` on
    its model.
    """
    here = installed_closure("scalesearch")
    there = study_versions(study)
    lines = [
        "# Exact versions behind this export; `pip install -r requirements.lock` restores them.",
        f"# Python {there.get('python', platform.python_version())}. scalesearch itself ("
        f"{there.get('scalesearch', importlib.metadata.version('scalesearch'))}) is installed from its own source.",
        "# infer.py needs three of them: pip install "
        + " ".join(f"{name}=={here[name]}" for name in INFER if name in here),
    ]
    if oldest:
        told = ", ".join(f"{name}>={version}" for name, version in oldest.items())
        lines.append(f"# Older ones serve on a device: {told}")
    for name in sorted(here.keys() - {"scalesearch"}):
        version = there.get(name, here[name])
        note = "" if version == here[name] else f"  # of the study's run; exported with {here[name]}"
        lines.append(f"{name}=={version}{note}")
    path = folder / LOCK
    replace_file(path, ("\n".join(lines) + "\n").encode())
    return path


def study_versions(study: Path) -> Mapping[str, str]:
    """Return the versions that a study's run.toml names, by normalised name; empty where it cannot be read."""
    try:
        versions = read_toml(study / RUN_FILE).get("versions", {})
    except (OSError, ValueError):
        return {}
    if not isinstance(versions, dict):
        return {}
    return {_normalised(name): str(version) for name, version in versions.items()}


def installed_closure(root: str) -> dict[str, str]:
    """Return the installed versions of all direct and indirect dependencies of `root`; its extras are left out.

    Environment markers are not evaluated: a package for another system is not installed here anyway.
    """
    found: dict[str, str] = {}
    waiting = [root]
    while waiting:
        name = _normalised(waiting.pop())
        if name in found:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = package.version
        for requirement in package.requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" not in marker:
                waiting.append(re.split(r"[\s\[<>=!~(@]", wanted.strip(), maxsplit=1)[0])
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
