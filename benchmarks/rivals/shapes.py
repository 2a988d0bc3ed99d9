"""Which networks the rivals try, and in which order: the default space's axes, compound scaling, and the width grid."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from scalesearch.analysis.simple_ways import DEPTH, GROWTH_BY_PHI, RESOLUTION, WIDTH
from scalesearch.networks import base_spec, scale
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import NetworkSpec

NETWORK, SIDE_PX = "resnet_small", 64
"""Base network of the default space, and the side of its images in pixels at resolution multiplier 1."""
AXES: dict[str, tuple[float, ...]] = {
    "resolution": (0.375, 0.5, 0.75, 1.0),
    "depth": (1.0, 2.0),
    "width": (0.5, 0.75, 1.0, 1.25),
    "kernel": (1.0, 1.67),
}
"""The multipliers of the default space (search_spaces/resnet_small.toml)."""
PHIS = tuple(range(-6, 3))
"""From 28 px with half of the channels to 88 px, twice the blocks and a quarter more channels."""
MOBILENET_WIDTHS = (0.25, 0.5, 0.75, 1.0)
MOBILENET_SIDES_PX = (128, 160, 192, 224)
"""The grid that MobileNet's authors print (arXiv 1704.04861, table 7); 224 px stand for resolution multiplier 1."""

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One network of a rival: multipliers of the base network."""

    resolution: float = 1.0
    depth: float = 1.0
    width: float = 1.0
    kernel: float = 1.0

    def spec(self, classes: int) -> NetworkSpec:
        """Return the network for so many classes, with all numbers rounded as the project rounds them."""
        scaling = Scaling(resolution=self.resolution, depth=self.depth, width=self.width, kernel=self.kernel)
        return scale(base_spec(NETWORK), scaling, resolution_px=SIDE_PX, num_classes=classes)

    @property
    def name(self) -> str:
        """The multipliers in words."""
        return f"r{self.resolution:.3g} d{self.depth:.3g} w{self.width:.3g} k{self.kernel:.3g}"


def compound(phi: float) -> Shape:
    """Return the base network scaled in depth, width and resolution by phi; phi = 0 is the base network itself."""
    depth, width, resolution = (GROWTH_BY_PHI[name] ** phi for name in (DEPTH, WIDTH, RESOLUTION))
    return Shape(depth=depth, width=width, resolution=resolution)


def compound_shapes() -> Iterator[Shape]:
    """Yield networks of compound scaling: phi in whole steps, most unlike ones first, then in halves and quarters."""
    done: list[float] = []
    for step in (1.0, 0.5, 0.25):
        count = round((PHIS[-1] - PHIS[0]) / step) + 1
        grid = [PHIS[0] + step * place for place in range(count)]
        new = [phi for phi in grid if phi not in done]
        for phi in spread_out(new, lambda one, other: abs(one - other), done=done):
            done.append(phi)
            yield compound(phi)


def grid_shapes() -> Iterator[Shape]:
    """Yield the networks of the width x resolution grid, most unlike ones first."""
    grid = [
        Shape(width=width, resolution=side_px / max(MOBILENET_SIDES_PX))
        for width, side_px in itertools.product(MOBILENET_WIDTHS[::-1], MOBILENET_SIDES_PX[::-1])
    ]
    yield from spread_out(grid, _distance)


def _distance(one: Shape, other: Shape) -> float:
    return math.hypot(math.log2(one.width / other.width), math.log2(one.resolution / other.resolution))


def spread_out(
    items: Sequence[_Item], distance: Callable[[_Item, _Item], float], *, done: Sequence[_Item] = ()
) -> list[_Item]:
    """Return the items in an order in which each is furthest from all before it, so that any first part is spread out.

    Args:
        items: What is ordered; the first one stays first where nothing is `done`. Among equals, the earlier one wins.
        distance: Distance of two items.
        done: Items that came before.
    """
    left, before, ordered = list(items), list(done), list[_Item]()
    while left:
        best = max(left, key=lambda item: min((distance(item, other) for other in before), default=0.0))
        left.remove(best)
        before.append(best)
        ordered.append(best)
    return ordered
