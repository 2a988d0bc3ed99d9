"""The gain of each compression step of a trial, compared with the same network without that step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from scalesearch.files import replace_file
from scalesearch.values.latency import Latency
from scalesearch.values.record import Gain

_ADAPTER = TypeAdapter(Latency)


class TwinStore:
    """Latencies of networks that are no trials (twins, untrained networks), stored per study for all its trials."""

    def __init__(self, folder: Path, name: str = "twins") -> None:
        self._folder = folder / name

    def latency(self, key: str, measure: Callable[[], Latency], *, coarse: bool = False) -> Latency:
        """Return the latency stored under `key`; if there is none, call `measure` and store its result.

        Args:
            key: Identifies everything that the network's latency depends on.
            measure: Measures the latency.
            coarse: Whether a stored latency that was not measured exactly is good enough.
        """
        stored = self.stored(key)
        if stored and (coarse or not stored.coarse):
            return stored
        latency = measure()
        replace_file(self._path(key), _ADAPTER.dump_json(latency))
        return latency

    def stored(self, key: str) -> Latency | None:
        """Return the latency stored under `key`; None if there is none, or if its file is damaged."""
        try:
            return _ADAPTER.validate_json(self._path(key).read_bytes())
        except (OSError, ValidationError):
            return None

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def gain(
    step: Literal["pruning", "precision"],
    what: str,
    *,
    without: Latency,
    having: Latency,
    score_change: float | None,
    coarse: bool = False,
) -> Gain:
    """Return what a step changed in speed and score.

    The interval of its speed-up is that of a ratio of two independent estimates. It is computed on the logarithm, where
    the error of a ratio is symmetric, so both ends are above 0 however wide it is.

    Args:
        step: The kind of step.
        what: The step in words.
        without: Latency of the network without the step.
        having: Latency of the network with it.
        score_change: Score with the step minus score without it, as a fraction; None if there is no score without it.
        coarse: Whether the trial itself was timed only coarsely; that a network compared with it was, does not count.
    """
    speedup = without.ratio / having.ratio
    spread = math.hypot(*((each.p50_high_ms - each.p50_low_ms) / 2 / each.p50_ms for each in (without, having)))
    return Gain(
        step=step,
        what=what,
        speedup=speedup,
        speedup_low=speedup * math.exp(-spread),
        speedup_high=speedup * math.exp(spread),
        score_change=score_change,
        coarse=coarse,
    )
