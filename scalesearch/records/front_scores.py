"""front_scores.json: the last look at front members, on test images and in a fresh process."""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from scalesearch.files import replace_file
from scalesearch.values.record import FrontScore

NAME = "front_scores.json"
_ADAPTER = TypeAdapter(tuple[FrontScore, ...])


def read_front_scores(folder: Path) -> tuple[FrontScore, ...]:
    """The scores stored in a study's folder; empty where no search has ended there yet."""
    path = folder / NAME
    return _ADAPTER.validate_json(path.read_bytes()) if path.exists() else ()


def write_front_scores(folder: Path, scores: Iterable[FrontScore]) -> None:
    """Writes the scores, by trial number, whole or not at all."""
    ordered = tuple(sorted(scores, key=lambda score: score.trial))
    replace_file(folder / NAME, json.dumps(_ADAPTER.dump_python(ordered, mode="json"), indent=1).encode())
