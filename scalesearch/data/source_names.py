"""Which source a name or a path stands for, among those of a task."""

from pathlib import Path

from scalesearch.data.source import Source, Sources
from scalesearch.errors import ConfigError
from scalesearch.registry import nearest
from scalesearch.values.settings import BUILTIN, source_name


def find_source(source: str, sources: Sources) -> Source:
    """Return the kind of source that a name or path stands for; names take precedence.

    Nothing is read from the disk except what kind of file or folder the path is.

    Args:
        source: The name or path.
        sources: The sources of the task.

    Raises:
        ConfigError: If it is neither a name nor a path of one of the sources; the message says what the task has.
    """
    bare = source.removeprefix(BUILTIN)
    name = source_name(bare)
    path = Path(source).expanduser()
    for kind in sources:
        if bare and name in kind.names:
            return kind
        if source and bare == source and kind.takes_path(path):  # Path("") would be the working folder
            return kind
    raise ConfigError(_unknown_source(source, path, sources))


def is_name(source: str, sources: Sources) -> bool:
    """Tell whether `source` is the name of a data set of one of the sources rather than a path."""
    name = source_name(source.removeprefix(BUILTIN))
    return any(name in kind.names for kind in sources)


def refuse_ambiguous_source(source: str, sources: Sources) -> None:
    """Raise an error if a typed name is that of a built-in set and also of a folder or file here.

    This is not called for stored studies, since it is known what they were run with.

    Raises:
        ConfigError: If both exist; the message says how to name each of them.
    """
    there = _same_name_here(source, sources)
    if there is not None:
        name = source_name(source)
        message = (
            f"data.source: {source!r} is a built-in data set, and ./{there} is here, too.\n"
            f"For the one here: --data ./{there}; for the built-in set: --data {BUILTIN}{name}"
        )
        raise ConfigError(message)


def hidden_warning(source: str, sources: Sources) -> tuple[str, ...]:
    """Return a warning if a folder or file here is hidden by the built-in set of the same name."""
    there = _same_name_here(source, sources)
    return () if there is None else (f"data {source}: the built-in set is read, not ./{there} here (--data ./{there})",)


def plain_source(source: str) -> str:
    """Return the source as it is stored, without the prefix `builtin:`.

    The prefix is needed only when a user types a name: a stored name of a built-in set has no other meaning.
    """
    return source.removeprefix(BUILTIN)


def _same_name_here(source: str, sources: Sources) -> Path | None:
    """Find a folder or file here that a built-in set's name would hide, in any spelling of the name."""
    name = source_name(source)
    if not any(name in kind.names for kind in sources):
        return None
    try:
        here = sorted(Path().iterdir(), key=lambda path: (path.name != source, path.name))
    except OSError:
        return None
    alike = (path for path in here if source_name(path.name.removesuffix(".npz")) == name)
    return next((path for path in alike if any(kind.takes_path(path) for kind in sources)), None)


def _unknown_source(source: str, path: Path, sources: Sources) -> str:
    names = [name for kind in sources for name in kind.names]
    wanted = [*(kind.path_words for kind in sources if kind.path_words), *(["a known name"] if names else [])]
    expected = ", ".join(wanted[:-1]) + " or " * (len(wanted) > 1) + "".join(wanted[-1:])
    if path.is_file():
        came = f"the file {source}, which is of no kind that is read"
    elif path.is_dir():
        came = f"the folder {source}"
    elif path.suffix or len(path.parts) > 1:
        came = f"{source!r}, where there is nothing"
    else:
        near = nearest(source.lower(), names)
        came = f"{source!r}" + (f"; did you mean {near}?" if near else "")
    kinds = " and ".join(dict.fromkeys(kind.targets for kind in sources))
    lines = [f"data.source: expected {expected}, came {came}"]
    lines += [f"Known names: {', '.join(names)}. All sources of this task give {kinds}."] * bool(names)
    lines += [kind.layout for kind in sources if kind.layout][: 3 - len(lines)]
    return "\n".join(lines)
