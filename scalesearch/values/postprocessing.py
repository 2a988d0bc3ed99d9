"""What a latency stands for, and the time that the work on a network's answers takes beside the network's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

LatencyObjective = Literal["engine", "end_to_end"]
"""What the study's second objective is: the engine's latency, or its sum with that of the post-processing."""

LATENCY_NAMES: Final[Mapping[LatencyObjective, str]] = MappingProxyType(
    {"engine": "p50_ms", "end_to_end": "end_to_end_ms"}
)
"""The name of the second objective in tables, JSON and Optuna."""

LATENCY_TITLES: Final[Mapping[LatencyObjective, str]] = MappingProxyType({"engine": "p50", "end_to_end": "end-to-end"})
"""The same, as people write it: `p50, ms`, `end-to-end latency`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """Time on the host from a network's answers to results, as an exported network's users take them.

    Of a detector that is decoding and non-maximum suppression at the exported threshold, in numpy on one thread.
    """

    p50_ms: float
    """Median over validation images, times the batch size of the latency that it stands beside."""
    p50_low_ms: float
    p50_high_ms: float
    """The lowest and the highest of the medians of several rounds over the same images."""
    images: int
    """Number of images that were timed."""
