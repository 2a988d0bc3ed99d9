"""What a run shows while it goes on: a Rich view on a terminal, one line per trial elsewhere, NDJSON on request."""

import contextlib
import dataclasses
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.cli.screen import command_word
from scalesearch.cli.time_span import span
from scalesearch.plain_text import visible
from scalesearch.records.tables import trial_rows
from scalesearch.search.events import (
    Event,
    Narrowed,
    Plateau,
    RunStarted,
    RunStopped,
    StageEntered,
    StudyOutcome,
    TrialFinished,
    TrialStarted,
)
from scalesearch.values.record import TrialRecord
from scalesearch.values.settings import UNLIMITED_BUDGET
from scalesearch.views.words import milliseconds_number, verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SHOWN_TRIALS = 8
_ROUNDING = 1e-6


class View(Protocol):
    """What a run reports to. `ended` is called after the screen is free again."""

    def say(self, text: str) -> None:
        """Show a line about the preparation."""

    def event(self, event: Event) -> None:
        """Show what happened."""

    def ended(self, outcome: StudyOutcome) -> None:
        """Show the front and what to do next."""


@contextlib.contextmanager
def view(folder: Path, *, as_json: bool) -> Iterator[View]:
    """Give the view that suits where the output goes; it is open for as long as the run lasts."""
    if as_json:
        yield _JsonView()
        return
    from scalesearch.cli.screen import wide_console

    console = wide_console()
    if not console.is_terminal:
        yield _LineView(console, folder)
        return
    live = _LiveView(console, folder)
    with live:
        yield live


class _JsonView:
    """One JSON object per line: `{"event": ..., ...}`. Finished trials have the CSV's keys."""

    def say(self, text: str) -> None:
        self._write({"event": "message", "text": text})

    def event(self, event: Event) -> None:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")
        if isinstance(event, TrialFinished):
            fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event) if f.name != "record"}
            self._write({"event": name, **trial_rows([event.record])[0], **fields})
        elif isinstance(event, TrialStarted):
            self._write({"event": name, "trial": event.trial, "candidate": dataclasses.asdict(event.candidate)})
        else:
            self._write({"event": name, **dataclasses.asdict(event)})

    def ended(self, outcome: StudyOutcome) -> None:
        self._write(
            {
                "event": "ended",
                "ended": outcome.ended,
                "message": outcome.message,
                "charged": outcome.charged,
                "front": [record.trial for record in outcome.front],
                "wall_s": outcome.wall_s,
            }
        )

    @staticmethod
    def _write(document: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


class _Progress:
    """The running numbers that both views for people show."""

    def __init__(self) -> None:
        self.budget = self.front_size = self.free = 0
        self.hypervolume = self.done = self._done_before = 0.0
        self._start = time.monotonic()
        self._max_time_s = 0.0

    def hear(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.budget, self.done, self._done_before = event.budget, event.charged_done, event.charged_done
            self._start, self._max_time_s = time.monotonic(), event.max_time_s
        elif isinstance(event, TrialFinished):
            self.done, self.budget = event.charged_done, event.budget
            self.front_size, self.hypervolume = event.front_size, event.hypervolume
            self.free += not event.record.charged

    @property
    def share(self) -> float:
        """What is used up of budget or time, whichever is further, as a fraction."""
        by_time = (time.monotonic() - self._start) / self._max_time_s if self._max_time_s else 0.0
        return max(self.done / max(self.budget, 1), by_time)

    @property
    def remaining_s(self) -> float | None:
        """Seconds of wall time until budget or time is used up at this run's pace; None before its first trial."""
        mine, spent_s = self.done - self._done_before, time.monotonic() - self._start
        if not mine:
            return None
        budget_s = spent_s / mine * max(0.0, self.budget - self.done)
        return min(budget_s, max(0.0, self._max_time_s - spent_s)) if self._max_time_s else budget_s


class _LineView:
    """For logs: plain lines that need no cursor."""

    def __init__(self, console: "Console", folder: Path) -> None:
        self._console, self._folder = console, folder
        self._progress = _Progress()

    def say(self, text: str) -> None:
        self._print(text)

    def event(self, event: Event) -> None:
        self._progress.hear(event)
        if isinstance(event, RunStarted):
            self._print(_opening(event, self._folder))
        elif isinstance(event, TrialFinished):
            remaining = self._progress.remaining_s
            eta = f"  about {span(remaining)} left" if remaining else ""
            used = f"[{_of_budget(event.charged_done, event.budget, '/')}]"
            self._print(f"{used} {trial_line(event.record)}  front {event.front_size}{eta}")
        elif isinstance(event, Narrowed):
            self._print(_narrowed(event))
        elif isinstance(event, Plateau):
            self._print(_plateau(event))
        elif isinstance(event, RunStopped):
            self._print(event.message)

    def ended(self, outcome: StudyOutcome) -> None:
        show_end(self._console, outcome, self._folder)

    def _print(self, text: str) -> None:
        # Not Console.print: it would wrap a log's lines at 80 columns.
        self._console.file.write(visible(text) + "\n")
        self._console.file.flush()


class _LiveView:
    """For terminals: bar, time left, workers' stages, hypervolume, front size, last trials."""

    def __init__(self, console: "Console", folder: Path) -> None:
        from rich.live import Live

        self._console, self._folder = console, folder
        self._progress = _Progress()
        self._stages: dict[int, str] = {}
        self._last: deque[TrialRecord] = deque(maxlen=_SHOWN_TRIALS)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> None:
        self._live.__enter__()

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def event(self, event: Event) -> None:
        self._progress.hear(event)
        if isinstance(event, RunStarted):
            self.say(_opening(event, self._folder))
        elif isinstance(event, StageEntered):
            self._stages[event.trial] = event.stage
        elif isinstance(event, TrialFinished):
            self._stages.pop(event.record.trial, None)
            self._last.append(event.record)
        elif isinstance(event, Narrowed):
            self.say(_narrowed(event))
        elif isinstance(event, Plateau):
            self.say(_plateau(event))

    def ended(self, outcome: StudyOutcome) -> None:
        show_end(self._console, outcome, self._folder)

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        remaining = progress.remaining_s
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=1.0, completed=progress.share, width=30),
            _of_budget(progress.done, progress.budget, " of "),
            f"about {span(remaining)} left" if remaining is not None else "first trial",
            f"front {progress.front_size}",
            f"hypervolume {progress.hypervolume:.3f}",
            f"{progress.free} free" if progress.free else "",
        )
        working = "   ".join(f"trial {trial}: {stage}" for trial, stage in sorted(self._stages.items()))
        return Group(head, Text(working, style="dim"), *(Text(visible(trial_line(record))) for record in self._last))


