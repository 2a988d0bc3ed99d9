"""How often would a latency limit reject a candidate that fits it before training, and how much training would it save?

A run times the network untrained, and rejects it if the whole 95 % interval of its latency lies above the limit
(chain/outlook.py). The first line printed, `timed`, is that rule, in each process of the table. The others are a model
that times nothing:

    PYTHONPATH=benchmarks python -m replay.limits TABLE --steps 240

Limits are the 25 %, 50 % and 75 % quantiles of the table's true latencies. A Gaussian process learns the log latency
of some points, drawn at random and timed in one process, and gives every other point its probability of being within
the limit, the noise of a measurement included. Below a margin of probability the point is rejected before training.

Printed for each number of known points and each margin, over all limits and seeds:

* false rejections: the share of the points that fit (true latency within the limit) that are rejected; goal: at most
  2 %. Mean over all, and the worst seed.
* saved: the share of the points that are too slow that are rejected.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from replay.lines import Line, read_lines
from replay.strategy import features_of
from replay.table import Array, Table, read_table
from scalesearch.analysis.gaussian_process import GaussianProcess

MARGINS = (0.10, 0.05, 0.01)
KNOWN = (10, 20, 40)
QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many points fit and are too slow, and how many of each were rejected."""

    fitting: int
    falsely_rejected: int
    slow: int
    rejected: int


def probability_within(features: Array, log_ms: Array, known: NDArray[np.int64], limit_ms: float) -> Array:
    """Return for every point the probability that its latency is within the limit, learnt from the known ones.

    Args:
        features: Of all points (points, features).
        log_ms: Of the known points (known,).
        known: Places of the known points.
        limit_ms: The limit in milliseconds.
    """
    model = GaussianProcess(features.shape[1])
    model.fit(features[known], log_ms)
    mean, deviation = model.predict(features)
    within: Array = ndtr((math.log(limit_ms) - mean) / np.hypot(deviation, model.noise))
    return within


def counts(within: Array, true_ms: Array, limit_ms: float, margin: float) -> Counts:
    """Return what rejecting everything below the margin does to these points."""
    fits, rejected = true_ms <= limit_ms, within < margin
    return Counts(
        fitting=int(fits.sum()),
        falsely_rejected=int((fits & rejected).sum()),
        slow=int((~fits).sum()),
        rejected=int((~fits & rejected).sum()),
    )


def timed_row(lines: Sequence[Line]) -> str:
    """Return the line of the rule that a run follows: every point is timed untrained, in one process."""
    timed: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line["kind"] == "latency":
            timed.setdefault((line["network"], line["precision"]), []).append(line)
    true_ms = np.array([np.mean([each["p50_ms"] for each in own]) for own in timed.values()])
    low_ms = np.array([[each["p50_low_ms"] for each in own] for own in timed.values()])
    found = [
        # No probability is asked for: what is rejected gets 0, what is not gets 1.
        counts(np.where(process > limit_ms, 0.0, 1.0), true_ms, limit_ms, 0.5)
        for process in low_ms.T
        for limit_ms in np.quantile(true_ms, QUANTILES).tolist()
    ]
    false, saved = _share(found, "falsely_rejected", "fitting"), _share(found, "rejected", "slow")
    return f"{'timed':>13}{'':>8}{100 * false:>20.2f}{'':>14}{100 * saved:>9.1f}"


def rows(table: Table, seeds: int) -> Iterator[str]:
    """Yield the lines of the table of false rejections."""
    true_ms = np.array([ms for _, ms in table.truth])
    features = features_of(table)[1]
    limits_ms = np.quantile(true_ms, QUANTILES).tolist()
    yield f"{'known points':>13}{'margin':>8}{'false rejections %':>20}{'worst seed %':>14}{'saved %':>9}"
    for number in (each for each in KNOWN if each < len(true_ms)):
        found: dict[float, list[list[Counts]]] = {margin: [] for margin in MARGINS}
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            known = random.permutation(len(true_ms))[:number]
            log_ms = np.log(table.latency_ms[known, random.integers(0, table.latency_ms.shape[1], number)])
            others = np.setdiff1d(np.arange(len(true_ms)), known)
            by_limit = [probability_within(features, log_ms, known, limit_ms)[others] for limit_ms in limits_ms]
            for margin in MARGINS:
                pairs = zip(by_limit, limits_ms, strict=True)
                found[margin].append([counts(within, true_ms[others], each, margin) for within, each in pairs])
        for margin, by_seed in found.items():
            each_seed = [_share(of, "falsely_rejected", "fitting") for of in by_seed]
            everything = [each for of in by_seed for each in of]
            false, saved = _share(everything, "falsely_rejected", "fitting"), _share(everything, "rejected", "slow")
            yield f"{number:>13}{margin:>8.2f}{100 * false:>20.2f}{100 * max(each_seed):>14.1f}{100 * saved:>9.1f}"


def _share(of: list[Counts], part: str, whole: str) -> float:
    total = sum(getattr(each, whole) for each in of)
    return float(sum(getattr(each, part) for each in of) / total) if total else math.nan


def main() -> None:
    """Print the table of false rejections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="file of replay.make_table, packed or not")
    parser.add_argument("--steps", type=int, default=240, help="length of the trainings")
    parser.add_argument("--seeds", type=int, default=20, help="draws of known points")
    told = parser.parse_args()
    for place, line in enumerate(rows(read_table(told.table, told.steps), told.seeds)):
        print(line, flush=True)
        if place == 0:
            print(timed_row(read_lines(told.table)), flush=True)


if __name__ == "__main__":
    main()
