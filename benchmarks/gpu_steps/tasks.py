"""One training of each further task (detection, segmentation), once the program knows them."""

import importlib.util

from gpu_steps import Day


def run(day: Day) -> None:
    """Put down which tasks there are; classification is what the other steps train."""
    if importlib.util.find_spec("scalesearch.tasks") is None:
        day.put("tasks", "classification alone", "detection and segmentation are not built yet")
