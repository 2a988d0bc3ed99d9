"""Which feature maps of a backbone a detector reads, and so which of its stages it has; loads no torch."""

from scalesearch.tasks.detection.decoding import STRIDES
from scalesearch.values.network_spec import NetworkSpec


def levels_of(spec: NetworkSpec) -> dict[str, int]:
    """Return the strides of the feature maps that a detector reads, by the name of the stage, from fine to coarse.

    Of several stages with the same stride, only the last one is read.
    """
    last = {stride: f"stage{place}" for place, stride in enumerate(spec.strides, 1)}
    return {last[stride]: stride for stride in STRIDES if stride in last}


def stages_built(spec: NetworkSpec) -> int:
    """Return how many stages a detector has: none after the coarsest feature map that it reads."""
    return max((int(name.removeprefix("stage")) for name in levels_of(spec)), default=0)
