"""What may be asked of a confirmation. Light, so that a wrong number is reported before torch is loaded."""

from scalesearch.errors import ConfigError

MOST_SEEDS = 99


def check_request(*, top: int | None, steps: int | None, epochs: int | None, seeds: int) -> None:
    """Refuse what no confirmation can do.

    Raises:
        ConfigError: A number below 1, both kinds of length, or more seeds than anybody can mean.
    """
    for name, number in {"top": top, "steps": steps, "epochs": epochs, "seeds": seeds}.items():
        if number is not None and number < 1:
            message = f"--{name} {number}: expected 1 or more."
            raise ConfigError(message)
    if epochs is not None and steps is not None:
        message = "Give one of --epochs and --steps: both say how long a training is."
        raise ConfigError(message)
    if seeds > MOST_SEEDS:
        message = f"--seeds {seeds}: expected {MOST_SEEDS} or fewer."
        raise ConfigError(message)
