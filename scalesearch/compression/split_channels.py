"""Layers whose channels a module's forward takes apart: what the dependency graph cannot follow.

The forward of a fused attention, for example, makes queries, keys and values of several heads out of one layer's
channels by `chunk` or `reshape`. Where each channel goes then depends on how many there are. The dependency graph takes
the parts for one, so that more channels leave than were chosen, and those of one head take the places of another's.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

from torch import nn

_PRODUCERS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_READERS: Final = ("addmm", "mm", "convolution")
"""Functions of weights that read all channels, and give others."""
_VIEWS: Final = ("view", "unsafeview", "reshapealias", "squeeze", "unsqueeze")
_MOVES: Final = ("permute", "transpose", "t")
_PARTS: Final = ("split", "splitwithsizes", "slice", "select", "unbind", "glu", "indexselect", "roll", "flip")
"""They take some channels, or move them, where they work along the channels' axis."""
_KEEPING: Final = ("split", "splitwithsizes", "slice")
"""Of these, those that may take all."""
_FEWER_AXES: Final = ("select", "unbind")
_SHUFFLES: Final = ("channelshuffle", "pixelshuffle", "pixelunshuffle")
_REDUCTIONS: Final = ("mean", "sum", "amax", "amin", "max", "min", "linalgvectornorm")


def split_layers(graph: Any) -> frozenset[nn.Module]:
    """Return the layers whose channels are split, shuffled, or merged with other axes before the next layer reads them.

    Flattening a map is none of these: a channel's positions stay together.

    Args:
        graph: A dependency graph, as `importance.graph_of` returns it.
    """
    return frozenset(module for module, node in graph.module2node.items() if _is_split(module, node))


def _is_split(module: nn.Module, node: Any) -> bool:
    """Follow the channels of a layer through all operations up to the next layers."""
    if not isinstance(module, _PRODUCERS):
        return False
    shape = _shape(node.grad_fn)
    axis = len(shape) - (1 if isinstance(module, nn.Linear) else len(module.kernel_size) + 1)
    waiting, seen = [(node, axis, shape[axis])], set()
    while waiting:
        before, axis, channels = waiting.pop()
        for after in before.outputs:
            if isinstance(after.module, _PRODUCERS):
                continue
            moved = _axis_after(after.grad_fn, _shape(before.grad_fn), axis, channels)
            if moved is None:
                return True
            if moved >= 0 and (after, moved) not in seen:
                seen.add((after, moved))
                joined = _kind(after.grad_fn) == "cat"
                waiting.append((after, moved, _shape(after.grad_fn)[moved] if joined else channels))
    return False


def _axis_after(operation: Any, shape: Sequence[int], axis: int, channels: int) -> int | None:
    """Return the axis of the channels behind an operation; None if it takes them apart, -1 if they end there."""
    kind = _kind(operation)
    shape = tuple(getattr(operation, "_saved_self_sym_sizes", shape))
    out = _shape(operation)
    if kind in _SHUFFLES:
        return None
    if kind in _READERS:
        return -1
    if kind in _VIEWS:
        return _axis_of_view(math.prod(shape[:axis]), out, channels)
    if kind in _MOVES:
        return _order(operation, kind, len(shape)).index(axis)
    along = _dims(operation, len(shape))
    if kind in _PARTS:
        if axis in along and not (kind in _KEEPING and out[axis] == shape[axis]):
            return None
        return axis - sum(dim < axis for dim in along) if kind in _FEWER_AXES else axis
    if kind in _REDUCTIONS and len(out) < len(shape):
        return -1 if axis in along or not along else axis - sum(dim < axis for dim in along)
    if kind == "cat" and along == (axis,):
        return axis
    behind = axis + len(out) - len(shape)  # operands of fewer axes are aligned at the last one
    return behind if behind >= 0 and out[behind] == shape[axis] else -1


def _axis_of_view(outside: int, out: Sequence[int], channels: int) -> int | None:
    """Return where the channels lie behind a view, as the outermost of what they are merged with; None if nowhere.

    A view keeps the order of the elements, so the channels' axis is that before which as many elements lie as before.
    """
    before = 1
    for place, size in enumerate(out):
        if before == outside and size > 1 and size % channels == 0:
            return place
        before *= size
    return None if channels > 1 else -1


def _kind(operation: Any) -> str:
    """Return the name of an operation: of ViewBackward0, view."""
    name: str = operation.name()
    return name.rstrip("0123456789").removesuffix("Backward").lower()


def _order(operation: Any, kind: str, ndim: int) -> list[int]:
    """Return which axis is in each place behind a permutation."""
    if kind == "permute":
        return list(_signed(operation._saved_dims, ndim))
    order = list(range(ndim))
    one, other = (0, ndim - 1) if kind == "t" else _signed((operation._saved_dim0, operation._saved_dim1), ndim)
    order[one], order[other] = order[other], order[one]
    return order


def _dims(operation: Any, ndim: int) -> tuple[int, ...]:
    """Return the axes that an operation works along; none if it does not tell."""
    given = getattr(operation, "_saved_dims", getattr(operation, "_saved_dim", ()))
    return _signed((given,) if isinstance(given, int) else given or (), ndim)


def _signed(dims: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return axes counted from the first; torch keeps one counted from the last as a number of 64 bits."""
    return tuple((dim - (1 << 64) if dim >= 1 << 63 else dim) % ndim for dim in dims)


def _shape(operation: Any) -> tuple[int, ...]:
    """Return the shape of an operation's (first) result."""
    return tuple(operation._input_metadata[0].shape)
