"""Block dropping: remove whole residual blocks, first those whose removal raises the loss least."""

import copy
import dataclasses
import logging
import math
from collections.abc import Callable

from torch import nn

from scalesearch.errors import StageFailed
from scalesearch.values.network import Network
from scalesearch.values.network_spec import StageSpec

_log = logging.getLogger(__name__)


def drop_blocks(
    network: Network,
    fraction: float,
    *,
    loss_without: Callable[[Network], float],
    follower: nn.Module | None = None,
) -> Network:
    """Return a copy without `fraction` of the droppable blocks, with a spec of fewer blocks that builds its shape.

    A residual block computes x + f(x). Without it the network still has the paths around it, and so loses little (Veit
    et al., arXiv 1605.06431, sections 4.1 and 4.2). Blocks are removed one at a time: each time the block whose removal
    gives the least loss. After each removal all remaining blocks are measured again, because the value of a block
    changes when its neighbour is gone (SLEB, Song et al., arXiv 2402.09025). If nothing is to be dropped, the network
    itself is returned, not a copy.

    Args:
        network: Must be in eval mode if `loss_without` is to see it as deployed.
        fraction: Share of the blocks of `droppable_blocks` to remove, 0 to 1. It is rounded to the nearest number of
            blocks; a tie keeps more blocks.
        loss_without: Returns the loss of a network, lower is better, on images that this choice may use. It is called
            at most (dropped blocks times droppable blocks) times and must not change the network.
        follower: A module of the same structure, which loses the same blocks, in place.

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
            break  # nothing can be dropped: the blocks left are the last ones of their stages
        without = {place: without_block(network, place) for place in places}
        losses = {place: _comparable(loss_without(smaller)) for place, smaller in without.items()}
        least = min(losses, key=losses.__getitem__)
        network = without[least]
        if follower is not None:
            take_out(follower, least)
    return network


def droppable_blocks(network: Network) -> tuple[tuple[int, int], ...]:
    """Return (stage, block), both from 0, of every block that can be removed.

    A block can be removed if its input and output have the same shape and it is not the only block of its stage. Stages
    of the spec that the module does not have are passed over (`built_stages`).
    """
    places = []
    channels = network.spec.stem.channels
    for number, stage in enumerate(built_stages(network)):
        first = 0 if stage.stride == 1 and stage.channels == channels else 1
        places += [(number, block) for block in range(first, stage.depth) if stage.depth > 1]
        channels = stage.channels
    return tuple(places)


def built_stages(network: Network) -> tuple[StageSpec, ...]:
    """Return the stages that the module has: the first ones of its spec, as far as its task reads feature maps.

    A detector, for example, has no stages after the coarsest map that it reads.
    """
    built = dict(network.module.named_children()).get("stages", nn.Sequential())
    return network.spec.stages[: len(list(built.children()))]


def without_block(network: Network, place: tuple[int, int]) -> Network:
    """Return a copy without one block, given as (stage, block), both from 0.

    The later blocks of the stage move up, as if the spec had been built with one block fewer.
    """
    stage, _ = place
    module = copy.deepcopy(network.module)
    take_out(module, place)
    stages = list(network.spec.stages)
    stages[stage] = dataclasses.replace(stages[stage], depth=stages[stage].depth - 1)
    return Network(spec=dataclasses.replace(network.spec, stages=tuple(stages)), module=module)


def take_out(module: nn.Module, place: tuple[int, int]) -> None:
    """Remove one block of a module, in place."""
    stage, block = place
    blocks = list(module.get_submodule(f"stages.{stage}").children())
    shorter = nn.Sequential(*blocks[:block], *blocks[block + 1 :])
    shorter.training = module.get_submodule(f"stages.{stage}").training
    module.set_submodule(f"stages.{stage}", shorter)


def _comparable(loss: float) -> float:
    """Return the loss, or infinity for NaN (a network that overflows), so that NaN counts as the worst loss."""
    return math.inf if math.isnan(loss) else loss
