"""What may be asked of a confirmation. Light, so that a wrong number is reported before torch is loaded."""

from dataclasses import dataclass

from scalesearch.errors import ConfigError

DEFAULT_SEEDS = 2
MOST_SEEDS = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRequest:
    """Which members of a front are trained at full length, how long, and how often.

    Raises:
        ConfigError: A number below 1, both kinds of length, or more seeds than anybody can mean.
    """

    top: int | None = None
    """Number of members, those nearest to the knee; None takes all."""
    steps: int | None = None
    """Updates of one training; None (and no `epochs`): 8 times the search's."""
    epochs: int | None = None
    """Passes over the training images, instead of `steps`."""
    seeds: int = DEFAULT_SEEDS
    """Trainings of each member."""

    def __post_init__(self) -> None:
        """Refuse what no confirmation can do."""
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
