"""What every kind of source gives, before splitting, and how the registry knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalesearch.training.datasets.dataset import ImageSplit
from scalesearch.values.settings import DataSettings


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
    """Whether the source says which images are train; otherwise all of them are to be split."""


class LoadSource(Protocol):
    """Reads one source."""

    def __call__(self, settings: DataSettings, *, storage_px: int, cache_folder: Path) -> SourceData:
        """The source's images, square, RGB, with a side of `storage_px`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of source: the names it goes by, or the paths it takes, and its reader."""

    kind: str
    load: LoadSource
    names: tuple[str, ...] = ()
    takes_path: Callable[[Path], bool] = lambda path: False
