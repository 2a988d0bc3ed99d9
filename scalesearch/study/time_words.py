"""The predicted time of a run, in words: a range, and the average times of its candidates."""

from dataclasses import dataclass

Bounds = tuple[float, float]
"""The smallest and the largest value of something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedTime:
    """Predicted seconds of a whole run, as a range, and average seconds of a candidate: training and the rest."""

    low_s: float
    high_s: float
    trained: tuple[int, int]
    """Least and largest number of trained candidates. The least is the budget, or all that the space holds; more are
    trained where candidates share trunks."""
    training_s: float
    other_s: Bounds
    branch: Bounds | None = None
    """Least and largest share of a candidate's updates that belong to its branch, and are all that it is charged where
    its trunk is stored. None if no candidate has a trunk."""
    before_s: Bounds = (0.0, 0.0)
    """Seconds of `low_s` and `high_s` that are over before the first candidate is begun: the parent, and flips."""

    @property
    def words(self) -> str:
        """The prediction as a sentence."""
        low, high = self.other_s
        fewest, most = self.trained
        candidates = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return (
            f"takes about {_span(self.low_s, self.high_s)} here: {candidates} candidates, {self.training_s:.0f} s for "
            f"a full training{self._charge}, and {low:.0f} to {high:.0f} s for the rest (export, timing, scoring, "
            "twins, siblings)"
        )

    @property
    def _charge(self) -> str:
        if self.branch is None:
            return ""
        share = " to ".join(dict.fromkeys(f"{each:.2g}" for each in self.branch))
        return f" (a candidate whose trunk is stored is charged for its branch alone, {share} of its updates)"


def _span(low_s: float, high_s: float) -> str:
    for size_s, unit in ((3600, "h"), (60, "min")):
        if high_s >= 1.5 * size_s:
            return f"{_number(low_s / size_s)} to {_number(high_s / size_s)} {unit}"
    return f"{low_s:.0f} to {high_s:.0f} s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
