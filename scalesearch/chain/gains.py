"""Does it pay? Every compression step of a trial against the same network without it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from scalesearch.files import replace_file
from scalesearch.values.record import Gain, Latency

_ADAPTER = TypeAdapter(Latency)


class TwinStore:
    """Latencies of networks that only serve as yardsticks, kept per study: a twin is measured once for all trials."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "twins"

    def latency(self, key: str, measure: Callable[[], Latency]) -> Latency:
        """The latency kept under `key` (what the twin's file depends on), else what `measure` gives, which is kept."""
        path = self._folder / f"{key}.json"
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except (OSError, ValidationError):  # never measured, or its file is damaged
            latency = measure()
            replace_file(path, _ADAPTER.dump_json(latency))
            return latency


def gain(
    step: Literal["pruning", "precision"], what: str, *, without: Latency, having: Latency, top1_change: float
) -> Gain:
    """What a step brought; the interval of its speed-up is that of a ratio of two independent estimates.

    It is taken on the logarithm, where a ratio's error is even: both ends are above 0, however wide it is.
    """
    speedup = without.ratio / having.ratio
    spread = math.hypot(*((each.p50_high_ms - each.p50_low_ms) / 2 / each.p50_ms for each in (without, having)))
    return Gain(
        step=step,
        what=what,
        speedup=speedup,
        speedup_low=speedup * math.exp(-spread),
        speedup_high=speedup * math.exp(spread),
        top1_change=top1_change,
    )
