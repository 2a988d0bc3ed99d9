"""BatchNorm folding: each BatchNorm that directly follows a convolution or linear layer becomes part of it."""

import copy
import logging
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from scalesearch.errors import StageFailed
from scalesearch.values.network import Network

_log = logging.getLogger(__name__)

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batchnorm(network: Network) -> Network:
    """A copy whose BatchNorms are folded into the layer before them; an Identity stands in their place.

    With scale = gamma / sqrt(var + eps), per output channel: w' = w * scale, b' = (b - mean) * scale + beta (Ioffe and
    Szegedy, arXiv 1502.03167, algorithm 2, step 11; Jacob et al., arXiv 1712.05877, equation 14). Grouped and depthwise
    convolutions too, with and without bias, and linear layers on (N, features). What cannot be folded stays: a layer
    whose output is also read by another, or that runs more than once.

    Raises:
        StageFailed: The network is in training mode, or its structure cannot be traced.
    """
    if any(layer.training for layer in network.module.modules()):
        reason = f"{network.spec.name} is in training mode, where BatchNorm does not use the statistics to fold"
        raise StageFailed(stage="fold", reason=reason)
    module = copy.deepcopy(network.module)
    folded = 0
    for layer_name, norm_name in _adjacent_pairs(module):
        layer = _folded(module.get_submodule(layer_name), module.get_submodule(norm_name))
        if layer is not None:
            module.set_submodule(layer_name, layer)
            module.set_submodule(norm_name, nn.Identity().eval())
            folded += 1
    if not folded:
        _log.info("nothing folded: no BatchNorm of %s follows a convolution or linear layer", network.spec.name)
    return Network(spec=network.spec, module=module)


def _adjacent_pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of (layer, layer that alone reads its output), where each of the two runs once."""
    try:
        graph = fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        reason = f"the network cannot be traced by torch.fx: {error}"
        raise StageFailed(stage="fold", reason=reason) from error
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        if calls[source.target] == calls[node.target] == 1:
            pairs.append((str(source.target), str(node.target)))
    return pairs


def _folded(layer: nn.Module, norm: nn.Module) -> nn.Module | None:
    """The layer with the norm inside, or None where that is not possible."""
    if not isinstance(norm, _NORMS) or norm.running_mean is None:
        return None
    if isinstance(layer, _CONVOLUTIONS):
        return fuse_conv_bn_eval(layer, norm)
    # torch's fuse_linear_bn_eval cannot do without gamma and beta, unlike that of convolutions.
    if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d) and norm.affine:
        return fuse_linear_bn_eval(layer, norm)
    return None
