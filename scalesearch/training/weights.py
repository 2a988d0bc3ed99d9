"""Storage of trained weights by content, so that candidates that differ only in pruning or quantization train once."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

import safetensors
import safetensors.torch
from torch import Tensor, nn

from scalesearch.files import replace_file
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import NetworkSpec

_logger = logging.getLogger(__name__)

# Raise this number when a change to the trainer changes its results: older stored weights are then not reused.
_TRAINER_REVISION: Final = 1
_FIRST_TASK: Final = "classification"
_HEADER: Final = "scalesearch"
_OLD_SCORE: Final = "float_top1"


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


def weights_key(spec: NetworkSpec, recipe: Recipe, data_fingerprint: str, seed: int, *, task: str = _FIRST_TASK) -> str:
    """Return the identity (64 hex digits) of trained weights, made of everything that changes training.

    The spec's name, the steps of the retrain after pruning, and muon's rate if muon is not used are left out. 1 and 1.0
    count as equal. The task is part of it only if it is not classification, which used to be the only task.
    """
    training = replace(recipe, retrain_steps=0)
    if recipe.optimizer != "muon":
        training = replace(training, muon_learning_rate=0.0)
    others = () if task == _FIRST_TASK else (task,)
    return content_hash(replace(spec, name=""), training, data_fingerprint, seed, _TRAINER_REVISION, *others)


class WeightStore:
    """A folder of safetensors files, one per key. Files are written whole or not at all; a bad one counts as absent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, key: str, module: nn.Module) -> KeptTraining | None:
        """Load the weights stored under the key into the module, and return what is known about them.

        Returns:
            None if there are no such weights; the module is then unchanged. A file that is damaged, or whose tensors do
            not fit the module, counts as absent too, with a warning in the log.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            tensors, kept = _read(path, key)
            _check_fit(tensors, module)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
            _logger.warning("%s holds no usable weights (%s): training again, the file will be replaced", path, error)
            return None
        module.load_state_dict(tensors)
        return kept

    def save(self, key: str, module: nn.Module, kept: KeptTraining) -> None:
        """Store the module's weights under the key, replacing older ones; they are on disk when this returns."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
        header = json.dumps({"key": key, "digest": _digest(tensors), "kept": asdict(kept)})
        content = safetensors.torch.save(tensors, metadata={_HEADER: header})
        replace_file(self._path(key), content)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.safetensors"


def _read(path: Path, key: str) -> tuple[dict[str, Tensor], KeptTraining]:
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})[_HEADER])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    if header["key"] != key:
        msg = f"its header names another key, {header['key'][:12]}..."
        raise ValueError(msg)
    if header["digest"] != _digest(tensors):
        msg = "its bytes do not match their own digest"
        raise ValueError(msg)
    known = header["kept"]
    if _OLD_SCORE in known:  # kept by an earlier version
        known["float_score"] = known.pop(_OLD_SCORE)
    kept = KeptTraining(**{field.name: known[field.name] for field in fields(KeptTraining)})
    return tensors, replace(kept, losses=tuple(kept.losses))  # JSON knows lists only


def _check_fit(tensors: dict[str, Tensor], module: nn.Module) -> None:
    expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in module.state_dict().items()}
    came = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    unlike = sorted(name for name in expected.keys() | came.keys() if expected.get(name) != came.get(name))
    if unlike:
        msg = f"{len(unlike)} tensors differ from the network's, first {unlike[0]!r}"
        raise ValueError(msg)


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return a hash of all tensors. It is needed because safetensors itself checks sizes, not content."""
    running = hashlib.sha256()
    for name in sorted(tensors):
        running.update(name.encode())
        running.update(tensors[name].numpy().tobytes())
    return running.hexdigest()
