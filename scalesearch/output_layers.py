"""The names of the layers whose outputs are a module's answers, which pruning never removes.

Our own modules tell them by their attribute `output_layers`. A user's own module may have something else of that name,
so what was found out about it is noted under another one.
"""

from collections.abc import Sequence
from typing import Final

from torch import nn

_MARK: Final = "_scalesearch_output_layers"


def mark_output_layers(module: nn.Module, names: Sequence[str]) -> None:
    """Note in a user's own module, and in every later copy of it, which layers give its answers; perhaps none."""
    setattr(module, _MARK, tuple(names))


def output_layer_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that give the module's answers; empty where none are known."""
    marked: tuple[str, ...] | None = getattr(module, _MARK, None)
    named: tuple[str, ...] = getattr(module, "output_layers", ()) if marked is None else marked
    return named
