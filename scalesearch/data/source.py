"""What every kind of source gives before splitting, and how a list of sources describes each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalesearch.data.dataset import ImageSplit
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceData:
    """Images as the source divides them, at the storage resolution; parts that it does not have are None."""

    name: str
    class_names: tuple[str, ...]
    """Empty for targets without classes."""
    train: ImageSplit
    val: ImageSplit | None = None
    test: ImageSplit | None = None
    warnings: tuple[str, ...] = ()
    divided: bool = False
    """Whether the source says which images are train; if not, all of them are still to be split."""
    notes: tuple[str, ...] = ()
    """Lines to print while the source is loaded; unlike warnings, they report no doubts about the data."""


class LoadSource(Protocol):
    """A function that reads one source."""

    def __call__(self, settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
        """Return the source's images (number, height, width, 3) at this size, in RGB, with their targets."""


def _no_check(settings: DataSettings, storage: InputSize) -> None:
    """Accept any settings and any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of source: the names it has, or the paths it accepts, and the function that reads it."""

    kind: str
    targets: str
    """The kind of its targets, e.g. `labels`. Tasks that are trained on such targets can use the source."""
    load: LoadSource
    names: tuple[str, ...] = ()
    takes_path: Callable[[Path], bool] = lambda path: False
    path_words: str = ""
    """What kind of path it accepts, in a few words (`a folder`); empty if it accepts none."""
    layout: str = ""
    """A sentence on what there must be at such a path, for messages; may be empty."""
    least_classes: int = 0
    """The fewest classes that a data set of this source may have."""
    check: Callable[[DataSettings, InputSize], None] = _no_check
    """Raises ConfigError if these settings cannot give images of this size; reads nothing."""


Sources = tuple[Source, ...]
"""The sources of a task, in the order in which a name or path is offered to them."""
