"""How long a run will take, as it is said: a range, and what its candidates take on average."""

from dataclasses import dataclass

Bounds = tuple[float, float]
"""The smallest and the largest value of something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedTime:
    """Seconds of a whole run, as a range, and what its candidates take on average in training and otherwise."""

    low_s: float
    high_s: float
    trained: tuple[int, int]
    """Number of trained candidates: the budget, or fewer where the space holds fewer; and more where candidates share
    trunks, at most the second number."""
    training_s: float
    other_s: Bounds

    @property
    def words(self) -> str:
        """The range and its parts as a sentence."""
        low, high = self.other_s
        fewest, most = self.trained
        candidates = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return (
            f"takes about {_span(self.low_s, self.high_s)} here: {candidates} candidates, {self.training_s:.0f} s for "
            f"a full training, and {low:.0f} to {high:.0f} s for the rest (export, timing, scoring, twins, siblings)"
        )


def _span(low_s: float, high_s: float) -> str:
    for size_s, unit in ((3600, "h"), (60, "min")):
        if high_s >= 1.5 * size_s:
            return f"{_number(low_s / size_s)} to {_number(high_s / size_s)} {unit}"
    return f"{low_s:.0f} to {high_s:.0f} s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
