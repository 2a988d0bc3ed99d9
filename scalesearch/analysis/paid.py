"""Which compression steps paid on this chip: one line for each step, over all networks that it was measured on."""

import statistics
from collections.abc import Iterable

from scalesearch.analysis.score_error import metric_of
from scalesearch.values.quality import score_noun
from scalesearch.values.record import Gain, TrialRecord

_DEPTHWISE = frozenset({"inverted_residual", "mbconv"})


def paid_lines(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Return one line for each compression step and kind of network that it was measured on.

    For example `int8 paid on 18 of 20 dense networks: median speed-up 1.80x (1.2 to 2.6), accuracy -0.3 points`. A step
    paid on a network if the network is surely faster with it: the 95 % interval of the speed-up lies above 1.
    """
    every = list(records)
    noun = score_noun(metric_of(every))
    return tuple(_line(what, kind, gains, noun) for (what, kind), gains in sorted(gains_by_step(every).items()))


def gains_by_step(records: Iterable[TrialRecord]) -> dict[tuple[str, str], list[Gain]]:
    """Group the gains of complete trials by (step in words, kind of network), in the records' order.

    The kinds are `dense`, `depthwise`, and `own` for the user's own modules.
    """
    groups: dict[tuple[str, str], list[Gain]] = {}
    for record in records:
        if record.state != "complete" or record.spec is None:
            continue
        kind = "depthwise" if any(stage.block in _DEPTHWISE for stage in record.spec.stages) else "dense"
        kind = "own" if record.spec.origin else kind
        for gain in record.gains:
            groups.setdefault((gain.what, kind), []).append(gain)
    return groups


def _line(what: str, kind: str, gains: list[Gain], noun: str) -> str:
    speedups = sorted(gain.speedup for gain in gains)
    paid = sum(gain.speedup_low > 1.0 for gain in gains)
    changes = [100 * gain.score_change for gain in gains if gain.score_change is not None]
    change = f"{noun} {statistics.median(changes):+.1f} points" if changes else f"{noun} not compared"
    networks = f"{kind} network{'' if len(gains) == 1 else 's'}"
    spread = f" ({speedups[0]:.2f} to {speedups[-1]:.2f})" if len(gains) > 1 else ""
    return (
        f"{what} paid on {paid} of {len(gains)} {networks}: median speed-up "
        f"{statistics.median(speedups):.2f}x{spread}, {change}"
    )
