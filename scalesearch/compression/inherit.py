"""Inherit: cut a trained network to a smaller spec, so that what was learnt stays.

Depth goes first (blocks whose absence costs least), then width (channels that matter least to the loss), then kernels
(cropped at the centre). Where the child is larger, the new parts begin without effect, unless a block's identity
shortcut comes or goes with the widths around it. Channels are judged by Taylor's term: on a network that was trained
elsewhere, judging by the magnitudes of weights is no better than chance.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from scalesearch.compression.blocks import built_stages, droppable_blocks, take_out, without_block
from scalesearch.compression.importance import Judged
from scalesearch.compression.kept_entries import NEW
from scalesearch.compression.prune import cut_to
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec, StageSpec


def inherit(
    parent: Network,
    child: Network,
    *,
    judged: Judged,
    loss_without: Callable[[Network], float],
    follower: nn.Module | None = None,
) -> Network:
    """Return `child` with the weights that it inherits from `parent`, in training mode.

    A child of the parent's own shape has exactly its weights, whatever its resolution.

    Args:
        parent: The trained network, in eval mode; it is not changed.
        child: A fresh network of the same family (`kinship`). Its weights stay only where nothing can be inherited.
        judged: Images on which channels are judged, of the child's resolution.
        loss_without: Returns the loss of a network on such images; for blocks. It must not change the network.
        follower: `numbered(parent.module)`, which is cut in the same way, in place; entries that the parent does not
            have become `NEW`. Blocks and shortcuts that only the child has are not added to it.
    """
    network, leaving = _shallower(parent, child.spec, loss_without)
    network = Network(spec=network.spec, module=copy.deepcopy(network.module))
    _untie(network.module, child)
    if follower is not None:
        for place in leaving:
            take_out(follower, place)
        _fill(_untie(follower, child), NEW)
    network = cut_to(network, _widths(child, network), batch=judged, follower=follower)
    held, module = network.module.state_dict(), copy.deepcopy(child.module)
    _silence_new_blocks(module, network.spec, built_stages(child))
    _lengthen_rows(module, held)
    fitted = {
        name: _fitted(held[name], fresh) if name in held else fresh for name, fresh in module.state_dict().items()
    }
    module.load_state_dict(fitted)
    if follower is not None:
        _refit(follower, module)
    return Network(spec=child.spec, module=module.train())


def kinship(parent: NetworkSpec, child: NetworkSpec) -> str:
    """Return why the child cannot inherit; empty if the two differ in width, depth, kernel and resolution only."""
    if len(parent.stages) != len(child.stages):
        return f"it has {len(parent.stages)} stages, the space's network has {len(child.stages)}"
    for place in ("activation", "image_channels", "norm_eps", "padding"):
        mine, theirs = getattr(parent, place), getattr(child, place)
        if mine != theirs:
            return f"its {place} is {mine!r}, that of the space's network is {theirs!r}"
    pairs = [
        ("stem", _shape_of_stem(parent), _shape_of_stem(child)),
        *(
            (f"stages.{number}", _kind(one), _kind(other))
            for number, (one, other) in enumerate(zip(parent.stages, child.stages, strict=True), 1)
        ),
        ("head", bool(parent.head.channels), bool(child.head.channels)),
    ]
    unlike = next(((place, one, other) for place, one, other in pairs if one != other), None)
    return f"its {unlike[0]} is {unlike[1]}, that of the space's network is {unlike[2]}" if unlike else ""


def _shape_of_stem(spec: NetworkSpec) -> tuple[int, int, bool]:
    return spec.stem.kernel, spec.stem.stride, spec.stem.pool


def _kind(stage: StageSpec) -> tuple[str, int, int]:
    return stage.block, stage.stride, stage.expansion


def _shallower(
    network: Network, wanted: NetworkSpec, loss_without: Callable[[Network], float]
) -> tuple[Network, list[tuple[int, int]]]:
    """Return the network without the blocks beyond the wanted depths, and the places of those blocks, last ones first.

    Every block is judged once, alone. Judging again after each removal would cost a pass over the images for each pair
    of blocks, and brought nothing on a pretrained network.
    """
    excess = [max(0, have.depth - want.depth) for have, want in zip(network.spec.stages, wanted.stages, strict=True)]
    places = [place for place in droppable_blocks(network) if excess[place[0]]]
    losses = {place: loss_without(without_block(network, place)) for place in places} if any(excess) else {}
    leaving = list[tuple[int, int]]()
    for stage, count in enumerate(excess):
        inside = sorted((place for place in places if place[0] == stage), key=losses.__getitem__)
        leaving += inside[:count]
    leaving.sort(reverse=True)  # from the last one, so that places of earlier ones stay right
    for place in leaving:
        network = without_block(network, place)
    return network, leaving


def _untie(module: nn.Module, child: Network) -> list[nn.Module]:
    """Replace the module's identity shortcuts, in place, where the child has a projection or no shortcut.

    Channels that are added to one another can only be removed together. Where the child adds nothing, or adds a
    projection, the two widths may differ. A new projection begins as the identity.

    Returns:
        The new projections.
    """
    modules, added = dict(module.named_modules()), list[nn.Module]()
    for name, theirs in child.module.named_modules():
        mine = modules.get(name)
        if mine is None:
            continue
        if getattr(mine, "adds_input", False) and not getattr(theirs, "adds_input", True):
            mine.adds_input = False
        shortcut = getattr(mine, "shortcut", None)
        if isinstance(shortcut, nn.Identity) and isinstance(theirs.shortcut, nn.Sequential):
            channels = next(each for each in mine.modules() if isinstance(each, nn.Conv2d)).in_channels
            added.append(_identity_projection(theirs.shortcut, channels).to(next(module.parameters()).dtype))
            module.set_submodule(f"{name}.shortcut", added[-1])
    return added


def _fill(modules: Iterable[nn.Module], value: float) -> None:
    for module in modules:
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)


def _refit(follower: nn.Module, module: nn.Module) -> None:
    """Give the follower's parameters, in place, the shapes of the module's; what it does not have is `NEW`."""
    wanted_by_name = dict(module.named_parameters())
    for name, parameter in follower.named_parameters():
        if (wanted := wanted_by_name.get(name)) is not None:
            fresh = torch.full(wanted.shape, NEW, dtype=parameter.dtype)
            parameter.data = _fitted(parameter.detach(), fresh, empty=NEW)


def _identity_projection(like: nn.Sequential, channels: int) -> nn.Sequential:
    """Return a 1x1 convolution and a norm that together change nothing in eval mode."""
    norm = next(each for each in like if isinstance(each, nn.BatchNorm2d))
    convolution = nn.Conv2d(channels, channels, 1, bias=False)
    ours = nn.BatchNorm2d(channels, eps=norm.eps)
    _make_identity(convolution, ours)
    return nn.Sequential(convolution, ours).eval()


def _make_identity(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    with torch.no_grad():
        nn.init.dirac_(convolution.weight)
        norm.reset_parameters()
        norm.weight.fill_((1 + norm.eps) ** 0.5)


def _lengthen_rows(module: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Make the further convolutions of a row change nothing, where the network has the row's first one (`neck_convs`).

    With ReLU they do change nothing in eval mode. Behind another activation, it is applied once more.
    """
    for name, row in module.named_modules():
        if not isinstance(row, nn.Sequential) or f"{name}.0.weight" not in held:
            continue
        for place, (layer, following) in enumerate(itertools.pairwise(row)):
            new = f"{name}.{place}.weight" not in held
            if new and isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                _make_identity(layer, following)


