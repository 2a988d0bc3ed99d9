"""The stack that signal handlers run on: no native call may leave the process with one that is no longer there."""

import faulthandler
import sys
from pathlib import Path

import pytest
from small_graphs import small_model

from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.signal_stack import signal_stack, signal_stack_kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack's structure differs elsewhere")


@pytest.fixture(autouse=True)
def _stack() -> None:
    faulthandler.enable()  # as pytest has: it is what gives the thread a stack


def test_the_stack_is_put_back_whatever_happens() -> None:
    before = signal_stack()
    assert before[0]
    with pytest.raises(RuntimeError, match="native"), signal_stack_kept():
        raise RuntimeError("native")
    assert signal_stack() == before


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_engines_that_die_in_the_order_of_their_making_leave_it_alone(tmp_path: Path, name: str) -> None:
    # Not by sending a signal: whether one kills the process depends on what else is mapped where the stack was.
    before, backend, model = signal_stack(), get_backend(name), small_model(tmp_path)
    first, second = (backend.compile(model, EngineOptions(batch=batch, threads=1)) for batch in (1, 8))
    assert signal_stack() == before
    second.time_runs(2)
    first.profile(1)
    assert signal_stack() == before
    first.close()
    second.close()
    assert signal_stack() == before
