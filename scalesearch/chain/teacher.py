"""The study's fine-tuned parent as a teacher: its answers for the training images, stored if not too large."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from scalesearch.config.checks import require_teacher
from scalesearch.data.finding import load_study_data
from scalesearch.data.mapped import ImageSource, planes
from scalesearch.data.memory import fits_beside
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.tasks.base import named
from scalesearch.tasks.registry import task_for
from scalesearch.training.answers import answering, answers
from scalesearch.training.batches import Drawn
from scalesearch.training.tensor_file import UNUSABLE, read_tensors, write_tensors
from scalesearch.values.candidate import Recipe
from scalesearch.values.identity import content_hash
from scalesearch.values.network import Network
from scalesearch.values.parent import parent_folder
from scalesearch.values.session import Session

_logger = logging.getLogger(__name__)

MOST_BYTES: Final = 512 * 2**20
"""Answers for all images, and their mirror images where training mirrors, are kept up to this size; larger ones are
computed batch by batch."""

Answers = Mapping[str, Tensor]


class Teacher:
    """Gives the answers of the study's fine-tuned parent for training images, at the parent's own resolution.

    The parent sees the images and their mirror images, without the shift and the jitter of a batch. Answers of up to
    `MOST_BYTES` are kept in the study's `parent/` folder, where all workers find them, and in memory.
    """

    def __init__(self, session: Session, lock: DeviceLock, parent: Callable[[], Network]) -> None:
        """Store the study, and the function that returns its fine-tuned parent; nothing is computed yet."""
        self._session, self._lock, self._parent = session, lock, parent
        self._task = task_for(session.settings)
        self._kept: dict[bool, Answers] = {}  # by whether the images are mirrored
        self._live: Callable[[Drawn], Answers] | None = None

    def ready(self, recipe: Recipe) -> "Teacher":
        """Return this teacher once it can answer for the recipe's batches; answers that are not stored are computed.

        Raises:
            ConfigError: The study has no parent, or the parent's weights are gone.
            StageFailed: The parent answers NaN or infinity.
        """
        require_teacher(recipe.distill_weight, self._session.parent.source if self._session.parent else "")
        self._find(mirrored=recipe.flip)
        return self

    @property
    def sides_px(self) -> tuple[int, int]:
        """Height and width of the images that the parent sees, its own."""
        assert self._session.parent is not None
        return self._session.parent.network.input_size.sides

    def answers(self, drawn: Drawn) -> Answers:
        """Return what the parent answers for the images of a batch, by the names of its outputs, in float32.

        A mirrored image gets the answers for the mirrored image. The tensors have no gradients.
        """
        some_mirrored = bool(drawn.mirrored.any())
        self._find(mirrored=some_mirrored)
        if self._live is not None and not (False in self._kept and (True in self._kept or not some_mirrored)):
            return self._live(drawn)
        found = {name: rows[drawn.indices] for name, rows in self._kept[False].items()}
        if some_mirrored:
            for name, rows in found.items():
                rows[drawn.mirrored] = self._kept[True][name][drawn.indices[drawn.mirrored]]
        return found

    def _find(self, *, mirrored: bool) -> None:
        """Make sure that there are answers for the images and, if `mirrored`, for their mirror images."""
        sides = (False, True) if mirrored else (False,)
        for side in sides:
            if side not in self._kept and self._live is None:
                self._prepare(side, sides=len(sides))

    def _prepare(self, mirrored: bool, *, sides: int) -> None:
        """Read the answers for all images, compute and store them, or arrange for them to be computed when asked.

        Args:
            mirrored: Whether they are for the mirror images.
            sides: How many such sets of answers are needed: 2 with mirror images, else 1.
        """
        assert self._session.parent is not None
        key = content_hash("answers", self._session.parent.key, self._session.data.fingerprint, mirrored)
        path = parent_folder(self._session.folder) / f"answers-{key}.safetensors"
        if found := self._read(path, key):
            self._kept[mirrored] = found
            return
        data = load_study_data(self._session, self._task.sources()).at(self._session.parent.network.input_size)
        images, network, machine = planes(data.train.images), self._parent(), self._session.machine
        answer = answering(network, machine, mean=data.mean, std=data.std)
        with torch.no_grad():
            for_one = self._named(answer(_taken(images, torch.zeros(1, dtype=torch.int64))))
        size_bytes = sides * len(images) * sum(4 * each.numel() for each in for_one.values())
        if size_bytes > MOST_BYTES or not fits_beside(size_bytes):
            self._live = lambda drawn: self._answered(answer, images, drawn)
            return
        parts = []
        shown = Mirrored(images) if mirrored else images
        for returned in answers(network, shown, machine, mean=data.mean, std=data.std):
            parts.append(self._named(returned))
            self._lock.breathe()
        self._kept[mirrored] = {name: torch.cat([part[name] for part in parts]) for name in self._task.output_names}
        write_tensors(path, key, self._kept[mirrored])

    def _read(self, path: Path, key: str) -> Answers | None:
        """Return stored answers; None if there are none, or the file is damaged, with a warning in the log."""
        if not path.is_file():
            return None
        try:
            found, _ = read_tensors(path, key)
            images = self._session.data.train_images
            if set(found) != set(self._task.output_names) or any(len(rows) != images for rows in found.values()):
                msg = f"expected {', '.join(self._task.output_names)} of {images} images"
                raise ValueError(msg)
        except UNUSABLE as error:
            _logger.warning("%s holds no usable answers (%s): the parent answers again", path, error)
            return None
        return found

    def _answered(
        self, answer: Callable[[Tensor], Tensor | tuple[Tensor, ...]], images: Tensor | ImageSource, drawn: Drawn
    ) -> Answers:
        """Return what the parent answers now for the images of a batch."""
        chosen = _taken(images, drawn.indices)
        shown = torch.where(drawn.mirrored[:, None, None, None], chosen.flip(3), chosen)
        with torch.no_grad():
            return self._named(answer(shown))

    def _named(self, returned: Tensor | tuple[Tensor, ...]) -> Answers:
        return {name: each.float().cpu() for name, each in named(self._task.output_names, returned).items()}


class Mirrored:
    """The `ImageSource` of other images' mirror images, left to right."""

    def __init__(self, images: Tensor | ImageSource) -> None:
        """Take uint8 images (N, C, H, W), or a source of them; nothing is copied."""
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number, channels, height and width."""
        number, channels, height, width = self._images.shape
        return number, channels, height, width

    def take(self, indices: Tensor) -> Tensor:
        """Return mirrored images as uint8 (n, C, H, W).

        Args:
            indices: Which ones, int64 (n,) on the CPU.
        """
        return _taken(self._images, indices).flip(3)


def _taken(images: Tensor | ImageSource, indices: Tensor) -> Tensor:
    return images[indices] if isinstance(images, Tensor) else images.take(indices)
