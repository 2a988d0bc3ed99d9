"""Compares studies: which of them may share a front, and whether they agree on which networks are good. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scalesearch.analysis.front import (
    Point,
    dominates,
    hypervolume,
    pareto_front,
    point,
    reference_of,
    undominated,
)
from scalesearch.analysis.ranks import RankAgreement, rank_agreement
from scalesearch.analysis.score_error import metric_of
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.network_spec import InputSize
from scalesearch.values.quality import metric_title
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.target import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedStudy:
    """One study in a comparison."""

    name: str
    records: tuple[TrialRecord, ...]
    session: Session

    @property
    def front(self) -> tuple[MeasuredTrial, ...]:
        """The study's Pareto front, fastest first."""
        return pareto_front(self.records)

    @property
    def device(self) -> Device | None:
        """The device that the study's latencies were measured on."""
        return next((record.device for record in self.records if record.device), None)

    def hypervolume(self, reference: Point) -> float:
        """Return the hypervolume of the study's front, up to the reference that all studies share."""
        return hypervolume(map(point, self.front), reference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two studies: what is comparable, and how well they agree on the networks that both have measured."""

    first: str
    second: str
    metric: str
    """Name of the metric that scored the first study."""
    same_device: bool
    timed_unlike: tuple[str, ...]
    """What differs in the timing besides the device, such as `batch 1 and 16`; empty if nothing does."""
    trained_unlike: str
    """The updates of the members of both fronts, such as `240 and 480, 960 updates`; empty if they are alike."""
    scored_unlike: str
    """The metrics of both studies, such as `mAP50 and mAP50-95`; empty if they are one."""
    same_images: bool
    second_beaten: float | None
    """Fraction of the second study's front that some point of the first's front beats (Zitzler's coverage). None where
    the two differ in device, way of timing, metric or images, since their points then cannot be compared."""
    first_beaten: float | None
    shared: int
    """Number of networks (task, scaling, pruning and precision) that both studies measured, trained in full length."""
    latency: RankAgreement | None
    score: RankAgreement | None
    latency_ratio: float | None
    """Median, over the shared networks, of the second study's latency divided by the first's."""


def common_reference(studies: Sequence[ComparedStudy]) -> Point:
    """Return the reference for the hypervolumes of all these studies."""
    return reference_of(record for study in studies for record in study.records)


def common_front(studies: Sequence[ComparedStudy]) -> tuple[tuple[str, MeasuredTrial], ...]:
    """Return the front of all studies' trials together, each with its study's name, fastest first.

    It is empty where the studies may not share a front: latencies of different devices or batch sizes, or scores by
    other metrics or on other images, cannot be compared.
    """
    if not all(comparable(studies[0], other) for other in studies[1:]):
        return ()
    members = [(study.name, record) for study in studies for record in study.front]
    return tuple(undominated(members, lambda member: point(member[1])))


def comparable(one: ComparedStudy, other: ComparedStudy) -> bool:
    """Tell whether points of the two studies may share a front."""
    unlike = scored_unlike(one, other) or timed_unlike(one, other)
    return not unlike and one.device == other.device and _same_images(one, other)


def scored_unlike(one: ComparedStudy, other: ComparedStudy) -> str:
    """Return the names of the metrics that scored the two studies, if they differ; else an empty text."""
    metrics = [metric_of(study.records) for study in (one, other)]
    return "" if metrics[0] == metrics[1] else " and ".join(map(metric_title, metrics))


def timed_unlike(one: ComparedStudy, other: ComparedStudy) -> tuple[str, ...]:
    """Return what differs in how engines were run and in what their latencies mean, apart from the device.

    The other latency settings (how long and how often an engine was timed) change the error of a latency, not its
    meaning.
    """
    found = []
    for name, first, second in zip(_TIMED, _timing(one), _timing(other), strict=True):
        if first != second:
            found.append(f"{name} {_listed(first)} and {_listed(second)}")
    return tuple(found)


_TIMED = (
    "target",
    "latency.objective",
    "batch",
    "threads",
    "TensorRT's largest batch",
    "CUDA graph",
    "copies in the clock",
)


def _timing(study: ComparedStudy) -> tuple[object, ...]:
    settings = study.session.settings
    tensorrt = settings.tensorrt
    # Taken from the records where they say it: run.toml may have been edited, and records may have been moved in.
    batches = {record.latency.batch for record in study.records if record.latency} or {settings.latency.batch}
    threads = {record.device.threads for record in study.records if record.device} or {settings.latency.threads}
    # TensorRT's settings mean nothing on other backends.
    how = (tensorrt.max_batch, tensorrt.cuda_graph, tensorrt.copies)
    on_tensorrt = study.session.target.backend.startswith("tensorrt")
    objectives = {record.latency.objective for record in study.records if record.latency}
    objectives = objectives or {settings.latency.objective}
    return (study.session.target.name, objectives, batches, threads, *(how if on_tensorrt else (None,) * len(how)))


def _listed(value: object) -> str:
    return ", ".join(map(str, sorted(value))) if isinstance(value, set) else str(value)


def compare(one: ComparedStudy, other: ComparedStudy) -> Pair:
    """Return what the two studies have in common."""
    first, second = _by_network(one), _by_network(other)
    shared = sorted(set(first) & set(second), key=repr)
    pairs = [(first[network], second[network]) for network in shared]
    together = comparable(one, other)
    ratios = [theirs[1] / ours[1] for ours, theirs in pairs]
    return Pair(
        first=one.name,
        second=other.name,
        metric=metric_of(one.records),
        same_device=one.device == other.device,
        timed_unlike=timed_unlike(one, other),
        trained_unlike=_trained_unlike(one, other),
        scored_unlike=scored_unlike(one, other),
        same_images=_same_images(one, other),
        second_beaten=_beaten(one.front, other.front) if together else None,
        first_beaten=_beaten(other.front, one.front) if together else None,
        shared=len(shared),
        latency=rank_agreement([ours[1] for ours, _ in pairs], [theirs[1] for _, theirs in pairs]),
        score=rank_agreement([ours[0] for ours, _ in pairs], [theirs[0] for _, theirs in pairs]),
        latency_ratio=median(ratios) if ratios else None,
    )


def _trained_unlike(one: ComparedStudy, other: ComparedStudy) -> str:
    updates = [{record.candidate.recipe.steps for record in study.front} for study in (one, other)]
    return "" if updates[0] == updates[1] else f"{_listed(updates[0])} and {_listed(updates[1])} updates"


def _same_images(one: ComparedStudy, other: ComparedStudy) -> bool:
    """Tell whether both studies were scored on the same pictures, split in the same way.

    A fingerprint is taken of the pixels as they are stored. So it decides only where both spaces store images of one
    size, both in colour or both in grey. Otherwise the decision rests on the source's name, its classes, how the images
    are read, and how and into how many images they were split.
    """
    stored = [(study.session.storage, study.session.base.image_channels) for study in (one, other)]
    if stored[0] == stored[1]:
        return one.session.data.fingerprint == other.session.data.fingerprint
    return _split(one.session) == _split(other.session)


def _split(session: Session) -> tuple[object, ...]:
    data, settings = session.data, session.settings.data
    sizes = (data.train_images, data.val_images, data.calibration_images, data.test_images)
    window = None if isinstance(settings.window, str) else settings.window
    split = (settings.val_fraction, settings.test_fraction, settings.seed, settings.group_by)
    return (data.name, data.class_names, sizes, settings.framing, window, split)


_Network = tuple[str, str, Scaling, InputSize, Pruning, str]
"""The task, the base network, and what is sampled of it: a detector is another network than a classifier like it."""


def _by_network(study: ComparedStudy) -> dict[_Network, tuple[float, float]]:
    """Return (score, p50_ms) of each network that the study trained in full length and measured.

    Where a network was measured more than once (with another recipe or calibration), these are medians.
    """
    found: dict[_Network, list[tuple[float, float]]] = {}
    for record in study.records:
        if record.spec and record.quality and record.latency and record.same_as is None and not record.short:
            candidate = record.candidate
            shape = (study.session.settings.task, record.spec.name, candidate.scaling, record.spec.input_size)
            network = (*shape, candidate.pruning, candidate.quantization.precision)
            found.setdefault(network, []).append(point(record))
    return {
        network: (median(score for score, _ in points), median(p50_ms for _, p50_ms in points))
        for network, points in found.items()
    }


def _beaten(by: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> float | None:
    if not front:
        return None
    points = [point(record) for record in by]
    beaten = sum(any(dominates(other, mine) for other in points) for mine in map(point, front))
    return beaten / len(front)
