"""The few kinds of error, each with its fate: stop, reject the candidate, fail the trial, or exit with a code."""


class ScalesearchError(Exception):
    """Base of every error that scalesearch raises on purpose; its text is meant for the user (at most three lines)."""

    exit_code = 1


class ConfigError(ScalesearchError):
    """Something the user gave is wrong: stops before the first trial, exit code 2."""

    exit_code = 2


class MissingBackendError(ScalesearchError):
    """A backend or an optional package is not there; the text names the extra that brings it. Exit code 3."""

    exit_code = 3


class NoFeasibleTrialError(ScalesearchError):
    """A study ended, or was asked, without one feasible trial. Exit code 4."""

    exit_code = 4


class CandidateRejected(ScalesearchError):  # noqa: N818  (a verdict, not a fault)
    """A candidate breaks a limit before it cost training: told to Optuna as PRUNED, free of charge."""


class StageFailed(ScalesearchError):  # noqa: N818
    """One stage of one trial failed: the trial FAILs with this reason in its record and the run goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type["StageFailed"], tuple[str, str]]:
        """Pickle by the two arguments, since this error crosses from the worker to the coordinator."""
        return (StageFailed, (self.stage, self.reason))
