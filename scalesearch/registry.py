"""Look up or import a member of a family (backends, tasks, ...) by name; unknown names get a helpful error."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, TypeVar

from scalesearch.errors import ConfigError

T = TypeVar("T")


def look_up(name: str, members: Mapping[str, T], *, missing: str, more_names: Iterable[str] = ()) -> T:
    """Return the member of that name.

    Args:
        name: The name as the user wrote it.
        members: The family's members by name.
        missing: The beginning of the message if there is no such member, up to the name: `no backend is called`.
        more_names: Names that are valid too but stand for no single member; they are only listed.

    Raises:
        ConfigError: There is no such member; the message names the nearest one and lists all.
    """
    if name in members:
        return members[name]
    names = (*members, *more_names)
    near = nearest(name, names)
    hint = f" Did you mean {near!r}?" if near else ""
    message = f"{missing} {name!r}.{hint} There are: {', '.join(names)}"
    raise ConfigError(message)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return the known word that is most like `word`; empty if none is alike.

    Args:
        word: The word that is not known.
        known: The words to choose from.
        cutoff: How alike they must be, from 0 to 1 (`difflib`'s ratio).
    """
    return next(iter(get_close_matches(word, list(known), n=1, cutoff=cutoff)), "")


def load_member(name: str, homes: Mapping[str, str], *, missing: str) -> Any:
    """Import and return the member of that name.

    Args:
        name: The name as the user wrote it.
        homes: Where each member is defined, by its name, written as `package.module:attribute`.
        missing: As in `look_up`.

    Raises:
        ConfigError: There is no such member.
    """
    return load(look_up(name, homes, missing=missing))


def load(place: str) -> Any:
    """Import the module and return the attribute that `place` names, written as `package.module:attribute`."""
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
