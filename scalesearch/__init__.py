"""scalesearch: finds the Pareto front of deployed accuracy against measured latency for a vision network.

As a library, everything in `__all__` can be used from here: `scalesearch.run_search`, `scalesearch.read_study`, ...
(docs/library.md). Each name is loaded when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalesearch.analysis.choice import Choice, Wish
    from scalesearch.analysis.front import hypervolume, knee, pareto_front, point, ties
    from scalesearch.api import evaluate, load_space, run_search
    from scalesearch.config import load_run
    from scalesearch.confirm.front import ConfirmOutcome, confirm_front
    from scalesearch.confirm.request import ConfirmRequest
    from scalesearch.errors import ScalesearchError
    from scalesearch.records.run_file import read_run_file
    from scalesearch.search.events import StudyOutcome
    from scalesearch.study.view import StudyView, read_study
    from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling, StageScaling
    from scalesearch.values.latency import Latency
    from scalesearch.values.quality import Quality
    from scalesearch.values.record import TrialRecord
    from scalesearch.values.settings import DataSettings, LatencySettings, MachineSettings, RunSettings
    from scalesearch.values.space import SearchSpace

_HOMES = {
    "api": ("evaluate", "load_space", "run_search"),
    "config": ("load_run",),
    "confirm.front": ("ConfirmOutcome", "confirm_front"),
    "confirm.request": ("ConfirmRequest",),
    "errors": ("ScalesearchError",),
    "records.run_file": ("read_run_file",),
    "analysis.choice": ("Choice", "Wish"),
    "search.events": ("StudyOutcome",),
    "analysis.front": ("hypervolume", "knee", "pareto_front", "point", "ties"),
    "study.view": ("StudyView", "read_study"),
    "values.candidate": ("Candidate", "Pruning", "Quantization", "Recipe", "Scaling", "StageScaling"),
    "values.quality": ("Quality",),
    "values.record": ("Latency", "TrialRecord"),
    "values.settings": ("DataSettings", "LatencySettings", "MachineSettings", "RunSettings"),
    "values.space": ("SearchSpace",),
}
_HOME_OF = {name: f"scalesearch.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Candidate",
    "Choice",
    "ConfirmOutcome",
    "ConfirmRequest",
    "DataSettings",
    "Latency",
    "LatencySettings",
    "MachineSettings",
    "Pruning",
    "Quality",
    "Quantization",
    "Recipe",
    "RunSettings",
    "ScalesearchError",
    "Scaling",
    "SearchSpace",
    "StageScaling",
    "StudyOutcome",
    "StudyView",
    "TrialRecord",
    "Wish",
    "confirm_front",
    "evaluate",
    "hypervolume",
    "knee",
    "load_run",
    "load_space",
    "pareto_front",
    "point",
    "read_run_file",
    "read_study",
    "run_search",
    "ties",
]


if not TYPE_CHECKING:  # otherwise every misspelt name would pass a type checker

    def __getattr__(name: str) -> object:
        """Load and return the named part of the library (PEP 562)."""
        if name not in _HOME_OF:
            message = f"module 'scalesearch' has no attribute {name!r}"
            raise AttributeError(message)
        value: object = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the names that the library offers, for editors and notebooks."""
    return sorted({*globals(), *__all__})
