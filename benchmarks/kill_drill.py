"""Kills real searches and confirmations at random moments, and looks at what is left after each kill and at the end.

Struck are the coordinator, its whole process group, a worker, and the child that scores or times the front; by SIGKILL,
SIGTERM and SIGINT; at the session's start, in the search, while the front is scored, during `--fresh` and during
`confirm`, in turn. After every kill: every record that was there is there, byte for byte; what Optuna was told is on
disk; no process is left over; no lock is held; the study can be read. At the end, each command having come to its end:
records = told trials, none still RUNNING, none doubled, charged = budget, no half-written files. Exit code 1 if not.

    python benchmarks/kill_drill.py --to /tmp/drill --kills 60
"""

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil

from scalesearch.analysis.front import pareto_front
from scalesearch.folder_lock import hold_folder
from scalesearch.records.confirmed import read_confirmed
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.search.storage import STUDY_FILE, STUDY_NAME, storage_in
from scalesearch.values.record import TrialRecord

ORPHANS_GONE_S = 10.0
_STATES = {"complete": "COMPLETE", "cached": "COMPLETE", "failed": "FAIL", "rejected": "PRUNED"}
_MARK = "SCALESEARCH_KILL_DRILL"
_PHASES = ("start", "search", "front", "fresh", "confirm", "confirm_fresh")
# Small enough that sixty kills take minutes; the moments of a kill relative to a trial's stages stay the same.
_SPACE = """
network = "resnet_small"
resolution_px = 24
summary = "tiny"
[scaling]
width = [0.25, 0.5, 1.0]
depth = [0.5, 1.0]
[pruning]
channel_fraction = [0.0, 0.25, 0.5]
[quantization]
precision = ["fp32", "int8"]
calibration_images = 16
[training]
optimizer = "adamw"
learning_rate = [0.001, 0.002, 0.004, 0.008]
steps = 8
batch_size = 16
"""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the drill has done, and what it found wrong."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By phase, and by who was struck with what."""
    too_late: int = 0
    """Commands that had ended before they were struck."""
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By signal: exit codes of coordinators that were struck themselves."""
    wrong: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)

    def check(self, what: str, sound: bool, detail: object = "") -> None:
        """Count one look at an invariant."""
        self.checked[what] += 1
        if not sound:
            self.wrong[what] += 1
            print(f"  WRONG: {what}: {detail}", flush=True)


class Drill:
    """One study that is killed, resumed, begun anew and confirmed."""

    def __init__(self, to: Path, seed: int, workers: int) -> None:
        self.to, self.workers = to, workers
        self.study = to / "study"
        self.moment = random.Random(seed)
        self.tally = Tally()
        self.budget = 2
        self.mark = uuid.uuid4().hex
        to.mkdir(parents=True)
        (to / "tiny.toml").write_text(_SPACE)
        _draw_images(to / "colours.npz")

    # ---- commands ----------------------------------------------------------------------------------------------

    def command(self, phase: str) -> list[str]:
        """What is typed in that phase."""
        if phase.startswith("confirm"):
            fresh = ["--fresh"] if phase == "confirm_fresh" else []
            return ["confirm", str(self.study), "--steps", "30", "--seeds", "2", "--top", "2", *fresh]
        settings = (
            "latency.max_s=0.3",
            "latency.warmup_s=0.02",
            "machine.threads=1",
            "machine.bf16=off",
            "twins=false",
        )
        words = ["run", "--space", str(self.to / "tiny.toml"), "--data", str(self.to / "colours.npz")]
        words += ["--to", str(self.study), "--budget", str(self.budget), "--workers", str(self.workers)]
        words += [word for setting in settings for word in ("--set", setting)]
        return [*words, *(["--fresh"] if phase in ("fresh", "start") else [])]

    @contextlib.contextmanager
    def started(self, words: list[str]) -> "Iterator[tuple[subprocess.Popen[str], Heard]]":
        """A command at work, in a process group of its own, and what it says."""
        with (self.to / "stderr.log").open("a") as errors:
            process = subprocess.Popen(
                (sys.executable, "-m", "scalesearch", *words),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, _MARK: self.mark},
                process_group=0,
            )
        heard = Heard(process)
        try:
            yield process, heard
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            heard.join()

    def finish(self, phase: str) -> None:
        """Let the command come to its end."""
        with self.started(self.command(phase)) as (process, heard):
            code = process.wait(timeout=600)
        self.tally.check("the command comes to its end", code == 0, f"{phase}: code {code}: {heard.lines[-3:]}")

    # ---- kills -------------------------------------------------------------------------------------------------

    def strike(self, phase: str) -> None:
        """One kill in that phase, and a look at what it left."""
        if phase in ("start", "search", "front"):
            self.budget += phase != "start"
        elif phase.startswith("confirm") and not pareto_front(RecordStore(self.study).all()):
            self.finish("search")
        before = self.files_that_must_stay()
        with self.started(self.command(phase)) as (process, heard):
            self.wait_for_moment(phase, heard)
            target, number = self.aim(phase, process)
            if process.poll() is not None:
                self.tally.too_late += 1
            else:
                self.hit(phase, target, number, process)
                if target == "worker":  # a start costs more than a kill: more of them in one run
                    self.strike_workers(phase, process, heard)
            if target in ("worker", "child"):
                code = _code(process, 600)  # costs a trial, or the look at the front: not the run
                self.tally.check("a lost child ends nothing", code in (0, 1, 4), f"{phase}: code {code}")
            else:
                code = _code(process, 120)
                self.tally.codes[number.name, code] += 1
                # Python itself needs a moment before it listens to signals.
                stopped = code in (0, 130, -number) if number != signal.SIGKILL else code in (0, -9)
                self.tally.check("SIGTERM and SIGINT are a clean stop", stopped, f"{phase}: code {code}")
        said = f"{phase}: {target} {number.name}, code {code}"
        self.look(before, said)
        print(f"{sum(self.tally.kills.values()):3} {said}", flush=True)

    def wait_for_moment(self, phase: str, heard: "Heard") -> None:
        """Sleep until a random moment of the phase."""
        words, most_s = {
            "start": ("", 8.0),
            "fresh": ("", 8.0),
            "search": ("study ", 12.0),
            "front": ("front: scoring", 6.0),
            "confirm": ("front member", 15.0),
            "confirm_fresh": ("", 12.0),
        }[phase]
        heard.wait(words)
        heard.ended.wait(self.moment.uniform(0.0, most_s))

    def aim(self, phase: str, process: "subprocess.Popen[str]") -> tuple[str, signal.Signals]:
        """Who is struck, with what."""
        kill, term, interrupt = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
        choices = [("coordinator", kill), ("coordinator", kill), ("group", kill), ("coordinator", term)]
        choices += [("coordinator", interrupt), ("group", term)]
        if phase in ("search", "front", "confirm") and _children(process):
            choices += [("worker" if phase == "search" else "child", kill)] * 4
        return self.moment.choice(choices)

    def strike_workers(self, phase: str, process: "subprocess.Popen[str]", heard: "Heard") -> None:
        """Three more in the same run."""
        for _ in range(3):
            heard.ended.wait(self.moment.uniform(1.0, 8.0))
            if process.poll() is None and _children(process):
                self.hit(phase, "worker", signal.SIGKILL, process)

    def hit(self, phase: str, target: str, number: signal.Signals, process: "subprocess.Popen[str]") -> None:
        """Send the signal."""
        self.tally.kills[phase, f"{target} {number.name}"] += 1
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if target == "group":
                os.killpg(process.pid, number)
            elif target == "coordinator":
                process.send_signal(number)
            elif children := _children(process):
                self.moment.choice(children).send_signal(number)

    # ---- looks -------------------------------------------------------------------------------------------------

    def files_that_must_stay(self) -> Counter[str]:
        """Records and confirmed runs, in whatever folder they are set aside to, by their content."""
        found = (*self.to.rglob("records/[0-9]*.json"), *self.to.rglob("models/trial_*_seed_*.onnx"))
        return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in found)

    def look(self, before: Counter[str], said: str) -> None:
        """Check what holds after every kill."""
        check = self.tally.check
        orphans = self.orphans()
        check(f"no process left {ORPHANS_GONE_S:g} s after a kill", not orphans, f"{said}: {orphans}")
        check("no record or confirmed model lost", not before - self.files_that_must_stay(), said)
        try:
            with hold_folder(self.study, "drill"):
                records, trials = RecordStore(self.study).all(), told_trials(self.study)
                read_confirmed(self.study)
                read_front_scores(self.study)
        except Exception as error:
            check("locks free, study readable", False, f"{said}: {error}")
            return
        check("locks free, study readable", True)
        known = {record.trial: record for record in records}
        told = [trial for trial in trials if trial.state.is_finished()]
        unlike = [t.number for t in told if t.number not in known or _STATES[known[t.number].state] != t.state.name]
        check("told to Optuna only what is on disk", not unlike, f"{said}: {unlike}")
        keys = Counter(record.key for record in records if record.charged)
        check("no candidate trained twice", max(keys.values(), default=1) == 1, said)

    def orphans(self) -> list[str]:
        """Processes of ours that live on, after a while."""
        until = time.monotonic() + ORPHANS_GONE_S
        while (left := self.alive()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def alive(self) -> list[str]:
        """All living processes that were started with our mark in their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                ours = process.environ().get(_MARK) == self.mark and process.pid != os.getpid()
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[-80:]}")
        return found

    def look_at_the_end(self) -> None:
        """Check a study whose commands have all come to their end."""
        check, records, trials = self.tally.check, RecordStore(self.study).all(), told_trials(self.study)
        front = {record.trial for record in pareto_front(records)}
        charged = round(sum(record.charge for record in records), 6)
        running = sum(not trial.state.is_finished() for trial in trials)
        check("end: trials RUNNING = 0", running == 0, running)
        check("end: records = told trials", len(records) == len(trials), (len(records), len(trials)))
        # The last training may be larger than what was left of the budget.
        check("end: charged = budget", self.budget <= charged < self.budget + 1, (charged, self.budget))
        scored = {score.trial for score in read_front_scores(self.study)}
        check("end: all of the front is scored", front <= scored, front - scored)
        models = {path.name for path in (self.study / "models").iterdir()}
        check("end: models are those of the front", models == {f"trial_{n:06d}.onnx" for n in front}, models)
        partial = [str(path) for path in self.study.rglob("*") if ".partial" in path.name or path.name == ".writable"]
        check("end: half-written files = 0", not partial, partial)
        locks = [path.name for path in (*self.to.glob(".*.lock"), *self.study.rglob("*.lock"))]
        check("end: lock files = 0", not locks, locks)
        for words in (["front", str(self.study)], ["report", str(self.study), "--to", str(self.to / "report.html")]):
            code = subprocess.run((sys.executable, "-m", "scalesearch", *words), capture_output=True, check=False)
            check("end: front and report open it", code.returncode == 0, code.stderr)


