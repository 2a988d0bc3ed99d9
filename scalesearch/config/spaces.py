"""Search-space files: find them by name, read them, and turn them into a checked SearchSpace."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scalesearch.config.checks import (
    Document,
    check_bounds,
    check_value,
    fail,
    field_types,
    is_number,
    is_whole,
    load_value,
    suggest,
    unknown_key,
)
from scalesearch.config.space_checks import MAX_RESOLUTION_PX, check_cuts, check_largest, check_neck
from scalesearch.toml_file import read_toml
from scalesearch.values.candidate import LossWeights, Pruning, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.network_spec import InputSize
from scalesearch.values.space import AUTO, FLIP, Axis, Choice, Limits, NamedAxis, Range, SearchSpace

_SPACE_KEYS = ("network", "resolution_px", "resolution_multiple", "summary")
SPACE_NUMBERS = ("resolution_px", "resolution_multiple")
SPACE_SECTIONS = ("scaling", "pruning", "quantization", "training", "limits")
_SCALING_KINDS = {key: kind for key, kind in field_types(Scaling).items() if key != "stages"}
_TRAINING_KINDS = {key: kind for key, kind in field_types(Recipe).items() if key != "loss_weights"}
_LOSS_KINDS = {key.removesuffix("_"): kind for key, kind in field_types(LossWeights).items()}
_WHOLE_LIMITS = {"max_macs": "multiply-accumulate operations", "max_size_bytes": "bytes"}
"""What the limits that are whole numbers count."""

MAX_CHOICES = 1000
"""Largest number of choices of one axis; it is limited because `check` compares them in pairs."""


def find_space(name: str) -> Path:
    """Find the TOML file that `name` stands for: a path as given, then `./search_spaces/`, then the packaged copy.

    Raises:
        ConfigError: If there is no such file in any of these places.
    """
    given = Path(name)
    if given.suffix == ".toml":
        if _is_file(given):
            return given
        fail(
            f"No search space file at {name!r}.",
            "Give an existing .toml file, or a name that `scalesearch spaces` lists.",
        )
    for folder in space_folders():
        candidate = folder / f"{name}.toml"
        if _is_file(candidate):
            return candidate
    known = sorted(space_paths())
    return fail(
        f"No search space is called {name!r}{suggest(name, known)}",
        f"Known: {', '.join(known)}; or give a path to a .toml file.",
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


def space_folders() -> tuple[Path, ...]:
    """Return the folders that are searched for spaces; the first match is taken."""
    # An editable install has no packaged copy, since hatch's force-include applies to built wheels only.
    package = Path(__file__).parents[1]
    return (Path("search_spaces"), package / "search_spaces", package.parent / "search_spaces")


def space_paths() -> dict[str, Path]:
    """Return every space that has a name, with its file."""
    found: dict[str, Path] = {}
    for folder in space_folders():
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
            found.setdefault(path.stem, path)
    return found


def read_document(path: Path) -> Document:
    """Read the TOML file into nested dicts.

    Raises:
        ConfigError: If the file cannot be read, or is not TOML (with line and column).
    """
    try:
        return read_toml(path)
    except ValueError as error:
        fail(f"{path} is not valid TOML: {error}.")
    except OSError as error:
        fail(f"Cannot read {path}: {error.strerror}.")


def parse_space(document: Document, *, name: str, origin: str) -> SearchSpace:
    """Make a SearchSpace from nested dicts.

    Raises:
        ConfigError: If there is an unknown key, a wrong kind of value, or a value out of bounds; the message gives the
            dotted place and the file.
    """
    known = (*_SPACE_KEYS, *SPACE_SECTIONS)
    for key, value in document.items():
        if key not in known:
            unknown_key(origin, "", key, known)
        if key in SPACE_SECTIONS and not isinstance(value, dict):
            fail(f"{origin}: [{key}] must be a table, got {value!r}.")
    if not isinstance(document.get("network"), str):
        fail(
            f"{origin}: network must be the name of a base network (see `scalesearch networks`), "
            f"got {document.get('network')!r}."
        )
    size = _input_size(document.get("resolution_px"), origin)
    multiple = load_value(int, document.get("resolution_multiple", 0), origin=f"{origin}: resolution_multiple")
    if not 0 <= multiple <= MAX_RESOLUTION_PX:
        fail(f"{origin}: resolution_multiple = {multiple!r} is out of range: allowed is 0 to {MAX_RESOLUTION_PX}.")
    axes = tuple(_section_axes(document, origin))
    check_largest(size, axes, origin)
    check_cuts(axes, origin)
    check_neck(axes, origin)
    return SearchSpace(
        name=name,
        network=document["network"],
        resolution_px=size.height_px,
        width_px=0 if size.is_square else size.width_px,
        axes=axes,
        limits=_parse_limits(document.get("limits", {}), origin),
        resolution_multiple=multiple,
        summary=str(document.get("summary", "")),
    )


def _section_axes(document: Document, origin: str) -> Iterable[NamedAxis]:
    scaling = dict(document.get("scaling", {}))
    stages = scaling.pop("stages", {})
    yield from _axes_of("scaling", scaling, _SCALING_KINDS, origin)
    if not isinstance(stages, dict):
        fail(f"{origin}: scaling.stages must hold tables such as [scaling.stages.1], got {stages!r}.")
    spelled: dict[int, str] = {}
    for number, table in sorted(stages.items(), key=lambda item: str(item[0])):
        # Not isdigit, which also accepts a superscript two. At most nine digits, since Python does not convert numbers
        # of any length.
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", str(number)) or not isinstance(table, dict):
            fail(f"{origin}: [scaling.stages.{number}] must be a table numbered from 1, the first stage.")
        if (stage := int(number)) in spelled:
            fail(f"{origin}: [scaling.stages.{spelled[stage]}] and [scaling.stages.{number}] are one stage: keep one.")
        spelled[stage] = str(number)
        yield from _axes_of(f"scaling.stages.{stage}", table, field_types(StageScaling), origin)
    yield from _axes_of("pruning", document.get("pruning", {}), field_types(Pruning), origin)
    yield from _axes_of("quantization", document.get("quantization", {}), field_types(Quantization), origin)
    training = dict(document.get("training", {}))
    weights = training.pop("loss_weights", {})
    if not isinstance(weights, dict):
        fail(
            f"{origin}: training.loss_weights must be a table with {', '.join(_LOSS_KINDS)}, got {weights!r}.",
            "Example: --set training.loss_weights.box=5",
        )
    yield from _axes_of("training", training, _TRAINING_KINDS, origin)
    yield from _axes_of("training.loss_weights", weights, _LOSS_KINDS, origin)


def _input_size(given: object, origin: str) -> InputSize:
    """Return the size of the images that multiplier 1 stands for.

    `64` means a square, `[720, 1280]` means height and width.
    """
    sides: list[Any] = given if isinstance(given, list) and len(given) == 2 else [given, given]
    if any(not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_RESOLUTION_PX for side in sides):
        fail(
            f"{origin}: resolution_px must be a whole number of pixels (what multiplier 1 stands for), "
            f"or [height, width], 1 to {MAX_RESOLUTION_PX}, got {given!r}."
        )
    return InputSize(height_px=sides[0], width_px=sides[1])


def _axes_of(section: str, table: Document, kinds: Mapping[str, Any], origin: str) -> Iterable[NamedAxis]:
    for key, raw in table.items():
        name = f"{section}.{key}"
        if key not in kinds:
            unknown_key(origin, section + ".", key, kinds)
        if name == FLIP and raw in ("auto", ["auto"]):
            yield NamedAxis(name=name, axis=AUTO)
            continue
        yield NamedAxis(name=name, axis=_parse_axis(name, raw, kinds[key], origin))


def _parse_axis(name: str, raw: object, kind: Any, origin: str) -> Axis:
    if isinstance(raw, dict):
        if kind not in (int, float):
            fail(f"{origin}: {name} takes a list of choices, not a range.")
        axis: Range = load_value(Range, raw, origin=f"{origin}: {name}")
        if not all(map(is_number, (axis.low, axis.high, axis.step))):
            fail(f"{origin}: {name}: low, high and step must be finite numbers, got {raw!r}.")
        if not axis.low < axis.high or axis.step < 0 or (axis.log and (axis.low <= 0 or axis.step > 0)):
            fail(
                f"{origin}: {name}: a range needs low < high, step >= 0, and with log = true low > 0 and no step; "
                f"got {raw!r}."
            )
        if kind is int and not all(map(is_whole, (axis.low, axis.high, axis.step))):
            fail(f"{origin}: {name} is a whole number: low, high and step must be whole, got {raw!r}.")
        for bound in (axis.low, axis.high):
            check_bounds(name, bound, origin)
        return axis
    values = raw if isinstance(raw, list) else [raw]
    if not values:
        fail(f"{origin}: {name} has no choices. Give at least one value, or leave the key out for the default.")
    if len(values) > MAX_CHOICES:
        fail(
            f"{origin}: {name} has {len(values)} choices, more than {MAX_CHOICES}: give a range {{ low, high, step }}."
        )
    checked = tuple(check_value(name, value, kind, origin) for value in values)
    if len(set(checked)) != len(checked):
        fail(f"{origin}: {name} lists a value twice: {raw!r}.")
    return Choice(values=checked)


def _parse_limits(table: Document, origin: str) -> Limits:
    kinds = field_types(Limits)
    for key, value in table.items():
        if key not in kinds:
            unknown_key(origin, "limits.", key, kinds)
        if not is_number(value) or not value > 0:
            fail(f"{origin}: limits.{key} must be a number above 0, got {value!r}.")
        if key in _WHOLE_LIMITS and value < 1:
            fail(f"{origin}: limits.{key} must be at least 1: it counts {_WHOLE_LIMITS[key]}, got {value!r}.")
    whole = {key: int(value) if key in _WHOLE_LIMITS else float(value) for key, value in table.items()}
    return load_value(Limits, whole, origin=f"{origin}: limits")


def space_keys() -> tuple[str, ...]:
    """Return every dotted key of a space file's sections, except the per-stage ones."""
    sections = {"pruning": Pruning, "quantization": Quantization, "limits": Limits}
    keys = [f"scaling.{key}" for key in _SCALING_KINDS]
    keys += [f"{section}.{key}" for section, kind in sections.items() for key in field_types(kind)]
    keys += [f"training.{key}" for key in _TRAINING_KINDS]
    keys += [f"training.loss_weights.{key}" for key in _LOSS_KINDS]
    return tuple(keys)
