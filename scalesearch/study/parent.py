"""Find the parent that a study's settings name, and convert it to the study's layer names and classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from scalesearch.chain.inheritance import is_kept, keep_found, lay_kept, tuning_recipe
from scalesearch.compression.fold import fold_batchnorm, unfold_batchnorm
from scalesearch.compression.inherit import kinship
from scalesearch.data import Dataset, to_input
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.files import absolute_from
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale_base
from scalesearch.study.parent_sources import DENSE, PRETRAINED, TIMM, TORCHVISION, FoundParent, find_parent
from scalesearch.tasks.base import Task
from scalesearch.tasks.registry import get_task, task_for
from scalesearch.values.candidate import Recipe, Scaling
from scalesearch.values.identity import seed_from
from scalesearch.values.network import Network
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.parent import Parent, parent_key
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

_UNFOLDING_IMAGES: Final = 128
_DEFAULT: Final = Recipe()
_SHOWN: Final = 12
_BIAS: Final = ".bias"

_BACKBONE: Final = ("stem.", "stages.")
"""Beginnings of the names of the weights that every task's networks have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known about a parent without any images of the study."""

    parent: str
    steps: int
    untold: str = ""
    """As `FoundParent.untold`."""

    @property
    def words(self) -> str:
        """A description in one line, for the user."""
        return f"parent: {self.parent}; unless it knows the data's classes, {self.steps} updates on them come first"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentRequest:
    """Which parent a run asks for."""

    source: str
    """Where it comes from (`RunSettings.parent`); empty if no parent is asked for."""
    steps: int
    """Updates by which it is fine-tuned if it does not know the classes."""
    task: Task
    """The task of the run."""
    recipe: Recipe = _DEFAULT
    """A recipe of the run, by whose loss the parent is fine-tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorParent:
    """The parent of a study whose exported network is trained again."""

    parent: Parent
    fingerprint: str
    """Fingerprint of the study's images."""
    study: Path
    """Where the study's folder, which keeps the parent's weights, was when the network was exported."""
    folders: tuple[Path, ...]
    """Folders that a relative path to the parent may start from, the likeliest first."""
    config: Path
    """The exported config.toml."""


def requested_parent(settings: RunSettings) -> ParentRequest:
    """Return the request for a parent that these settings make."""
    return ParentRequest(source=settings.parent, steps=settings.parent_steps, task=task_for(settings))


def look_ahead(request: ParentRequest, base: NetworkSpec) -> Outlook | None:
    """Read the requested parent, to describe it before a run; None if none is requested.

    Raises:
        ConfigError: As `prepare_parent`.
    """
    if not request.source:
        return None
    _require_spec(base, request.source)
    found = find_parent(request.source, base)
    _require_kin(found, base, request.source)
    shown = f"{base.name} from {request.source} (SHA-256 {found.sha256[:12]}...), {found.spec.num_classes} classes"
    return Outlook(parent=f"{shown}; {found.licence}", steps=request.steps, untold=found.untold)


def _require_spec(base: NetworkSpec, source: str) -> None:
    """Raise ConfigError if the base network brings its own weights."""
    if base.origin:
        message = (
            f"--parent {source}: expected a base network of scalesearch, came the module of {base.origin}, which has "
            "its own weights.\nLeave --parent out, or let that function return the module with the parent's weights."
        )
        raise ConfigError(message)


