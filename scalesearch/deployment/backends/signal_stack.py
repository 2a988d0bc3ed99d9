"""Keep the thread's alternate signal stack through native calls that would leave an invalid one behind.

OpenVINO 2026.4 gives the thread that compiles a signal stack of its own, and restores the former one when the compiled
model is freed. If two models are alive and the first one is freed first, the "former" stack that is restored later has
been unmapped by then. The next signal that the process handles (Ctrl-C) then kills the process, since the kernel finds
no place for the handler's frame.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int, int]:
    """Return address, flags and size in bytes of this thread's alternate signal stack. Linux only.

    The address is None if there is no such stack.
    """
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return (found.address, found.flags, found.size_bytes)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Restore this thread's alternate signal stack afterwards, as it was before."""
    if sys.platform != "linux":
        yield
        return
    before = _Stack(*signal_stack())
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
