"""The bias of brief training: known slopes are found again, and what cannot be told is not."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scalesearch.analysis.brief_bias import ASPECTS, Traits, fit_brief_bias, traits_of
from scalesearch.values.candidate import Pruning
from scalesearch.values.record import MeasuredTrial

SLOPES = {"brief_score": -4.0, "side": 3.0, "macs": 1.0, "cut": -2.0}
RESIDUAL = 1.0


def networks(count: int, rng: np.random.Generator) -> tuple[list[Traits], list[float]]:
    """Networks and long scores that follow `SLOPES` and a gain of 20 points at 50 %, 32 px and 2^12 MACs a pixel."""
    traits, long = [], []
    for place in range(count):
        side = (24, 32, 48, 64)[place % 4]
        per_pixel, cut, brief = 2 ** rng.uniform(10, 14), bool(rng.random() < 0.5), rng.uniform(0.3, 0.6)
        traits.append(Traits(brief_score=brief, side_px=side, macs=per_pixel * side**2, cut=cut))
        gain = 20 + SLOPES["brief_score"] * (10 * brief - 5) + SLOPES["side"] * math.log2(side / 32)
        gain += SLOPES["macs"] * (math.log2(per_pixel) - 12) + SLOPES["cut"] * cut + rng.normal(0, RESIDUAL)
        long.append(brief + gain / 100)
    return traits, long


def test_known_slopes_are_inside_their_intervals_as_often_as_they_should() -> None:
    rng = np.random.default_rng(2)
    inside, predicted, rounds = [], [], 60
    for _ in range(rounds):
        traits, long = networks(9, rng)
        bias = fit_brief_bias(traits[:8], long[:8], [1e-6] * 8)
        assert bias
        inside += [each.low <= SLOPES[each.aspect] <= each.high for each in bias.effects]
        found = bias.predict(traits[8])
        predicted.append(abs(found.score - long[8]) < 1.96 * found.sd)
    # 95 % of 240 and of 60, give or take two standard errors (one-sided: the priors may widen intervals)
    assert np.mean(inside) > 0.95 - 2 * math.sqrt(0.95 * 0.05 / (4 * rounds))
    assert np.mean(predicted) > 0.95 - 2 * math.sqrt(0.95 * 0.05 / rounds)


def test_many_networks_give_the_slopes_and_the_residual_away() -> None:
    traits, long = networks(40, np.random.default_rng(3))
    bias = fit_brief_bias(traits, long, [1e-8] * 40)
    assert bias and bias.networks == 40
    for effect in bias.effects:
        assert effect.told and effect.points == pytest.approx(SLOPES[effect.aspect], abs=effect.high - effect.low)
        assert effect.high - effect.low < 3
    assert bias.residual_sd == pytest.approx(RESIDUAL, rel=0.3)
    assert bias.mean_gain == pytest.approx(
        np.mean([100 * (score - each.brief_score) for each, score in zip(traits, long, strict=True)])
    )
    assert bias.left_out.helps and bias.left_out.corrected == pytest.approx(RESIDUAL, rel=0.3)


def test_without_any_bias_none_is_told_and_the_correction_does_not_help() -> None:
    rng = np.random.default_rng(4)
    traits, _ = networks(8, rng)
    long = [each.brief_score + 0.2 + rng.normal(0, 0.02) for each in traits]
    bias = fit_brief_bias(traits, long, [1e-4] * 8)
    assert bias and not any(bias.effect(aspect).told for aspect in ("side", "macs", "cut"))
    assert not bias.left_out.helps


def test_each_is_left_out_of_its_own_prediction() -> None:
    traits, long = networks(6, np.random.default_rng(5))
    variances = [1e-5] * 6
    bias = fit_brief_bias(traits, long, variances)
    assert bias
    errors, shifts = [], []
    for place in range(6):
        others = [other for other in range(6) if other != place]
        refitted = fit_brief_bias(
            [traits[i] for i in others], [long[i] for i in others], [variances[i] for i in others]
        )
        assert refitted
        errors.append(100 * (long[place] - refitted.predict(traits[place]).score))
        gain = np.mean([long[i] - traits[i].brief_score for i in others])
        shifts.append(100 * (long[place] - traits[place].brief_score - gain))
    assert bias.left_out.corrected == pytest.approx(math.sqrt(np.mean(np.square(errors))))
    assert bias.left_out.mean_gain == pytest.approx(math.sqrt(np.mean(np.square(shifts))))


def test_too_few_or_too_like_networks_say_nothing() -> None:
    traits, long = networks(4, np.random.default_rng(6))
    assert fit_brief_bias(traits, long, [1e-4] * 4)
    assert fit_brief_bias(traits[:3], long[:3], [1e-4] * 3) is None
    assert fit_brief_bias([], [], []) is None
    alike = [replace(traits[0], brief_score=each.brief_score) for each in traits]
    assert fit_brief_bias(alike, long, [1e-4] * 4) is None


def test_an_aspect_that_never_varies_is_not_told_and_keeps_its_prior() -> None:
    traits, long = networks(8, np.random.default_rng(7))
    traits = [replace(each, cut=False) for each in traits]
    bias = fit_brief_bias(traits, long, [1e-5] * 8)
    assert bias
    cut = bias.effect("cut")
    assert not cut.varies and not cut.told
    assert cut.points == pytest.approx(0) and cut.high == pytest.approx(1.959964 * 5)
    # so a cut network is predicted with that much less certainty
    whole, pruned = bias.predict(traits[0]), bias.predict(replace(traits[0], cut=True))
    assert pruned.score == pytest.approx(whole.score)
    assert pruned.sd**2 - whole.sd**2 == pytest.approx(0.05**2)


def test_a_predicted_score_stays_within_0_and_1() -> None:
    traits, long = networks(24, np.random.default_rng(8))
    bias = fit_brief_bias(traits, long, [1e-5] * 24)
    assert bias and bias.effect("side").points > 0.5
    assert bias.predict(replace(traits[0], side_px=2.0**500, macs=2.0**1000)).score == 1
    assert bias.predict(replace(traits[0], side_px=2.0**-500, macs=2.0**-1000)).score == 0


def test_the_traits_are_those_of_the_record(make_record: Callable[..., MeasuredTrial]) -> None:
    record = make_record(0, top1=0.6)
    found = traits_of(record)
    assert found == Traits(brief_score=0.6, side_px=32, macs=20_000_000, cut=True)
    assert dict(zip(ASPECTS, found.columns, strict=True)) == {
        "brief_score": pytest.approx(6), "side": 5, "macs": pytest.approx(math.log2(20e6 / 1024)), "cut": 1,
    }  # fmt: skip
    whole = replace(record, candidate=replace(record.candidate, pruning=Pruning()))
    wide = replace(whole, spec=replace(record.spec, resolution_px=16, width_px=64))
    assert traits_of(wide) == replace(found, cut=False)  # as many pixels as a square of 32 px
