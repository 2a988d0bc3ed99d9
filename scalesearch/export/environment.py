"""requirements.lock of an export: the exact package versions that made it, for pip."""

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scalesearch.files import replace_file
from scalesearch.records.run_file import NAME as RUN_FILE
from scalesearch.toml_file import read_toml

LOCK = "requirements.lock"
INFER = ("numpy", "onnxruntime", "pillow")
"""The packages that `infer.py` imports."""
_INSTEAD: Final = {"onnxruntime": "onnxruntime-gpu"}
"""Packages that hold the same modules as a required one, and take its place."""
_TORCH_INDEX: Final = "https://download.pytorch.org/whl/"
_TORCH_BUILD: Final = re.compile(r"cpu|cu\d+|rocm[\d.]+|xpu")
"""Local parts of versions (`+cpu`) that PyTorch's own index has, each below an address of its name."""


def write_lock(study: Path, folder: Path, *, oldest: Mapping[str, str] | None = None) -> Path:
    """Write requirements.lock into `folder` and return its path.

    It lists the packages of this environment that scalesearch needs. If the study in `study` was run with another
    version of a package, that version is pinned. Of a build that no index has (`1.0+mine`), the version without its
    local part is pinned. `oldest` names the oldest versions that run the export's `infer.py` on its model.
    """
    here = installed_closure("scalesearch")
    there = study_versions(study)
    infer = [name for name in (*INFER, *_INSTEAD.values()) if name in here]
    lines = [
        "# Exact versions behind this export; `pip install -r requirements.lock` restores them.",
        f"# Python {there.get('python', platform.python_version())}. scalesearch itself ("
        f"{there.get('scalesearch', importlib.metadata.version('scalesearch'))}) is installed from its own source.",
        f"# infer.py needs {len(infer)} of them: pip install "
        + " ".join(f"{name}=={_without_own_build(here[name])}" for name in infer),
    ]
    if oldest:
        told = ", ".join(f"{name}>={version}" for name, version in oldest.items())
        lines.append(f"# Older ones serve on a device: {told}")
    pins = {name: there.get(name, here[name]) for name in sorted(here.keys() - {"scalesearch"})}
    builds = {build for version in pins.values() if _TORCH_BUILD.fullmatch(build := version.partition("+")[2])}
    lines += [f"--extra-index-url {_TORCH_INDEX}{build}" for build in sorted(builds)]
    for name, version in pins.items():
        pinned, notes = _without_own_build(version), list[str]()
        if pinned != version:
            notes.append(f"{version}, a build that no index has")
        if version != here[name]:
            notes.append(f"of the study's run; exported with {here[name]}")
        note = f"  # {', '.join(notes)}" if notes else ""
        lines.append(f"{name}=={pinned}{note}")
    path = folder / LOCK
    replace_file(path, ("\n".join(lines) + "\n").encode())
    return path


def _without_own_build(version: str) -> str:
    """Return the version as pip finds it: without a local part that PyTorch's index does not have."""
    public, _, build = version.partition("+")
    return version if _TORCH_BUILD.fullmatch(build) else public


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

    Environment markers are not evaluated: a package for another system is not installed here anyway. Where a package is
    missing and another one takes its place (`onnxruntime-gpu` that of `onnxruntime`), that one is listed.
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
            waiting += [_INSTEAD[name]] if name in _INSTEAD else []
            continue
        found[name] = package.version
        for requirement in package.requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" not in marker:
                waiting.append(re.split(r"[\s\[<>=!~(@]", wanted.strip(), maxsplit=1)[0])
    return found


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
