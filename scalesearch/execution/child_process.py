"""Child processes that never outlive the parent: start them, find out why they were lost, and end them.

`multiprocessing.Process` is not used: it would run the caller's main module again in the child, it gives us neither
what the child first writes to stderr nor its process group, and its children go on running when we are killed.
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from scalesearch.errors import ScalesearchError

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[3]); "
    "from {module} import {function}; {function}(int(sys.argv[1]), int(sys.argv[2]))"
)
_TICK_S = 0.2
_Answer = TypeVar("_Answer")


class ChildLost(Exception):  # noqa: N818  (named for what happened to the child)
    """The child died or was killed before it answered; the text says how."""


class ChildStopped(Exception):  # noqa: N818
    """We were asked to stop before the child answered, and killed it."""


class ChildProcess:
    """One Python process in a session of its own, with a channel to it.

    It and its children are killed when we close it, or when we die.
    """

    def __init__(self, module: str, function: str, *, log: Path) -> None:
        """Start `function(channel_fd, lifeline_fd)` of `module`, which must first call `be_a_child(lifeline_fd)`.

        Both stdout and stderr of the child are appended to `log`, since our own stdout may carry a stream of events.
        """
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        theirs: Connection[Any, Any]
        self.channel, theirs = multiprocessing.Pipe()
        their_lifeline, self._lifeline = os.pipe()
        boot = _BOOT.format(module=module, function=function)
        arguments = (str(theirs.fileno()), str(their_lifeline), json.dumps(sys.path))
        try:
            with log.open("ab") as output:
                self._log_offset = output.tell()
                self._process = subprocess.Popen(
                    (sys.executable, "-X", "faulthandler", "-c", boot, *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(), their_lifeline),
                    start_new_session=True,
                )
        except BaseException:
            self.channel.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(their_lifeline)

    def send(self, message: object) -> None:
        """Send a message; a child that is already dead causes no error here and is noticed by `is_dead`."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.channel.send(message)

    def forget_words(self) -> None:
        """Leave the child's output so far out of the explanation if it dies later."""
        self._log_offset = self.log.stat().st_size

    def is_dead(self) -> bool:
        """Tell whether the process has ended."""
        return self._process.poll() is not None

    def dies_within(self, seconds: float) -> bool:
        """Tell whether the process ends by itself within this time; wait for it that long."""
        until = time.monotonic() + seconds
        while not self.is_dead():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def bury(self, lost: str) -> str:
        """Kill the process and its children, and return the reason in words.

        Args:
            lost: "died" if the process ended by itself; otherwise the reason why it is killed.
        """
        # The channel closes a moment before the exit code is known.
        by_itself = lost == "died" and self.dies_within(0.5)
        self.kill()
        reason = _cause_of_death(self._process.returncode) if by_itself else lost
        words = _last_words(self.log, self._log_offset)
        return f"{reason}; last words: {words}" if words else reason

    def kill(self) -> None:
        """End the process and its children now; calling it again does no harm."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.channel.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def run_apart(
    work: Callable[..., _Answer],
    *arguments: object,
    log: Path,
    limit_s: float | None = None,
    stopped: threading.Event | None = None,
) -> _Answer:
    """Return what `work(*arguments)` gives, computed in a fresh process.

    If native code crashes, only that process is lost.

    Args:
        work: A function defined in a module, since it is pickled by name.
        arguments: Its arguments, which are pickled too.
        log: File that gets what the child prints.
        limit_s: Seconds after which the child is killed; None sets no limit.
        stopped: The child is killed once this event is set.

    Raises:
        ChildLost: If the child died, or took longer than `limit_s`.
        ChildStopped: If `stopped` was set before the child answered.
        ScalesearchError: If the work raised it.
        RuntimeError: If the work raised any other exception; the text is its traceback.
    """
    child = ChildProcess(__name__, "answer_once", log=log)
    try:
        child.send((work, arguments))
        until = time.monotonic() + limit_s if limit_s is not None else None
        while not child.channel.poll(_TICK_S):
            if stopped is not None and stopped.is_set():
                raise ChildStopped
            if until is not None and time.monotonic() > until:
                raise ChildLost(child.bury(f"no end after {limit_s:g} s, killed"))
            if child.is_dead() and not child.channel.poll():
                raise ChildLost(child.bury("died"))
        try:
            answer, error = child.channel.recv()
        except (EOFError, ConnectionResetError):
            raise ChildLost(child.bury("died")) from None
    finally:
        child.kill()
    if error is not None:
        raise error
    found: _Answer = answer
    return found


def answer_once(channel_fd: int, lifeline_fd: int) -> None:
    """Answer one call of `run_apart`; this runs inside the child."""
    be_a_child(lifeline_fd)
    channel: Connection[Any, Any] = Connection(channel_fd)
    work, arguments = channel.recv()
    message: tuple[Any, Exception | None]
    try:
        message = (work(*arguments), None)
    except ScalesearchError as error:
        message = (None, error)
    except Exception as error:  # an unknown exception may not survive pickling
        words = "".join(traceback.format_exception(error))
        with contextlib.suppress(OSError):  # a full disk
            sys.stderr.write(words)  # into the log: not every caller shows the traceback
        message = (None, RuntimeError(words))
    channel.send(message)


def be_a_child(lifeline_fd: int) -> None:
    """Set up this process as a child: it ends with its parent and ignores Ctrl-C, which the parent handles.

    When memory runs out, the system is asked to kill this process before the parent.
    """
    _die_with_parent(lifeline_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _die_with_parent(lifeline_fd: int) -> None:
    """Have this process and all its children killed once the parent's end of the pipe is closed.

    The kernel closes that end however the parent dies. On Linux the kernel also sends the kill itself, to the whole
    process group. A thread of ours alone would not be enough, since it would wait for the interpreter lock while native
    code hangs; PR_SET_PDEATHSIG would not reach the grandchildren.
    """

    def watch() -> None:
        os.read(lifeline_fd, 1)
        os.killpg(0, signal.SIGKILL)

    if sys.platform == "linux":
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline_fd, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, fcntl.fcntl(lifeline_fd, fcntl.F_GETFL) | os.O_ASYNC)
    # On other systems this thread is the only guard. On Linux it covers a parent that died before the lines above ran.
    threading.Thread(target=watch, daemon=True).start()


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f"worker process exited with code {code}"
    name = signal.Signals(-code).name
    hint = ", out of memory?" if -code == signal.SIGKILL else ""
    return f"worker process killed by signal {-code} ({name}){hint}"


def _last_words(log: Path, offset: int) -> str:
    """Return the crash report written since `offset`, or else the last lines, joined into one line."""
    with log.open("rb") as file:
        file.seek(offset)
        text = file.read()[-8000:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    crash = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    kept = lines[-3:] if crash is None else lines[crash : crash + 3]
    return " | ".join(kept)[:400]
