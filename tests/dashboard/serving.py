"""A dashboard's server in a thread of its own, for as long as a block lasts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scalesearch.dashboard.server import DashboardServer


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL at which the study in the folder is served."""
    with DashboardServer(folder, port=0) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        yield server.url
        server.stop()
        thread.join()
