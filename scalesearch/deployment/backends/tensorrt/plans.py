"""Built engines on disk, named by what they were built from, and loaded only if this program wrote them."""

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
    """Return the folder where this user's engines are kept, below $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / _FOLDER


def plan_key(*, onnx_sha256: str, library: str, gpu: str, batch: int, settings: TensorRtSettings) -> str:
    """Return the name of an engine.

    It depends on the file, the library with its version, the GPU, the batch, and every setting that changes what is
    built.
    """
    built_by = {name: value for name, value in asdict(settings).items() if name not in ("cuda_graph", "copies")}
    return content_hash(onnx_sha256, library, gpu, batch, built_by)


class PlanStore:
    """A folder of plans, each with a second file (sidecar) that holds its hash.

    A plan is native code, and loading a plan from elsewhere would run that code. So a plan without our sidecar, or with
    one that does not match, is not loaded but built again. This guards against accidents and files put there by
    mistake, not against somebody who can write to the user's own cache folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str) -> bytes | None:
        """Return the plan that is kept under `key`, or None if there is none that can be trusted."""
        plan_file, sidecar = self._paths(key)
        try:
            plan = plan_file.read_bytes()
            told = json.loads(sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        matches = isinstance(told, dict) and told.get("sha256") == hashlib.sha256(plan).hexdigest()
        return plan if matches and told.get("key") == key else None

    def save(self, key: str, plan: bytes) -> None:
        """Keep a plan that was just built.

        The sidecar is written last, so that a half-written plan is never trusted.
        """
        plan_file, sidecar = self._paths(key)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(plan_file, plan)
        told = {"key": key, "sha256": hashlib.sha256(plan).hexdigest()}
        replace_file(sidecar, json.dumps(told).encode())

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self._folder / f"{key}.plan", self._folder / f"{key}.json"