def trial_line(record: TrialRecord) -> str:
    """Return one trial as one line: number, result or why it has none, and what it was."""
    scaling, quantization = record.candidate.scaling, record.candidate.quantization
    size = str(record.spec.input_size) if record.spec else f"res x{scaling.resolution:g}"
    shape = f"{size} depth x{scaling.depth:g} width x{scaling.width:g} kernel x{scaling.kernel:g}"
    shape += ", cut from a larger trunk" if record.cut_from else ""
    pruned = record.candidate.pruning.label
    what = f"{shape}{f', {pruned},' if pruned else ''} {quantization.label}"
    seconds = sum(stage.seconds for stage in record.stages)
    if record.quality is not None and record.latency is not None:
        mark = "" if record.feasible else f"  ({verdict(record)})"
        unstable = "" if record.latency.stable else " unstable"
        origin = f"same as {record.same_as}" if record.same_as is not None else f"{seconds:.0f} s"
        if record.sibling_of is not None and record.same_as is None:
            origin = f"sibling of {record.sibling_of}, {origin}"
        result = f"{record.quality.title} {100 * record.quality.score:5.1f} %  "
        result += f"{milliseconds_number(record.latency.p50_ms):>7} ms{unstable}"
        return f"trial {record.trial:3d}  {result}  {what}  [{origin}]{mark}"
    return f"trial {record.trial:3d}  {record.state}: {record.reason.splitlines()[0] if record.reason else ''}  {what}"


def show_end(console: "Console", outcome: StudyOutcome, folder: Path) -> None:
    """Print the front as a table, where everything is, and what to type next."""
    from scalesearch.cli.front_table import print_front

    states = [record.state for record in outcome.records]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    console.print(
        f"\n{outcome.message}  ({counts or 'no trials'}; {span(outcome.wall_s)} in this run)", highlight=False
    )
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


def _opening(event: RunStarted, folder: Path) -> str:
    limit = f", at most {span(event.max_time_s)}" if event.max_time_s else ""
    if not event.records:
        budget = "no budget" if event.budget == UNLIMITED_BUDGET else f"budget {event.budget}"
        return f"study {folder}: {budget}{limit}"
    done = trainings(event.charged_done)
    left = trainings(max(0.0, event.budget - float(done)))
    to_go = limit if event.budget == UNLIMITED_BUDGET else f", {left} to go{limit}"
    return f"study {folder}: continuing after {done} full trainings{to_go}"


def _narrowed(event: Narrowed) -> str:
    tried = f"{event.tries} networks gained nothing from it"
    return f"adaptive: {event.precision} is not asked any more: {tried} (run without --adaptive to ask it again)"


def _of_budget(done: float, budget: int, between: str) -> str:
    """Return the trainings done, with those of the budget if there is one."""
    return trainings(done) if budget == UNLIMITED_BUDGET else f"{trainings(done)}{between}{budget}"


def _plateau(event: Plateau) -> str:
    return (
        f"plateau: hypervolume grew by {100 * event.growth:.2f} % in the last {event.candidates} trained candidates; "
        "more of them are unlikely to change the front much"
    )


def trainings(charged: float) -> str:
    """Return a number of full trainings as text, with one decimal unless that is 0.

    It is rounded down, so that a budget that is not used up does not look as if it were.
    """
    return f"{math.floor(10 * charged + _ROUNDING) / 10:.1f}".removesuffix(".0")
