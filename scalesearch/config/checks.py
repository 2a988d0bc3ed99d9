"""Checks that settings and spaces share: keys, types, bounds, and the wording of their errors."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from scalesearch.errors import ConfigError
from scalesearch.registry import nearest
from scalesearch.values.candidate import Quantization, Recipe
from scalesearch.values.settings import LEAST_CALIBRATION_IMAGES, UNLIMITED_BUDGET
from scalesearch.values.training_length import aware_updates, branch_steps, least_steps

Document = dict[str, Any]
T = typing.TypeVar("T")

# (lowest, highest) allowed value of a numeric axis or setting. A bound that is itself not allowed is written as a value
# that lies a tiny step inside it.
TINY = 1e-9
BOUNDS: Mapping[str, tuple[float, float]] = {
    "scaling.resolution": (TINY, 16),
    "scaling.depth": (TINY, 16),
    "scaling.width": (TINY, 16),
    "scaling.kernel": (TINY, 8),
    "scaling.neck_width": (TINY, 16),
    "pruning.channel_fraction": (0, 0.9),
    "pruning.block_fraction": (0, 0.9),
    "pruning.sparse_fraction": (TINY, 0.99),
    "pruning.rounds": (1, 20),
    "quantization.keep_float": (0, 1000),
    "quantization.qat_steps": (0, 1_000_000),
    "quantization.clip_percentile": (50.001, 100),
    "quantization.calibration_images": (1, 100_000),
    "training.learning_rate": (TINY, 10),
    "training.muon_learning_rate": (TINY, 10),
    "training.weight_decay": (0, 10),
    "training.label_smoothing": (0, 0.9),
    "training.steps": (1, 10_000_000),
    "training.retrain_steps": (0, 10_000_000),
    "training.batch_size": (2, 65_536),
    "training.warmup_fraction": (0, 1),
    "training.branch_fraction": (TINY, 1),
    "training.warmup_steps": (0, 10_000_000),
    "training.ema_decay": (0, 1 - TINY),
    "training.dropout": (0, 0.95),
    "training.shift_fraction": (0, 0.5),
    "training.jitter": (0, 1),
    "training.loss_weights.class": (0, 1000),
    "training.loss_weights.box": (0, 1000),
    "training.loss_weights.objectness": (0, 1000),
    "training.loss_weights.dice": (0, 1000),
    "training.scale_fraction": (0, 0.9),
    "training.distill_weight": (0, 1),
    "training.distill_temperature": (0.1, 100),
    "parent_steps": (1, 10_000_000),
    "budget": (1, UNLIMITED_BUDGET),
    "max_time_s": (0, 10_000_000),
    "workers": (1, 256),
    "seed": (0, 2**32 - 1),
    "data.val_fraction": (0, 0.9),
    "data.test_fraction": (TINY, 0.9),
    "data.calibration_images": (LEAST_CALIBRATION_IMAGES, 100_000),
    "data.seed": (0, 2**32 - 1),
    "data.max_skipped_fraction": (0, 1),
    "detection.precision": (0.01, 1),
    "latency.batch": (1, 4096),
    "latency.threads": (1, 1024),
    "latency.warmup_s": (0, 600),
    "latency.max_s": (0.01, 3600),
    "latency.half_width": (1e-5, 0.5),
    "latency.coarse_half_width": (0, 0.5),
    "latency.stable_within": (1e-5, 0.5),
    "tensorrt.optimization_level": (0, 5),
    "tensorrt.max_batch": (0, 4096),
    "tensorrt.workspace_mb": (0, 1_000_000),
    "machine.threads": (0, 1024),
    "stage_limits.train_s": (0.1, 10_000_000),
    "stage_limits.other_s": (0.1, 10_000_000),
}


def fail(*lines: str) -> NoReturn:
    """Raise ConfigError with these lines: what was expected, what was given, where, and what to do."""
    raise ConfigError("\n".join(lines))


def load_value(kind: type[T], document: object, *, origin: str) -> T:
    """Return an instance of `kind` made from the document.

    Raises:
        ConfigError: If there is an unknown key or a wrong type; the message gives the dotted place.
    """
    if isinstance(document, dict):
        check_keys(kind, document, prefix="", origin=origin)
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    # Raised outside of `except`, so that pydantic's own message, which repeats the value, is not shown in a traceback:
    # a `storage` value of the wrong kind may hold a password.
    came = "" if place.split(".")[0] == "storage" else f" = {first['input']!r}"
    fail(f"{origin}: {place}{came} is wrong: {_lower_first(first['msg'])}.")


def unknown_key(origin: str, prefix: str, key: str, known: Iterable[str]) -> NoReturn:
    """Raise the error for an unknown key, with the nearest known key and the list of all known ones."""
    names = list(known)
    fail(f"{origin}: unknown key {prefix + key!r}{suggest(key, names, prefix)}", f"Known here: {', '.join(names)}.")


def check_value(name: str, value: object, kind: Any, origin: str) -> float | int | str | bool:
    """Check a value and return it in the type of its field.

    Args:
        name: Dotted name of the setting or axis.
        value: The value.
        kind: Type of the field: a Literal, bool, int or float.
        origin: Where the value came from, for messages.

    Raises:
        ConfigError: If the value has another type or lies outside its bounds.
    """
    if typing.get_origin(kind) is typing.Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            fail(
                f"{origin}: {name} = {value!r} is not known{suggest(str(value), allowed)}",
                f"Allowed: {', '.join(allowed)}.",
            )
        return typing.cast("str", value)
    if kind is bool:
        if not isinstance(value, bool):
            fail(f"{origin}: {name} must be true or false, got {value!r}.")
        return value
    if not is_number(value) or (kind is int and not is_whole(value)):
        expected = "a whole number" if kind is int else "a number"
        fail(f"{origin}: {name} must be {expected}, a list of them, or {{ low = ..., high = ... }}, got {value!r}.")
    number = typing.cast("float", value)
    check_bounds(name, number, origin)
    return int(number) if kind is int else float(number)


def is_number(value: object) -> bool:
    """Tell whether the value is a finite number: an int or float, and not a bool, inf or nan."""
    return isinstance(value, int | float) and not isinstance(value, bool) and _finite(value)


def is_whole(value: object) -> bool:
    """Tell whether the value is a whole number, such as 3 or 3.0."""
    return is_number(value) and typing.cast("float", value) % 1 == 0


def check_bounds(name: str, value: float, origin: str = "settings") -> None:
    """Raise ConfigError if the value lies outside the BOUNDS of the dotted `name`."""
    # scaling.stages.2.width has the same bounds as scaling.width
    parts = name.removesuffix("_").split(".")
    bounds = BOUNDS.get(".".join(parts)) or (BOUNDS.get(f"{parts[0]}.{parts[-1]}") if len(parts) > 2 else None)
    if bounds is None:
        return
    low, high = bounds
    if not (low <= value <= high):
        shown = "above 0" if low == TINY else f"{low:g}"
        fail(f"{origin}: {name} = {value!r} is out of range: allowed is {shown} to {high:g}.")


def require_teacher(weight: float, parent: str) -> None:
    """Raise ConfigError if training is to learn from a parent's answers and there is no parent.

    Args:
        weight: The largest `training.distill_weight` that is asked for.
        parent: What the settings name as the parent; empty if nothing.
    """
    if weight > 0 and not parent:
        fail(
            f"training.distill_weight = {weight:g}: expected a parent, whose answers training learns from; came none.",
            "Give --parent, as docs/parents.md has it, or set training.distill_weight=0.",
        )


def require_branch(recipe: Recipe, quantization: Quantization, *, origin: str, flag: str = "--steps {}") -> None:
    """Raise ConfigError if the branch is too short for the updates that simulate rounding and one in float before them.

    Args:
        recipe: That of the training.
        quantization: Tells how many updates simulate rounding.
        origin: What asks for the training, for the message.
        flag: How a number of updates is given there.
    """
    aware, branch = aware_updates(recipe, quantization), branch_steps(recipe)
    if aware >= branch:
        fail(
            f"{origin}: expected a branch of more than the {aware} updates that simulate rounding (qat_steps); of "
            f"{recipe.steps} updates, {branch} belong to it.",
            f"Give {flag.format(least_steps(recipe, branch=aware + 1))}, or more.",
        )


def check_keys(kind: type[Any], document: Document, *, prefix: str, origin: str) -> None:
    """Raise ConfigError if `document`, or a table in it, has a key that is not a field of the dataclass."""
    if not dataclasses.is_dataclass(kind):
        return
    kinds = field_types(kind)
    for key, value in document.items():
        if key not in kinds:
            unknown_key(origin, prefix, key, kinds)
        if dataclasses.is_dataclass(kinds[key]):
            if not isinstance(value, dict):
                fail(f"{origin}: {prefix}{key} is a group of settings, got {value!r}. Write {prefix}{key}.NAME=VALUE.")
            check_keys(typing.cast("type[Any]", kinds[key]), value, prefix=f"{prefix}{key}.", origin=origin)


def field_types(kind: type[Any]) -> dict[str, Any]:
    """Return the plain type of each field by its name; `int | None` counts as int."""
    hints = typing.get_type_hints(kind)
    plain: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        plain[field.name] = hint
    return plain


def put(document: Document, key: str, value: object, *, origin: str) -> None:
    """Set the dotted `key` in nested tables, and make the tables that are missing."""
    *parents, last = key.split(".")
    table = document
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            fail(f"{origin}: {key!r}: {parent!r} is a value, not a group of settings.")
    table[last] = value


def flatten(document: Document, prefix: str = "") -> Iterable[tuple[str, object]]:
    """Yield the dotted keys and the values of nested tables."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the end of a sentence: a question with the nearest known word, or just a full stop."""
    near = nearest(word, known, cutoff=0.5)
    return f". Did you mean {prefix + near!r}?" if near else "."


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number too large for a float
        return False


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
