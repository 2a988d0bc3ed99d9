"""The feature maps of a backbone at which a detector looks for objects."""

from scalesearch.networks.backbone import feature_strides
from scalesearch.tasks.detection.decoding import STRIDES
from scalesearch.values.network_spec import NetworkSpec


def levels_of(spec: NetworkSpec) -> dict[str, int]:
    """Return the strides of the feature maps that a detector reads, by the name of the stage, from fine to coarse.

    Of several stages with the same stride it is the last one.
    """
    last = {stride: name for name, stride in feature_strides(spec).items()}
    return {last[stride]: stride for stride in STRIDES if stride in last}
