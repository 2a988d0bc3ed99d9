"""Spans of time as people type and read them."""

import re
from typing import Final

from scalesearch.errors import ConfigError

_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}
_SPAN: Final = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds_of(text: str) -> float:
    """Return a span of time in seconds: hours, minutes and seconds in this order, each with its unit.

    Raises:
        ConfigError: The text is not such a span, or means 0 seconds.
    """
    found = _SPAN.fullmatch(text.strip().lower().replace(" ", ""))
    seconds = (
        sum(float(part) * unit for part, unit in zip(found.groups(), _UNITS_S.values(), strict=True) if part)
        if found
        else 0.0
    )
    if not seconds:
        message = f"--max-time {text}: expected a span of time with units, such as 30m, 1h30m or 90s."
        raise ConfigError(message)
    return seconds


def span(seconds: float) -> str:
    """Return a span of time in seconds, minutes or hours, whichever is easiest to read."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
