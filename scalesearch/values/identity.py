"""Identity by content: equal values have equal hashes on every machine and in every process."""

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_BEFORE = "before"
_DEFAULT = object()


def new_field(default: object, *, before: object = _DEFAULT) -> Any:
    """Return a dataclass field that was added after values of the dataclass had been stored with their identity.

    While the field has the value `before`, `content_hash` leaves it out. So values that were stored before keep their
    identity, and a resumed study does not train anything again.

    Args:
        default: The field's default.
        before: The value that gives the same behaviour as before the field existed; if omitted, that is `default`.
    """
    return dataclasses.field(default=default, metadata={_BEFORE: default if before is _DEFAULT else before})


def values_before(kind: type) -> dict[str, Any]:
    """Return, by name, the values `before` of all fields of a dataclass that were made by `new_field`.

    A value that is a dataclass itself is returned as a dictionary, as in stored files.
    """
    before = {field.name: field.metadata[_BEFORE] for field in dataclasses.fields(kind) if _BEFORE in field.metadata}
    return {name: dataclasses.asdict(value) if _is_value(value) else value for name, value in before.items()}


def content_hash(*parts: object) -> str:
    """Return a hash of dataclasses, tuples, dicts, texts and numbers: 64 hex digits over their canonical JSON."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seed_from(*parts: object) -> int:
    """Derive a 31-bit seed from the content of `parts`."""
    return int(content_hash(*parts)[:8], 16) >> 1


def _plain(part: object) -> object:
    if _is_value(part):
        held = {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if not _is_as_before(f, part)}
        return {"type": type(part).__name__, **{name: _plain(value) for name, value in held.items()}}
    if isinstance(part, tuple | list):
        return [_plain(item) for item in part]
    if isinstance(part, dict):
        return {str(key): _plain(value) for key, value in part.items()}
    # 1 and 1.0 are the same setting
    return float(part) if isinstance(part, int) and not isinstance(part, bool) else part


def _is_value(part: object) -> "TypeGuard[DataclassInstance]":
    return dataclasses.is_dataclass(part) and not isinstance(part, type)


def _is_as_before(field: "dataclasses.Field[object]", owner: object) -> bool:
    return _BEFORE in field.metadata and getattr(owner, field.name) == field.metadata[_BEFORE]
