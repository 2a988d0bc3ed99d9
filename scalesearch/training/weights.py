"""Storage of trained weights by content, so that candidates that differ only in pruning or quantization train once."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from scalesearch.files import replace_file
from scalesearch.training.schedule import trunk_recipe, without_unread
from scalesearch.training.state import TrainingState
from scalesearch.training.tensor_file import UNUSABLE, read_header, read_tensors, write_tensors
from scalesearch.training.train import Trained
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.training_length import warmup_steps

_logger = logging.getLogger(__name__)

# Raise this number when a change to the trainer changes its results: older stored weights are then not reused.
_TRAINER_REVISION: Final = 1
_FIRST_TASK: Final = "classification"
_OLD_SCORE: Final = "float_top1"
_STATE: Final = "state:"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTraining:
    """What is known about stored weights: their score and how they were trained."""

    float_score: float
    train_s: float
    final_loss: float
    losses: tuple[float, ...]
    """Mean training loss of equal stretches of the steps, in order."""
    steps: int
    safe_recipe_used: bool


def kept_training(trained: Trained, train_s: float, *, score: float) -> KeptTraining:
    """Return what is to be kept of a training that took `train_s` seconds and gave this score, as a fraction."""
    return KeptTraining(
        float_score=score,
        train_s=train_s,
        final_loss=trained.final_loss,
        losses=trained.losses,
        steps=trained.steps,
        safe_recipe_used=trained.safe_recipe_used,
    )


def weights_key(
    spec: NetworkSpec, recipe: Recipe, data_fingerprint: str, seed: int, *, task: str = _FIRST_TASK, parent: str = ""
) -> str:
    """Return the identity (64 hex digits) of trained weights, made of everything that changes training.

    The spec's name, the steps of the retrain after pruning, and what the recipe does not read (Muon's rate without
    Muon, the temperature without distillation) are left out. 1 and 1.0 count as equal. The task is included only if it
    is not classification, which used to be the only task. `parent`, the key of the fine-tuned parent that weights are
    inherited from, is included only if there is one.
    """
    training = replace(without_unread(recipe), retrain_steps=0)
    if recipe.schedule == "cosine":
        training = replace(training, branch_fraction=0.0, warmup_steps=0)
    else:
        training = replace(training, warmup_fraction=0.0, warmup_steps=warmup_steps(recipe))
    others = (*(() if task == _FIRST_TASK else (task,)), *((("parent", parent),) if parent else ()))
    return content_hash(replace(spec, name=""), training, data_fingerprint, seed, _TRAINER_REVISION, *others)


def trunk_key(
    spec: NetworkSpec, recipe: Recipe, data_fingerprint: str, seed: int, *, task: str = _FIRST_TASK, parent: str = ""
) -> str:
    """Return the identity (64 hex digits) of a trunk of any length; empty if the recipe's schedule has no trunk.

    `parent` is as in `weights_key`.
    """
    if recipe.schedule == "cosine":
        return ""
    held = (replace(spec, name=""), trunk_recipe(recipe), data_fingerprint, seed, task)
    return content_hash("trunk", *held, _TRAINER_REVISION, *((("parent", parent),) if parent else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrunk:
    """What is known about a stored trunk, and the state from which its training can go on."""

    kept: KeptTraining
    state: TrainingState


class WeightStore:
    """A folder of safetensors files, one per key. Files are written whole or not at all; a bad one counts as absent.

    A trunk has one file for each length to which it was trained, with the state of its training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str, module: nn.Module) -> KeptTraining | None:
        """Load the weights stored under the key into the module, and return what is known about them.

        Returns:
            None if there are no such weights; the module is then unchanged. A file that is damaged, or whose tensors do
            not fit the module, counts as absent too, with a warning in the log.
        """
        loaded = _loaded(self._path(key), key, module)
        return loaded and loaded[0]

    def score(self, key: str) -> float | None:
        """Return the score of the weights stored under the key; None if there are none, or their file is damaged."""
        try:
            return _kept(read_header(self._path(key), key)).float_score
        except UNUSABLE:
            return None

    def updates(self) -> dict[str, int]:
        """Return the number of updates that the weights under each key were trained by, beside those of a trunk.

        Trunks are left out. A damaged file has 0 updates.
        """
        found = dict[str, int]()
        for path in sorted(self._folder.glob("*.safetensors")):
            if "-" not in path.stem:  # that of a trunk has its length behind the key
                try:
                    found[path.stem] = _kept(read_header(path, path.stem)).steps
                except UNUSABLE:
                    found[path.stem] = 0
        return found

    def save(self, key: str, module: nn.Module, kept: KeptTraining) -> None:
        """Store the module's weights under the key, replacing older ones; they are on disk when this returns."""
        _save(self._path(key), key, module.state_dict(), kept)

    def copy(self, key: str, to: "WeightStore") -> None:
        """Copy the file of the key, which must be there, into another store."""
        replace_file(to._path(key), self._path(key).read_bytes())

    def load_trunk(self, key: str, steps: int, module: nn.Module) -> StoredTrunk | None:
        """Load the longest stored trunk of at most `steps` updates into the module.

        Returns:
            None if there is none; the module is then unchanged.
        """
        for length in self._lengths(key, steps):
            loaded = _loaded(self._trunk_path(key, length), key, module)
            if loaded:
                kept, state = loaded
                return StoredTrunk(kept=kept, state=TrainingState.of(state, safe_recipe_used=kept.safe_recipe_used))
        return None

    def lay_trunk(self, key: str, steps: int, *, to: "WeightStore") -> int:
        """Copy the longest trunk of at most `steps` updates into another store, unless one as long is there.

        Damaged trunks are passed over.

        Returns:
            Its number of updates; 0 if there is none, or if the other store has a longer one of at most `steps`.
        """
        length, there = self._longest(key, steps), to._longest(key, steps)
        if length > there:
            replace_file(to._trunk_path(key, length), self._trunk_path(key, length).read_bytes())
        return length if length >= there else 0

    def has_trunk(self, key: str, steps: int) -> bool:
        """Tell whether there is a file of the trunk with just this length."""
        return steps > 0 and self._trunk_path(key, steps).is_file()

    def save_trunk(self, key: str, module: nn.Module, kept: KeptTraining, state: TrainingState) -> None:
        """Store the trunk's weights and state under its key and length; they are on disk when this returns."""
        tensors = {_STATE + name: tensor for name, tensor in state.tensors().items()}
        _save(self._trunk_path(key, kept.steps), key, module.state_dict() | tensors, kept)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"

    def _trunk_path(self, key: str, steps: int) -> Path:
        return self._folder / f"{key}-{steps}.safetensors"

    def _lengths(self, key: str, steps: int) -> list[int]:
        """Return the lengths up to `steps` of the files of the trunk, the longest first."""
        named = (path.stem.partition("-")[2] for path in self._folder.glob(f"{key}-*.safetensors"))
        return sorted((int(each) for each in named if each.isdecimal() and 0 < int(each) <= steps), reverse=True)

    def _longest(self, key: str, steps: int) -> int:
        """Return the length of the longest sound trunk of at most `steps` updates; 0 if there is none."""
        return next((each for each in self._lengths(key, steps) if _is_sound(self._trunk_path(key, each), key)), 0)


