"""What a run shows while it goes on: a Rich view on a terminal, one line per trial elsewhere, NDJSON on request."""

import contextlib
import dataclasses
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from scalesearch.cli.run_lines import (
    narrowed,
    of_budget,
    opening,
    plateau,
    sampler_changed,
    show_end,
    trial_line,
)
from scalesearch.cli.time_span import span
from scalesearch.plain_text import visible
from scalesearch.records.tables import trial_rows
from scalesearch.search.events import (
    Event,
    Narrowed,
    Plateau,
    RunStarted,
    RunStopped,
    SamplerChanged,
    StageEntered,
    StudyOutcome,
    TrialFinished,
    TrialStarted,
)
from scalesearch.values.record import TrialRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_SHOWN_TRIALS = 8


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
            fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
            row = trial_rows([fields.pop("record")], metric=fields.pop("metric"))[0]
            self._write({"event": name, **row, **fields})
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
        self._max_time_s = self._prepared_s = 0.0

    def hear(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.budget, self.done, self._done_before = event.budget, event.charged_done, event.charged_done
            self._start, self._max_time_s = time.monotonic(), event.max_time_s
            self._prepared_s = event.prepared_s
        elif isinstance(event, TrialFinished):
            self.done, self.budget = event.charged_done, event.budget
            self.front_size, self.hypervolume = event.front_size, event.hypervolume
            self.free += not event.record.charged

    @property
    def share(self) -> float:
        """The fraction of the budget or of the time that is used up, whichever is larger."""
        by_time = 1 - self._left_s / self._max_time_s if self._max_time_s else 0.0
        return max(self.done / max(self.budget, 1), by_time)

    @property
    def _left_s(self) -> float:
        return self._max_time_s - self._prepared_s - (time.monotonic() - self._start)

    @property
    def remaining_s(self) -> float | None:
        """Seconds of wall time until budget or time is used up at this run's pace; None before its first trial."""
        mine, spent_s = self.done - self._done_before, time.monotonic() - self._start
        if not mine:
            return None
        budget_s = spent_s / mine * max(0.0, self.budget - self.done)
        return min(budget_s, max(0.0, self._left_s)) if self._max_time_s else budget_s


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
            self._print(opening(event, self._folder))
        elif isinstance(event, TrialFinished):
            remaining = self._progress.remaining_s
            eta = f"  about {span(remaining)} left" if remaining else ""
            used = f"[{of_budget(event.charged_done, event.budget, '/')}]"
            self._print(f"{used} {trial_line(event.record)}  front {event.front_size}{eta}")
        elif isinstance(event, Narrowed):
            self._print(narrowed(event))
        elif isinstance(event, SamplerChanged):
            self._print(sampler_changed(event))
        elif isinstance(event, Plateau):
            self._print(plateau(event))
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
            self.say(opening(event, self._folder))
        elif isinstance(event, StageEntered):
            self._stages[event.trial] = event.stage
        elif isinstance(event, TrialFinished):
            self._stages.pop(event.record.trial, None)
            self._last.append(event.record)
        elif isinstance(event, Narrowed):
            self.say(narrowed(event))
        elif isinstance(event, SamplerChanged):
            self.say(sampler_changed(event))
        elif isinstance(event, Plateau):
            self.say(plateau(event))

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
            of_budget(progress.done, progress.budget, " of "),
            f"about {span(remaining)} left" if remaining is not None else "first trial",
            f"front {progress.front_size}",
            f"hypervolume {progress.hypervolume:.3f}",
            f"{progress.free} free" if progress.free else "",
        )
        working = "   ".join(f"trial {trial}: {stage}" for trial, stage in sorted(self._stages.items()))
        return Group(head, Text(working, style="dim"), *(Text(visible(trial_line(record))) for record in self._last))
