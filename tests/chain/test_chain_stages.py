import time

import pytest

from scalesearch.chain.stages import StageClock


def test_what_held_a_stage_up_is_a_stage_of_its_own() -> None:
    paused_s = 0.0
    clock = StageClock(paused_s=lambda: paused_s)
    started_s = time.perf_counter()
    with clock("train"):
        time.sleep(0.05)
        paused_s += 0.04
    with clock("export"):
        pass
    passed_s = time.perf_counter() - started_s
    assert [entry.stage for entry in clock.times] == ["train", "wait", "export"]
    train, wait, _ = (entry.seconds for entry in clock.times)
    assert wait == pytest.approx(0.04)
    assert 0.01 <= train <= passed_s - wait
    assert 0.05 <= sum(entry.seconds for entry in clock.times) <= passed_s


def test_waiting_is_announced_and_then_the_stage_that_it_interrupted() -> None:
    announced = list[str]()
    stages = StageClock(announced.append)
    with stages("train"), stages.waiting():
        assert announced == ["train", "wait"]
    assert announced == ["train", "wait", "train"]
    assert [each.stage for each in stages.times] == ["train"]
