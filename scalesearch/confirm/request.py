"""What may be asked of a confirmation, and the command for it.

Light, so that a wrong number is reported before torch is loaded.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError
from scalesearch.values.training_length import usual_full_length

if TYPE_CHECKING:
    from scalesearch.analysis.confirmation import Move

DEFAULT_SEEDS = 2
MOST_SEEDS = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRequest:
    """Which members of a front (and which other trials) are trained at full length, how long, and how often.

    Raises:
        ConfigError: A number is below 1, both `steps` and `epochs` are given, or `seeds` is above `MOST_SEEDS`.
    """

    top: int | None = None
    """Number of members, those nearest to the knee; None takes all."""
    steps: int | None = None
    """Updates of one training; None (and no `epochs`): 8 times the search's, or 4 times those of the front where
    the search's lengths are unlike."""
    epochs: int | None = None
    """Passes over the training images, instead of `steps`."""
    seeds: int = DEFAULT_SEEDS
    """Trainings of each member."""
    also: tuple[int, ...] = ()
    """Numbers of trials off the front that are confirmed as well."""
    also_likely: bool = False
    """Whether to confirm the trials that the corrected scores put on the front, too (`analysis.likely_members`)."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, number in {"top": self.top, "steps": self.steps, "epochs": self.epochs, "seeds": self.seeds}.items():
            if number is not None and number < 1:
                message = f"--{name} {number}: expected 1 or more."
                raise ConfigError(message)
        if self.epochs is not None and self.steps is not None:
            message = "Give one of --epochs and --steps: both say how long a training is."
            raise ConfigError(message)
        if self.seeds > MOST_SEEDS:
            message = f"--seeds {self.seeds}: expected {MOST_SEEDS} or fewer."
            raise ConfigError(message)


def parse_also(words: Sequence[str]) -> tuple[tuple[int, ...], bool]:
    """Parse the values of `--also` into trial numbers, each once, and whether `auto` is among them.

    Raises:
        ConfigError: A word is neither a number nor `auto`.
    """
    for word in words:
        if word != "auto" and not (word.isascii() and word.isdigit()):
            message = f"--also {word!r}: expected a trial's number, or auto for those that the corrected scores name."
            raise ConfigError(message)
    return tuple(dict.fromkeys(int(word) for word in words if word != "auto")), "auto" in words


def command_for(study: str, moves: "Sequence[Move]", *, train_images: int = 0) -> str:
    """Return the command that continues a confirmation with the same training length and number of seeds.

    Args:
        study: The study's folder, quoted for a shell.
        moves: The confirmed trials.
        train_images: Number of the study's training images, from which passes over them are told; 0: not known.
    """
    seeds = max(move.seeds for move in moves)
    flags = _length_flags(moves, train_images)
    flags += [f"--seeds {seeds}"] if seeds != DEFAULT_SEEDS else []
    return " ".join(("scalesearch confirm", study, *flags))


def _length_flags(moves: "Sequence[Move]", train_images: int) -> list[str]:
    """Return the flag for the length of these trainings; nothing where they have the default one.

    Trials of unlike batch sizes that made equally many passes over the images made unlike numbers of updates.
    """
    lengths = list(map(_recipe_updates, moves))
    usual = [usual_full_length(move.record.candidate.recipe, full_updates=move.record.full_updates) for move in moves]
    if lengths == usual:
        return []
    if len(set(lengths)) > 1 and train_images:
        batches = [move.record.candidate.recipe.batch_size for move in moves]
        epochs = min(steps * batch // train_images for steps, batch in zip(lengths, batches, strict=True))
        if lengths == [max(1, math.ceil(epochs * train_images / batch)) for batch in batches]:
            return [f"--epochs {epochs}"]
    return [f"--steps {lengths[0]}"] if lengths[0] != usual[0] else []


def _recipe_updates(move: "Move") -> int:
    """Return the updates of a trial's full training, without those that retrain a cut network."""
    record = move.record
    return round(record.candidate.recipe.steps * move.steps / max(1, record.training.steps))