class Heard(threading.Thread):
    """Reads what a command says, as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        super().__init__(daemon=True)
        self._process = process
        self.lines: list[str] = []
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Read to the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
        self.ended.set()

    def wait(self, words: str, most_s: float = 300.0) -> None:
        """Wait until a line has the words in it, or the command has ended."""
        until = time.monotonic() + most_s
        while not self.ended.is_set() and time.monotonic() < until:
            if not words or any(words in line for line in self.lines):
                return
            time.sleep(0.05)


def told_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """What Optuna holds; nothing where the run was killed before there was a study."""
    if not (folder / STUDY_FILE).exists():
        return []
    storage = storage_in(folder / STUDY_FILE)
    try:
        return optuna.load_study(study_name=STUDY_NAME, storage=storage).get_trials()
    except KeyError:
        return []
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _code(process: "subprocess.Popen[str]", most_s: float) -> int:
    """Its exit code; 999 where it does not end."""
    try:
        return process.wait(timeout=most_s)
    except subprocess.TimeoutExpired:
        return 999


def _draw_images(path: Path) -> None:
    """Noisy 24 px images of three classes that their mean colour tells apart."""
    splits: dict[str, Any] = {}
    for seed, (name, count) in enumerate((("train", 96), ("val", 60), ("test", 60))):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, count)
        images = rng.integers(0, 120, (count, 24, 24, 3))
        images[np.arange(count), :, :, labels] += 60
        splits[f"{name}_images"], splits[f"{name}_labels"] = images.clip(0, 255).astype(np.uint8), labels
    np.savez(path, **splits, class_names=np.array(["red", "green", "blue"]))


def _print_tables(tally: Tally) -> None:
    struck = sorted({who for _, who in tally.kills})
    print(f"\n{'kills':24}" + "".join(f"{phase:>15}" for phase in _PHASES))
    for who in struck:
        print(f"{who:24}" + "".join(f"{tally.kills[phase, who]:15}" for phase in _PHASES))
    print(f"{sum(tally.kills.values())} kills; {tally.too_late} commands had ended before theirs")
    codes = ", ".join(f"{name} -> {code} ({count})" for (name, code), count in sorted(tally.codes.items()))
    print(f"exit codes of struck coordinators: {codes}")
    print(f"\n{'invariant':44} {'looked':>7} {'wrong':>6}")
    for what, looked in tally.checked.items():
        print(f"{what:44} {looked:7} {tally.wrong[what]:6}")


def _records_text(records: tuple[TrialRecord, ...]) -> str:
    states = Counter(record.state for record in records)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def main() -> int:
    """0 if every invariant holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="scratch folder; must not exist yet")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    if given.to.exists():
        parser.error(f"--to {given.to} exists; give a new folder")
    # A shell starts what is in the background with SIGINT ignored, and so would its children be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    drill, began = Drill(given.to.resolve(), given.seed, given.workers), time.monotonic()
    while sum(drill.tally.kills.values()) < given.kills:
        for phase in _PHASES:
            if sum(drill.tally.kills.values()) < given.kills:
                drill.strike(phase)
        if drill.budget > 7:  # the space is small, and so is the machine's patience
            drill.budget = 2
            drill.finish("fresh")
    drill.finish("search")
    drill.finish("confirm")
    drill.look_at_the_end()
    _print_tables(drill.tally)
    print(f"\nthe last study: {_records_text(RecordStore(drill.study).all())}; {time.monotonic() - began:.0f} s in all")
    return 1 if drill.tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
