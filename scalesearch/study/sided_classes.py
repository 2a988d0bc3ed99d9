"""Say where training mirrors images, and warn of classes that this swaps: they differ by left and right alone."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from scalesearch.data import Dataset
from scalesearch.spaces.axes import axis_of
from scalesearch.values.space import AUTO, FLIP, Choice, SearchSpace

_SIDE: Final = re.compile(
    r"(?<![A-Za-z])(?:left|right)(?![a-z])|(?:Left|Right)(?![a-z])|(?<![A-Z])(?:LEFT|RIGHT)(?![A-Za-z])"
)
"""A word of a name: it ends where no letter follows, or where the next word begins with a capital."""
_OTHER_SIDE: Final = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_OPPOSITE: Final = {**_OTHER_SIDE, **{right: left for left, right in _OTHER_SIDE.items()}}


def with_sides_told(data: Dataset, space: SearchSpace) -> Dataset:
    """Return the data set with a warning, if training by the space would show classes mirrored under wrong labels.

    Args:
        data: The data set; it may have the warning already.
        space: The space as the user gave it. Where it leaves mirror images to the program, there is no warning.
    """
    axis = axis_of(space.axes, FLIP)
    if not isinstance(axis, Choice) or axis == AUTO or True not in axis.values:
        return data
    pairs = sided_pairs(data.class_names)
    if not pairs:
        return data
    one, other = pairs[0]
    more = f" (and {len(pairs) - 1} more such)" if len(pairs) > 1 else ""
    mirrors = f"mirrors images ({FLIP} = true)" if len(axis.values) == 1 else f"may mirror images ({FLIP} lists true)"
    doubt = (
        f"training {mirrors}, but the classes {one} and {other}{more} differ by left and right alone: "
        f"mirrored, each would be taught as the other; --set {FLIP}=false, or {FLIP}=auto, which finds out"
    )
    if any(text.endswith(doubt) for text in data.warnings):  # the study keeps it, perhaps with another name of the data
        return data
    return dataclasses.replace(data, warnings=(*data.warnings, f"data {data.name}: {doubt}"))


def mirrors_by_space(space: SearchSpace) -> str:
    """Return the line that says that training mirrors images because the space says so; empty where it does not.

    Args:
        space: The space as the user gave it. Where it leaves mirror images to the program, that says its decision.
    """
    if axis_of(space.axes, FLIP) != Choice(values=(True,)):
        return ""
    return (
        "flips: on, by the space: training mirrors images, which is wrong for letters and for signs that point one way "
        f"(--set {FLIP}=auto finds out, {FLIP}=false turns it off)"
    )


def sided_pairs(class_names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of names that become each other where the words left and right are exchanged, in any case.

    A word ends at whatever is no letter (`turn_left`), and at a capital letter (`LeftArrow`).
    """
    known, pairs = {name.casefold(): name for name in class_names}, list[tuple[str, str]]()
    for name in class_names:
        swapped = _SIDE.sub(lambda found: _OPPOSITE[found[0]], name)
        other = known.get(swapped.casefold())
        if swapped != name and other is not None and (other, name) not in pairs:
            pairs.append((name, other))
    return tuple(pairs)