def _widths(child: Network, network: Network) -> dict[str, int]:
    """Return how many outputs each layer of the network is to keep, by name: as many as the child's layer has."""
    theirs = dict(child.module.named_modules())
    return {
        name: theirs[name].weight.shape[0]
        for name, layer in network.module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and name in theirs
    }


def _silence_new_blocks(module: nn.Module, have: NetworkSpec, want: Sequence[StageSpec]) -> None:
    """Make the blocks that the network does not have add nothing to their shortcuts: zero their last norm.

    `want` are the stages that the module has, which may be fewer than those of its spec.
    """
    for number, (mine, theirs) in enumerate(zip(have.stages, want, strict=False)):
        for block in range(mine.depth, theirs.depth):
            inside = module.get_submodule(f"stages.{number}.{block}.body")
            last = [each for each in inside.modules() if isinstance(each, nn.BatchNorm2d)][-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


def _fitted(held: Tensor, fresh: Tensor, *, empty: float = 0.0) -> Tensor:
    """Return the held tensor in the shape of the fresh one.

    Kernels are cropped or padded with `empty` at their centre. New inputs are `empty`, so that they have no effect at
    first; new outputs are fresh.
    """
    if held.shape == fresh.shape:
        return held
    if held.ndim == 4:
        held = _centred(held, fresh.shape[-2:], empty)
    common = tuple(slice(0, min(one, other)) for one, other in zip(held.shape, fresh.shape, strict=True))
    fitted = fresh.clone()
    if held.ndim > 1:
        fitted[: held.shape[0], held.shape[1] :] = empty
    fitted[common] = held[common]
    return fitted


def _centred(kernel: Tensor, sides: torch.Size, empty: float) -> Tensor:
    """Return the kernel (out, in, k, k) cropped or padded with `empty` around its centre; all sides are odd."""
    grown = [side - have for side, have in zip(sides, kernel.shape[-2:], strict=True)]
    around = (grown[1] // 2, grown[1] // 2, grown[0] // 2, grown[0] // 2)
    return nn.functional.pad(kernel, around, value=empty)
