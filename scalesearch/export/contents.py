"""What an export holds, and what was measured of its trial after the search."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scalesearch.values.candidate import Pruning
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import FrontScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """One file of an export."""

    name: str
    """Its path within the export's folder."""
    what: str
    """A few words for the reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """Everything that was measured for a trial after the search."""

    score: FrontScore | None = None
    """The trial's second evaluation, on test images, if it had one."""
    confirmed: tuple[ConfirmedRun, ...] = ()
    """The trial's runs at full length, if it was confirmed."""
    exported: ConfirmedRun | None = None
    """The run among these whose file is exported, if any; the trial's record is then `confirmed.as_confirmed` of it."""
    retrained: bool = False
    """Whether the trial was trained again after pruning in the search, and so in its runs at full length, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What an export holds besides its card."""

    files: tuple[ExportedFile, ...] = ()
    notes: tuple[str, ...] = ()
    """What could not be exported and why, one line each."""
    oldest: Mapping[str, str] = field(default_factory=dict)
    """The oldest versions that run `infer.py` on this model: python, onnxruntime, numpy, pillow."""
    pruning: Pruning | None = None
    """What of the asked pruning had an effect on the network (`pruned.made_pruning`); None: all of it."""
