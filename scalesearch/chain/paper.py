"""What pruning makes of a network's shape, without any trained weights."""

import dataclasses

from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.prune import prune
from scalesearch.values.candidate import Pruning
from scalesearch.values.network import Network


def cut_on_paper(dense: Network, asked: Pruning, *, channel_multiple: int) -> tuple[Network, Network]:
    """Return the network without its blocks, and the same without its channels.

    Where the shape depends on the weights (`Pruning.shape_follows_weights`) it is an estimate: scopes other than
    uniform are estimated by uniform pruning, and the least important blocks by the first ones.
    """
    network = dense
    if asked.block_fraction > 0:
        network = drop_blocks(dense, asked.block_fraction, loss_without=lambda _: 0.0)
    plain = dataclasses.replace(asked, criterion="l2", scope="uniform")  # the rounds end at the same widths
    return network, prune(network, plain, channel_multiple=channel_multiple)
