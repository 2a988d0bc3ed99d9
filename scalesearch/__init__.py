"""scalesearch: the Pareto front of deployed accuracy against measured latency for a vision network.

As a library, all of `__all__` is here: `scalesearch.run_search`, `scalesearch.read_study`, ... (docs/library.md). Each
name is loaded when it is first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalesearch.api import evaluate, load_space, run_search
    from scalesearch.config import load_run
    from scalesearch.confirm import ConfirmOutcome, confirm_front
    from scalesearch.errors import ScalesearchError
    from scalesearch.records.run_file import read_run_file
    from scalesearch.search.choice import Choice, Wish
    from scalesearch.search.events import StudyOutcome
    from scalesearch.search.front import hypervolume, knee, pareto_front, point, ties
    from scalesearch.study_view import StudyView, read_study
    from scalesearch.values.candidate import Candidate, Pruning, Quantization, Recipe, Scaling, StageScaling
    from scalesearch.values.record import Latency, Quality, TrialRecord
    from scalesearch.values.settings import DataSettings, LatencySettings, MachineSettings, RunSettings
    from scalesearch.values.space import SearchSpace

_HOMES = {
    "api": ("evaluate", "load_space", "run_search"),
    "config": ("load_run",),
    "confirm": ("ConfirmOutcome", "confirm_front"),
    "errors": ("ScalesearchError",),
    "records.run_file": ("read_run_file",),
    "search.choice": ("Choice", "Wish"),
    "search.events": ("StudyOutcome",),
    "search.front": ("hypervolume", "knee", "pareto_front", "point", "ties"),
    "study_view": ("StudyView", "read_study"),
    "values.candidate": ("Candidate", "Pruning", "Quantization", "Recipe", "Scaling", "StageScaling"),
    "values.record": ("Latency", "Quality", "TrialRecord"),
    "values.settings": ("DataSettings", "LatencySettings", "MachineSettings", "RunSettings"),
    "values.space": ("SearchSpace",),
}
_HOME_OF = {name: f"scalesearch.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Candidate",
    "Choice",
    "ConfirmOutcome",
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


if not TYPE_CHECKING:  # or every misspelt name would pass a type checker

    def __getattr__(name: str) -> object:
        """The named part of the library, loaded now (PEP 562)."""
        if name not in _HOME_OF:
            message = f"module 'scalesearch' has no attribute {name!r}"
            raise AttributeError(message)
        value: object = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """What the library offers, for editors and notebooks."""
    return sorted({*globals(), *__all__})
