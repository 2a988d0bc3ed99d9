"""Read a table of trained networks: its points, what a search may observe of them, the best front, and the noise.

The truth about a point is the mean test accuracy over all seeds and the mean latency over all processes. A search
observes the validation accuracy of one seed and the latency of one process.

    PYTHONPATH=benchmarks python -m replay.table benchmarks/results/replay_NAME.jsonl.gz --steps 240
"""

import argparse
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from replay.lines import Line, read_lines
from replay.shapes import BRANCH_SHARE, PRECISIONS, Shape
from scalesearch.analysis.front import Point as FrontPoint
from scalesearch.analysis.front import hypervolume, undominated
from scalesearch.values.candidate import Precision

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A network in one precision."""

    shape: Shape
    precision: Precision
    macs: int
    params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """CPU seconds of a point's stages, means over seeds and processes."""

    trunk: float
    """The trunk from random weights up to the branch; networks of one trunk pay it once."""
    branch: float
    """Cut, branch and export of the network; its precisions pay it once."""
    score: float
    """Quantization and the score on the validation images."""
    timing: float
    """Compiling and timing the file."""
    untrained: float
    """Making the file of an untrained network, for a latency before training."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """All points that were trained from every seed and timed in every process."""

    steps: int
    points: tuple[Point, ...]
    val: Array
    """Accuracy on validation images as a fraction, (points, seeds)."""
    test: Array
    """Accuracy on test images as a fraction, (points, seeds)."""
    latency_ms: Array
    """(points, processes)."""
    seconds: tuple[Seconds, ...]
    equal: dict[Shape, Shape]
    """Each combination of the space that has a network in the table, with that network."""
    macs: dict[Shape, int]
    """Of every combination of the space, those above the limit as well."""
    rejected: frozenset[Shape]
    """Combinations above the limits of the space."""

    @functools.cached_property
    def places(self) -> dict[tuple[Shape, Precision], int]:
        """Where a network in a precision stands in `points`."""
        return {(point.shape, point.precision): place for place, point in enumerate(self.points)}

    @functools.cached_property
    def truth(self) -> tuple[FrontPoint, ...]:
        """(mean test accuracy, mean latency in milliseconds) of every point."""
        return tuple(zip(self.test.mean(axis=1).tolist(), self.latency_ms.mean(axis=1).tolist(), strict=True))

    @functools.cached_property
    def reference(self) -> FrontPoint:
        """The reference of hypervolumes: the lowest true accuracy and the longest true latency of the table."""
        return (min(score for score, _ in self.truth), max(ms for _, ms in self.truth))

    @functools.cached_property
    def front(self) -> tuple[int, ...]:
        """The places of the best possible front, by the truth; fastest first."""
        return tuple(undominated(range(len(self.points)), lambda place: self.truth[place]))

    @functools.cached_property
    def best(self) -> float:
        """The hypervolume of the best possible front."""
        return hypervolume((self.truth[place] for place in self.front), self.reference)

    def share(self, places: Iterable[int]) -> float:
        """Return the hypervolume of these points by the truth, as a fraction of the best possible.

        It is 1 where the best possible is nothing, in a table of two points or of one.
        """
        if not self.best:
            return 1.0
        return hypervolume((self.truth[place] for place in places), self.reference) / self.best

    @property
    def networks(self) -> int:
        """Number of networks, each of which is one training."""
        return len({point.shape for point in self.points})

    def accuracy_noise_points(self) -> float:
        """Return the standard deviation of validation accuracy over the seeds of one point, in points; NaN of one."""
        return 100 * _pooled(self.val)

    def latency_noise(self) -> float:
        """Return the coefficient of variation of latency over the processes of one point; NaN of one process."""
        return _pooled(np.log(self.latency_ms))


def _pooled(values: Array) -> float:
    """Return the standard deviation within rows, over all rows."""
    return math.sqrt(values.var(axis=1, ddof=1).mean()) if values.shape[1] > 1 else math.nan


def read_table(path: Path, steps: int) -> Table:
    """Return the table of a file (JSON lines, packed or not) for trainings of this length.

    Raises:
        SystemExit: No point of the file has all seeds at this length and a latency.
        OSError: The file cannot be read.
    """
    return table_of(read_lines(path), steps, name=str(path))


def table_of(lines: Sequence[Line], steps: int, *, name: str = "the table") -> Table:
    """Return the table of these lines; the points that lack a seed or a process are left out."""
    networks = {line["network"]: line for line in lines if line["kind"] == "network"}
    trained = [line for line in lines if line["kind"] == "accuracy" and line["steps"] == steps]
    timed = [line for line in lines if line["kind"] == "latency"]
    seeds, processes = (sorted({line[key] for line in of}) for of, key in ((trained, "seed"), (timed, "process")))
    trunk_cpu_s = trunk_cpu_seconds(lines)
    by_seed = {(line["network"], line["precision"], line["seed"]): line for line in trained}
    by_process = {(line["network"], line["precision"], line["process"]): line for line in timed}
    points, rows = list[Point](), list[tuple[list[Line], list[Line]]]()
    for network, line in networks.items():
        for precision in PRECISIONS:
            mine = [by_seed.get((network, precision, seed)) for seed in seeds]
            own = [by_process.get((network, precision, process)) for process in processes]
            if seeds and processes and all(mine) and all(own):
                shape = shape_of_line(line)
                points.append(Point(shape=shape, precision=precision, macs=line["macs"], params=line["params"]))
                rows.append(([each for each in mine if each], [each for each in own if each]))
    if not points:
        message = (
            f"{name}: no point has all seeds of {steps} updates and a latency ({len(trained)} accuracies, {len(timed)} "
            "latencies there); train with replay.make_table, then time with --latency"
        )
        raise SystemExit(message)
    shapes = {point.shape for point in points}
    first = {line["identity"]: shape for line in networks.values() if (shape := shape_of_line(line)) in shapes}
    return Table(
        steps=steps,
        points=tuple(points),
        val=np.array([[line["val"] for line in mine] for mine, _ in rows]),
        test=np.array([[line["test"] for line in mine] for mine, _ in rows]),
        latency_ms=np.array([[line["p50_ms"] for line in own] for _, own in rows]),
        seconds=tuple(
            _seconds(mine, own, [trunk_cpu_s[point.shape.trunk.name, line["seed"], steps] for line in mine])
            for point, (mine, own) in zip(points, rows, strict=True)
        ),
        equal={shape_of_line(n): first[n["identity"]] for n in networks.values() if n["identity"] in first},
        macs={shape_of_line(line): line["macs"] for line in networks.values()},
        rejected=frozenset(shape_of_line(line) for line in networks.values() if line["rejected"]),
    )


def shape_of_line(line: Line) -> Shape:
    """Return the network that a line of the kind `network` describes."""
    stages = tuple((float(width), float(depth), float(kernel)) for width, depth, kernel in line.get("stages", ()))
    fields = ("resolution", "depth", "width", "kernel", "cut")
    return Shape(**{field: float(line[field]) for field in fields}, stages=stages)


def trunk_cpu_seconds(lines: Sequence[Line]) -> dict[tuple[str, int, int], float]:
    """Return the CPU seconds of each trunk, by its network's name, seed and updates.

    A trunk is trained with the first of its networks, the most cut one, so its seconds are taken times the share in
    which the worker had a core *then*. What a shorter trunk took is part of a longer one's seconds, at its own share.
    """
    shapes = {line["network"]: shape_of_line(line) for line in lines if line["kind"] == "network"}
    first: dict[tuple[str, int, int], Line] = {}
    for line in lines:
        if line["kind"] == "accuracy":
            shape = shapes[line["network"]]
            key = (shape.trunk.name, line["seed"], line["steps"])
            if key not in first or shape.cut > shapes[first[key]["network"]].cut:
                first[key] = line
    found: dict[tuple[str, int, int], float] = {}
    cpu_s, wall_s, before = 0.0, 0.0, ("", 0)
    for name, seed, steps in sorted(first):
        if (name, seed) != before:
            cpu_s, wall_s, before = 0.0, 0.0, (name, seed)
        line = first[name, seed, steps]
        cpu_s += max(0.0, line["trunk_s"] - wall_s) * line["cpu_share"]
        wall_s = max(wall_s, line["trunk_s"])
        found[name, seed, steps] = cpu_s
    return found


def _seconds(trained: Sequence[Line], timed: Sequence[Line], trunks_s: Sequence[float]) -> Seconds:
    """Return the CPU seconds of a point: seconds of training times the share in which the worker had a core."""

    def mean(lines: Sequence[Line], *fields: str, share: bool = False) -> float:
        return float(np.mean([sum(each[f] for f in fields) * (each["cpu_share"] if share else 1) for each in lines]))

    return Seconds(
        trunk=float(np.mean(trunks_s)),
        branch=mean(trained, "prune_s", "branch_s", "export_s", share=True),
        score=mean(trained, "score_s", share=True)
        + (mean(trained, "quantize_s", share=True) if trained[0]["precision"] != "fp32" else 0.0),
        timing=mean(timed, "time_s"),
        untrained=mean(timed, "make_s"),
    )


def summary(table: Table) -> list[str]:
    """Return the lines that describe a table: size, hours, noise and the best possible front."""
    trunk_s = {point.shape.trunk: each.trunk for point, each in zip(table.points, table.seconds, strict=True)}
    branch_s = {point.shape: each.branch for point, each in zip(table.points, table.seconds, strict=True)}
    hours = (sum(trunk_s.values()) + sum(branch_s.values())) * table.val.shape[1] / 3600
    lines = [
        f"{len(table.points)} points of {table.networks} networks and {len(trunk_s)} trunks, {table.steps} updates "
        f"(branch: {100 * BRANCH_SHARE:.0f} %), {table.val.shape[1]} seeds, {table.latency_ms.shape[1]} processes",
        f"trunks and branches of this length: {hours:.2f} core hours",
        f"noise between seeds: {_words(table.accuracy_noise_points(), 'points of validation accuracy')}",
        f"noise between processes: {_words(100 * table.latency_noise(), '% of latency')}",
        f"best possible front, {len(table.front)} points, reference {100 * table.reference[0]:.1f} % and "
        f"{table.reference[1]:.4f} ms, hypervolume {table.best:.4f}:",
    ]
    for place in table.front:
        point, (score, ms) = table.points[place], table.truth[place]
        lines.append(f"  {ms:8.4f} ms  {100 * score:5.1f} %  {point.shape.name} {point.precision}")
    return lines


def _words(value: float, unit: str) -> str:
    return "not known, since there is only one" if math.isnan(value) else f"{value:.2f} {unit} (standard deviation)"


def main() -> None:
    """Print the summary of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="file of replay.make_table, packed or not")
    parser.add_argument("--steps", type=int, default=240, help="length of the trainings")
    told = parser.parse_args()
    print(f"{told.table}: {told.table.stat().st_size:,} bytes")
    print("\n".join(summary(read_table(told.table, told.steps))))


if __name__ == "__main__":
    main()
