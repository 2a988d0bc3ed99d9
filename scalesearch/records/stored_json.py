"""Convert stored JSON to values and back, including fields of earlier versions, and report damaged files."""

import json
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from scalesearch.files import read_file
from scalesearch.plain_text import utf8_values
from scalesearch.records.plausible import first_fault, impossible
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import values_before

T = TypeVar("T")
_OLD: Final = b'top1"'
"""Text that occurs in every file that needs renaming, and in few others."""
_RENAMED: Final = {
    "top1": "score",
    "top1_low": "score_low",
    "top1_high": "score_high",
    "float_top1": "float_score",
    "top1_change": "score_change",
}
_CLASS_DETAIL: Final = ("macro_precision", "macro_recall", "classes")
"""Fields that were part of a quality itself before it had a `detail`."""


def read_json(path: Path, adapter: TypeAdapter[T], *, strict: bool = False) -> T:
    """Return the value that a stored file holds.

    Args:
        path: The file.
        adapter: What the value must be.
        strict: Refuse fields that this version does not know, and values that only look like the right type.

    Raises:
        ValueError: The file cannot be read, is no such value, or holds a number that no measurement gives; the message
            says which.
    """
    try:
        content = _with_todays_names(read_file(path))
        value = (
            adapter.validate_json(content, strict=True, extra="forbid") if strict else adapter.validate_json(content)
        )
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error
    except OSError as error:
        raise ValueError(str(error)) from error
    problem = impossible(value)
    if problem:
        message = f"{problem}, which no measurement gives"
        raise ValueError(message)
    return value


def to_json(value: T, adapter: TypeAdapter[T]) -> bytes:
    """Return the value as it is stored."""
    # Not pydantic's dump_json: it writes NaN (the loss of a diverged training) as null, which no float field loads.
    return json.dumps(utf8_values(adapter.dump_python(value, mode="json")), indent=1).encode()


def _with_todays_names(content: bytes) -> bytes:
    """Return the JSON text with the field names of this version; unchanged where it has them already.

    Raises:
        ValueError: The content is not JSON.
    """
    complete = b'"recipe"' not in content or b'"schedule"' in content
    if _OLD not in content and complete:
        return content
    return json.dumps(_renamed(json.loads(content))).encode()


def _renamed(part: Any) -> Any:
    if isinstance(part, list):
        return [_renamed(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {_RENAMED.get(name, name): _renamed(value) for name, value in part.items()}
    if isinstance(found.get("recipe"), dict):
        found["recipe"] = values_before(Recipe) | found["recipe"]
    if "top1_low" in part and "macro_precision" in part:
        found["metric"] = "top1"
        found["detail"] = {"kind": "classes", **{name: found.pop(name) for name in _CLASS_DETAIL if name in found}}
    return found
