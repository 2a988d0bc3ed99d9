"""Does searching compression together with scaling pay? Fronts with and without the compression axes, one by one.

    python benchmarks/compression_axes.py --data DIR --to FOLDER --budget 40 --workers 2

For each space two searches of the same budget, seed and data: the whole space, and the space with nothing to prune and
fp32 alone. Compared is the hypervolume of their fronts (accuracy times ln(latency), see analysis/front.py) at equal
wall time, the shorter of the two, and at the end. Each search is an ordinary `scalesearch run`, so an interrupted
benchmark continues; both want a machine that does nothing else. One seed each: the difference is an observation, not
a law.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scalesearch.analysis.front import hypervolume, pareto_front, point
from scalesearch.analysis.paid import paid_lines
from scalesearch.records.run_file import read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.values.record import TrialRecord

SCALING_ONLY = ("pruning.channel_fraction=[0.0]", 'quantization.precision=["fp32"]')
ARMS: dict[str, tuple[str, ...]] = {"with": (), "without": SCALING_ONLY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One finished search: its records, and when each of them was on disk, in seconds since the first trial began."""

    records: tuple[TrialRecord, ...]
    done_s: dict[int, float]

    def until(self, seconds: float) -> tuple[TrialRecord, ...]:
        """The front of what was there by then."""
        return pareto_front(record for record in self.records if self.done_s[record.trial] <= seconds)


def search(space: str, arm: str, told: argparse.Namespace) -> Search:
    """Runs, or continues, one search and reads it back."""
    folder: Path = told.to / f"{space}-{arm}"
    command = [sys.executable, "-m", "scalesearch", "run", "--space", space, "--data", told.data]
    command += ["--budget", str(told.budget), "--workers", str(told.workers), "--to", str(folder)]
    for override in (*ARMS[arm], f"data.val_fraction={told.val_fraction}"):
        command += ["--set", override]
    subprocess.run(command, check=True, stdout=sys.stderr)
    records = RecordStore(folder).all()
    written = {record.trial: RecordStore(folder).path(record.trial).stat().st_mtime for record in records}
    first = records[0]
    began = written[first.trial] - sum(stage.seconds for stage in first.stages)
    return Search(records=records, done_s={trial: at - began for trial, at in written.items()})


def main() -> None:
    """Runs what is missing, then prints fronts, hypervolumes and what paid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="signs")
    parser.add_argument("--to", type=Path, required=True, help="folder of the studies")
    parser.add_argument("--spaces", nargs="+", default=["resnet_small", "mobilenet_small"])
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--val-fraction", type=float, default=0.0)
    told = parser.parse_args()
    rows = []
    for space in told.spaces:
        found = {arm: search(space, arm, told) for arm in ARMS}
        equal_s = min(max(each.done_s.values()) for each in found.values())
        for arm, each in found.items():
            front = each.until(equal_s)
            volumes = [hypervolume(map(point, members)) for members in (front, pareto_front(each.records))]
            best = max(point(member)[0] for member in front)
            fastest = min(point(member)[1] for member in front)
            charged = f"{sum(record.charge for record in each.records):.1f}"
            rows.append(
                f"| {space} | {arm} | {charged} | {len(each.records)} | {max(each.done_s.values()) / 60:.1f} | "
                f"{volumes[0]:.3f} | {volumes[1]:.3f} | {len(front)} | {100 * best:.1f} | {fastest:.3f} |"
            )
        session = read_run_file(told.to / f"{space}-with")
        assert session is not None  # it has just run
        print(f"\n{space} on {session.data.name}: what paid")
        print(*paid_lines(found["with"].records), sep="\n")
        for arm in ARMS:
            points = ", ".join(f"{100 * top1:.1f} % {ms:.3f} ms" for top1, ms in map(point, found[arm].until(equal_s)))
            print(f"front {arm} compression axes after {equal_s / 60:.1f} min: {points}")
    print("\n| space | compression axes | charged | trials | minutes | hypervolume at equal time | at the end ", end="")
    print("| front | best % | fastest ms |")
    print("|---|---|---|---|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
