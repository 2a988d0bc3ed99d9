"""Built engines on disk: kept by what they were built from, and loaded only where this program wrote them."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Final

from scalesearch.files import replace_file
from scalesearch.values.identity import content_hash
from scalesearch.values.settings import TensorRtSettings

_FOLDER: Final = Path("scalesearch") / "engines"


def engine_folder() -> Path:
    """Where engines of this user are kept: below $XDG_CACHE_HOME, or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / _FOLDER


def plan_key(*, onnx_sha256: str, library: str, gpu: str, batch: int, settings: TensorRtSettings) -> str:
    """The name of an engine: file, library with version, GPU, batch and every setting that changes what is built."""
    built_by = {name: value for name, value in asdict(settings).items() if name not in ("cuda_graph", "copies")}
    return content_hash(onnx_sha256, library, gpu, batch, built_by)


class PlanStore:
    """A folder of plans, each with a sidecar that holds its hash.

    A plan is native code, and loading a foreign one runs it: so a plan without our sidecar, or one that does not match
    it, is not loaded but built again. That guards against accidents and files put there by mistake, not against
    somebody who can write to the user's own cache folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str) -> bytes | None:
        """The plan kept under `key`; None where there is none that can be trusted."""
        plan_file, sidecar = self._paths(key)
        try:
            plan = plan_file.read_bytes()
            told = json.loads(sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        matches = isinstance(told, dict) and told.get("sha256") == hashlib.sha256(plan).hexdigest()
        return plan if matches and told.get("key") == key else None

    def save(self, key: str, plan: bytes) -> None:
        """Keep a plan that was just built; the sidecar comes last, so that a half-written plan is never believed."""
        plan_file, sidecar = self._paths(key)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(plan_file, plan)
        told = {"key": key, "sha256": hashlib.sha256(plan).hexdigest()}
        replace_file(sidecar, json.dumps(told).encode())

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}.plan", self._folder / f"{key}.json"
