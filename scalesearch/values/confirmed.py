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
    key: str = ""
    """Hash of the work behind it (network, recipe, images, seed, precision, chip): another one is another training."""
    timed_together: tuple[int, ...] = ()
    """Trials whose engines one session timed in turn, where `latency` comes from it; empty: timed alone."""
    latency_rounds: tuple[Latency, ...] = ()
    """What each round of that session gave; `latency` is their mean, and its interval holds all of theirs."""
