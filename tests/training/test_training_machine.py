from dataclasses import replace

import pytest
import torch

from scalesearch.errors import ConfigError
from scalesearch.training import machine
from scalesearch.training.machine import kept_machine, probe_machine, torch_threads
from scalesearch.values.settings import Machine, MachineSettings


def timed_as(monkeypatch: pytest.MonkeyPatch, seconds: dict[tuple[int, bool], float]) -> list[tuple[int, bool]]:
    """Replaces the clocked step by a table; the list receives every (threads, bf16) that was tried."""
    tried: list[tuple[int, bool]] = []

    def step(_module: object, _images: object, _labels: object, threads: int, bf16: bool) -> float:
        tried.append((threads, bf16))
        return seconds[threads, bf16]

    monkeypatch.setattr(machine, "_time_step", step)
    monkeypatch.setattr(machine, "cpu_flags", frozenset)
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    return tried


CPU = MachineSettings(device="cpu")


def test_more_threads_win_only_if_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {(1, False): 1.0, (2, False): 0.6, (4, False): 0.55})
    assert probe_machine(CPU).threads == 2
    timed_as(monkeypatch, {(1, False): 1.0, (2, False): 0.9, (4, False): 0.7})
    assert probe_machine(CPU).threads == 4
    timed_as(monkeypatch, {(1, False): 1.0, (2, False): 0.9, (4, False): 3.0})
    assert probe_machine(CPU).threads == 1


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timed_as(monkeypatch, {(1, False): 1.0, (2, False): 0.5, (4, False): 0.25})
    assert probe_machine(CPU, workers=2).threads == 2
    assert {threads for threads, _ in tried} == {1, 2}
    tried = timed_as(monkeypatch, {})
    assert probe_machine(CPU, workers=4).threads == 1
    assert probe_machine(CPU, workers=9).threads == 1
    assert not tried


def test_bf16_is_tried_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {(1, False): 1.0, (1, True): 0.4}
    tried = timed_as(monkeypatch, seconds)
    one = MachineSettings(device="cpu", threads=1)
    assert not probe_machine(one).bf16
    assert not tried
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"avx512f", "avx512_bf16"}))
    assert probe_machine(one).bf16
    seconds[1, True] = 0.95
    assert not probe_machine(one).bf16


def test_explicit_settings_are_obeyed_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = timed_as(monkeypatch, {})
    told = probe_machine(MachineSettings(device="cpu", threads=3, bf16="on"))
    assert told == Machine(device="cpu", threads=3, bf16=True, channels_last=True)
    assert not tried


def test_a_begun_study_keeps_its_machine_but_for_the_threads_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Machine(device="cpu", threads=1, bf16=True, channels_last=True)
    assert kept_machine(found, MachineSettings()) == found
    assert kept_machine(found, MachineSettings(threads=4)) == replace(found, threads=4)
    gpu = replace(found, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert kept_machine(gpu, MachineSettings()) == gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="run on a CUDA device, and torch sees none"):
        kept_machine(gpu, MachineSettings())


@pytest.mark.slow
def test_a_real_probe_is_short_and_leaves_torch_as_it_was() -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    machine._fastest([(1, False), (2, False)])
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_hold_inside_and_come_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(Machine(device="cpu", threads=before + 1, bf16=False, channels_last=True)):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_but_absent_is_said() -> None:
    with pytest.raises(ConfigError, match=r"machine\.device = cuda, but torch sees no CUDA device"):
        probe_machine(MachineSettings(device="cuda"))
    assert probe_machine(MachineSettings(threads=1, bf16="off")).device == "cpu"


@pytest.mark.parametrize(("cores", "counts"), [(0, [1]), (1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_thread_counts_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert machine._thread_counts(cores) == counts
