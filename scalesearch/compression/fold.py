"""BatchNorm folding: merge each BatchNorm that directly follows a convolution or linear layer into that layer."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, fx, nn

from scalesearch.errors import StageFailed
from scalesearch.registered_layers import replace_layer_everywhere
from scalesearch.values.network import Network

_log = logging.getLogger(__name__)

# Compared by exact type: a subclass may compute something else (weights standardised on the way, an activation inside a
# norm), and a parametrized layer (torch.nn.utils.parametrize) is a subclass made on the fly.
_NORMS_BY_LAYER: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
    nn.Linear: nn.BatchNorm1d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class _Tracer(fx.Tracer):
    """Traces a module without looking into the layers named above.

    The same holds for a user's subclass of such a layer: its checks of its input cannot be traced by fx.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_NORMS_BY_LAYER, *_NORMS)) or super().is_leaf_module(m, module_qualified_name)


def fold_batchnorm(network: Network) -> Network:
    """Return a copy whose BatchNorms are folded into the layer before them, with an Identity in their place.

    With scale = gamma / sqrt(var + eps), per output channel: w' = w * scale, b' = (b - mean) * scale + beta (Ioffe and
    Szegedy, arXiv 1502.03167, algorithm 2, step 11; Jacob et al., arXiv 1712.05877, equation 14). A BatchNorm that
    `foldable_pairs` does not name stays as it is.

    Raises:
        StageFailed: The network is in training mode, or its structure cannot be traced.
    """
    if any(layer.training for layer in network.module.modules()):
        reason = f"{network.spec.name} is in training mode, where BatchNorm does not use the statistics to fold"
        raise StageFailed(stage="fold", reason=reason)
    module = copy.deepcopy(network.module)
    pairs = foldable_pairs(module)
    for layer_name, norm_name in pairs:
        _fold(module.get_submodule(layer_name), module.get_submodule(norm_name))
        replace_layer_everywhere(module, norm_name, nn.Identity().eval())
    if not pairs:
        _log.info("nothing folded: no BatchNorm of %s follows a convolution or linear layer", network.spec.name)
    return Network(spec=network.spec, module=module)


def unfold_batchnorm(network: Network, folded: Mapping[str, Tensor], images: Tensor) -> Network:
    """Return a copy with the folded weights and new norms, so that training can go on.

    Norms that do nothing in eval mode (mean 0, variance 1) would be wrong: in training mode they would remove the scale
    of each channel. So each norm gets the mean and variance that its channels have on these images, and the scale and
    shift that undo them. It then changes only the last digits in eval mode, and next to nothing in training mode.

    Args:
        network: A network of the spec with its norms; its weights do not matter.
        folded: Weights of `fold_batchnorm` of such a network, by name.
        images: (N, C, H, W), normalised, of the network's size.

    Raises:
        StageFailed: The names or shapes of the weights are not those of the folded network.
    """
    module = copy.deepcopy(network.module).eval()
    pairs = foldable_pairs(module)
    plain = fold_batchnorm(Network(spec=network.spec, module=module)).module
    expected = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    unlike = sorted(
        name
        for name in expected.keys() | folded.keys()
        if name not in folded or expected.get(name) != folded[name].shape
    )
    if unlike:
        reason = f"{len(unlike)} weights are not those of {network.spec.name}, folded, first {unlike[0]!r}"
        raise StageFailed(stage="unfold", reason=reason)
    plain.load_state_dict(dict(folded))
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def look(_: nn.Module, __: object, out: Tensor) -> None:
            across = [axis for axis in range(out.ndim) if axis != 1]
            seen[name] = out.double().mean(across), out.double().var(across, unbiased=False)

        return look

    hooks = [plain.get_submodule(layer).register_forward_hook(watch(layer)) for layer, _ in pairs]
    with torch.inference_mode():
        plain(images)
    for hook in hooks:
        hook.remove()
    held = dict(plain.state_dict())
    for layer, norm_name in pairs:
        norm = module.get_submodule(norm_name)
        assert isinstance(norm, _NORMS)
        mean, variance = seen[layer]
        held[f"{norm_name}.running_mean"] = (mean - held.pop(f"{layer}.bias").double()).float()
        held[f"{norm_name}.running_var"] = variance.float()
        held[f"{norm_name}.weight"] = (variance + norm.eps).sqrt().float()
        held[f"{norm_name}.bias"] = mean.float()
        held[f"{norm_name}.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    module.load_state_dict(held)
    return Network(spec=network.spec, module=module)


def foldable_pairs(module: nn.Module) -> tuple[tuple[str, str], ...]:
    """Return the names (layer, BatchNorm) of pairs that can become one layer, in the order in which they run.

    The layer may be a convolution in one to three dimensions, plain, grouped, depthwise or transposed, or a linear
    layer on (N, features), each with or without bias. Both layer and BatchNorm must run exactly once; only the
    BatchNorm may read the layer's output; nothing else may read their weights or hook into them; and the BatchNorm must
    have running statistics.

    Raises:
        StageFailed: The structure cannot be traced.
    """
    try:
        graph = _Tracer().trace(module)
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        reason = f"the network cannot be traced by torch.fx: {error}"
        raise StageFailed(stage="fold", reason=reason) from error
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    read = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    pairs = []
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        names = str(source.target), str(node.target)
        alone = calls[source.target] == calls[node.target] == 1 and read.isdisjoint(names)
        if alone and _can_fold(*(module.get_submodule(name) for name in names)):
            pairs.append(names)
    return tuple(pairs)


def _can_fold(layer: nn.Module, norm: nn.Module) -> bool:
    if _NORMS_BY_LAYER.get(type(layer)) is not type(norm):
        return False
    assert isinstance(norm, _NORMS)
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in (layer, norm))
    # Behind a linear layer on (N, positions, features), BatchNorm1d normalizes the positions, not the features.
    out = layer.out_features if isinstance(layer, nn.Linear) else norm.num_features
    return not hooked and norm.running_mean is not None and norm.num_features == out


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Fold the BatchNorm into the layer, in place.

    This is computed in float64, so that values are rounded only once, when the result gets the layer's own type.
    """
    assert isinstance(norm, _NORMS)
    assert isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)
    assert isinstance(layer.weight, nn.Parameter)
    with torch.no_grad():
        mean, scale = norm.running_mean.double(), (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.double()
        bias = -mean if layer.bias is None else layer.bias.double() - mean  # type: ignore[operator]
        bias = bias * scale + (norm.bias.double() if norm.affine else 0.0)
        weight = layer.weight.double() * _along_outputs(scale, layer)
    trained, kind = layer.weight.requires_grad, layer.weight.dtype
    # New parameters, since the old ones may be shared with another layer.
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=trained)
    layer.bias = nn.Parameter(bias.to(kind), requires_grad=trained)


def _along_outputs(scale: Tensor, layer: nn.Module) -> Tensor:
    """Reshape one factor for each output channel, (outputs,), so that it multiplies the layer's weight.

    A weight has the shape (outputs, inputs / groups, ...). A transposed weight has the shape (inputs, outputs / groups,
    ...), where each group of inputs has its own outputs.
    """
    assert isinstance(layer.weight, Tensor)
    sides = [1] * (layer.weight.ndim - 2)
    if not isinstance(layer, _TRANSPOSED):
        return scale.reshape(-1, 1, *sides)
    per_group = scale.reshape(layer.groups, -1)
    return per_group.repeat_interleave(layer.in_channels // layer.groups, dim=0).reshape(
        *layer.weight.shape[:2], *sides
    )
