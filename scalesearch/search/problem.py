"""What is searched, and how its candidates are judged."""

from collections.abc import Callable
from dataclasses import dataclass

from scalesearch.execution.worker import Evaluator
from scalesearch.search.storage import LATENCY
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is searched, and how its candidates are judged."""

    space: SearchSpace
    """The space that candidates are taken from."""
    plan: Callable[[Candidate], Plan]
    """Returns the plan of a candidate: rounded, with its cost."""
    make_evaluator: Callable[[], Evaluator]
    """Is pickled and called once in each worker process."""
    full_updates: int = 0
    """Updates of a member of the front, where candidates are trained by unlike lengths; else 0."""
    metric: str = DEFAULT_METRIC
    """Name of the score, which is the first objective."""
    latency: str = LATENCY
    """Name of the latency, which is the second objective."""
