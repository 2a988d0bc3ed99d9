"""Where the time of a search goes: shares of its stages, candidates an hour, unsettled latencies, seconds to a front.

    python benchmarks/time_shares.py STUDY [STUDY ...] [--members 8] [--common] [--json]

The shares are of all seconds that the workers spent in stages, once by the clock and once by the processor: on a
machine that also does other work, the second tells more. A stage `wait` is time in which a worker held still because
another one measured a latency. A run begins when it makes its folder, some seconds after the command was typed (where
that is not known, with the oldest file in it); moments of results are those at which the records were written, so a
copied folder must keep its files' times (`cp -p`). The second evaluation of the front at the end is no part of any
trial: it is in `whole run`. Two searches by one seed soon turn to other candidates, since these depend on measured
times: with `--common`, the shares are those of the trials alone that all studies have evaluated, with equal training.
"""

import argparse
import contextlib
import json
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scalesearch.analysis.front import pareto_front
from scalesearch.records.front_scores import NAME as FRONT_SCORES
from scalesearch.records.store import RecordStore
from scalesearch.values.record import TrialRecord

GROUPS = {
    "train": "trunks and dense branches",
    "retrain": "branches of cut networks",
    "latency": "latency",
    "twin": "twins",
    "untrained": "latency before training",
    "export": "export",
    "quantize": "quantize",
    "quality": "scoring",
    "wait": "wait",
}
"""The rows of the table, by stage; all other stages are `others`."""
OTHERS = "others"
TRAINING = ("train", "retrain")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeShares:
    """What one study's time went into."""

    stages_s: float
    """Seconds of all stages of all trials, by the clock."""
    cpu_s: float
    """Processor seconds of the same stages; 0 for studies that are older than these numbers."""
    wall_shares: dict[str, float]
    """Share of `stages_s` by row."""
    cpu_shares: dict[str, float]
    training: tuple[float, float]
    """Share of training and branches, by the clock and by the processor."""
    trained: int
    """Candidates that a training was charged for."""
    evaluated: int
    """Complete trials, siblings included."""
    unstable: tuple[int, int]
    """Complete trials whose latency did not settle within its time: in all, and on the front."""
    coarse: tuple[int, int]
    """Those whose timing was ended early, surely off the front of that moment: in all, and on the front."""
    first_s: float
    """Seconds from the beginning to the first record of a complete trial."""
    members_s: float | None
    """Seconds until the front had the asked number of members; None if it never had."""
    search_s: float
    """Seconds from the beginning to the last record."""
    whole_s: float
    """Seconds until the front was scored on the test images as well; those of the search if it was not."""
    front: int

    @property
    def trained_an_hour(self) -> float:
        """Trained candidates an hour of the search."""
        return 3600 * self.trained / self.search_s

    @property
    def evaluated_an_hour(self) -> float:
        """Complete trials an hour of the search."""
        return 3600 * self.evaluated / self.search_s


Work = tuple[str, float]
"""Key of a trial, and what part of a full training it made."""


def evaluated(folder: Path) -> dict[Work, TrialRecord]:
    """Return the complete trials of a study by what they are."""
    records = RecordStore(folder).all()
    return {(record.key, record.charge): record for record in records if record.state == "complete"}


def time_shares(folder: Path, *, members: int, common: Collection[Work] | None = None) -> TimeShares:
    """Return what the time of the study in `folder` went into; the study must have been made in one run.

    Args:
        folder: The study's folder.
        members: The number of front members whose moment is asked for.
        common: The trials whose stages count; None: those of all trials.

    Raises:
        ValueError: No trial there is complete.
    """
    store = RecordStore(folder)
    if not any(record.state == "complete" for record in store.all()):
        message = f"{folder}: expected a study with at least one complete trial, found none"
        raise ValueError(message)
    began = _beginning(folder)
    written = {record.trial: store.path(record.trial).stat().st_mtime - began for record in store.all()}
    records = sorted(store.all(), key=lambda record: written[record.trial])
    done = [record for record in records if record.state == "complete"]
    front = pareto_front(records)
    counted = records if common is None else [record for key, record in evaluated(folder).items() if key in common]
    wall, cpu = _by_row(counted, cpu=False), _by_row(counted, cpu=True)
    scores = folder / FRONT_SCORES
    search_s = written[records[-1].trial]
    return TimeShares(
        stages_s=sum(wall.values()),
        cpu_s=sum(cpu.values()),
        wall_shares=_shares(wall),
        cpu_shares=_shares(cpu),
        training=(_training(wall), _training(cpu)),
        trained=sum(record.charged for record in records),
        evaluated=len(done),
        unstable=(_unstable(done), _unstable(front)),
        coarse=(_coarse(done), _coarse(front)),
        first_s=written[done[0].trial],
        members_s=_moment_of(members, records, written),
        search_s=search_s,
        whole_s=scores.stat().st_mtime - began if scores.exists() else search_s,
        front=len(front),
    )


