"""The words on the bias of the brief front: what is told, what is not, and the command that follows."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from scalesearch.analysis.brief_bias import ASPECTS, Aspect, BriefBias, Corrected, Effect, LeftOut
from scalesearch.analysis.confirmation import Confirmation, confirm_moves
from scalesearch.analysis.likely_members import Correction, LikelyMember
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.brief_bias import correction_lines

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def confirmation(make_record: MakeRecord) -> Confirmation:
    front = [make_record(trial, top1=0.5 + 0.1 * trial, p50_ms=1.0 + trial) for trial in range(2)]
    front[1] = replace(front[1], spec=replace(front[1].spec, resolution_px=64))
    runs = [
        ConfirmedRun(
            trial=record.trial, seed=1, steps=2400, train_s=1.0, float_score=0.9, validation=record.quality,
            test=record.quality, latency=record.latency, size_bytes=1, onnx_sha256="0", network_sha256="1",
        )
        for record in front
    ]  # fmt: skip
    found = confirm_moves(front, runs)
    assert found
    return found


def bias_of(
    points: dict[Aspect, tuple[float, float, float]], *, errors: Sequence[float] = (1.8, 5.6, 2.6)
) -> BriefBias:
    """The aspects that `points` lacks do not vary."""
    effects = [(aspect, *points.get(aspect, (0.0, -9.8, 9.8)), aspect in points) for aspect in ASPECTS]
    corrected, mean_gain, alone = errors
    return BriefBias(
        networks=8, mean_gain=12.34, residual_sd=1.0, centre=(), weights=(), covariance=(), noise_variance=1.0,
        effects=tuple(Effect(aspect=a, points=p, low=low, high=high, varies=v) for a, p, low, high, v in effects),
        left_out=LeftOut(corrected=corrected, mean_gain=mean_gain, brief_score_alone=alone),
    )  # fmt: skip


def lines(confirmation: Confirmation, correction: Correction) -> list[str]:
    return list(correction_lines(confirmation, correction, command="scalesearch confirm small"))


def test_what_is_told_and_what_is_not(confirmation: Confirmation) -> None:
    found = bias_of({"side": (3.1, 1.2, 5.0), "macs": (0.4, -0.8, 1.6), "cut": (-2.5, -4.0, -1.0)})
    assert lines(confirmation, Correction(bias=found)) == [
        "longer training gave +12.3 points on average; at equal brief scores, in points (95 %): +3.1 (+1.2 to +5.0) "
        "for a doubling of the side, +0.4 (-0.8 to +1.6) for a doubling of the MACs at equal side, -2.5 (-4.0 to -1.0) "
        "for cut networks",
        "the brief front favours small images and cut networks; no bias by MACs can be told",
        "how far to trust it: each of 8 networks, predicted from the others, is 1.8 points off; by the mean gain 5.6, "
        "by the brief score alone 2.6",
    ]


def test_an_aspect_that_never_varies_has_no_figure(confirmation: Confirmation) -> None:
    told = lines(confirmation, Correction(bias=bias_of({"side": (-3.1, -5.0, -1.2)})))
    assert "cut networks" not in told[0] and "MACs" not in told[0]
    assert told[1] == "the brief front favours large images; no bias by MACs or cutting can be told"
    nothing = lines(confirmation, Correction(bias=bias_of({"macs": (1.0, -1.0, 3.0)})))
    assert nothing[1] == "no bias by side or MACs or cutting can be told"


@pytest.mark.parametrize("errors", [(2.7, 5.6, 2.6), (5.7, 5.6, 9.0)])
def test_a_correction_that_predicts_no_better_says_so(confirmation: Confirmation, errors: Sequence[float]) -> None:
    told = lines(confirmation, Correction(bias=bias_of({"side": (3.1, 1.2, 5.0)}, errors=errors)))
    assert told[2].endswith("the correction predicts no better than the simpler ways: take it as a hint")


def test_those_that_were_wronged_are_named_with_the_command(
    confirmation: Confirmation, make_record: MakeRecord
) -> None:
    likely = tuple(
        LikelyMember(record=make_record(trial, top1=0.5), probability=chance, corrected=Corrected(score=0.7, sd=0.02))
        for trial, chance in ((12, 0.71), (17, 0.552))
    )
    told = lines(confirmation, Correction(bias=bias_of({"side": (3.1, 1.2, 5.0)}), likely=likely))
    assert told[3:] == [
        "not on the brief front, but likely on the long one: trial 12 (71 %: 50.0 % -> 70.0 (66.1-73.9)), "
        "trial 17 (55 %: 50.0 % -> 70.0 (66.1-73.9))",
        "confirm them: scalesearch confirm small --also 12 --also 17",
    ]


def test_without_a_figure_the_reason_is_said(confirmation: Confirmation) -> None:
    few = "bias of the brief front: nothing to say, it takes 4 confirmed networks (precisions aside), and there are 2"
    assert lines(confirmation, Correction(bias=None)) == [few]
    first = confirmation.moves[0]
    many = [
        replace(first, record=replace(first.record, spec=replace(first.record.spec, num_classes=n))) for n in range(4)
    ]
    alike = "bias of the brief front: nothing to say, the 4 confirmed networks are alike in side, MACs and cutting"
    assert lines(replace(confirmation, moves=tuple(many)), Correction(bias=None)) == [alike]
