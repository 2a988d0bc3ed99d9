"""Images that belong together, by their file names: frames of one film stay in one split."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.source import SourceData
from scalesearch.data.split_names import folded_name, split_of
from scalesearch.errors import ConfigError
from scalesearch.values.session import EARLIER_READING
from scalesearch.values.settings import DataSettings

_SHOWN: Final = 2
EXAMPLE: Final = "([^/_]+)_[^/]*$"
"""An expression that goes by the file's own name up to its first underscore, whatever the folders: film7 of
train/film7_0012.png."""


def check_pattern(pattern: str) -> None:
    """Raise ConfigError if the text is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        message = (
            f"data.group_by: expected a regular expression on file names, came {pattern!r}: {error}.\n"
            f"Example: --set data.group_by='{EXAMPLE}' for film7 of train/film7_0012.png."
        )
        raise ConfigError(message) from None


def groups_of(names: Sequence[str], pattern: str, *, where: str) -> NDArray[np.int64]:
    """Return the number of each image's group, of shape (images,).

    Images belong to one group if the pattern matches the same text in their names (that of its first pair of brackets,
    if it has one that takes part in the match). An image in whose name it matches nothing is a group of its own.

    Args:
        names: Names of the files, with their folders below the data set's.
        pattern: The regular expression; it is searched for anywhere in the name.
        where: The data set, for messages.

    Raises:
        ConfigError: The pattern matches no name, or the source has no names.
    """
    texts = _texts(names, pattern)
    if all(text is None for text in texts):
        example = f", e.g. {names[0]}" if names else ": the images of this source have no file names"
        message = (
            f"{where}: expected file names that data.group_by = {pattern!r} matches, came none{example}.\n"
            "Change the expression, or leave it out."
        )
        raise ConfigError(message)
    numbers: dict[str, int] = {}
    groups = np.empty(len(names), np.int64)
    for place, (name, text) in enumerate(zip(names, texts, strict=True)):
        key = f"file {name}" if text is None else f"group {text}"
        groups[place] = numbers.setdefault(key, len(numbers))
    return groups


def _texts(names: Sequence[str], pattern: str) -> list[str | None]:
    """Return the text that names the group of each image; None if the pattern matches nothing in its name."""
    search = re.compile(pattern).search
    return [_text(search(name)) for name in names]


def _text(match: re.Match[str] | None) -> str | None:
    """Return the text of the first pair of brackets, or of the whole match where it takes no part, as in `(film7)?`."""
    if match is None:
        return None
    text = match[0] if not match.re.groups or match[1] is None else match[1]
    return text if text or match[0] else None


def _in_folders(match: re.Match[str] | None) -> bool:
    """Tell whether the text that names the group begins before the file's own name."""
    if match is None:
        return False
    bracket = 1 if match.re.groups and match[1] is not None else 0
    return match.start(bracket) < match.string.rfind("/")


