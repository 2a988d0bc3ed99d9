"""Reads stored JSON of earlier versions, whose fields had other names or did not exist yet."""

import json
from typing import Any, Final

from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import values_before

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


def with_todays_names(content: bytes) -> bytes:
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
