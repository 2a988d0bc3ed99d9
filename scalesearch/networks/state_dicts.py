"""State dicts that users bring: read without running code, checked against their names, mapped onto our networks."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from scalesearch.errors import ConfigError
from scalesearch.networks.foreign_names import FOREIGN
from scalesearch.plain_text import one_line
from scalesearch.values.network_spec import NetworkSpec

_WRAPPED = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "model.")
_COUNTER = "num_batches_tracked"
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """Tensors by name, and the SHA-256 of their file."""

    tensors: Mapping[str, Tensor]
    sha256: str
    untold: str = ""
    """A line on what the file's name leaves open; empty where there is nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Tensors by our names, and the library whose names they had before."""

    tensors: dict[str, Tensor]
    library: str


def read_state_dict(path: Path) -> StateDict:
    """Read a `.safetensors` or `.pth` file; wrappers (`state_dict`, `model`, `module.`) are removed.

    Raises:
        ConfigError: It cannot be read, holds more than tensors, or its name promises another SHA-256.
    """
    try:
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        untold = _checked_name(path, sha256)
        if path.suffix == ".safetensors":
            held: object = safetensors.torch.load(content)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except OSError as error:
        message = f"Cannot read {path}: {error.strerror or error}.\nGive a .safetensors or .pth file with --parent."
        raise ConfigError(message) from None
    except Exception as error:  # torch and safetensors raise what they like on damaged files
        reason = one_line(str(error))[:200]
        message = (
            f"{path} holds no tensors that can be read without running code: {type(error).__name__}: {reason}\n"
            "Save the state dict alone: torch.save(model.state_dict(), 'weights.pth'), or as .safetensors."
        )
        raise ConfigError(message) from None
    for name in _WRAPPED:
        if isinstance(held, Mapping) and isinstance(held.get(name), Mapping):
            held = held[name]
    if not (isinstance(held, Mapping) and held and all(isinstance(each, Tensor) for each in held.values())):
        came = ", ".join(map(str, list(held)[:_SHOWN])) if isinstance(held, Mapping) else type(held).__name__
        message = (
            f"{path} must hold a state dict (tensors by name), possibly in {', '.join(_WRAPPED)}; it holds: {came}."
        )
        raise ConfigError(message)
    return StateDict(
        tensors=_without_prefix({str(name): each for name, each in held.items()}), sha256=sha256, untold=untold
    )


def mapped(state: StateDict, spec: NetworkSpec, module: nn.Module, *, origin: str) -> Mapped:
    """Return the tensors under our names, for `module`, which was made (possibly on the meta device) from `spec`.

    Raises:
        ConfigError: The names are not those of one of the known sets, or a shape differs.
    """
    layouts = FOREIGN.get(spec.name, {})
    if not layouts:
        message = (
            f"{origin}: expected weights of a network whose foreign names are known ({', '.join(FOREIGN)}), "
            f"but the space's network is {spec.name}.\nGive an export of this program, or another --space."
        )
        raise ConfigError(message)
    faults = dict[str, tuple[list[str], list[str]]]()
    for owner, pairs in layouts.items():
        names = {layer: theirs for ours, theirs in pairs(spec) for layer in (_layer(ours, module),)}
        wanted = {name: f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in module.state_dict()}
        missing = [
            theirs for theirs in wanted.values() if theirs not in state.tensors and not theirs.endswith(_COUNTER)
        ]
        unknown = [name for name in state.tensors if name not in set(wanted.values())]
        if not missing and not unknown:
            held = {ours: state.tensors.get(theirs) for ours, theirs in wanted.items()}
            return Mapped(tensors=_shaped(held, module, origin), library=owner)
        faults[owner] = missing, unknown
    owner = min(faults, key=lambda each: len(faults[each][0]))
    missing, unknown = faults[owner]
    message = (
        f"{origin}: expected all weights of {spec.name} under the names of {' or '.join(layouts)}, and no others.\n"
        f"By those of {owner}, missing: {_some(missing)}; unknown: {_some(unknown)}.\n"
        "Nothing is inherited from a part. Give the weights of that network, or the --space of theirs."
    )
    raise ConfigError(message)


def class_count(state: StateDict, spec: NetworkSpec) -> int:
    """Return the number of classes of the classifier in the file, under any known names; 0 if there is none."""
    for pairs in FOREIGN.get(spec.name, {}).values():
        theirs = dict(pairs(spec))["classifier"]
        if (bias := state.tensors.get(f"{theirs}.bias")) is not None and bias.ndim == 1:
            return len(bias)
    return 0


def _checked_name(path: Path, sha256: str) -> str:
    """Raise ConfigError if the hash in a name like `resnet18-f37072fd.pth` is not that of the content.

    Digits that may be a date (`resnet18-20251103.pth`) are taken for one; the line that says so is returned.
    """
    said = re.search(r"-([0-9a-f]{8})$", path.stem)
    if said and not sha256.startswith(said[1]):
        if _is_date(said[1]):
            return (
                f"parent: {said[1]} in the name of {path.name} is taken for a date, so its content is not checked by it"
            )
        message = (
            f"{path} is damaged or renamed: its name promises a SHA-256 that begins with {said[1]}, and it is "
            f"{sha256[:8]}.\nDownload it again, or take the digits off its name if you know the file."
        )
        raise ConfigError(message)
    return ""


def _is_date(signs: str) -> bool:
    """Tell whether eight signs are a day of 1900 to 2099, as YYYYMMDD."""
    if not re.fullmatch(r"(19|20)\d{6}", signs, re.ASCII):
        return False
    try:
        date(int(signs[:4]), int(signs[4:6]), int(signs[6:]))
    except ValueError:
        return False
    return True


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): each for name, each in tensors.items()}
    return tensors


def _layer(ours: str, module: nn.Module) -> str:
    """Return the layer's name in the module: `name.conv` and `name.norm` are the ones of those kinds in `name`."""
    parent, _, kind = ours.rpartition(".")
    if kind not in ("conv", "norm"):
        return ours
    wanted = nn.Conv2d if kind == "conv" else nn.BatchNorm2d
    return next(
        f"{parent}.{name}" for name, each in module.get_submodule(parent).named_children() if type(each) is wanted
    )


def _shaped(tensors: Mapping[str, Tensor | None], module: nn.Module, origin: str) -> dict[str, Tensor]:
    """Return the tensors as float32; a missing counter of batches is zero."""
    found = dict[str, Tensor]()
    for name, expected in module.state_dict().items():
        given = tensors[name]
        given = torch.zeros(expected.shape, dtype=expected.dtype) if given is None else given.to(expected.dtype)
        if given.shape != expected.shape:
            message = (
                f"{origin}: expected {name} of shape {tuple(expected.shape)}, came {tuple(given.shape)}.\n"
                "Give the weights of that network at its published width and depth."
            )
            raise ConfigError(message)
        if not bool(torch.isfinite(given).all()):
            message = f"{origin}: {name} holds numbers that are not finite.\nGive weights of a training that went well."
            raise ConfigError(message)
        found[name] = given.contiguous().clone()
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