def _beginning(folder: Path) -> float:
    """Return when the folder was made, in seconds since the epoch; the time of its oldest file if that is not known."""
    oldest = min(path.stat().st_mtime for path in folder.rglob("*") if path.is_file())
    with contextlib.suppress(OSError, ValueError):
        asked = subprocess.run(("stat", "--format=%W", str(folder)), capture_output=True, text=True, check=False)
        made = float(asked.stdout)
        if 0 < made < oldest:
            return made
    return oldest


def _by_row(records: Sequence[TrialRecord], *, cpu: bool) -> dict[str, float]:
    """Return the seconds of each row of the table."""
    seconds: dict[str, float] = defaultdict(float)
    for record in records:
        for stage in record.stages:
            seconds[GROUPS.get(stage.stage, OTHERS)] += (stage.cpu_s or 0.0) if cpu else stage.seconds
    return {row: seconds[row] for row in (*GROUPS.values(), OTHERS)}


def _unstable(records: Iterable[TrialRecord]) -> int:
    return sum(record.latency is not None and record.latency.unsettled for record in records)


def _coarse(records: Iterable[TrialRecord]) -> int:
    return sum(record.latency is not None and record.latency.coarse for record in records)


def _shares(seconds: dict[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {row: value / total if total else 0.0 for row, value in seconds.items()}


def _training(seconds: dict[str, float]) -> float:
    return sum(_shares(seconds)[GROUPS[stage]] for stage in TRAINING)


def _moment_of(members: int, records: Sequence[TrialRecord], written: dict[int, float]) -> float | None:
    """Return the seconds after which the front had so many members; None if it never had."""
    for count in range(1, len(records) + 1):
        if len(pareto_front(records[:count])) >= members:
            return written[records[count - 1].trial]
    return None


def main() -> None:
    """Print one column a study, or one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", metavar="STUDY")
    parser.add_argument("--members", type=int, default=8, help="front members whose moment is printed (default 8)")
    parser.add_argument("--common", action="store_true", help="shares of the trials that all studies have in common")
    parser.add_argument("--json", action="store_true", help="one JSON object a study instead of the table")
    arguments = parser.parse_args()
    common = None
    if arguments.common:
        common = frozenset.intersection(*(frozenset(evaluated(folder)) for folder in arguments.studies))
        print(f"the shares are those of {len(common)} trials")
    found = {folder: time_shares(folder, members=arguments.members, common=common) for folder in arguments.studies}
    if arguments.json:
        for folder, shares in found.items():
            print(json.dumps({"study": folder.name} | asdict(shares)))
        return
    for line in table(list(found.items()), members=arguments.members):
        print(line)


def table(found: Sequence[tuple[Path, TimeShares]], *, members: int) -> list[str]:
    """Return the lines of a Markdown table with one column a study."""
    columns = [shares for _, shares in found]
    lines = [_row("", [folder.name for folder, _ in found]), _row("---", ["---"] * len(found))]
    for row in (*GROUPS.values(), OTHERS):
        if any(each.wall_shares[row] for each in columns):
            cells = [f"{100 * each.wall_shares[row]:.0f} % ({100 * each.cpu_shares[row]:.0f} %)" for each in columns]
            lines.append(_row(f"{row}, by the clock (processor)", cells))
    both = [f"{100 * each.training[0]:.0f} % ({100 * each.training[1]:.0f} %)" for each in columns]
    lines.append(_row("**all training**", both))
    lines.append(_row("seconds in stages", [f"{each.stages_s:.0f} ({each.cpu_s:.0f})" for each in columns]))
    counts = [f"{each.trained} + {each.evaluated - each.trained}, {each.front}" for each in columns]
    lines.append(_row("trained + other complete trials, front", counts))
    rates = [f"{each.trained_an_hour:.0f}, {each.evaluated_an_hour:.0f}" for each in columns]
    lines.append(_row("trained candidates, complete trials an hour", rates))
    unstable = [f"{each.unstable[0]}, {each.unstable[1]}" for each in columns]
    lines.append(_row("unstable latencies: complete trials, on the front", unstable))
    coarse = [f"{each.coarse[0]}, {each.coarse[1]}" for each in columns]
    lines.append(_row("coarse latencies: complete trials, on the front", coarse))
    lines.append(_row("first result, s", [f"{each.first_s:.0f}" for each in columns]))
    when = ["never" if each.members_s is None else f"{each.members_s:.0f}" for each in columns]
    lines.append(_row(f"front of {members}, s", when))
    lines.append(_row("search, whole run, s", [f"{each.search_s:.0f}, {each.whole_s:.0f}" for each in columns]))
    return lines


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join((title, *cells))} |"


if __name__ == "__main__":
    main()
