import dataclasses
from collections.abc import Callable

import pytest

from scalesearch.cli.full_training import compared_numbers
from scalesearch.records.export import read_config, write_config
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session


@pytest.mark.parametrize(
    ("longer", "top1", "verdict"),
    [
        (0, 0.8, "agrees within its interval"),
        (0, 0.1, "lies OUTSIDE of it"),
        (1, 0.1, "has 100 and cannot be compared"),
    ],
)
def test_seeds_are_compared_at_equal_length_only(
    session: Session, make_record: Callable[..., TrialRecord], longer: int, top1: float, verdict: str
) -> None:
    record = make_record(1, top1=0.8)
    quality, latency = record.quality, record.latency
    assert quality and latency and record.training
    record = dataclasses.replace(record, training=dataclasses.replace(record.training, steps=100))
    test = dataclasses.replace(quality, top1=0.8, top1_low=0.78, top1_high=0.82)
    runs = [
        ConfirmedRun(
            trial=1, seed=seed, steps=100 + longer, train_s=1.0, float_top1=top1, validation=test,
            test=dataclasses.replace(test, top1=top1), latency=latency, size_bytes=1, onnx_sha256="0",
            network_sha256="0",
        )
        for seed in (1, 2)
    ]  # fmt: skip
    config = read_config(write_config(record, session, session.folder, confirmed=runs))
    (line,) = [line for line in compared_numbers(config, record, test, "this chip") if "seeds" in line]
    assert line.endswith(f"this one {verdict}")
