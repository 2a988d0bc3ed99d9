"""Results of the members of the front after they were trained again at full length when the search was over."""

from dataclasses import dataclass

from scalesearch.values.latency import Latency
from scalesearch.values.quality import Quality
from scalesearch.values.record import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedRun:
    """One member of the front, trained anew from one fresh seed at full length and deployed again."""

    trial: int
    """Number of the trial in the search. This run has the network, pruning and precision of that trial."""
    seed: int
    steps: int
    train_s: float
    float_score: float
    validation: Quality
    test: Quality
    """Score on images that neither the search nor this training saw."""
    latency: Latency
    """Latency of the run's own engine, built in a fresh process. All members of one confirmation are timed in one
    session."""
    size_bytes: int
    onnx_sha256: str
    network_sha256: str
    cost: Cost | None = None
    """Cost of the trained and pruned network, whose shape may differ from the trial's where it follows the weights.
    None in runs of earlier versions."""
    key: str = ""
    """Hash of everything that the training depends on (network, recipe, images, seed, precision, chip). A run with
    another key is another training."""
    timed_together: tuple[int, ...] = ()
    """Trials whose engines were timed in turn in the one session that `latency` comes from; empty if it was timed
    alone."""
    latency_rounds: tuple[Latency, ...] = ()
    """The latency in each round of that session. `latency` is their mean, and its interval contains the intervals of
    all."""
