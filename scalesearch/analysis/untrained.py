"""What it saved to time networks untrained: counted from the records of a study with `limits.max_latency_ms`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from scalesearch.values.record import TrialRecord
from scalesearch.values.space import LATENCY_LIMIT

_TIMING: Final = frozenset({"untrained"})
_TRAINING: Final = frozenset({"train", "retrain"})


def untrained_line(records: Iterable[TrialRecord]) -> str:
    """Return a line on the candidates that were rejected untrained, and on the seconds that this took and saved.

    What is saved is an estimate, and said to be one: as many trainings as candidates were rejected, each as long as the
    mean of those that were made. The line is empty where no network was timed untrained.
    """
    own = [record for record in records if record.same_as is None]
    return "; ".join(_parts(own)) if any(_timed(record) for record in own) else ""


def _parts(records: Sequence[TrialRecord]) -> Iterator[str]:
    rejected = [record for record in records if _timed(record) and _rejected(record)]
    passed = [record for record in records if _timed(record) and not _rejected(record)]
    trained = [record for record in records if record.charged and record.training]
    number, spent_s = len(rejected), _seconds(trained, _TRAINING)
    were = "no candidate was" if not number else "1 candidate was" if number == 1 else f"{number} candidates were"
    saved = ""
    if number and spent_s:
        mean_s = spent_s / len(trained)
        saved = f" in place of about {number * mean_s:.0f} s of training ({number} times the mean, {mean_s:.1f} s)"
    timing = f": {_seconds(rejected, _TIMING):.0f} s of timing{saved}" if number else ""
    yield f"limits.{LATENCY_LIMIT}: {were} too slow and rejected untrained, {len(trained)} trained{timing}"
    if passed:
        yield f"timing those that passed took {_seconds(passed, _TIMING):.0f} s"
    if late := sum(map(_too_slow, trained)):
        yield f"{late} of the trained {'is' if late == 1 else 'are'} too slow all the same"


def _timed(record: TrialRecord) -> bool:
    return any(stage.stage in _TIMING for stage in record.stages)


def _rejected(record: TrialRecord) -> bool:
    return record.state == "rejected" and _too_slow(record)


def _too_slow(record: TrialRecord) -> bool:
    return any(use.limit == LATENCY_LIMIT and use.excess > 0 for use in record.limits)


def _seconds(records: Iterable[TrialRecord], stages: frozenset[str]) -> float:
    return sum(stage.seconds for record in records for stage in record.stages if stage.stage in stages)
