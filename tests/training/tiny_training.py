"""The smallest network that the tests of training use."""

from scalesearch.values.network_spec import HeadSpec, NetworkSpec, StageSpec, StemSpec

SPEC = NetworkSpec(
    name="tiny",
    resolution_px=16,
    num_classes=3,
    stem=StemSpec(channels=8, kernel=3, stride=2),
    stages=(StageSpec(block="basic", depth=1, channels=16, kernel=3, stride=2),),
    head=HeadSpec(),
)
