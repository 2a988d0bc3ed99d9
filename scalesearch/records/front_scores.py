"""front_scores.json: the second evaluation of members of the front, on test images and in a fresh process."""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.files import read_file, replace_file
from scalesearch.plain_text import utf8_values
from scalesearch.records.old_names import with_todays_names
from scalesearch.records.plausible import first_fault, impossible
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
        scores = _ADAPTER.validate_json(with_todays_names(read_file(path)))
        problem = impossible(scores)
    except ValidationError as error:
        problem = first_fault(error)
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        message = (
            f"{path} cannot be read: {problem}.\n"
            "Restore it, or remove it: `scalesearch run` with the study's command scores the front again."
        )
        raise ConfigError(message)
    return scores


def write_front_scores(folder: Path, scores: Iterable[FrontScore]) -> None:
    """Write the scores, by trial number, whole or not at all."""
    ordered = tuple(sorted(scores, key=lambda score: score.trial))
    replace_file(folder / NAME, json.dumps(utf8_values(_ADAPTER.dump_python(ordered, mode="json")), indent=1).encode())
