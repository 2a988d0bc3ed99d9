"""Which class each colour of a mask stands for, by tables that go by the classes' places, numbers or names."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scalesearch.data.mask_reading import Colours
from scalesearch.data.masks import UNLABELLED
from scalesearch.data.split_names import misread_names
from scalesearch.errors import ConfigError
from scalesearch.values.session import EARLIER_READING

Colour = tuple[int, int, int]
"""Red, green and blue, from 0 to 255."""

_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourTable:
    """The colours in a data.yaml, each with the class that it stands for."""

    file: Path
    entries: tuple[tuple[int | str, Colour], ...]
    """Numbers of classes, or their names, with their colours."""
    listed: bool
    """Whether the colours stand in a list, whose places are the numbers."""

    def colours(self, names: tuple[str, ...]) -> Colours:
        """Return the class of each colour.

        Args:
            names: The names of the classes; empty where no file names them.

        Raises:
            ConfigError: The keys are names, but not those of the classes; a number has no name; or two classes have one
                colour.
        """
        by_number = [(number, colour) for number, colour in self.entries if isinstance(number, int)]
        if not by_number:
            return by_name(names, [(str(name), colour) for name, colour in self.entries], self.file)
        beyond = [number for number, _ in by_number if names and len(names) <= number != UNLABELLED]
        if beyond and not self.listed:
            message = (
                f"data {self.file}: expected keys of colors from 0 to {len(names) - 1}, the numbers of the classes, or "
                f"{UNLABELLED} for no class, came {beyond[0]}.\n"
                "Number the colours as the classes, or give their names as keys."
            )
            raise ConfigError(message)
        # Colours of a list that is longer than the names belong to no class; where they repeat one, that counts.
        named = [(number, colour) for number, colour in by_number if number not in beyond]
        unnamed = [(number, colour) for number, colour in by_number if number in beyond]
        return {colour: number for number, colour in reversed(unnamed)} | dict(of_own(named, names, self.file))

    def notes(self, found: Colours) -> tuple[str, ...]:
        """Return a note for studies of earlier versions, which went by the order of the keys; `found` is what holds."""
        before = {colour: place for place, (_, colour) in enumerate(sorted(self.entries, key=lambda entry: entry[0]))}
        if self.listed or before == found:
            return ()
        return (f"data {self.file}: colors go by their keys {EARLIER_READING} by the order of the sorted keys)",)


def colour_table(given: object, file: Path) -> ColourTable | None:
    """Return what a data.yaml gives as `colors`; None if it gives none.

    Raises:
        ConfigError: It is no list of colours, and no table of them by the names or by the numbers of classes.
    """
    if given is None or given == [] or given == {}:
        return None
    pairs: Iterable[tuple[Any, Any]] = given.items() if isinstance(given, dict) else ()
    pairs = enumerate(given) if isinstance(given, list) else pairs
    entries = [(key, _colour(value)) for key, value in pairs]
    read = tuple((key, colour) for key, colour in entries if colour)
    if len(read) < len(entries) or not entries:
        message = (
            f"data {file}: expected colors as a list of [red, green, blue], one a class, or as a table of these by "
            f"names or numbers of classes, came {str(given)[:60]}."
        )
        raise ConfigError(message)
    keys = [key for key, _ in read]
    if misread := misread_names(keys):
        message = f"data {file}: expected names as keys of colors, came {misread[0]!r}, as YAML reads it.\nQuote it."
        raise ConfigError(message)
    if len({type(key) for key in keys}) > 1:
        shown = " and ".join(repr(next(key for key in keys if isinstance(key, kind))) for kind in (str, int))
        message = f"data {file}: expected names of classes as keys of colors, or their numbers, came both: {shown}."
        raise ConfigError(message)
    if wrong := [key for key in keys if isinstance(key, int) and not 0 <= key <= UNLABELLED]:
        message = f"data {file}: expected colors of classes from 0 to {UNLABELLED - 1}, came one of class {wrong[0]}."
        raise ConfigError(message)
    return ColourTable(file=file, entries=read, listed=isinstance(given, list))


def _colour(given: object) -> Colour | None:
    if not isinstance(given, list):
        return None
    try:
        red, green, blue = (int(part) for part in given)
    except (TypeError, ValueError, OverflowError):
        return None
    return red, green, blue


def by_name(names: tuple[str, ...], found: Sequence[tuple[str, Colour]], file: Path) -> Colours:
    """Return the class of each colour of a file with names, whose lines may be in another order than these names.

    Raises:
        ConfigError: They are not the same names, or two classes have one colour.
    """
    if not names:
        came = ", ".join(name for name, _ in found[:_SHOWN])
        message = (
            f"data {file}: expected names of the classes beside colors by name, came none.\n"
            f"Add them in the order of their numbers, as in names: [{came}{', ...' if len(found) > _SHOWN else ''}]."
        )
        raise ConfigError(message)
    for written in (str, str.casefold):  # Road and road are one, unless both are names of classes
        places = {written(name): place for place, name in enumerate(names)}
        if len(places) == len(names) and {written(text) for text, _ in found} == set(places):
            return of_own([(places[written(text)], colour) for text, colour in found], names, file)
    others = sorted({text for text, _ in found} ^ set(names))
    message = (
        f"data {file}: expected the {len(names)} classes that are named already, came {len(found)} of which not all "
        f"are the same: {', '.join(others)[:60]}.\nGive both the same names."
    )
    raise ConfigError(message)


def of_own(entries: Sequence[tuple[int, Colour]], names: tuple[str, ...], file: Path) -> Colours:
    """Return the class of each colour, if each class has colours of its own.

    Pixels of a colour that two classes share would all go to one of them, and be trained and scored under its name.

    Raises:
        ConfigError: Two classes share a colour, or one is beyond 255.
    """
    classes = defaultdict[Colour, list[int]](list)
    for number, colour in entries:
        if not all(0 <= part <= 255 for part in colour):
            message = f"data {file}: expected colours from 0 to 255, came {colour} for {_called(number, names)}."
            raise ConfigError(message)
        if number not in classes[colour]:
            classes[colour].append(number)
    shared = {colour: each for colour, each in classes.items() if len(each) > 1}
    for colour, each in shared.items():
        called = ", ".join(_called(number, names) for number in each[:_SHOWN]) + (", ..." if len(each) > _SHOWN else "")
        more = f" (and {len(shared) - 1} more such colours)" if len(shared) > 1 else ""
        message = (
            f"data {file}: expected colours of its own for each class, came {colour} for {called}{more}.\n"
            "Their pixels cannot be told apart: keep one of these classes, or give each its own colour."
        )
        raise ConfigError(message)
    return {colour: number for colour, (number,) in classes.items()}


def _called(number: int, names: tuple[str, ...]) -> str:
    if number == UNLABELLED:
        return "no class"
    return names[number] if number < len(names) else f"class {number}"
