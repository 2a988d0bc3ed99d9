"""The few kinds of error, each with its own effect: stop, reject the candidate, fail the trial, or exit with a code."""


class ScalesearchError(Exception):
    """Base of every error that scalesearch raises on purpose. Its text is meant for the user (at most three lines)."""

    exit_code = 1


class ConfigError(ScalesearchError):
    """Something that the user gave is wrong. The run stops before the first trial, with exit code 2."""

    exit_code = 2


class MissingBackendError(ScalesearchError):
    """A backend or an optional package is missing. The text names the extra that installs it. Exit code 3."""

    exit_code = 3


class NoFeasibleTrialError(ScalesearchError):
    """A study ended, or was read, without one feasible trial. Exit code 4."""

    exit_code = 4


class CandidateRejected(ScalesearchError):  # noqa: N818  (a verdict, not a fault)
    """A candidate breaks a limit before it cost any training. Optuna is told PRUNED, and the budget is not charged."""

    def __init__(self, reason: str, *, limit: str = "", excess: float = 0.0) -> None:
        """Store the reason, and the limit if its use was measured.

        Args:
            reason: Why the candidate is rejected, as text for the user.
            limit: Name of a limit whose use was measured, such as `max_latency_ms`; empty if none was.
            excess: Measured value divided by that limit, minus one.
        """
        super().__init__(reason)
        self.limit, self.excess = limit, excess


class StageFailed(ScalesearchError):  # noqa: N818
    """One stage of one trial failed. The trial's record states the reason, Optuna is told FAIL, and the run goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type["StageFailed"], tuple[str, str]]:
        """Pickle by the two arguments, since this error goes from the worker to the coordinator."""
        return (StageFailed, (self.stage, self.reason))