def _save(path: Path, key: str, named: Mapping[str, Tensor], kept: KeptTraining) -> None:
    write_tensors(path, key, named, kept=asdict(kept))


def _loaded(path: Path, key: str, module: nn.Module) -> tuple[KeptTraining, dict[str, Tensor]] | None:
    """Load a file's weights into the module; return what is known about them, and the training state in it (if any)."""
    if not path.is_file():
        return None
    try:
        tensors, header = read_tensors(path, key)
        kept = _kept(header)
        state = {name.removeprefix(_STATE): tensors.pop(name) for name in tuple(tensors) if name.startswith(_STATE)}
        _check_fit(tensors, module)
    except UNUSABLE as error:
        _logger.warning("%s holds no usable weights (%s): training again, the file will be replaced", path, error)
        return None
    module.load_state_dict(tensors)
    return kept, state


def _is_sound(path: Path, key: str) -> bool:
    try:
        read_tensors(path, key)
    except UNUSABLE:
        return False
    return True


def _kept(header: Mapping[str, Any]) -> KeptTraining:
    known = header["kept"]
    if _OLD_SCORE in known:  # kept by an earlier version
        known["float_score"] = known.pop(_OLD_SCORE)
    kept = KeptTraining(**{field.name: known[field.name] for field in fields(KeptTraining)})
    return replace(kept, losses=tuple(kept.losses))  # JSON knows lists only


def _check_fit(tensors: dict[str, Tensor], module: nn.Module) -> None:
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
    came = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    unlike = sorted(name for name in expected.keys() | came.keys() if expected.get(name) != came.get(name))
    if unlike:
        msg = f"{len(unlike)} tensors differ from the network's, first {unlike[0]!r}"
        raise ValueError(msg)
