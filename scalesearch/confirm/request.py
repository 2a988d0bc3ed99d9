"""What may be asked of a confirmation, and the command for it.

Light, so that a wrong number is reported before torch is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalesearch.analysis.confirmed_lengths import recipe_updates
from scalesearch.errors import ConfigError
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.training_length import full_length, usual_full_length

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
    trained = [(move.record, move.steps) for move in moves]
    length = length_of(trained, train_images=train_images) or ConfirmRequest(steps=recipe_updates(*trained[0]))
    flags = length_flags(length)
    flags += [f"--seeds {seeds}"] if seeds != DEFAULT_SEEDS else []
    return " ".join(("scalesearch confirm", study, *flags))


def length_of(trained: Sequence[tuple[MeasuredTrial, int]], *, train_images: int) -> ConfirmRequest | None:
    """Return a request for the length that these trials were trained by; None where there is no such request.

    Trials of unlike batch sizes that made equally many passes over the images made unlike numbers of updates.

    Args:
        trained: Trials, each with the updates of its full training, those that retrain it included.
        train_images: Number of the study's training images; 0: not known.
    """
    lengths = [(record, recipe_updates(record, steps)) for record, steps in trained]
    if all(steps == usual_full_length(one.candidate.recipe, full_updates=one.full_updates) for one, steps in lengths):
        return ConfirmRequest()
    if len({steps for _, steps in lengths}) == 1:
        return ConfirmRequest(steps=lengths[0][1])
    passes = [steps * record.candidate.recipe.batch_size // train_images for record, steps in lengths if train_images]
    epochs = min(passes, default=0)
    if epochs and all(
        steps == full_length(one.candidate.recipe, full_updates=0, epochs=epochs, train_images=train_images).steps
        for one, steps in lengths
    ):
        return ConfirmRequest(epochs=epochs)
    return None


def length_flags(request: ConfirmRequest) -> list[str]:
    """Return the flag for the length that the request asks for; nothing for the default one."""
    if request.epochs is not None:
        return [f"--epochs {request.epochs}"]
    return [f"--steps {request.steps}"] if request.steps is not None else []
