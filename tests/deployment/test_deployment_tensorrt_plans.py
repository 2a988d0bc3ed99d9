"""Engines on disk: found again by what they were built from, and never loaded where there is a doubt."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from scalesearch.deployment.backends.tensorrt.plans import PlanStore, engine_folder, plan_key
from scalesearch.files import replace_file
from scalesearch.values.settings import TensorRtSettings

_PLAN = b"\x00native code" * 100
_SETTINGS = TensorRtSettings()
_BUILT_FROM: dict[str, Any] = {
    "onnx_sha256": "ab" * 32,
    "library": "tensorrt 11.4.0",
    "gpu": "NVIDIA A100 sm_8.0",
    "batch": 1,
    "settings": _SETTINGS,
}
_KEY = plan_key(**_BUILT_FROM)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    """Holds one plan; its folder does not exist before."""
    store = PlanStore(tmp_path / "new" / "engines")
    assert store.load(_KEY) is None
    store.save(_KEY, _PLAN)
    return store


@pytest.fixture
def folder(store: PlanStore, tmp_path: Path) -> Path:
    return tmp_path / "new" / "engines"


def test_a_plan_comes_back_as_it_was_saved(store: PlanStore, folder: Path) -> None:
    assert store.load(_KEY) == _PLAN
    assert PlanStore(folder).load(_KEY) == _PLAN
    assert sorted(path.name for path in folder.iterdir()) == [f"{_KEY}.json", f"{_KEY}.plan"]
    told = json.loads((folder / f"{_KEY}.json").read_text())
    assert told == {"key": _KEY, "sha256": hashlib.sha256(_PLAN).hexdigest()}


def test_nobody_else_can_write_to_the_folder(store: PlanStore, folder: Path) -> None:
    assert folder.stat().st_mode & 0o077 == 0


def test_a_newer_plan_replaces_the_older_one(store: PlanStore) -> None:
    store.save(_KEY, b"newer")
    assert store.load(_KEY) == b"newer"


@pytest.mark.parametrize(
    "content",
    [_PLAN[:-1], _PLAN + b"\x00", b"\x01" + _PLAN[1:], b"", None],
    ids=["cut", "longer", "changed", "empty", "gone"],
)
def test_a_plan_that_was_touched_is_not_loaded(store: PlanStore, folder: Path, content: bytes | None) -> None:
    plan = folder / f"{_KEY}.plan"
    if content is None:
        plan.unlink()
    else:
        plan.write_bytes(content)
    assert store.load(_KEY) is None


_HASH = hashlib.sha256(_PLAN).hexdigest()


@pytest.mark.parametrize(
    "sidecar",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '"text"',
        "\ud800".encode("utf-8", "surrogatepass"),
        json.dumps({"sha256": _HASH}),
        json.dumps({"key": _KEY}),
        json.dumps({"key": "another", "sha256": _HASH}),
        json.dumps({"key": _KEY, "sha256": hashlib.sha256(b"another").hexdigest()}),
    ],
    ids=[
        "none",
        "empty",
        "half",
        "list",
        "no keys",
        "text",
        "no UTF-8",
        "no key",
        "no hash",
        "another key",
        "another hash",
    ],
)
def test_a_plan_without_its_own_sidecar_is_not_loaded(
    store: PlanStore, folder: Path, sidecar: str | bytes | None
) -> None:
    path = folder / f"{_KEY}.json"
    if sidecar is None:
        path.unlink()
    else:
        path.write_bytes(sidecar if isinstance(sidecar, bytes) else sidecar.encode())
    assert store.load(_KEY) is None
    store.save(_KEY, _PLAN)  # building again heals it
    assert store.load(_KEY) == _PLAN


def test_a_plan_under_another_name_is_not_loaded(store: PlanStore, folder: Path) -> None:
    """Copied with its sidecar: the engine of another file, GPU or version."""
    for ending in ("plan", "json"):
        (folder / f"{_KEY}.{ending}").rename(folder / f"other.{ending}")
    assert store.load("other") is None


def test_a_plan_whose_writing_was_cut_off_is_not_loaded(
    store: PlanStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies between the plan and its sidecar: the old sidecar does not fit the new plan."""

    def dies_at_the_sidecar(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        replace_file(path, content)

    monkeypatch.setattr("scalesearch.deployment.backends.tensorrt.plans.replace_file", dies_at_the_sidecar)
    for key in (_KEY, "fresh"):
        with pytest.raises(KeyboardInterrupt):
            store.save(key, b"newer plan")
        assert (folder / f"{key}.plan").read_bytes() == b"newer plan"
        assert store.load(key) is None


@pytest.mark.parametrize(
    "change",
    [
        {"onnx_sha256": "cd" * 32},
        {"library": "tensorrt 11.4.1"},
        {"library": "tensorrt_rtx 11.4.0"},
        {"gpu": "NVIDIA A100 sm_9.0"},
        {"gpu": "NVIDIA H100 sm_8.0"},
        {"batch": 2},
    ],
    ids=str,
)
def test_another_origin_is_another_key(change: dict[str, Any]) -> None:
    assert plan_key(**_BUILT_FROM | change) != _KEY


_RUN_ONLY = {"cuda_graph", "copies"}
"""How an engine is run and timed, not what it is."""


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TensorRtSettings)])
def test_every_setting_that_changes_the_engine_changes_the_key(name: str) -> None:
    before = getattr(_SETTINGS, name)
    other = (not before) if isinstance(before, bool) else before + 1
    changed = dataclasses.replace(_SETTINGS, **{name: other})
    assert (plan_key(**_BUILT_FROM | {"settings": changed}) == _KEY) == (name in _RUN_ONLY)


def test_equal_origins_have_equal_keys_that_are_file_names() -> None:
    assert plan_key(**_BUILT_FROM) == _KEY
    assert _KEY.isalnum()
    assert len(_KEY) == 64


def test_engines_are_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine_folder() == tmp_path / "scalesearch" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert engine_folder() == tmp_path / "home" / ".cache" / "scalesearch" / "engines"
