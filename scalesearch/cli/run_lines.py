"""The lines that a run shows to people: how it begins, one for each trial, and what to do next."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.cli.screen import command_word
from scalesearch.cli.time_span import span
from scalesearch.search.events import (
    Narrowed,
    Plateau,
    RunStarted,
    SamplerChanged,
    StudyOutcome,
)
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import UNLIMITED_BUDGET
from scalesearch.views.words import milliseconds_number, neck_text, verdict

if TYPE_CHECKING:
    from rich.console import Console

_ROUNDING = 1e-6


def trial_line(record: TrialRecord) -> str:
    """Return one trial as one line: its number, its result (or why it has none), and its candidate in words."""
    scaling, quantization = record.candidate.scaling, record.candidate.quantization
    size = str(record.spec.input_size) if record.spec else f"res x{scaling.resolution:g}"
    shape = f"{size} depth x{scaling.depth:g} width x{scaling.width:g} kernel x{scaling.kernel:g}"
    shape += f" neck {neck}" if (neck := neck_text(scaling)) else ""
    shape += ", cut from a larger trunk" if record.cut_from else ""
    pruned = record.candidate.pruning.label
    what = f"{shape}{f', {pruned},' if pruned else ''} {quantization.label}"
    seconds = sum(stage.seconds for stage in record.stages)
    if record.quality is not None and record.latency is not None:
        mark = "" if record.feasible else f"  ({verdict(record)})"
        unstable = " unstable" if record.latency.unsettled else ""
        origin = f"same as {record.same_as}" if record.same_as is not None else f"{seconds:.0f} s"
        if record.sibling_of is not None and record.same_as is None:
            origin = f"{'branch' if record.is_branch else 'sibling'} of {record.sibling_of}, {origin}"
        result = f"{record.quality.title} {100 * record.quality.score:5.1f} %  "
        result += f"{milliseconds_number(record.latency.p50_ms):>7} ms{unstable}"
        return f"trial {record.trial:3d}  {result}  {what}  [{origin}]{mark}"
    return f"trial {record.trial:3d}  {record.state}: {record.reason.splitlines()[0] if record.reason else ''}  {what}"


def show_end(console: "Console", outcome: StudyOutcome, folder: Path) -> None:
    """Print the front as a table, where everything is, and what to type next."""
    from scalesearch.analysis.untrained import untrained_line
    from scalesearch.cli.front_table import print_front

    states = [record.state for record in outcome.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    console.print(
        f"\n{outcome.message}  ({counts or 'no trials'}; {span(outcome.wall_s)} in this run)", highlight=False
    )
    if saved := untrained_line(outcome.records):
        console.print(saved, highlight=False, markup=False)
    if outcome.front:
        word = command_word(folder)
        print_front(console, outcome.records, folder)
        console.print(
            f"Written to {folder}: front.png, front.csv, trials.csv, records/, models/, run.toml\n"
            f"Next: scalesearch report {word}   scalesearch pick {word}   scalesearch confirm {word}",
            highlight=False,
            markup=False,
        )
    if outcome.ended in ("interrupted", "time"):
        console.print("Type the same command again to go on.", highlight=False)


def opening(event: RunStarted, folder: Path) -> str:
    """Return the line on how much of the budget a run begins with."""
    limit = f", at most {span(event.max_time_s)}" if event.max_time_s else ""
    if limit and event.prepared_s >= 1:
        limit += f" ({span(event.prepared_s)} of them are over)"
    if not event.records:
        budget = "no budget" if event.budget == UNLIMITED_BUDGET else f"budget {event.budget}"
        return f"study {folder}: {budget}{limit}"
    done = trainings(event.charged_done)
    left = trainings(max(0.0, event.budget - float(done)))
    to_go = limit if event.budget == UNLIMITED_BUDGET else f", {left} to go{limit}"
    return f"study {folder}: continuing after {done} full trainings{to_go}"


def narrowed(event: Narrowed) -> str:
    """Return the line on a precision that the search gives up."""
    if event.siblings:
        return f"siblings: none in {event.precision} any more: it made none of {event.tries} networks faster"
    tried = f"{event.tries} networks gained nothing from it"
    return f"adaptive: {event.precision} is not asked any more: {tried} (run without --adaptive to ask it again)"


def sampler_changed(event: SamplerChanged) -> str:
    """Return the line on another sampler that goes on."""
    why = f"which asks faster: the study has {event.trials:,} trials"
    return f"sampler: {event.sampler} from now on, {why} (--sampler NAME)"


def of_budget(done: float, budget: int, between: str) -> str:
    """Return the number of trainings done, and that of the budget if there is one, as text."""
    return trainings(done) if budget == UNLIMITED_BUDGET else f"{trainings(done)}{between}{budget}"


def plateau(event: Plateau) -> str:
    """Return the line on a front that has stopped growing."""
    in_full = event.candidates - event.in_part
    lengths = f" ({in_full} in full length, {event.in_part} in part)" if event.in_part else ""
    return (
        f"plateau: hypervolume grew by {100 * event.growth:.2f} % in the last {event.candidates} trained candidates"
        f"{lengths}; more of them are unlikely to change the front much"
    )


def trainings(charged: float) -> str:
    """Return a number of full trainings as text, with one decimal unless that is 0.

    It is rounded down, so that a budget that is not used up does not look as if it were.
    """
    return f"{math.floor(10 * charged + _ROUNDING) / 10:.1f}".removesuffix(".0")
