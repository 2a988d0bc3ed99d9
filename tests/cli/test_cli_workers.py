"""How many workers a run has where that is left to the program."""

from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch import host
from scalesearch.cli import workers as module
from scalesearch.cli.choices import choose_workers
from scalesearch.cli.workers import MOST, WORKER_BYTES, number_of, workers_here
from scalesearch.errors import ConfigError
from scalesearch.records.run_file import write_run_file
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings, RunSettings

SETTINGS = RunSettings(budget=100, machine=MachineSettings(device="cpu"))


@pytest.mark.parametrize(
    ("usable", "free", "budget", "workers", "why"),
    [
        (2, 100, 100, 2, "one for each core"),
        (2, 1.9, 100, 1, "GB of memory are free"),
        (4, 0.5, 100, 1, "GB of memory are free"),
        (4, 100, 8, 2, "one for each 4 trainings of the budget"),
        (4, 100, 3, 1, "one for each 4 trainings of the budget"),
        (64, 100, 1000, MOST, "more would each know less"),
    ],
)
def test_cores_memory_and_budget_decide(
    usable: int, free: float, budget: int, workers: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: usable)
    monkeypatch.setattr(host, "available_bytes", lambda: int(free * WORKER_BYTES))
    found, line = workers_here(replace(SETTINGS, budget=budget))
    assert found == workers and why in line and line.startswith(f"workers: {workers} (")


def test_one_worker_trains_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_here(replace(SETTINGS, machine=MachineSettings(device="cuda")))[0] == 1
    monkeypatch.setattr(module, "_trains_on_gpu", lambda: True)
    assert workers_here(replace(SETTINGS, machine=MachineSettings(device="auto")))[0] == 1
    assert workers_here(replace(SETTINGS, machine=MachineSettings(device="cpu")))[1].startswith("workers: ")


def test_a_gpu_that_torch_cannot_use_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(module, "_GPUS", Path("/"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    _, line = workers_here(replace(SETTINGS, machine=MachineSettings(device="auto")))
    assert "GPU" not in line


def test_a_study_that_trains_with_two_threads_has_half_as_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_cores", lambda: 4)
    monkeypatch.setattr(host, "available_bytes", lambda: 100 * WORKER_BYTES)
    found, line = workers_here(SETTINGS, threads=2)
    assert found == 2 and "one for each 2 cores" in line
    assert workers_here(SETTINGS, threads=8)[0] == 1


def test_a_number_that_was_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "workers_here", lambda settings, threads: (7, "workers: 7"))
    given = replace(SETTINGS, workers=3)
    assert choose_workers(given, None, asked="3") == (given, "")
    assert choose_workers(given, ["workers=3"]) == (given, "")
    for asked, overrides in ((None, None), ("auto", ["workers=3"]), (None, ["seed=1"])):
        assert choose_workers(given, overrides, asked=asked) == (replace(given, workers=7), "workers: 7")


def test_the_threads_that_are_asked_for_count_in_a_begun_study_and_in_a_new_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "workers_here", lambda settings, threads: (threads, f"threads: {threads}"))
    write_run_file(session)
    four = replace(SETTINGS, machine=MachineSettings(threads=4))
    assert choose_workers(SETTINGS, None, study=session.folder)[0].workers == session.machine.threads == 2
    assert choose_workers(four, None, study=session.folder)[0].workers == 4

    new = session.folder / "new"
    for study in (None, new):
        assert choose_workers(four, None, study=study)[0].workers == 4
        assert choose_workers(SETTINGS, None, study=study)[0].workers == 1


def test_a_number_is_read_and_anything_else_refused() -> None:
    assert (number_of("12"), number_of("auto"), number_of(None)) == (12, None, None)
    for text in ("two", "-1", "1.5", ""):
        with pytest.raises(ConfigError, match="expected a whole number, or auto"):
            number_of(text)