def drawn_groups(
    groups: NDArray[np.int64], strata: NDArray[np.int64] | None, count: int, *, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw whole groups with about `count` images in all, and with about the shares of the strata.

    The groups come in random order; one is taken if that brings the drawn images nearer to what is wanted of every
    stratum. At least one group is left undrawn.

    Args:
        groups: Group of each image, of shape (images,).
        strata: Class of each image, of shape (images,); None: the images are drawn without regard to classes.
        count: How many images to draw.
        rng: The source of randomness.

    Returns:
        A mask of shape (images,), True for the drawn images.
    """
    of_class = np.zeros(len(groups), np.int64) if strata is None else strata
    classes, number = int(of_class.max(initial=0)) + 1, int(groups.max(initial=-1)) + 1
    table = np.zeros((number, classes), np.int64)
    np.add.at(table, (groups, of_class), 1)
    wanted = count * table.sum(axis=0) / max(len(groups), 1)
    taken, chosen = np.zeros(classes), np.zeros(number, np.bool_)
    for group in rng.permutation(number):
        nearer = np.abs(wanted - taken - table[group]).sum() < np.abs(wanted - taken).sum()
        if nearer and chosen.sum() < number - 1:
            taken += table[group]
            chosen[group] = True
    if not chosen.any() and number > 1:  # every group is larger than twice what is wanted
        chosen[int(table.sum(axis=1).argmin())] = True
    return chosen[groups]


def crossing(
    names: Mapping[str, Sequence[str]], pattern: str, *, where: str, class_names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Warn of groups that are in several splits of the source's own, and of a pattern that does not tell films apart.

    Args:
        names: File names of the images of each split.
        pattern: The regular expression.
        where: The data set, for messages.
        class_names: The names of the classes, after which folders may be called.
    """
    splits = [split for split, each in names.items() for _ in each]
    every = [name for each in names.values() for name in each]
    groups, texts = groups_of(every, pattern, where=where), _texts(every, pattern)
    there = defaultdict[int, dict[str, str]](dict)
    for group, split, name in zip(groups.tolist(), splits, every, strict=True):
        there[group].setdefault(split, name)
    warnings, both = [], [each for each in there.values() if len(each) > 1]
    if both:
        pairs = "; ".join(" and ".join(list(each.values())[:2]) for each in both[:_SHOWN])
        warnings.append(
            f"{where}: {len(both)} of {len(there)} groups (data.group_by) are in several splits of the data set, e.g. "
            f"{pairs}: the score will be too high; --set data.val_fraction=0.2 splits train and val anew"
        )
    single = [name for name, text in zip(every, texts, strict=True) if text is None]
    if single:
        warnings.append(
            f"{where}: data.group_by matches {len(every) - len(single)} of {len(every)} names; each of the others is a "
            f"group of its own, e.g. {', '.join(single[:_SHOWN])}"
        )
    search = re.compile(pattern).search
    found = [(name, match) for name in every if (match := search(name))]
    empty = [name for name, match in found if match[bool(match.re.groups)] is None or _text(match) is None]
    if empty:
        warnings.append(
            f"{where}: in {len(empty)} of {len(every)} names data.group_by or its brackets match nothing; then the "
            f"whole match counts, or if that is empty, the image by itself {EARLIER_READING} all of them were one "
            f"group), e.g. {', '.join(empty[:_SHOWN])}"
        )
    matched = {text: name for name, text in zip(every, texts, strict=True) if text is not None}
    if len(matched) == len(every) - len(single) > 1:
        text, name = next(iter(matched.items()))
        warnings.append(
            f"{where}: data.group_by = {pattern!r} makes each image a group of its own, so it keeps none together: of "
            f"{name} it takes {text!r}"
        )
    else:
        in_folders = {text: name for text, name in matched.items() if _in_folders(search(name))}
        warnings.extend(_parted(in_folders, pattern, where=where, class_names=class_names))
    return tuple(warnings)


def _parted(matched: Mapping[str, str], pattern: str, *, where: str, class_names: Sequence[str]) -> Iterator[str]:
    """Warn of groups that only folders of splits or classes tell apart, by which one film is taken for several.

    Args:
        matched: The name of an image of each group, by the group's text.
        pattern: The regular expression.
        where: The data set, for messages.
        class_names: The names of the classes.
    """
    classes, alike = {folded_name(name) for name in class_names}, defaultdict[str, list[str]](list)
    for text in matched:
        parts = [part for part in text.split("/") if split_of(part) is None and folded_name(part) not in classes]
        alike["/".join(parts)].append(text)
    films = [texts for texts in alike.values() if len(texts) > 1]
    if films:
        pair = " and ".join(matched[text] for text in films[0][:2])
        yield (
            f"{where}: data.group_by = {pattern!r} tells {sum(map(len, films))} of {len(matched)} groups apart by "
            f"folders of splits or classes alone, e.g. {pair}: frames of one film may part so; {EXAMPLE!r} goes by the "
            "file's own name"
        )


def crossing_groups(data: SourceData, settings: DataSettings) -> tuple[str, ...]:
    """Warn of groups in several splits of the source's own; train and val that are split anew count as one."""
    if not settings.group_by:
        return ()
    parts = {"train": data.train, "val": data.val, "test": data.test}
    names = {split: [] if part.names is None else part.names.tolist() for split, part in parts.items() if part}
    if settings.val_fraction:
        names["train"] = [*names["train"], *names.pop("val", ())]
    return crossing(names, settings.group_by, where=f"data {data.name}", class_names=data.class_names)
