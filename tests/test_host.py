"""What this process may use of its machine: threads here; memory and cores are asked about by the tests of workers."""

from pathlib import Path

import pytest
import torch
from fake_evaluators import FakePlanner
from study_runs import run

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.host import computing_threads, images_at_once
from scalesearch.values.candidate import Candidate
from scalesearch.values.plan import Plan
from scalesearch.values.settings import Machine


@pytest.mark.parametrize(
    ("height", "width", "count"), [(32, 32, 256), (256, 256, 256), (512, 512, 64), (736, 1280, 17), (5000, 5000, 1)]
)
def test_batches_of_large_images_are_small(height: int, width: int, count: int) -> None:
    """As many as 256 images of 256 x 256 have pixels: 2**24 / (736 * 1280) = 17.8."""
    assert images_at_once(height, width) == count
    assert images_at_once(height, width, most=64) == min(64, count)


def test_libraries_compute_with_so_many_threads_inside_the_block_alone() -> None:
    before = torch.get_num_threads()
    with computing_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError), computing_threads(3):
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_a_search_leaves_the_cores_to_its_workers(tmp_path: Path) -> None:
    threads = set[int]()

    def plan(candidate: Candidate) -> Plan:
        threads.add(torch.get_num_threads())
        return FakePlanner()(candidate)

    with computing_threads(2):
        run(tmp_path, 1, sampler="random", plan=plan)
    assert threads == {1}


@pytest.mark.parametrize(("device", "inside"), [("cpu", 3), ("cuda", 2)])
def test_a_worker_computes_with_its_share_of_the_cores_between_trainings_too(
    monkeypatch: pytest.MonkeyPatch, device: str, inside: int
) -> None:
    class Session:
        machine = Machine(device=device, threads=3, bf16=False, channels_last=True)

    evaluator = object.__new__(TrialEvaluator)
    monkeypatch.setattr(evaluator, "_session", Session(), raising=False)
    monkeypatch.setattr(TrialEvaluator, "_evaluated", lambda *_, **__: torch.get_num_threads())
    with computing_threads(2):
        found: object = evaluator.evaluate(FakePlanner()(Candidate()), trial=0, report=lambda _: None)
        assert found == inside, "found: the number of threads"
        assert torch.get_num_threads() == 2
