"""The thread's alternate signal stack, kept through native calls that leave a dead one behind.

OpenVINO 2026.4 gives the thread that compiles a stack of its own, and puts the former one back when the compiled
model dies. With two models alive and the first one dying first, "the former one" has been unmapped by then, and the
next signal that the process handles (Ctrl-C) kills it: the kernel finds no place for the handler's frame.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t))


def signal_stack() -> tuple[int | None, int, int]:
    """Address (None: there is none), flags and size in bytes of this thread's alternate signal stack; Linux only."""
    found = _Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found))
    return (found.address, found.flags, found.size_bytes)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Nothing; afterwards this thread's alternate signal stack is again the one that it was before."""
    if sys.platform != "linux":
        yield
        return
    before = _Stack(*signal_stack())
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