def prepare_parent(
    request: ParentRequest,
    space: SearchSpace,
    base: NetworkSpec,
    dataset: Dataset,
    folder: Path,
    *,
    stored: Session | None,
    prior: PriorParent | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Parent | None:
    """Return the requested parent, with its weights stored in the study's folder; None if none is requested.

    Args:
        request: The parent, and the task.
        space: The search space.
        base: Its base network; the parent may differ from it in width, depth and kernels.
        dataset: The study's images.
        folder: The study's folder.
        stored: The study as its first run left it; None for a new one. If the request names the same source, the stored
            parent is used again, so the user's file may be gone by then. Other steps, another parent or none are
            refused later, so nothing is written then.
        prior: The parent of the study that an exported network comes from, if such a network is trained again. It is
            taken from that study's folder, or else read again, and must be the same.
        say: Is called with a line on what was taken for granted, or on where the parent was found.

    Raises:
        ConfigError: There is no such parent, it cannot be read, it is another kind of network (the text says how), or
            not the prior one.
        MissingBackendError: The package that holds it is not installed.
    """
    if not request.source:
        return None
    _require_spec(base, request.source)
    first = stored.parent if stored else None
    if first and first.source == request.source and is_kept(first, folder):
        return first if first.steps in (0, request.steps) else replace(first, steps=request.steps)
    if prior and (stored is None or first == prior.parent) and _laid(prior, dataset, folder):
        say(f"parent: as the study keeps it in {prior.study}")
        return prior.parent
    found = _found_again(request, prior) if prior else find_parent(request.source, base)
    for line in found.untold.splitlines():
        say(line)
    _require_kin(found, base, request.source)
    if prior:  # it is fine-tuned as its study did, whatever the exported candidate's own loss is
        request = replace(request, recipe=prior.parent.recipe or _DEFAULT)
    at = prior.parent.network if prior else scale_base(space, base, Scaling(), len(dataset.class_names))
    parent, alike = _described(found, request, at, dataset)
    if stored is None or (first and first.key == parent.key):
        constants = dataset.normalised_by(found.mean, found.std)
        keep_found(_network(found, parent, constants, request.task, alike=alike), parent, folder)
    return parent


def _laid(prior: PriorParent, dataset: Dataset, folder: Path) -> bool:
    """Copy the parent that the study keeps into `folder`, if it is there and was made ready for these images."""
    return dataset.fingerprint == prior.fingerprint and lay_kept(prior.parent, prior.study, to=folder)


def _found_again(request: ParentRequest, prior: PriorParent) -> FoundParent:
    """Read the parent of an exported network, which may be smaller than the parent, from where its study had it."""
    wanted, seen = prior.parent.sha256, list[str]()
    for source in dict.fromkeys(_seen_from(folder, request.source) for folder in prior.folders):
        try:
            found = find_parent(source, prior.parent.network)
        except ConfigError as error:
            seen.append(str(error).splitlines()[0])
            continue
        if found.sha256 == wanted:
            return found
        seen.insert(0, f"{source} has the SHA-256 {found.sha256[:_SHOWN]}...")
    message = (
        f"{prior.config}: expected its parent {request.source}, of SHA-256 {wanted[:_SHOWN]}...; {seen[0].rstrip('.')}."
        f"\nPut that file back, or write where it is as `parent` under [settings] of {prior.config.name}. The study "
        f"would do as well, with the copy that it keeps, in {prior.study}."
    )
    raise ConfigError(message)


def _seen_from(folder: Path, source: str) -> str:
    """Return the source of a parent with its path as seen from a folder; names that are no paths stay as they are."""
    if source == PRETRAINED or source.startswith((TORCHVISION, TIMM)):
        return source
    return absolute_from(folder, source)


def _described(found: FoundParent, request: ParentRequest, at: NetworkSpec, dataset: Dataset) -> tuple[Parent, bool]:
    """Return the parent with the resolution of `at` and the study's classes, and whether its own head fits these."""
    classes = len(dataset.class_names)
    spec = replace(found.spec, resolution_px=at.resolution_px, width_px=at.width_px, num_classes=classes)
    same_task = found.task == request.task.name
    known = same_task and bool(found.class_names) and found.class_names == dataset.class_names
    alike = known or (same_task and not found.class_names and found.spec.num_classes == classes)
    steps = 0 if known else request.steps
    usual = tuning_recipe(steps)
    recipe = tuning_recipe(steps, request.recipe) if steps else usual
    identity = (dataset.fingerprint, request.task.name, found.mean, found.std)
    parent = Parent(
        source=request.source,
        sha256=found.sha256,
        licence=found.licence,
        network=spec,
        mean=found.mean,
        std=found.std,
        head=_head_words(found, classes, known=known, alike=alike)
        if same_task
        else f"it was trained for {found.task}: its backbone is inherited, and what stands on it begins at random",
        steps=steps,
        key=parent_key(spec, found.sha256, alike, recipe, *identity),
        recipe=None if recipe == usual else recipe,
    )
    return parent, alike


def _head_words(found: FoundParent, classes: int, *, known: bool, alike: bool) -> str:
    if not classes and alike:
        return "its head is inherited: the task knows no classes"
    if known:
        return f"its classifier is inherited: the same {classes} classes"
    if alike:
        return f"its classifier is inherited: {classes} classes too, and the file does not tell their names"
    return f"its {found.spec.num_classes} classes are not the {classes} of these images: it gets a new classifier"


def _network(found: FoundParent, parent: Parent, dataset: Dataset, task: Task, *, alike: bool) -> Network:
    """Return the parent's network with the study's classes; a new classifier begins at random."""
    spec, make_module = parent.network, task.make_module
    whole = build(replace(spec, num_classes=found.spec.num_classes), get_task(found.task).make_module)
    if found.folded:
        images = dataset.at(spec.input_size).calibration.images[:_UNFOLDING_IMAGES]
        inputs = torch.from_numpy(to_input(images, mean=dataset.mean, std=dataset.std))
        try:
            whole = unfold_batchnorm(whole, _with_first_biases(found.tensors, whole), inputs)
        except StageFailed as error:
            message = f"{parent.source}: expected the weights of a dense network; {error.reason}.\n{DENSE}"
            raise ConfigError(message) from None
    else:
        whole.module.load_state_dict(dict(found.tensors))
    if alike:
        return Network(spec=spec, module=whole.module)
    network = build(spec, make_module, seed=seed_from("head", parent.key))
    fresh = tuple(f"{name}." for name in getattr(network.module, "output_layers", ()))
    held = whole.module.state_dict()

    def inherited(name: str) -> bool:
        return not name.startswith(fresh) if found.task == task.name else name.startswith(_BACKBONE)

    network.module.load_state_dict(
        {name: held[name] if inherited(name) else own for name, own in network.module.state_dict().items()}
    )
    return network


def _with_first_biases(folded: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Return an export's weights, with the biases that it lacks as a new network has them.

    The graph that torch writes has no bias of zeros, and only one of several that are equal. A training leaves a bias
    like that only where it never changes it, as in a detector's head for objects of a size that the images lack.
    """
    network.module.eval()
    first = fold_batchnorm(network).module.state_dict()
    return {name: each for name, each in first.items() if name.endswith(_BIAS)} | dict(folded)


def _require_kin(found: FoundParent, base: NetworkSpec, source: str) -> None:
    if unlike := kinship(found.spec, base):
        message = (
            f"--parent {source}: expected a network like {base.name}, of any width, depth and kernels; {unlike}.\n"
            f"Give the --space or --network of the parent, {found.spec.name}, or another parent."
        )
        raise ConfigError(message)
