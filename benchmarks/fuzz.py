"""Feeds hostile inputs to everything that reads what a user or a disk may have spoiled, and counts what came of it.

    python benchmarks/fuzz.py --cases 3000 --seed 1

One row for each family: refused in words (an error of ours, at most three lines), accepted, and faults: any other
exception, a password that was repeated, a wrong result, or more than `LIMIT_S` seconds. Memory is bounded, so that a
giant allocation is a fault as well. The same seed gives the same cases. Exit code 1 where there is a fault.
"""

import argparse
import contextlib
import logging
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fuzz_families import FAMILIES, Case, Family, Fault

from scalesearch.errors import ScalesearchError
from scalesearch.plain_text import error_text

LIMIT_S = 5.0
MEMORY_BYTES = 4 * 2**30
"""More address space than this is not given to a case."""


@dataclass(slots=True, kw_only=True)
class Count:
    """What came of a family's cases."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def count(family: Family, cases: int, seed: int) -> Count:
    """Runs so many cases of a family and says what came of them."""
    found = Count()
    with tempfile.TemporaryDirectory() as scratch:
        for case in family(random.Random(seed), Path(scratch)):
            if found.cases == cases:
                break
            _run(case, found)
    return found


def _run(case: Case, found: Count) -> None:
    found.cases += 1
    start = time.perf_counter()
    try:
        with _limited():
            found.accepted += bool(case())
    except ScalesearchError as error:
        found.refused += 1
        lines = error_text(f"error: {error}").splitlines()
        if len(lines) > 3 or not str(error).strip():
            found.faults.append(f"{len(lines)} lines: {error_text(str(error))}")
    except BaseException as error:
        if type(error) is KeyboardInterrupt:
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        found.faults.append(f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})")
    found.slowest_s = max(found.slowest_s, time.perf_counter() - start)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(_: int, __: FrameType | None) -> None:
        message = f"more than {LIMIT_S:g} s"
        raise Fault(message)

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Prints the table and, below it, the first faults of each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000, help="of each family (default: 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append", help="only this one (repeatable)")
    arguments = parser.parse_args()
    used = Path("/proc/self/statm")
    taken = int(used.read_text().split()[0]) * resource.getpagesize() if used.exists() else 2**30
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, resource.RLIM_INFINITY))
    for name in ("scalesearch", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # else a line for each damaged file
    faults: list[str] = []
    print(f"{'family':<20}{'cases':>8}{'refused':>9}{'accepted':>10}{'faults':>8}{'slowest, s':>12}")
    for name, family in FAMILIES.items():
        if arguments.family and name not in arguments.family:
            continue
        found = count(family, arguments.cases, arguments.seed)
        numbers = (
            f"{found.cases:>8}{found.refused:>9}{found.accepted:>10}{len(found.faults):>8}{found.slowest_s:>12.2f}"
        )
        print(f"{name:<20}{numbers}", flush=True)
        faults += [f"{name}: {fault}" for fault in dict.fromkeys(found.faults)]
    for fault in faults[:40]:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
