"""A user's own torch module as a base network: make a spec that stands for it, and build it again from the spec."""

import ast
import copy
import functools
import hashlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from scalesearch.errors import ConfigError, StageFailed
from scalesearch.memory_layouts import mark_contiguous_only, moved
from scalesearch.networks.last_layer import STAGE, logits_of_zeros, outputs_and_layer, replace_layer
from scalesearch.networks.loading import load_module
from scalesearch.output_layers import mark_output_layers
from scalesearch.registered_layers import replace_layer_everywhere
from scalesearch.values.network_spec import UNKNOWN_STRIDE, HeadSpec, NetworkSpec, StemSpec

_SHOWN: Final = 12
_NOTHING: Final = StemSpec(channels=0, kernel=0, stride=0)
_LIBRARIES: Final = frozenset({"timm", "torch", "torchvision"})
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_CONSTANTS: Final = ("mean", "std")
_kept: dict[tuple[str, str], nn.Module] = {}
"""The module that was returned last, by function and hash, since a function may take seconds to read its weights."""
_codes: dict[tuple[str, str], str] = {}
"""The hash of that module's code."""


def spec_of(module: nn.Module, reference: str) -> NetworkSpec:
    """Return the spec that stands for the module that the function `reference` returned.

    Raises:
        ConfigError: The module has no weights or weights without values, takes other images than grey or RGB, or asks
            for a normalisation that makes no sense.
    """
    sha256 = _keep(module, reference)
    taken = [layer.in_channels for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    channels = next((number for number in taken if number in (1, 3)), 0 if taken else 3)
    if not channels:
        message = (
            f"network {reference!r}: expected a module for images of 1 (grey) or 3 (RGB) channels, came one whose "
            f"convolutions take {', '.join(map(str, dict.fromkeys(taken[:3])))}."
        )
        raise ConfigError(message)
    mean, std, _ = _normalisation(module, reference, channels)
    if mean and not len(mean) == len(std) == channels:
        message = f"network {reference!r}: expected mean and std of {channels} channels, came {mean!r} and {std!r}."
        raise ConfigError(message)
    return NetworkSpec(
        name=reference,
        resolution_px=UNKNOWN_STRIDE,
        num_classes=_outputs_by_guess(module),
        stem=_NOTHING,
        stages=(),
        head=HeadSpec(),
        image_channels=channels,
        origin=reference,
        origin_sha256=sha256,
        mean=mean,
        std=std,
    )


def own_module(spec: NetworkSpec, *, seed: int) -> nn.Module:
    """Return the module of the spec's origin on the CPU, in float32 and training mode, with `num_classes` outputs.

    If it has another number of outputs, its last layer is replaced by one with weights of this seed. Every parameter
    can be trained, except frozen ones called mean and std, and no layer works in place. A module that does not run on
    channels-last images is marked (`memory_layouts`).

    Raises:
        ConfigError: The function is gone, or returns another module than it did.
        StageFailed: The module does not take the spec's images or return (N, classes), or its last layer is not found.
    """
    module = copy.deepcopy(_kept_module(spec)).eval()
    outputs, layer_name = outputs_and_layer(module, spec)
    if outputs != spec.num_classes:
        replace_layer(module, layer_name, spec, outputs, seed)
        outputs, layer_name = outputs_and_layer(module, spec)
        if outputs != spec.num_classes:
            reason = (
                f"{spec.origin}: with a new last layer ({layer_name}) for {spec.num_classes} classes, it still returns "
                f"{outputs}: let the function return a module with {spec.num_classes} outputs"
            )
            raise StageFailed(STAGE, reason)
    # Pruning and sparsity keep the outputs of this layer.
    mark_output_layers(module, (layer_name,) if layer_name else ())
    if not _takes_channels_last(spec):
        mark_contiguous_only(module)
    return module.train()


@functools.lru_cache(maxsize=64)
def _takes_channels_last(spec: NetworkSpec) -> bool:
    """Tell whether the spec's module runs on its images if these and its weights lie channels-last in memory."""
    module = copy.deepcopy(_kept_module(spec)).eval()
    try:
        with torch.no_grad():
            logits_of_zeros(moved(module, torch.channels_last), spec, channels_last=True)
    except (RuntimeError, StageFailed):  # weights of five dimensions have no such order
        return False
    return True


def outputs_of(spec: NetworkSpec) -> int:
    """Return how many outputs the spec's module has for its images, whatever number of classes the spec says.

    Raises:
        ConfigError: As `own_module`.
        StageFailed: The module does not take the spec's images or return (N, classes).
    """
    return outputs_and_layer(copy.deepcopy(_kept_module(spec)).eval(), spec)[0]


def replaced_layer(spec: NetworkSpec) -> str:
    """Return a line on the last layer if it is replaced because the data have other classes; empty if it is kept.

    Raises:
        ConfigError: As `own_module`.
        StageFailed: As `own_module`.
    """
    outputs, layer_name = outputs_and_layer(copy.deepcopy(_kept_module(spec)).eval(), spec)
    if outputs == spec.num_classes:
        return ""
    return (
        f"network: {spec.origin} has {outputs} outputs and the data {spec.num_classes} classes: its last layer "
        f"({layer_name}) is replaced by a new one"
    )


def normalisation_source(spec: NetworkSpec) -> str:
    """Return from where mean and std are: `attributes`, `itself`, `pretrained_cfg`, or empty if the module names none.

    With `itself`, they are buffers or parameters by which the module normalises.

    Raises:
        ConfigError: As `own_module`.
    """
    return _normalisation(_kept_module(spec), spec.origin, spec.image_channels)[2]


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of a module's state dict, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def code_sha256(spec: NetworkSpec) -> str:
    """Return the SHA-256 over what is known of the code of the spec's module, which its weights do not tell.

    These are its layers as torch prints them, and the code of the classes that are not from a common library, without
    comments. What functions outside of these classes do is not in it.

    Raises:
        ConfigError: As `own_module`.
    """
    _kept_module(spec)
    return _codes[spec.origin, spec.origin_sha256]


def code_reader() -> str:
    """Return the versions of Python and torch, which `code_sha256` depends on."""
    version = torch.__version__.partition("+")[0]  # which build it is makes no difference
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, torch {version}"


def _code_sha256(module: nn.Module) -> str:
    classes = {type(layer) for layer in module.modules()}
    own = [kind for kind in classes if kind.__module__.partition(".")[0] not in _LIBRARIES]
    parts = [_ADDRESS.sub("", str(module)), *sorted(_code_of(kind) for kind in own)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _code_of(kind: type) -> str:
    """Return the code of a class without comments and blank lines; its name where there is no code to be found."""
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):
        return kind.__qualname__


def _keep(module: nn.Module, reference: str) -> str:
    """Keep a copy of the module in the form in which it is searched; return its hash."""
    try:
        sha256, code = state_sha256(module), _code_sha256(module)
        ready = moved(copy.deepcopy(module).float(), torch.contiguous_format)
    except Exception as error:  # lazy layers without weights, tensors that cannot be copied, the user's code
        message = (
            f"network {reference!r}: expected a torch module whose weights have values and which can be copied, "
            f"came {type(module).__name__}: {(str(error).splitlines() or [''])[0]}."
        )
        raise ConfigError(message) from error
    if not any(True for _ in ready.parameters()):
        message = f"network {reference!r}: expected a torch module with weights, {type(module).__name__} has none."
        raise ConfigError(message)
    for name, parameter in ready.named_parameters():
        if name not in _CONSTANTS or parameter.requires_grad:  # frozen, it is what the module normalises by
            parameter.requires_grad_(True)  # the dependency graph sees only what has gradients
    for layer in ready.modules():
        if getattr(layer, "inplace", False) is True:
            layer.inplace = False  # type: ignore[assignment]
    _split_norms(ready)
    for kept in (_kept, _codes):
        kept.clear()
    _kept[reference, sha256], _codes[reference, sha256] = ready, code
    return sha256


def _split_norms(module: nn.Module) -> None:
    """Split timm's layers that combine BatchNorm and activation, in place, so that the norm can be folded."""
    for name, layer in list(module.named_modules()):
        if type(layer).__name__ != "BatchNormAct2d" or not isinstance(layer, nn.BatchNorm2d):
            continue
        norm = nn.BatchNorm2d(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        ).train(layer.training)
        own = norm.state_dict()
        norm.load_state_dict({key: value for key, value in layer.state_dict().items() if key in own})
        parts = [part for part in (getattr(layer, "drop", None), getattr(layer, "act", None)) if part is not None]
        replace_layer_everywhere(module, name, nn.Sequential(norm, *parts))


def _kept_module(spec: NetworkSpec) -> nn.Module:
    key = (spec.origin, spec.origin_sha256)
    if key not in _kept:
        came = _keep(load_module(spec.origin), spec.origin)
        if came != spec.origin_sha256:
            message = (
                f"network {spec.origin!r}: expected the module with the weights of SHA-256 "
                f"{spec.origin_sha256[:_SHOWN]}..., which this work was begun with; came {came[:_SHOWN]}...\n"
                "Let the function return the same weights every time (random ones: call torch.manual_seed before)."
            )
            raise ConfigError(message)
    return _kept[key]


def _outputs_by_guess(module: nn.Module) -> int:
    """Return the number of outputs of the last linear layer, a guess at the classes while no data are loaded."""
    layers = [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]
    return max(2, layers[-1]) if layers else 2


def _normalisation(
    module: nn.Module, reference: str, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Return the mean and std of the images for this module, and where they are from; empty if it names none.

    They are attributes, or timm's `pretrained_cfg`. A module that has buffers or parameters of these names instead
    normalises by itself, so that its images stay in 0..1: mean 0, std 1.
    """
    tensors = _own_tensors(module)
    own = {name: getattr(module, name, None) for name in set(_CONSTANTS) - tensors.keys()}
    cfg = getattr(module, "pretrained_cfg", None)
    sources: list[tuple[str, Mapping[str, Any]]] = [("attributes", own)]
    sources += [("pretrained_cfg", cfg)] if isinstance(cfg, Mapping) else []
    for where, source in sources:
        if any(source.get(name) is None or callable(source[name]) for name in _CONSTANTS):
            continue
        mean, std = (tuple(_numbers(source[name])) for name in _CONSTANTS)
        if not (mean and std and all(0 <= value <= 1 for value in mean) and all(0 < value <= 1 for value in std)):
            message = (
                f"network {reference!r}: expected mean and std of each channel for pixels in 0..1, "
                f"came mean {source['mean']!r} and std {source['std']!r}."
            )
            raise ConfigError(message)
        return mean, std, where
    if not {len(values) for values in _own_constants(tensors)} <= {1, channels}:
        return (), (), ""
    return (0.0,) * channels, (1.0,) * channels, "itself"


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the module's own buffers and parameters, without those of its layers, by name."""
    return {**dict(module.named_buffers(recurse=False)), **dict(module.named_parameters(recurse=False))}


def _own_constants(tensors: Mapping[str, Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the numbers of the tensors `mean` and `std`, empty where there is no such tensor."""
    mean, std = (tuple(_numbers(tensors[name])) if name in tensors else () for name in _CONSTANTS)
    return mean, std


def require_unit_constants(spec: NetworkSpec) -> None:
    """Raise ConfigError if the spec's module normalises by itself with constants of pixels in 0..255.

    It is given pixels in 0..1, as any module that normalises by itself.
    """
    mean, std = _own_constants(_own_tensors(_kept_module(spec)))
    if normalisation_source(spec) != "itself" or max(*mean, *std) <= 1:
        return
    came = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
    message = (
        f"network {spec.origin!r}: expected buffers or parameters mean and std for pixels in 0..1, "
        f"came {' and '.join(came)}.\n"
        f"Divide both by 255; or name these tensors otherwise, and set the attributes mean = "
        f"{(0,) * spec.image_channels} and std = (1 / 255,) * {spec.image_channels}, so that the module is given "
        "0..255."
    )
    raise ConfigError(message)


def _numbers(given: object) -> Iterator[float]:
    """Yield the numbers of a list, an array or a tensor; nothing if there are none."""
    try:
        yield from torch.as_tensor(given, dtype=torch.float64).reshape(-1).tolist()
    except (TypeError, ValueError, RuntimeError):
        return
