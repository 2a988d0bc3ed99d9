"""Two or more studies side by side: what of them may share a front, and whether they agree on what is good. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from scalesearch.records.ranks import RankAgreement, rank_agreement
from scalesearch.search.front import hypervolume, pareto_front, point
from scalesearch.values.candidate import Pruning, Scaling
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session
from scalesearch.values.target import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study as it is compared."""

    name: str
    records: tuple[TrialRecord, ...]
    session: Session

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """Its Pareto front, fastest first."""
        return pareto_front(self.records)

    @property
    def device(self) -> Device | None:
        """What its latencies were measured on."""
        return next((record.device for record in self.records if record.device), None)

    @property
    def hypervolume(self) -> float:
        """Of its front, up to the reference that all studies share."""
        return hypervolume(map(point, self.front))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two studies: what is comparable, and how the networks that both have measured agree."""

    first: str
    second: str
    same_device: bool
    timed_unlike: tuple[str, ...]
    """What else, besides the device, was timed in another way: `batch 1 and 16`; empty where nothing was."""
    same_images: bool
    second_beaten: float | None
    """Share of the second's front that a point of the first's front beats (Zitzler's coverage); None across devices,
    ways of timing or images, where one cannot beat the other."""
    first_beaten: float | None
    shared: int
    """Networks (scaling, pruning and precision) that both studies measured."""
    latency: RankAgreement | None
    accuracy: RankAgreement | None
    latency_ratio: float | None
    """Median over the shared networks of the second's latency to the first's."""


def common_front(studies: Sequence[Study]) -> tuple[tuple[str, TrialRecord], ...]:
    """The front of all studies' trials together, each with its study's name, fastest first.

    Empty where they may not share one: latencies of unlike devices or batches, or accuracies on other images, do not
    compare.
    """
    if not all(comparable(studies[0], other) for other in studies[1:]):
        return ()
    members = [(study.name, record) for study in studies for record in study.front]
    members.sort(key=lambda member: (point(member[1])[1], -point(member[1])[0]))
    best: list[tuple[str, TrialRecord]] = []
    for name, record in members:
        if not best or point(record)[0] > point(best[-1][1])[0] or point(record) == point(best[-1][1]):
            best.append((name, record))
    return tuple(best)


def comparable(one: Study, other: Study) -> bool:
    """Whether their points may share a front."""
    return one.device == other.device and not timed_unlike(one, other) and _same_images(one, other)


def timed_unlike(one: Study, other: Study) -> tuple[str, ...]:
    """What differs between the two in how an engine was run and what its latency stands for, the device apart.

    How long and how often was timed (the other latency settings) changes the error of a latency, not its meaning.
    """
    found = []
    for name, first, second in zip(_TIMED, _timing(one), _timing(other), strict=True):
        if first != second:
            found.append(f"{name} {_listed(first)} and {_listed(second)}")
    return tuple(found)


_TIMED = ("target", "batch", "threads", "TensorRT's largest batch", "CUDA graph", "copies in the clock")


def _timing(study: Study) -> tuple[object, ...]:
    settings = study.session.settings
    tensorrt = settings.tensorrt
    # Records say it themselves: run.toml may have been edited, records may have been moved in.
    batches = {record.latency.batch for record in study.records if record.latency} or {settings.latency.batch}
    threads = {record.device.threads for record in study.records if record.device} or {settings.latency.threads}
    # TensorRT's settings mean nothing on other backends.
    how = (tensorrt.max_batch, tensorrt.cuda_graph, tensorrt.copies)
    on_tensorrt = study.session.target.backend.startswith("tensorrt")
    return (study.session.target.name, batches, threads, *(how if on_tensorrt else (None,) * len(how)))


def _listed(value: object) -> str:
    return ", ".join(map(str, sorted(value))) if isinstance(value, set) else str(value)


def compare(one: Study, other: Study) -> Pair:
    """What the two have in common."""
    first, second = _by_network(one), _by_network(other)
    shared = sorted(set(first) & set(second), key=repr)
    pairs = [(first[network], second[network]) for network in shared]
    together = comparable(one, other)
    ratios = [theirs[1] / ours[1] for ours, theirs in pairs]
    return Pair(
        first=one.name,
        second=other.name,
        same_device=one.device == other.device,
        timed_unlike=timed_unlike(one, other),
        same_images=_same_images(one, other),
        second_beaten=_beaten(one.front, other.front) if together else None,
        first_beaten=_beaten(other.front, one.front) if together else None,
        shared=len(shared),
        latency=rank_agreement([ours[1] for ours, _ in pairs], [theirs[1] for _, theirs in pairs]),
        accuracy=rank_agreement([ours[0] for ours, _ in pairs], [theirs[0] for _, theirs in pairs]),
        latency_ratio=median(ratios) if ratios else None,
    )


def _same_images(one: Study, other: Study) -> bool:
    """Whether both were scored on the same pictures, split in the same way.

    A fingerprint is of the pixels as they are stored, so it tells only where both spaces store one size, in colour or
    in grey. Where that differs, the source's name, its classes, how they are read, and how and into how many images it
    was split decide.
    """
    stored = [(study.session.storage_px, study.session.base.image_channels) for study in (one, other)]
    if stored[0] == stored[1]:
        return one.session.data.fingerprint == other.session.data.fingerprint
    return _split(one.session) == _split(other.session)


def _split(session: Session) -> tuple[object, ...]:
    data, settings = session.data, session.settings.data
    sizes = (data.train_images, data.val_images, data.calibration_images, data.test_images)
    window = None if isinstance(settings.window, str) else settings.window
    split = (settings.val_fraction, settings.test_fraction, settings.seed)
    return (data.name, data.class_names, sizes, settings.fit, window, split)


_Network = tuple[str, Scaling, int, Pruning, str]


def _by_network(study: Study) -> dict[_Network, tuple[float, float]]:
    """(top1, p50_ms) of each network that the study measured.

    Medians, where it did so more than once (with another recipe or calibration).
    """
    found: dict[_Network, list[tuple[float, float]]] = {}
    for record in study.records:
        if record.spec and record.quality and record.latency and record.same_as is None:
            candidate = record.candidate
            shape = (record.spec.name, candidate.scaling, record.spec.resolution_px)
            network = (*shape, candidate.pruning, candidate.quantization.precision)
            found.setdefault(network, []).append(point(record))
    return {
        network: (median(top1 for top1, _ in points), median(p50_ms for _, p50_ms in points))
        for network, points in found.items()
    }


def _beaten(by: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> float | None:
    if not front:
        return None
    points = [point(record) for record in by]
    beaten = sum(
        any(top1 >= mine[0] and p50_ms <= mine[1] and (top1, p50_ms) != mine for top1, p50_ms in points)
        for mine in map(point, front)
    )
    return beaten / len(front)
