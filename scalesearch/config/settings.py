"""Settings of a run: the defaults in the dataclasses, then `--set`, then flags."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping

from scalesearch.config.checks import BOUNDS, Document, check_bounds, fail, flatten, is_number, load_value, put, suggest
from scalesearch.config.spaces import SPACE_NUMBERS, SPACE_SECTIONS, find_space, parse_space, read_document, space_keys
from scalesearch.spaces.axes import READ_BY
from scalesearch.toml_file import parse_toml
from scalesearch.values.candidate import Candidate
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace


def load_run(
    *, space: str = "", overrides: Iterable[str] = (), flags: Mapping[str, object] | None = None
) -> tuple[RunSettings, SearchSpace]:
    """Load the settings and the space of a run: defaults, then the space file, then `--set` overrides, then flags.

    Args:
        space: Name or path of the space; empty takes the default.
        overrides: `key=value` texts; values are read as TOML, and bare words are taken as text.
        flags: Dotted settings that have a flag of their own; None values are skipped.

    Raises:
        ConfigError: If a key is unknown (with a suggestion) or a value is out of range; the message gives its dotted
            place.
    """
    settings_document: Document = {}
    space_overrides: list[tuple[str, object]] = []
    for text in overrides:
        key, value = parse_override(text)
        check_known(key)
        if key.split(".")[0] in SPACE_SECTIONS or key in SPACE_NUMBERS:
            space_overrides.append((key, value))
        else:
            put(settings_document, key, value, origin="--set")
    for key, value in (flags or {}).items():
        if value is not None:
            put(settings_document, key, value, origin="flag")
    if space:
        settings_document["space"] = space
    settings = parse_settings(settings_document)
    path = find_space(settings.space)
    document = read_document(path)
    for key, value in space_overrides:
        put(document, key, value, origin="--set")
    if settings.network:
        document["network"] = settings.network
    set_keys = ", ".join(key for key, _ in space_overrides)
    origin = f"{path} with --set {set_keys}" if set_keys else str(path)
    return settings, parse_space(document, name=path.stem, origin=origin)


def parse_override(text: str) -> tuple[str, object]:
    """Split one `key=value` into key and value; the value is read as TOML, or as plain text if it is not TOML."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        fail(f"--set wants key=value, got {text!r}. Example: --set training.steps=500")
    try:
        return key, _single_value(raw)
    except ValueError:
        return key, raw.strip()


def _single_value(raw: str) -> object:
    """Return the TOML value that `raw` stands for.

    Raises:
        ValueError: If it is not a TOML value, or if further lines in it set other keys.
    """
    document = parse_toml(f"value = {raw}")
    if len(document) != 1:
        raise ValueError(raw)
    return document["value"]


def parse_settings(document: Document) -> RunSettings:
    """Make run settings from nested dicts, and check every key and bound."""
    _check_window(document)
    settings = load_value(RunSettings, document, origin="settings")
    for key, value in flatten(dataclasses.asdict(settings)):
        if key in BOUNDS:
            check_bounds(key, typing.cast("float", value))
    return settings


def _check_window(document: Document) -> None:
    """Raise ConfigError if data.window is neither an allowed word nor a valid range.

    It is checked here because pydantic's message for a union would tell only half of what is allowed.
    """
    data = document.get("data")
    window = data.get("window", "auto") if isinstance(data, dict) else "auto"
    if window in ("auto", "full"):
        return
    numbers = isinstance(window, list | tuple) and all(map(is_number, window))
    if not numbers or len(window) != 2 or not window[0] < window[1]:
        fail(
            f"settings: data.window = {window!r} is wrong: expected auto, full, or two numbers, the lower one first.",
            "Example: --set 'data.window=[0, 4095]' for images of 12 bits.",
        )


def check_stored(settings: RunSettings, candidate: Candidate, *, origin: str) -> None:
    """Raise ConfigError if settings or a candidate that were read from a file break a bound.

    What the candidate's schedule does not read may have any value: trials from before the schedule `wsd` have a
    `branch_fraction` of 0.
    """
    values = [*flatten(dataclasses.asdict(settings)), *flatten(dataclasses.asdict(candidate))]
    values += [
        (f"scaling.stages.{number}.{key}", value)
        for number, stage in enumerate(candidate.scaling.stages, start=1)
        for key, value in dataclasses.asdict(stage).items()
    ]
    schedule = candidate.recipe.schedule
    for key, value in values:
        name = key.replace("recipe.", "training.", 1)
        if isinstance(value, int | float) and schedule in READ_BY.get(name, (schedule,)):
            check_bounds(name, value, origin)


def known_keys() -> tuple[str, ...]:
    """Return every dotted key that `--set` takes, except the per-stage ones."""
    settings = tuple(key for key, _ in flatten(dataclasses.asdict(RunSettings())))
    return (*settings, *SPACE_NUMBERS, *space_keys())


def check_known(key: str) -> None:
    """Raise ConfigError, which names the nearest key, if `--set` does not take `key`."""
    known = known_keys()
    if key in known or key.startswith("scaling.stages."):
        return
    leaf = key.rpartition(".")[2]
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    near = f". Did you mean {same_leaf[0]!r}?" if same_leaf else suggest(key, known)
    fail(f"--set: unknown key {key!r}{near}", "`scalesearch run --dry-run` shows every key with its value.")
