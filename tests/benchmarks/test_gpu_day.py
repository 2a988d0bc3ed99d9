"""The runner of a GPU day: every fault of a step costs that step alone, and what it put down before stays."""

import json
import os
import sys
import time
from pathlib import Path

import gpu_day
import psutil
import pytest
from gpu_steps import STEPS, Day, Step

FAULTS = {
    "fine": "day.put('seconds', 1.23456789, 'note')",
    "crash": "day.put('before', 7)\nraise ZeroDivisionError('of the step')",
    "killed": "day.put('before', 8)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "hang": """
day.put('before', 9)
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
day.put('child', child.pid)
time.sleep(600)
""",
    "missing": "import a_library_that_is_not_there",
}


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Day:
    """A day whose steps are the faults."""
    code = tmp_path / "code"
    code.mkdir()
    for name, body in FAULTS.items():
        lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
        (code / f"fault_{name}.py").write_text(f"def run(day):\n{lines}\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(code))
    monkeypatch.setattr(gpu_day, "GRACE_S", 0.2)
    folder = tmp_path / "day"
    folder.mkdir()
    return Day(device="cpu", folder=folder, quick=True)


def outcome_of(name: str, day: Day, *, limit_s: float = 30.0, left_s: float = 60.0) -> gpu_day.Outcome:
    return gpu_day.run_in_child(Step(name=name, limit_s=limit_s, module=f"fault_{name}"), day, left_s=left_s)


def test_a_step_that_ends_well_leaves_its_rows(day: Day) -> None:
    outcome = outcome_of("fine", day)
    assert (outcome.fate, outcome.why) == ("done", "")
    assert day.rows("fine") == [{"what": "seconds", "value": 1.235, "note": "note"}]


@pytest.mark.parametrize(
    ("name", "why", "before"),
    [("crash", "ZeroDivisionError: of the step", 7), ("killed", "signal SIGKILL", 8)],
)
def test_a_crash_is_told_with_its_reason_and_keeps_earlier_rows(day: Day, name: str, why: str, before: int) -> None:
    outcome = outcome_of(name, day)
    assert outcome.fate == "failed"
    assert why in outcome.why
    assert [row["value"] for row in day.rows(name)] == [before]


def test_a_missing_library_is_named(day: Day) -> None:
    outcome = outcome_of("missing", day)
    assert outcome.fate == "failed"
    assert "a_library_that_is_not_there" in outcome.why


def test_a_step_that_hangs_is_ended_with_all_its_children(day: Day) -> None:
    started_s = time.monotonic()
    outcome = outcome_of("hang", day, limit_s=3.0)
    assert time.monotonic() - started_s < 30
    assert (outcome.fate, outcome.why) == ("hung", "stopped after 3 s")
    before, child = day.rows("hang")
    assert before["value"] == 9
    deadline_s = time.monotonic() + 10
    while _runs(child["value"]) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _runs(child["value"])


def _runs(pid: object) -> bool:
    assert isinstance(pid, int)
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def test_no_step_begins_without_time(day: Day) -> None:
    outcome = outcome_of("fine", day, left_s=1.0)
    assert (outcome.fate, outcome.why) == ("skipped", "no time left")
    assert day.rows("fine") == []


def test_results_hold_every_step_so_far(day: Day) -> None:
    outcomes = [outcome_of("fine", day), outcome_of("crash", day)]
    gpu_day.write_results(day, outcomes)
    document = json.loads((day.folder / "results.json").read_text(encoding="utf-8"))
    assert [step["fate"] for step in document["steps"]] == ["done", "failed"]
    assert document["rows"]["crash"] == [{"what": "before", "value": 7, "note": ""}]
    text = (day.folder / "results.md").read_text(encoding="utf-8")
    assert "| seconds | 1.235 | note |" in text
    assert "## crash: failed in " in text


def test_a_row_cut_short_by_a_kill_is_left_out(day: Day) -> None:
    day.rows_file("fine").write_text('{"what": "a", "value": 1, "note": ""}\n{"what": "b", "va', encoding="utf-8")
    assert [row["what"] for row in day.rows("fine")] == ["a"]


def test_a_childs_caches_and_temporary_files_are_inside_the_folder(tmp_path: Path) -> None:
    variables = gpu_day.environment(tmp_path)
    changed = {name for name, value in variables.items() if value.startswith(str(tmp_path))}
    assert {"TMPDIR", "XDG_CACHE_HOME", "CUDA_CACHE_PATH", "TRITON_CACHE_DIR"} <= changed
    assert all(Path(variables[name]).is_dir() for name in changed - {"PYTHONPATH"})
    assert os.environ.get("TMPDIR") != variables["TMPDIR"]


def test_the_first_look_is_the_first_five_steps_in_order() -> None:
    names = [step.name for step in gpu_day.chosen_steps("", quick=True)]
    assert names == ["inventory", "training", "throughput", "clock", "rtx"]
    assert gpu_day.chosen_steps("", quick=False) == STEPS
    assert [step.name for step in gpu_day.chosen_steps("search,clock", quick=True)] == ["clock", "search"]


def test_an_unknown_step_is_refused_with_the_names() -> None:
    with pytest.raises(SystemExit, match=r"no step is called klock\. There are: inventory, training"):
        gpu_day.chosen_steps("klock", quick=False)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_has_its_module(step: Step) -> None:
    folder = Path(sys.modules["gpu_steps"].__path__[0])
    assert "\ndef run(day: Day) -> None:" in (folder / f"{step.name}.py").read_text(encoding="utf-8")
