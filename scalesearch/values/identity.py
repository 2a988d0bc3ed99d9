"""Identity by content: equal values have equal hashes, on every machine and in every process."""

import dataclasses
import hashlib
import json


def content_hash(*parts: object) -> str:
    """64 hex digits over the canonical JSON of dataclasses, tuples, dicts, texts and numbers."""
    text = json.dumps([_plain(part) for part in parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seed_from(*parts: object) -> int:
    """A 31-bit seed that follows from the content of `parts`."""
    return int(content_hash(*parts)[:8], 16) >> 1


def _plain(part: object) -> object:
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {
            "type": type(part).__name__,
            **{f.name: _plain(getattr(part, f.name)) for f in dataclasses.fields(part)},
        }
    if isinstance(part, tuple | list):
        return [_plain(item) for item in part]
    if isinstance(part, dict):
        return {str(key): _plain(value) for key, value in part.items()}
    # 1 and 1.0 are the same setting
    return float(part) if isinstance(part, int) and not isinstance(part, bool) else part
