"""What a front member turned out to be once it was trained at full length: the truth after the search."""

from dataclasses import dataclass

from scalesearch.values.record import Latency, Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRun:
    """One front member, trained anew from one fresh seed at full length and deployed again."""

    trial: int
    """Of the search, whose network, pruning and precision it has."""
    seed: int
    steps: int
    train_s: float
    float_top1: float
    validation: Quality
    test: Quality
    """On images that neither the search nor this training saw."""
    latency: Latency
    """Of its own engine, built in a fresh process; all members of one confirmation are timed in one session."""
    size_bytes: int
    onnx_sha256: str
    network_sha256: str
