"""Kills a real `scalesearch run` -9 at random moments: five times its coordinator, five times a worker.

Prints what the study holds afterwards against what it must hold: charged records = charged told trials = budget, no
trial lost, none doubled, no process left over. Exit code 1 if anything differs.

    python benchmarks/kill_drill.py --to /tmp/drill
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil

from scalesearch.records.store import RecordStore
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, open_storage
from scalesearch.values.record import TrialRecord

KILLS = 5
_STATES = {"complete": "COMPLETE", "cached": "COMPLETE", "failed": "FAIL", "rejected": "PRUNED"}
# Small enough that ten kills take minutes; the moments of a kill relative to a trial's stages stay the same.
_QUICK = ("training.steps=40", "training.retrain_steps=10", "latency.max_s=1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the table."""

    what: str
    expected: object
    got: object


@contextmanager
def search(folder: Path, budget: int, workers: int) -> Iterator["subprocess.Popen[str]"]:
    """A running search whose stdout is its stream of events."""
    command = [sys.executable, "-m", "scalesearch", "run", "--to", str(folder), "--budget", str(budget)]
    command += ["--workers", str(workers), "--json"]
    for setting in _QUICK:
        command += ["--set", setting]
    log = folder.with_name(f"{folder.name}.stderr.log")
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def events(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """The events of a search, as they come."""
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The worker processes of a coordinator."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "scalesearch.search.worker" in " ".join(child.cmdline())]


def kill_coordinator(folder: Path, budget: int, workers: int, moment: random.Random) -> str:
    """When it was killed, in words; nothing of it is left running."""
    with search(folder, budget, workers) as process:
        for event in events(process):
            if event["event"] == "run_started":
                break
        delay_s = moment.uniform(0.0, 25.0)
        time.sleep(delay_s)
        left = workers_of(process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = [event for event in events(process) if event["event"] == "stage_entered"]
    _, alive = psutil.wait_procs(left, timeout=3)
    assert not alive, f"workers survived their coordinator: {alive}"
    stage = f"after trial {seen[-1]['trial']} entered {seen[-1]['stage']}" if seen else "before any stage"
    return f"{delay_s:5.2f} s into the search, {stage}"


def kill_workers(folder: Path, budget: int, workers: int, moment: random.Random) -> Iterator[str]:
    """Runs to the budget; on the way, which trial lost its worker, in words, five times."""
    struck: set[int] = set()
    with search(folder, budget, workers) as process:
        for event in events(process):
            if event["event"] != "stage_entered" or event["trial"] in struck or len(struck) == KILLS:
                continue
            if moment.random() > 0.3:  # not always the first stage
                continue
            delay_s = moment.uniform(0.0, 0.5)
            time.sleep(delay_s)
            victims = workers_of(process)
            if not victims:
                continue
            struck.add(event["trial"])
            moment.choice(victims).send_signal(signal.SIGKILL)
            yield f"{delay_s:.2f} s after trial {event['trial']} entered {event['stage']}"


def told_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna holds."""
    storage = open_storage(folder / STUDY_FILE)
    return optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials()


def checks(records: Sequence[TrialRecord], trials: Sequence[optuna.trial.FrozenTrial], budget: int) -> list[Check]:
    """The invariants of a finished study."""
    charged = [record for record in records if record.charged]
    known = {record.trial: record for record in records}
    alike = sum(_STATES[known[trial.number].state] == trial.state.name for trial in trials if trial.number in known)
    return [
        Check(what="charged records", expected=budget, got=len(charged)),
        Check(what="charged told trials", expected=budget, got=sum(t.user_attrs.get("charged", False) for t in trials)),
        Check(what="distinct keys among charged", expected=budget, got=len({record.key for record in charged})),
        Check(what="records (none lost)", expected=len(trials), got=len(records)),
        Check(what="trials told as their record says", expected=len(trials), got=alike),
        Check(what="trials still RUNNING", expected=0, got=sum(not trial.state.is_finished() for trial in trials)),
    ]


def main() -> int:
    """0 if every invariant holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder of the study; must not exist yet")
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    if given.to.exists():
        parser.error(f"--to {given.to} exists; give a new folder")
    given.to.parent.mkdir(parents=True, exist_ok=True)
    moment = random.Random(given.seed)
    for number in range(KILLS):
        when = kill_coordinator(given.to, given.budget, given.workers, moment)
        print(
            f"coordinator killed {number + 1} of {KILLS}: {when}; {len(RecordStore(given.to).all())} records",
            flush=True,
        )
    for number, when in enumerate(kill_workers(given.to, given.budget, given.workers, moment)):
        print(f"worker killed {number + 1} of {KILLS}: {when}", flush=True)
    records = RecordStore(given.to).all()
    rows = checks(records, told_trials(given.to), given.budget)
    print(f"\n{'invariant':36} {'expected':>9} {'got':>5}")
    for row in rows:
        print(f"{row.what:36} {row.expected!s:>9} {row.got!s:>5}  {'ok' if row.expected == row.got else 'WRONG'}")
    print()
    for record in records:
        if "killed by signal 9" in record.reason:
            print(f"trial {record.trial} failed: {record.reason}")
    free = len(records) - given.budget
    print(f"{len(records)} trials: {given.budget} charged, {free} free (cached or rejected)")
    return 0 if all(row.expected == row.got for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
