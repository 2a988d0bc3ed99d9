"""Which compression steps paid on this chip: one line for each step, over all networks that it was measured on."""

import math
import statistics
from collections.abc import Iterable

from scalesearch.analysis.score_error import metric_of
from scalesearch.values.candidate import Candidate
from scalesearch.values.quality import score_noun
from scalesearch.values.record import Gain, TrialRecord

_DEPTHWISE = frozenset({"inverted_residual", "mbconv"})


def paid_lines(records: Iterable[TrialRecord]) -> tuple[str, ...]:
    """Return one line for each compression step and kind of network that it was measured on.

    For example `int8 paid on 18 of 20 dense networks: median speed-up 1.80x (1.2 to 2.6), accuracy -0.3 points`. A step
    paid on a network if the network is surely faster with it: the 95 % interval of the speed-up lies above 1. A network
    counts once for a step, however many of its trials measured it (see `_one_each`).
    """
    every = list(records)
    noun, steps = score_noun(metric_of(every)), _measured(every)
    return tuple(_line(what, kind, _one_each(steps[what, kind]), noun) for what, kind in sorted(steps))


def gains_by_step(records: Iterable[TrialRecord]) -> dict[tuple[str, str], list[Gain]]:
    """Group the gains of complete trials by (step in words, kind of network), in the records' order.

    The kinds are `dense`, `depthwise`, and `own` for the user's own modules. A network that several trials measured has
    as many entries.
    """
    return {step: [gain for _, gain in measured] for step, measured in _measured(records).items()}


def _measured(records: Iterable[TrialRecord]) -> dict[tuple[str, str], list[tuple[Candidate, Gain]]]:
    """Group the gains as `gains_by_step` does, each with its candidate."""
    groups: dict[tuple[str, str], list[tuple[Candidate, Gain]]] = {}
    for record in records:
        if record.state != "complete" or record.spec is None:
            continue
        kind = "depthwise" if any(stage.block in _DEPTHWISE for stage in record.spec.stages) else "dense"
        kind = "own" if record.spec.origin else kind
        for gain in record.gains:
            groups.setdefault((gain.what, kind), []).append((record.candidate, gain))
    return groups


def _one_each(measured: Iterable[tuple[Candidate, Gain]]) -> list[Gain]:
    """Return one gain for each network: of its longest training, and of several the best.

    The best is one that paid if any did, then the one that costs the score least, then the fastest. Candidates are one
    network if they differ in nothing but the precision, how it is made, and the number of updates: the cut of a network
    that was tried in three precisions is measured three times.
    """
    best = dict[Candidate, tuple[tuple[float, ...], Gain]]()
    for candidate, gain in measured:
        change = -math.inf if gain.score_change is None else gain.score_change
        rank = (candidate.recipe.steps, _pays(gain), change, gain.speedup)
        if (network := candidate.network) not in best or rank > best[network][0]:
            best[network] = (rank, gain)
    return [gain for _, gain in best.values()]


def _pays(gain: Gain) -> bool:
    return gain.speedup_low > 1.0


def _line(what: str, kind: str, gains: list[Gain], noun: str) -> str:
    speedups = sorted(gain.speedup for gain in gains)
    paid = sum(map(_pays, gains))
    changes = [100 * gain.score_change for gain in gains if gain.score_change is not None]
    change = f"{noun} {statistics.median(changes):+.1f} points" if changes else f"{noun} not compared"
    networks = f"{kind} network{'' if len(gains) == 1 else 's'}"
    spread = f" ({speedups[0]:.2f} to {speedups[-1]:.2f})" if len(gains) > 1 else ""
    return (
        f"{what} paid on {paid} of {len(gains)} {networks}: median speed-up "
        f"{statistics.median(speedups):.2f}x{spread}, {change}"
    )
