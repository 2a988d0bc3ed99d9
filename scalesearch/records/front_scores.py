"""front_scores.json: the second evaluation of members of the front, on test images and in a fresh process."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter

from scalesearch.errors import ConfigError
from scalesearch.files import replace_file
from scalesearch.records.stored_json import read_json, to_json
from scalesearch.values.record import FrontScore

NAME = "front_scores.json"
_ADAPTER = TypeAdapter(tuple[FrontScore, ...])


def read_front_scores(folder: Path) -> tuple[FrontScore, ...]:
    """Return the scores stored in a study's folder; empty where no search has ended there yet.

    Raises:
        ConfigError: The file is there but cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return ()
    try:
        return read_json(path, _ADAPTER)
    except ValueError as error:
        message = (
            f"{path} cannot be read: {error}.\n"
            "Restore it, or remove it: `scalesearch run` with the study's command scores the front again."
        )
        raise ConfigError(message) from error


def write_front_scores(folder: Path, scores: Iterable[FrontScore]) -> None:
    """Write the scores, by trial number, whole or not at all."""
    ordered = tuple(sorted(scores, key=lambda score: score.trial))
    replace_file(folder / NAME, to_json(ordered, _ADAPTER))
