"""`pytest -m gpu`, as far as it can run."""

import re
import subprocess
import sys
from pathlib import Path

from gpu_steps import Day


def run(day: Day) -> None:
    """Put down how many tests passed, failed and were skipped, each failure, and the reasons of skipping."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rsfE", "-p", "no:cacheprovider", "--tb=short"]
    done = subprocess.run(
        [*command, f"--basetemp={day.folder / 'pytest'}"], cwd=root, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout)
    lines = done.stdout.splitlines()
    day.put("pytest -m gpu", lines[-1].strip("= ") if lines else "said nothing", f"exit code {done.returncode}")
    for line in lines:
        if re.match(r"(FAILED|ERROR|SKIPPED) ", line):
            kind, _, rest = line.partition(" ")
            day.put(kind.lower(), rest[:300])
    if done.returncode not in (0, 5):
        sys.exit(f"pytest ended with {done.returncode}")
