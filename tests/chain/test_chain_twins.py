"""Which twins are timed, and what they are compared with."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_evaluators import make_latency
from torch import nn

from scalesearch.chain.stages import StageClock
from scalesearch.chain.twins import Twins
from scalesearch.networks import find_spec
from scalesearch.values.candidate import Pruning, Quantization, Sparsity
from scalesearch.values.latency import Latency
from scalesearch.values.network import Network
from scalesearch.values.record import Gain, StepScore

SPEC = find_spec("resnet_small")
WIDE, NARROW = (Network(spec=SPEC, module=nn.Conv2d(3, channels, 3)) for channels in (8, 4))
STEPS = (StepScore(step="onnx_fp32", score=0.5), StepScore(step="engine", score=0.49))


class Bench:
    """A study whose engines take these latencies, in this order; it notes what is timed."""

    def __init__(
        self, folder: Path, *latencies: Latency, adaptive: bool = False, float_score: float | None = None
    ) -> None:
        self.left, self.bounds = list(latencies), list[Any]()
        self.compiled, self.zeros = list[str](), list[str]()
        session: Any = SimpleNamespace(folder=folder, settings=SimpleNamespace(adaptive=adaptive))
        lock: Any = SimpleNamespace(busy=contextlib.nullcontext, quiet=contextlib.nullcontext)
        deploy: Any = SimpleNamespace(dense_file=lambda work, data: "dense", float_score=lambda plan: float_score)
        self.twins = Twins(session, lock, deploy, self)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def compile(self, model: str, pruning: Pruning) -> Iterator[None]:
        self.compiled.append(model)
        self.zeros.append(pruning.sparsity)
        yield

    def time(self, engine: None, *, exact_ms: tuple[float, float], brief: bool) -> Latency:
        self.bounds.append((exact_ms, brief))
        return replace(self.left.pop(0), coarse=True)

    def gains(
        self,
        precision: Any,
        latency: Latency,
        *,
        cut: bool = False,
        near: bool = True,
        sparsity: Sparsity = "none",
        qat_steps: int = 0,
    ) -> tuple[Gain, ...]:
        plan: Any = SimpleNamespace(
            spec=SPEC,
            pruning=Pruning(channel_fraction=0.5 if cut else 0.0, sparsity=sparsity),
            candidate=SimpleNamespace(quantization=Quantization(precision=precision, qat_steps=qat_steps)),
        )
        training = SimpleNamespace(float_score=0.5)
        network = NARROW if cut else WIDE
        shrunk = SimpleNamespace(network=network, dense=WIDE, dense_score=0.6, training=training)
        work: Any = SimpleNamespace(shrunk=shrunk, float_model="float")
        data: Any = None
        return self.twins.gains(plan, work, (latency, STEPS), data, StageClock(), near=near)


def test_the_latency_of_a_trial_in_fp32_serves_every_trial_of_that_shape(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.gains("fp32", make_latency(3.0, 0.01)) == ()
    (pruning,) = bench.gains("fp32", make_latency(2.0, 0.01), cut=True)
    assert pruning.step == "pruning" and pruning.speedup == pytest.approx(1.5)
    assert pruning.score_change == pytest.approx(-0.1)
    pruning, precision = bench.gains("int8", make_latency(1.6, 0.01), cut=True)
    assert [pruning.speedup, precision.speedup] == pytest.approx([1.5, 1.25])
    assert precision.score_change == pytest.approx(-0.01)
    assert bench.compiled == []


def test_each_shape_is_timed_once_and_roughly(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_latency(2.0, 0.03), make_latency(3.0, 0.03))
    first = bench.gains("int8", make_latency(1.0, 0.01), cut=True)
    assert [each.step for each in first] == ["pruning", "precision"]
    assert [each.speedup for each in first] == pytest.approx([1.5, 2.0])
    assert bench.compiled == ["float", "dense"]
    assert bench.bounds == [((0.0, 0.0), True)] * 2
    assert len(bench.gains("fp16", make_latency(2.0, 0.01), cut=True)) == 2
    assert len(bench.gains("int8", make_latency(2.0, 0.01))) == 1
    assert bench.compiled == ["float", "dense"]


def test_zeros_are_timed_with_the_kernels_of_the_trial_and_apart_from_the_network_without_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_latency(2.0, 0.03), make_latency(3.0, 0.03))
    pruning, precision = bench.gains("int8", make_latency(1.0, 0.01), sparsity="2:4")
    assert (bench.compiled, bench.zeros) == (["float", "dense"], ["2:4", "none"])
    assert [pruning.speedup, precision.speedup] == pytest.approx([1.5, 2.0])
    bench.gains("fp32", make_latency(1.8, 0.01), sparsity="2:4")
    (precision,) = bench.gains("int8", make_latency(1.0, 0.01))  # the network of the same shape, without zeros
    assert precision.speedup == pytest.approx(3.0)
    assert len(bench.compiled) == 2


def test_a_roughly_timed_fp32_twin_does_not_make_the_gain_of_an_exactly_timed_trial_coarse(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_latency(2.0, 0.03), make_latency(2.02, 0.03))
    exact = make_latency(1.0, 0.01)
    pruning, precision = bench.gains("int8", exact, cut=True)
    assert not pruning.coarse and not precision.coarse
    assert pruning.speedup > 1 > pruning.speedup_low
    rough, _ = bench.gains("int8", replace(exact, coarse=True), cut=True)
    assert rough.coarse


def test_far_from_the_front_a_trial_is_compared_with_what_is_known_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.gains("int8", make_latency(1.0, 0.01), cut=True, near=False) == ()
    bench.gains("fp32", make_latency(2.0, 0.01), cut=True, near=False)
    (precision,) = bench.gains("int8", make_latency(1.0, 0.01), cut=True, near=False)
    assert precision.step == "precision" and precision.speedup == pytest.approx(2.0)
    assert bench.compiled == []


def test_an_adaptive_study_times_the_twins_of_every_trial(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_latency(2.0, 0.03), adaptive=True)
    assert len(bench.gains("int8", make_latency(1.0, 0.01), near=False)) == 1
    assert bench.compiled == ["float"]


@pytest.mark.parametrize(("stored", "change"), [(0.45, 0.04), (None, None)])
def test_updates_with_rounding_are_compared_with_the_network_that_had_none(
    tmp_path: Path, stored: float | None, change: float | None
) -> None:
    """Not with their own weights in fp32, which nobody would deploy."""
    bench = Bench(tmp_path, make_latency(2.0), float_score=stored)
    (gain,) = bench.gains("int8", make_latency(1.0), qat_steps=60)
    assert gain.what == "int8 QAT" and gain.score_change == (None if change is None else pytest.approx(change))
    (gain,) = bench.gains("int8", make_latency(1.0))
    assert gain.score_change == pytest.approx(-0.01)
