"""Finds the study that a command means, reads it, and parses limits as people write them (`5ms`, `80%`)."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.files import named
from scalesearch.registry import nearest
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.views.words import milliseconds, percent, remedy, verdict

RESULTS = Path("results")
_MARKS = ("run.toml", "records", "study.sqlite3")
_UNIT_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}

StudyArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[STUDY]", help="A study's folder (default: the newest under ./results).", show_default=False
    ),
]

MovedData = Annotated[
    str | None,
    typer.Option("--data", help="Where the study's images are now, if they were moved (compared by fingerprint)."),
]


def find_study(path: Path | None, *, under: Path = RESULTS) -> Path:
    """Return the folder of the study: `path` itself, or a study of that name in `under`, or the newest one there.

    Raises:
        ConfigError: There is no such folder, or it holds no study.
    """
    if path is None:
        return _newest(under)
    path = named(path)  # a study's name stands in what is made of it
    for folder in (path, under / path):
        if _is_study(folder):
            return folder
    if path.is_dir():
        message = f"{path} is a folder, but not a study: it holds none of {', '.join(_MARKS)}.\n{_known(path, under)}"
    else:
        message = f"no study {path}: {'that is a file' if path.is_file() else 'there is no such folder'}.\n"
        message += _known(path, under)
    raise ConfigError(message)


def read_records(folder: Path) -> tuple[TrialRecord, ...]:
    """Return every record of the study in `folder`.

    Raises:
        ConfigError: A record cannot be read.
        NoFeasibleTrialError: No trial has finished yet.
    """
    from scalesearch.records.store import RecordStore

    records = RecordStore(folder).all()
    if not records:
        message = (
            f"{folder} has no results yet: no trial has finished.\nWait for the run, or continue it with its command."
        )
        raise NoFeasibleTrialError(message)
    return records


def front_under(
    records: Sequence[TrialRecord], *, max_latency_ms: float | None = None, min_score: float | None = None
) -> tuple[MeasuredTrial, ...]:
    """Return the members of the front within both bounds, fastest first.

    They are also the front of all trials within the bounds. There must be a record, as `read_records` makes sure.

    Raises:
        NoFeasibleTrialError: There is none; the text names the trials that come nearest.
    """
    from scalesearch.analysis.front import pareto_front, point

    front = pareto_front(records)
    if not front:
        raise NoFeasibleTrialError(_nothing_feasible(records))
    slowest = math.inf if max_latency_ms is None else max_latency_ms
    worst = -math.inf if min_score is None else min_score
    members = tuple(record for record in front if point(record)[0] >= worst and point(record)[1] <= slowest)
    if members:
        return members
    fast = [record for record in front if point(record)[1] <= slowest]
    wanted = [f"{slowest:g} ms or less"] * (max_latency_ms is not None)
    wanted += [f"{100 * worst:g} % or more"] * (min_score is not None)
    # On a front the fastest is first, so the last of the fast ones is the most accurate of them.
    near = f"the most accurate of those is {_named(fast[-1])}" if fast else f"the fastest is {_named(front[0])}"
    accurate = [record for record in front if point(record)[0] >= worst]
    if fast and accurate and min_score is not None:
        near += f"; the fastest with {100 * worst:g} % is {_named(accurate[0])}"
    elif fast and max_latency_ms is None:
        near = f"the most accurate is {_named(front[-1])}"
    message = f"no feasible trial has {' and '.join(wanted)}: {near}."
    raise NoFeasibleTrialError(message)


def _named(record: MeasuredTrial) -> str:
    return f"trial {record.trial} ({percent(record.quality.score)}, {milliseconds(record.latency.p50_ms)})"


def _nothing_feasible(records: Sequence[TrialRecord]) -> str:
    """Say how the trials ended, and which one came nearest to the limits."""
    ends = Counter(_end_of(record) for record in records)
    counts = ", ".join(f"{number} {end}" for end, number in ends.most_common())
    lines = [f"no feasible trial among {len(records)} ({counts})."]
    over = [record for record in records if any(use.excess > 0 for use in record.limits)]
    if any(record.trained_in_part for record in records):
        lines.append(remedy(records))
    elif over:
        nearest = min(over, key=lambda record: max(use.excess for use in record.limits))
        lines.append(
            f"Nearest: trial {nearest.trial}, {verdict(nearest)}. With --fresh, loosen [limits] or widen the space."
        )
    else:
        lines.append(f"The last: trial {records[-1].trial}, {verdict(records[-1])}.")
    return "\n".join(lines)


def _end_of(record: TrialRecord) -> str:
    if record.trained_in_part:
        return "trained in part"
    return "over a limit" if record.state in ("complete", "cached") else record.state


def parse_latency_ms(text: str, flag: str = "--max-latency") -> float:
    """Parse `5ms`, `0.5s` or `800us` into milliseconds.

    Raises:
        ConfigError: It is not a positive time with a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zµ]*)\s*", text.lower())
    number = float(match[1]) if match else 0.0
    if match and number > 0 and match[2] in _UNIT_MS:
        return number * _UNIT_MS[match[2]]
    hint = f" Did you mean {match[1]}ms?" if match and number > 0 and not match[2] else ""
    message = f"{flag} {text!r}: expected a time above 0 with its unit (us, ms or s), for example 5ms or 0.5s.{hint}"
    raise ConfigError(message)


