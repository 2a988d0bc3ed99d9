"""A small search of each further task (detection, segmentation): trained on this device, measured on the CPU."""

from gpu_steps import Day
from gpu_steps.search import search
from scalesearch.tasks.registry import task_names


def run(day: Day) -> None:
    """Put down seconds, trials and front of each task but classification, which the other steps train."""
    budget, steps = (1, 20) if day.quick or day.device == "cpu" else (2, 120)
    for task in task_names():
        if task != "classification":
            search(day, task, ["--task", task, "--target", "cpu", "--budget", str(budget)], steps=steps)
