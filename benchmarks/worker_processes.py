"""What worker processes of the benchmarks have in common."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this worker process when the process that started it is gone: killed, it cannot stop its workers itself."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
