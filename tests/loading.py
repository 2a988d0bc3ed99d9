"""What a fresh Python has loaded once it has run some code."""

import subprocess
import sys
from collections.abc import Iterable


def loaded(code: str, *, of: Iterable[str]) -> set[str]:
    """Those of the modules that are loaded after the code, whatever it prints."""
    names = sorted(of)
    check = f"import sys\n{code}\nprint()\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return set(done.stdout.splitlines()[-1].split())
