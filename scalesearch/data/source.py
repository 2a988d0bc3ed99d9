"""What every kind of source gives before splitting, and how the registry describes a source."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from scalesearch.data.dataset import ImageSplit
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

SOURCE_TARGETS: Final = "labels"
"""Kind of targets that every source gives: one class index per image."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceData:
    """Images as the source divides them, at the storage resolution; parts that it does not have are None."""

    name: str
    class_names: tuple[str, ...]
    train: ImageSplit
    val: ImageSplit | None = None
    test: ImageSplit | None = None
    warnings: tuple[str, ...] = ()
    divided: bool = False
    """Whether the source says which images are train; if not, all of them are still to be split."""
    notes: tuple[str, ...] = ()
    """Lines to say while it is loaded, which are no doubts about the data."""


class LoadSource(Protocol):
    """A function that reads one source."""

    def __call__(self, settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
        """Return the source's images (number, height, width, 3) at this size, in RGB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of source: the names it has, or the paths it accepts, and the function that reads it."""

    kind: str
    load: LoadSource
    names: tuple[str, ...] = ()
    takes_path: Callable[[Path], bool] = lambda path: False
