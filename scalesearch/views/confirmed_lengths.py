"""Lengths of confirmed trainings in words."""

from collections.abc import Iterable, Iterator, Sequence

from scalesearch.values.confirmed import ConfirmedRun


def trained_words(runs: Iterable[ConfirmedRun]) -> str:
    """Return the trials of these runs by their lengths: `trials 0 and 4 trained for 500 steps, trial 7 for 800`."""
    lengths = dict[int, set[int]]()
    for run in runs:
        lengths.setdefault(run.steps, set()).add(run.trial)
    trained, steps = " trained", " steps"
    told = []
    for length, trials in sorted(lengths.items()):
        told.append(f"{_trials(sorted(trials))}{trained} for {length}{steps}")
        trained, steps = "", ""
    return ", ".join(told)


def left_out_lines(left_out: Sequence[ConfirmedRun]) -> Iterator[str]:
    """Yield a line on confirmed runs that are not compared with the others since their length is another one."""
    if left_out:
        yield (
            f"left out of the confirmed front: {trained_words(left_out)}, unlike most members; "
            "`scalesearch confirm --fresh` trains all alike"
        )


def _trials(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"trial {numbers[0]}"
    return f"trials {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
