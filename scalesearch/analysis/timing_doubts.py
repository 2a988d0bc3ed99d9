"""Doubts about a study's latencies that no single record shows, because they come from comparing timing sessions."""

from collections.abc import Iterator, Sequence

from scalesearch.values.record import TrialRecord

_OTHER_MOOD = 1.1
"""If the reference ran slower than its best known time by more than this factor, it was disturbed
(`measurement.duet.NEAR_CALM`)."""


def timing_doubts(records: Sequence[TrialRecord]) -> Iterator[str]:
    """Yield one sentence for each doubt about the study's latencies.

    There are two: trials called stable although the machine was disturbed, and two timing methods in one study.
    """
    timed = [(record.trial, record.latency) for record in records if record.latency and record.same_as is None]
    levels = {trial: latency.reference_lowest_ms for trial, latency in timed if latency.reference_lowest_ms}
    if levels:
        best_ms = min(levels.values())
        disturbed = [
            trial for trial, latency in timed if latency.stable and levels.get(trial, 0.0) > _OTHER_MOOD * best_ms
        ]
        if disturbed:
            yield (
                "the reference engine ran over 10 % faster in other trials than in these, so their latencies are "
                f"uncertain though called stable: trial {_listed(disturbed)}"
            )
    before = [trial for trial, latency in timed if latency.calm_fraction is None]
    if before and len(before) < len(timed):
        yield (
            f"latencies of {len(before)} trials are from a version that did not ask whether the machine was calm; "
            f"those of unlike kernels (int8, fp16) may be up to 18 % off beside the others: trial {_listed(before)}"
        )


def _listed(trials: Sequence[int], most: int = 10) -> str:
    return ", ".join(map(str, sorted(trials)[:most])) + (", ..." if len(trials) > most else "")
