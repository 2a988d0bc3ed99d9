"""A search space in words, as `check` and `run --dry-run` print it."""

from collections.abc import Iterable

from scalesearch.values.space import Choice, NamedAxis

_SHOWN_VALUES = 20


def axis_text(named: NamedAxis) -> str:
    """Return the axis in words; of long lists only the first values."""
    axis = named.axis
    if isinstance(axis, Choice):
        if len(axis.values) > _SHOWN_VALUES:
            shown = ", ".join(map(repr, axis.values[:_SHOWN_VALUES]))
            return f"one of {len(axis.values)}: {shown}, ..."
        return f"{axis.values[0]!r}" if len(axis.values) == 1 else f"one of {list(axis.values)}"
    step = f" in steps of {axis.step:g}" if axis.step else ""
    return f"{axis.low:g} to {axis.last:g}{step}{' (log)' if axis.log else ''}"


def flattened(document: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Yield the dotted name and the value of everything in a document of nested tables."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value  # as TOML has it
