"""When siblings, and with --adaptive all candidates, do without a precision."""

from collections.abc import Callable

import pytest

from scalesearch.search.fates import repeat
from scalesearch.search.precisions import SIBLING_TRIES, TRIES, given_up, useless
from scalesearch.values.candidate import Candidate, Quantization, Scaling
from scalesearch.values.record import Cost, Gain, MeasuredTrial

LOST = Gain(step="precision", what="fp16", speedup=0.9, speedup_low=0.88, speedup_high=0.92, score_change=0.0)
PAID = Gain(step="precision", what="fp16", speedup=1.3, speedup_low=1.2, speedup_high=1.4, score_change=0.0)


def network(trial: int, calibration_images: int = 128) -> Candidate:
    quantization = Quantization(precision="fp16", calibration_images=calibration_images)
    return Candidate(scaling=Scaling(width=0.5 + trial / 10), quantization=quantization)


@pytest.mark.parametrize(
    ("macs", "last", "given_up"),
    [
        ((1, 2, 4, 8), LOST, True),
        ((1, 2, 4), LOST, False),  # too few networks
        ((1, 2, 4, 8), PAID, False),
        ((1, 2, 3, 4), LOST, False),  # not yet tried on a large network
    ],
)
def test_a_precision_is_given_up_when_it_paid_on_no_network_small_or_large(
    macs: tuple[int, ...], last: Gain, given_up: bool, make_record: Callable[..., MeasuredTrial]
) -> None:
    gains = [(LOST,)] * (len(macs) - 1) + [(last,)]
    halves = [
        make_record(trial, cost=Cost(macs=each, params=1), gains=gain, candidate=network(trial))
        for trial, (each, gain) in enumerate(zip(macs, gains, strict=True))
    ]
    largest = make_record(99, cost=Cost(macs=10, params=1), gains=())
    assert useless([*halves, largest]) == ({"fp16": SIBLING_TRIES} if given_up else {})


def test_one_network_counts_once(make_record: Callable[..., MeasuredTrial]) -> None:
    cost = Cost(macs=10, params=1)
    again = [make_record(n, cost=cost, gains=(LOST,), candidate=network(1, 100 + n)) for n in range(6)]
    assert useless([*again, repeat(again[0], 9, again[0].candidate)]) == {}


def test_one_network_in_several_calibrations_is_one_towards_giving_up(
    make_record: Callable[..., MeasuredTrial],
) -> None:
    lost = [make_record(n, gains=(LOST,), candidate=network(n)) for n in range(TRIES)]
    again = [make_record(20 + n, gains=(LOST,), candidate=network(0, 100 + n)) for n in range(TRIES)]
    assert given_up([*lost[:-1], *again]) == {}
    assert given_up([*lost, *again]) == {"fp16": TRIES}
    paid = make_record(99, gains=(PAID,), candidate=network(3, 64))
    for records in ([*lost, paid], [paid, *lost]):
        assert given_up(records) == {}, "another calibration of the network paid"
