"""One further number of a task, with the name that tables show."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedNumber:
    """One further number of a task, with the name that tables show."""

    name: str
    value: float
