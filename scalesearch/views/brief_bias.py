"""What the confirmed trials say about the brief front, in words: its bias, how sure it is, which trials it hurts."""

from collections.abc import Iterator
from typing import NamedTuple

from scalesearch.analysis.brief_bias import LEAST_NETWORKS, Aspect, BriefBias, Corrected, Effect
from scalesearch.analysis.confirmation import Confirmation
from scalesearch.analysis.likely_members import Correction, confirmed_networks
from scalesearch.analysis.longer_trainings import LongerTrainings
from scalesearch.values.quality import Z_975
from scalesearch.views.confirmed_lengths import left_out_lines
from scalesearch.views.words import percent


class _Aspect(NamedTuple):
    unit: str
    noun: str
    more: str
    """What the brief front favours if longer training helps networks more that have a larger value of the aspect."""
    less: str
    """What it favours in the opposite case."""


_ASPECTS: dict[Aspect, _Aspect] = {
    "side": _Aspect("a doubling of the side", "side", "small images", "large images"),
    "macs": _Aspect("a doubling of the MACs at equal side", "MACs", "small networks", "large networks"),
    "cut": _Aspect("cut networks", "cutting", "networks that are not cut", "cut networks"),
}


def correction_lines(confirmation: Confirmation, correction: Correction, *, command: str) -> Iterator[str]:
    """Yield the lines that stand below a confirmed front.

    Args:
        confirmation: The confirmed trials.
        correction: What they say about the brief front.
        command: The command that confirms more trials of this study, without their numbers.
    """
    yield from left_out_lines(confirmation.left_out)
    if correction.bias is None:
        yield f"bias of the brief front: nothing to say, {_why_unknown(confirmation)}"
        return
    yield from _bias_lines(correction.bias)
    if correction.likely:
        named = ", ".join(
            f"trial {one.record.trial} ({100 * one.probability:.0f} %: {percent(one.record.quality.score)} -> "
            f"{_interval(one.corrected)})"
            for one in correction.likely
        )
        flags = " ".join(f"--also {one.record.trial}" for one in correction.likely)
        yield f"not on the brief front, but likely on the long one: {named}"
        yield f"confirm them: {command} {flags}"


def longer_lines(found: LongerTrainings) -> Iterator[str]:
    """Yield the lines that stand below a front that is not confirmed: how the search's own longer trainings went."""
    gained = "" if found.bias is None else f": {found.bias.mean_gain:+.1f} points on average"
    order = f", order of the scores Spearman {found.ranks}" if found.ranks else ""
    yield (f"{found.networks} networks were trained on, from {found.shortest} updates to {found.full}{gained}{order}")
    told = [(effect, words) for effect, words in _effects(found.bias) if effect.told] if found.bias else []
    if told:
        parts = ", ".join(f"{_points(effect)} for {words.unit}" for effect, words in told)
        yield (
            f"that gave, at equal brief scores, in points (95 %): {parts}; the front may still favour "
            f"{_favoured(told)} (`scalesearch confirm` trains its members longer)"
        )


def _favoured(told: list[tuple[Effect, _Aspect]]) -> str:
    return " and ".join(words.more if effect.points > 0 else words.less for effect, words in told)


def _why_unknown(confirmation: Confirmation) -> str:
    count = len(confirmed_networks(confirmation.moves))
    if count < LEAST_NETWORKS:
        return f"it takes {LEAST_NETWORKS} confirmed networks (precisions aside), and there are {count}"
    return f"the {count} confirmed networks are alike in side, MACs and cutting"


def _bias_lines(bias: BriefBias) -> Iterator[str]:
    parts = [f"{_points(effect)} for {words.unit}" for effect, words in _effects(bias) if effect.varies]
    yield (
        f"longer training gave {bias.mean_gain:+.1f} points on average; at equal brief scores, in points (95 %): "
        f"{', '.join(parts)}"
    )
    told = [(effect, words) for effect, words in _effects(bias) if effect.told]
    open_ones = [words.noun for effect, words in _effects(bias) if not effect.told]
    favours = _favoured(told)
    untold = f"no bias by {' or '.join(open_ones)} can be told" if open_ones else ""
    yield "; ".join(part for part in (f"the brief front favours {favours}" if favours else "", untold) if part)
    left_out = bias.left_out
    trust = "" if left_out.helps else "; the correction predicts no better than the simpler ways: take it as a hint"
    yield (
        f"how far to trust it: each of {bias.networks} networks, predicted from the others, is "
        f"{left_out.corrected:.1f} points off; by the mean gain {left_out.mean_gain:.1f}, by the brief score alone "
        f"{left_out.brief_score_alone:.1f}{trust}"
    )


def _effects(bias: BriefBias) -> list[tuple[Effect, _Aspect]]:
    return [(bias.effect(aspect), words) for aspect, words in _ASPECTS.items()]


def _interval(corrected: Corrected) -> str:
    low, high = (max(0.0, min(1.0, corrected.score + sign * Z_975 * corrected.sd)) for sign in (-1, 1))
    return f"{100 * corrected.score:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _points(effect: Effect) -> str:
    return f"{effect.points:+.1f} ({effect.low:+.1f} to {effect.high:+.1f})"
