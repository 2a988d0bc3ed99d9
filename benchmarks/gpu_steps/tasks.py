"""One training of each further task (detection, segmentation), once the program knows them."""

from gpu_steps import Day
from scalesearch.tasks.registry import task_names


def run(day: Day) -> None:
    """Put down which tasks there are; classification is what the other steps train."""
    others = [name for name in task_names() if name != "classification"]
    day.put("tasks", ", ".join(task_names()), "" if others else "detection and segmentation are not built yet")