def parse_fraction(text: str, flag: str = "--min-accuracy") -> float:
    """Parse `0.8` or `80%` into a fraction (0..1).

    Raises:
        ConfigError: It is neither.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    if match:
        fraction = float(match[1]) / (100 if match[2] else 1)
        if fraction <= 1:
            return fraction
    hint = f" Did you mean {match[1]}%?" if match and not match[2] and float(match[1]) <= 100 else ""
    message = f"{flag} {text!r}: expected a fraction from 0 to 1, or a percentage, for example 0.8 or 80%.{hint}"
    raise ConfigError(message)


def data_text(folder: Path) -> str:
    """Return the data set of a study in words, with a note on synthetic images.

    The text is empty where run.toml does not name the data set.
    """
    session = _readable_session(folder)
    return session.data_words if session else ""


def train_images_of(folder: Path) -> int:
    """Return the number of a study's training images; 0 where run.toml does not tell it."""
    session = _readable_session(folder)
    return session.data.train_images if session else 0


def _readable_session(folder: Path) -> Session | None:
    from scalesearch.records.run_file import read_run_file

    try:
        return read_run_file(folder)
    except ConfigError:  # results can be read without it, as after a change of version
        return None


def _is_study(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def _studies(under: Path) -> list[Path]:
    """Return the studies, newest first: by the last record that was saved, or by the begin of a study without one.

    The database does not count: other commands write their figures into it.
    """

    def saved(folder: Path) -> float:
        marks = (folder / mark for mark in ("records", "run.toml", "study.sqlite3"))
        return next(mark.stat().st_mtime for mark in marks if mark.exists())

    return sorted((folder for folder in under.glob("*") if _is_study(folder)), key=saved, reverse=True)


def _newest(under: Path) -> Path:
    studies = _studies(under)
    if not studies:
        message = f"no study under ./{under}: name a study's folder, or start one with `scalesearch run --budget 8`."
        raise ConfigError(message)
    return studies[0]


def _known(path: Path, under: Path) -> str:
    """Suggest another study: the one with the most similar name, or the newest ones."""
    names = {folder.name: folder for folder in _studies(under)}
    near = nearest(path.name, names)
    if near:
        return f"Did you mean {names[near]}?"
    if names:
        return f"Studies under ./{under}: {', '.join(list(names)[:5])}{', ...' if len(names) > 5 else ''}."
    return f"There is none under ./{under} either: start one with `scalesearch run --budget 8`."
