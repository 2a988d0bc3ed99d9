"""Block dropping: whole residual blocks leave, those first without which the network loses least."""

import copy
import dataclasses
import logging
import math
from collections.abc import Callable

from torch import nn

from scalesearch.errors import StageFailed
from scalesearch.values.network import Network

_log = logging.getLogger(__name__)


def drop_blocks(network: Network, fraction: float, *, loss_without: Callable[[Network], float]) -> Network:
    """A copy with `fraction` of its droppable blocks left out, and a spec of fewer blocks that builds its shape.

    A residual block computes x + f(x), so a network without it still has its paths around it and loses little (Veit et
    al., arXiv 1605.06431, sections 4.1 and 4.2). One leaves at a time, the one without which the loss is least, and all
    that are left are measured anew: what a block is worth changes when its neighbour is gone (SLEB, Song et al., arXiv
    2402.09025). With nothing to drop the network itself comes back.

    Args:
        network: In eval mode, if `loss_without` is to see it as deployed.
        fraction: Of the blocks of `droppable_blocks`; rounded to the nearest number of blocks, a tie keeps more.
        loss_without: Loss of a network on images that the choice may see, the less the better; called (dropped times
            droppable) times at most. It must not change the network.

    Raises:
        StageFailed: The fraction is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise StageFailed(stage="drop_blocks", reason=f"block_fraction must be in [0, 1], got {fraction}")
    count = math.ceil(fraction * len(droppable_blocks(network)) - 0.5)
    if fraction > 0 and count == 0:
        blocks = len(droppable_blocks(network))
        _log.info("no block dropped: %g of the %d droppable of %s is none", fraction, blocks, network.spec.name)
    for _ in range(count):
        places = droppable_blocks(network)
        if not places:
            break  # what is left are the last blocks of their stages
        without = (_without(network, place) for place in places)
        network = min(without, key=lambda smaller: _comparable(loss_without(smaller)))
    return network


def droppable_blocks(network: Network) -> tuple[tuple[int, int], ...]:
    """(stage, block) of every block whose input and output have one shape and that is not alone in its stage."""
    places = []
    channels = network.spec.stem.channels
    for number, stage in enumerate(network.spec.stages):
        first = 0 if stage.stride == 1 and stage.channels == channels else 1
        places += [(number, block) for block in range(first, stage.depth) if stage.depth > 1]
        channels = stage.channels
    return tuple(places)


def _without(network: Network, place: tuple[int, int]) -> Network:
    """A copy without one block; the blocks behind it move up, as if the spec had been built with one fewer."""
    stage, block = place
    module = copy.deepcopy(network.module)
    blocks = list(module.get_submodule(f"stages.{stage}").children())
    shorter = nn.Sequential(*blocks[:block], *blocks[block + 1 :])
    shorter.training = module.get_submodule(f"stages.{stage}").training
    module.set_submodule(f"stages.{stage}", shorter)
    stages = list(network.spec.stages)
    stages[stage] = dataclasses.replace(stages[stage], depth=len(shorter))
    return Network(spec=dataclasses.replace(network.spec, stages=tuple(stages)), module=module)


def _comparable(loss: float) -> float:
    """NaN, of a network that overflows, is the worst."""
    return math.inf if math.isnan(loss) else loss
