"""The state that lets a training be stopped and continued without a difference: moments, batches, random numbers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

Moments = Mapping[str, Mapping[str, Tensor]]
"""What optimizers keep about each parameter, by the parameter's name and the optimizer's own name for it."""
_KEY: Final = "."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingState:
    """Everything besides the weights on which a training's next updates depend; all tensors are on the CPU."""

    moments: Moments
    batches: Mapping[str, Tensor]
    """What `BatchSource.state` returned."""
    random: Mapping[str, Tensor]
    """States of torch's generators, from which dropout draws, by type of device."""
    safe_recipe_used: bool = False
    """Whether the training diverged and started over with the safe recipe, whose optimizer the moments belong to."""

    def after(self, moments: Moments) -> "TrainingState":
        """Return the state with these moments: those of the weights that a cut has left."""
        return replace(self, moments=moments)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by flat names, as `TrainingState.of` takes them."""
        parts = {"batches": self.batches, "random": self.random}
        flat = {f"{part}{_KEY}{name}": tensor for part, held in parts.items() for name, tensor in held.items()}
        for name, held in self.moments.items():
            flat |= {f"moments{_KEY}{kind}{_KEY}{name}": tensor for kind, tensor in held.items()}
        return flat

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], *, safe_recipe_used: bool) -> "TrainingState":
        """Rebuild the state from what its `tensors` returned.

        Raises:
            ValueError: A name is not one that `tensors` gives.
        """
        parts: dict[str, dict[str, Tensor]] = {"batches": {}, "random": {}}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(_KEY)
            if part == "moments":
                kind, _, parameter = rest.partition(_KEY)
                moments.setdefault(parameter, {})[kind] = tensor
            elif part in parts:
                parts[part][rest] = tensor
            else:
                msg = f"expected moments, batches or random, came {name!r}"
                raise ValueError(msg)
        return cls(moments=moments, batches=parts["batches"], random=parts["random"], safe_recipe_used=safe_recipe_used)


def moments_of(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, dict[str, Tensor]]:
    """Return copies, on the CPU, of what the optimizers keep about the module's parameters."""
    return {
        name: {kind: held.detach().cpu().clone() for kind, held in kept.items() if isinstance(held, Tensor)}
        for name, _, kept in _kept(module, optimizers)
        if kept
    }


def restore_moments(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer], moments: Moments) -> None:
    """Copy the moments that earlier optimizers kept into new ones, matching parameters by name.

    Parameters without a moment start anew.

    Raises:
        ValueError: A moment does not have the shape of its parameter.
    """
    for name, parameter, kept in _kept(module, optimizers):
        for kind, moment in moments.get(name, {}).items():
            if moment.ndim and moment.shape != parameter.shape:
                msg = f"{kind} of {name}: expected the shape {tuple(parameter.shape)}, came {tuple(moment.shape)}"
                raise ValueError(msg)
            if kind in kept:  # an optimizer that keeps many moments in one block of memory
                kept[kind].copy_(moment)
            else:  # in the parameter's own memory layout, as if the optimizer had made it
                kept[kind] = (torch.empty_like(parameter) if moment.ndim else torch.empty_like(moment)).copy_(moment)
                kept[kind] = kept[kind].detach().to(parameter.device)


def _kept(
    module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> Iterator[tuple[str, nn.Parameter, dict[str, Tensor]]]:
    names = {parameter: name for name, parameter in module.named_parameters()}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield names[parameter], parameter, optimizer.state[parameter]


def random_states(device: str) -> dict[str, Tensor]:
    """Return the states of torch's own generators: the CPU's, and that of the device."""
    states = {"cpu": torch.get_rng_state()}
    return states if device == "cpu" else {**states, "device": torch.cuda.get_rng_state(device)}


def restore_random(states: Mapping[str, Tensor], device: str) -> None:
    """Set torch's own generators to these states (bytes,); a state of a device that is not used is ignored."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device != "cpu" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)
