"""Children: their answers and errors come back, their deaths are told, and none outlives us, however we end."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from scalesearch.errors import ConfigError
from scalesearch.execution.child_process import ChildLost, ChildStopped, run_apart


def doubled(number: int) -> int:
    print("words of a network's own")
    return 2 * number


def refused() -> None:
    message = "no such thing"
    raise ConfigError(message)


def broken() -> float:
    return 1 / 0


def die(code: int) -> None:
    print("out of luck", flush=True)
    os._exit(code)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_with_a_child(note: Path) -> None:
    child = subprocess.Popen(("sleep", "60"))
    note.with_suffix(".new").write_text(f"{os.getpid()} {child.pid}")
    note.with_suffix(".new").replace(note)
    time.sleep(60)


def test_an_answer_comes_back_and_prints_go_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_apart(doubled, 21, log=tmp_path / "logs" / "child.log") == 42
    assert "words of a network's own" in (tmp_path / "logs" / "child.log").read_text()
    assert capfd.readouterr().out == ""


def test_our_own_errors_travel_and_others_come_with_their_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such thing"):
        run_apart(refused, log=tmp_path / "log")
    with pytest.raises(RuntimeError, match=r"(?s)in broken.*ZeroDivisionError"):
        run_apart(broken, log=tmp_path / "log")
    assert "in broken" in (tmp_path / "log").read_text(), "for callers that show the last line alone"


def test_a_child_does_not_run_the_callers_script_again(tmp_path: Path) -> None:
    script, note = tmp_path / "script.py", tmp_path / "note"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from scalesearch.execution.child_process import run_apart\n"
        "with open(sys.argv[1], 'a') as note: note.write('ran ')\n"
        "run_apart(time.sleep, 0, log=Path(sys.argv[1]).with_name('log'))\n"
    )
    subprocess.run((sys.executable, str(script), str(note)), check=True)
    assert note.read_text() == "ran "


def test_a_death_is_told_with_its_cause_and_last_words(tmp_path: Path) -> None:
    with pytest.raises(ChildLost, match="exited with code 7; last words: out of luck"):
        run_apart(die, 7, log=tmp_path / "log")
    with pytest.raises(ChildLost, match="killed by signal 9"):
        run_apart(kill_itself, log=tmp_path / "log")


def test_a_stop_and_a_time_limit_end_the_child_and_its_own_children(tmp_path: Path) -> None:
    note, stopped = tmp_path / "note", threading.Event()

    def stop() -> None:
        wait_for(note)
        stopped.set()

    threading.Thread(target=stop).start()
    with pytest.raises(ChildStopped):
        run_apart(sleep_with_a_child, note, log=tmp_path / "log", stopped=stopped)
    assert_gone(note)
    note.unlink()
    with pytest.raises(ChildLost, match=r"no end after 1\.5 s, killed"):
        run_apart(time.sleep, 60, log=tmp_path / "log", limit_s=1.5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("group", [False, True])
def test_children_and_their_children_die_with_us(tmp_path: Path, number: signal.Signals, group: bool) -> None:
    note = tmp_path / "note"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "import test_execution_child_process as t;"
        "from scalesearch.execution.child_process import run_apart;"
        "from scalesearch.execution.stopping import interrupted_by_sigterm\n"
        "with interrupted_by_sigterm(): run_apart(t.sleep_with_a_child, Path(sys.argv[2]), log=Path(sys.argv[3]))"
    )
    command = (sys.executable, "-c", code, str(Path(__file__).parent), str(note), str(tmp_path / "log"))
    with subprocess.Popen(command, process_group=0, stderr=subprocess.DEVNULL) as parent:
        wait_for(note)
        os.killpg(parent.pid, number) if group else parent.send_signal(number)
        assert parent.wait(20) != 0
    assert_gone(note)


def wait_for(note: Path) -> None:
    until = time.monotonic() + 60
    while not note.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_gone(note: Path) -> None:
    for pid in map(int, note.read_text().split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            process, until = psutil.Process(pid), time.monotonic() + 10
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < until, f"{process.cmdline()} survived"
                time.sleep(0.02)
