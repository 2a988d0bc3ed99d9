"""Find numbers that no measurement can give: a stored file that holds one was damaged or written by something else."""

import dataclasses
import math
from collections.abc import Iterator

from pydantic import ValidationError

from scalesearch.plain_text import shortened

# The result of a diverged training is stored as it is, and a class without images has no precision.
_MAY_BE_INFINITE = frozenset(("final_loss", "losses"))
_MAY_BE_NAN = _MAY_BE_INFINITE | {"average_precision", "precision", "recall"}
_ABOVE_ZERO = frozenset(("p50_ms", "raw_p50_ms", "raw_p90_ms", "raw_p99_ms", "reference_p50_ms", "ratio", "speedup"))
_NOT_NEGATIVE = frozenset(
    (
        "trial", "same_as", "sibling_of", "macs", "params", "dense_macs", "size_bytes", "steps", "images", "support",
        "runs", "batch", "train_s", "retrain_s", "seconds", "build_s", "layers", "kernels", "raw_min_ms", "seed",
        "depth", "channels", "kernel", "stride", "resolution_px", "width_px", "storage_px",
        "storage_width_px", "num_classes", "neck_depth", "neck_kernel",
    )
)  # fmt: skip
_FRACTIONS = frozenset(
    ("score", "float_score", "macro_precision", "macro_recall", "precision", "recall", "average_precision")
)
_ROUNDING = 1e-9
"""A fraction may be this far above 1: earlier versions, and metrics of other packages, store sums as they come."""
_LARGEST = 2**63


def impossible(value: object) -> str:
    """Return the first impossible number in nested dataclasses, as `latency.p50_ms = -1.0`; empty if there is none."""
    return next(_impossible(value, ""), "")


def _impossible(value: object, place: str) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inner = f"{place}.{field.name}" if place else field.name
            yield from _impossible(getattr(value, field.name), inner)
    elif isinstance(value, tuple):
        for item in value:
            yield from _impossible(item, place)
    elif isinstance(value, int | float) and not isinstance(value, bool) and not _can_be(value, place):
        yield f"{place} = {value if isinstance(value, float) else _short(value)}"


def _can_be(value: float, place: str) -> bool:
    name = place.rpartition(".")[2]
    if isinstance(value, float) and not math.isfinite(value):
        return name in (_MAY_BE_NAN if math.isnan(value) else _MAY_BE_INFINITE)
    if not -_LARGEST < value < _LARGEST and isinstance(value, int):
        return False
    if name in _FRACTIONS:
        return 0 <= value <= 1 + _ROUNDING
    return value > 0 if name in _ABOVE_ZERO else value >= 0 or name not in _NOT_NEGATIVE


def _short(value: int) -> str:
    digits = value.bit_length() * 3 // 10
    return str(value) if digits < 30 else f"a number of about {digits} digits"


def first_fault(error: ValidationError) -> str:
    """Return the first fault that pydantic found, with the dotted name of its field.

    The value itself is left out, since it may be very long.
    """
    first = error.errors(include_input=False, include_url=False)[0]
    place = shortened(".".join(map(str, first["loc"])) or "the file", 200)
    if first["type"] == "unexpected_keyword_argument":
        return f"unknown field {place!r} (written by another version?)"
    return f"{place}: {shortened(first['msg'], 300)}"
