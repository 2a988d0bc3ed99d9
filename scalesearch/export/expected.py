"""What the search measured for an exported network; in config.toml the scores have the name of their metric."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalesearch.records.tables import by_metric
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.quality import DEFAULT_METRIC
from scalesearch.values.record import FrontScore, MeasuredTrial

_FLOAT = "float_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the search measured, for comparison with a rebuilt network."""

    network_sha256: str
    size_bytes: int
    float_score: float
    score: float
    p50_ms: float
    """Latency of the engine alone."""
    device: str
    macs: int = 0
    """0 if not known (`records.confirmed.UNKNOWN_COST`); a file then leaves it out."""
    params: int = 0
    score_low: float | None = None
    score_high: float | None = None
    """The 95 % interval of `score`."""
    test_score: float | None = None
    """Score of the searched network on the test images; None where the study never scored it."""
    postprocessing_ms: float | None = None
    """Median time of the post-processing; None if none was measured, and in an older export."""
    end_to_end_ms: float | None = None
    """Latency with the post-processing; None if no post-processing was measured."""
    confirmed_steps: int = 0
    confirmed_test_score: tuple[float, ...] = ()
    """Test score of each seed that `scalesearch confirm` trained for that many steps: the spread between seeds."""
    metric: str = DEFAULT_METRIC
    """Name of the score. In a file it is part of the other names: `top1`, `float_top1`, `test_top1`, ..."""


def expected_of(record: MeasuredTrial, score: FrontScore | None, confirmed: Sequence[ConfirmedRun]) -> Expected:
    """Return what was measured of a trial.

    Args:
        record: Record of the trial.
        score: Its second evaluation, on test images, if it had one.
        confirmed: Its runs at full length; if they have several lengths, those of the longest are used.
    """
    after, whole = record.latency.postprocessing, record.latency.end_to_end
    steps = max((run.steps for run in confirmed), default=0)
    return Expected(
        network_sha256=record.network_sha256 or "",
        macs=record.cost.macs,
        params=record.cost.params,
        size_bytes=record.size_bytes or 0,
        float_score=record.training.float_score,
        score=record.quality.score,
        score_low=record.quality.score_low,
        score_high=record.quality.score_high,
        p50_ms=record.latency.of_engine.p50_ms,
        postprocessing_ms=None if after is None else after.p50_ms,
        end_to_end_ms=None if whole is None else whole.p50_ms,
        device=record.device.name if record.device else "",
        test_score=score.test.score if score else None,
        confirmed_steps=steps,
        confirmed_test_score=tuple(run.test.score for run in confirmed if run.steps == steps),
        metric=record.quality.metric,
    )


def as_written(expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an `Expected` by the names that they have in a file: `float_score` is `float_top1`."""
    fields = {name: value for name, value in expected.items() if value or name not in ("macs", "params")}
    return by_metric(fields, str(fields.pop("metric")))


def as_read(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a file by the names of an `Expected`'s fields.

    The metric is the name M for which the table has both `M` and `float_M`. If there is none, the table is returned as
    it is.
    """
    metric = next((name for name in table if name and _FLOAT + name in table), "")
    if not metric:
        return dict(table)
    named = re.compile(rf"(^|_){re.escape(metric)}($|_)")
    fields = {named.sub(r"\g<1>score\g<2>", name): value for name, value in table.items()}
    return {**fields, "metric": metric}
