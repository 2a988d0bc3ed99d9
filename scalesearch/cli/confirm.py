"""`confirm`: trains front members at full length once the search is over."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.screen import Column, command_word, print_table, wide_console
from scalesearch.cli.studies import (
    MovedData,
    StudyArgument,
    find_study,
    front_under,
    read_records,
    train_images_of,
)
from scalesearch.cli.terminal import echo
from scalesearch.confirm.request import DEFAULT_SEEDS, ConfirmRequest, command_for, parse_also
from scalesearch.errors import ScalesearchError
from scalesearch.views.words import score_noun_of

if TYPE_CHECKING:
    from scalesearch.analysis.confirmation import Confirmation, Move
    from scalesearch.confirm.front import ConfirmOutcome

_NAMED = 3


def register(app: typer.Typer) -> None:
    """Add `confirm` to the app."""
    app.command()(confirm)


def confirm(
    study: StudyArgument = None,
    top: Annotated[
        int | None, typer.Option("--top", help="So many members, the knee and those nearest to it (default: all).")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the training images.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", help="Updates of one training (default: 8 times the search's, 4 times unlike ones' longest)."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each member, from fresh seeds.")] = DEFAULT_SEEDS,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Start anew; what was confirmed is kept beside it, and its trunks are continued."),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="N", help="This trial off the front, too; auto: those likely on the long one."),
    ] = None,
    data: MovedData = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="What confirmed.json holds on stdout; words on stderr.")
    ] = False,
) -> int:
    """Train front members at full length from fresh seeds, deploy and time them again, and score the test images.

    The same command continues a stopped one. All is written to STUDY/confirmed; the study itself stays as it is.
    """
    trials, likely = parse_also(also or ())
    request = ConfirmRequest(top=top, epochs=epochs, steps=steps, seeds=seeds, also=trials, also_likely=likely)
    folder = find_study(study)
    records = read_records(folder)
    front_under(records)  # gives the reason if there is no front, before torch is loaded
    from scalesearch.confirm.members import asked_members

    asked_members(folder, records, request)  # and if a trial cannot be added to it

    from scalesearch.confirm.front import confirm_front

    def say(line: str) -> None:
        echo(line, err=as_json)

    outcome = confirm_front(folder, request, fresh=fresh, data=data, say=say)
    if outcome.ended == "interrupted":
        say(f"stopped: {outcome.done} of {outcome.asked} trainings are on disk; the same command goes on")
        return 130
    if outcome.confirmation is None:
        message = f"No training came to its end: {outcome.lost[-1].reason}\nLogs: {folder}/confirmed/logs."
        raise ScalesearchError(message)
    if as_json:
        typer.echo((folder / "confirmed" / "confirmed.json").read_text(encoding="utf-8").rstrip())
    else:
        _print(folder, outcome, outcome.confirmation)
    return 1 if outcome.lost else 0


def _print(folder: Path, outcome: "ConfirmOutcome", confirmation: "Confirmation") -> None:
    console = wide_console()
    print_table(console, _COLUMNS, [_cells(move) for move in confirmation.moves])
    for line in (
        *_footnotes(confirmation, outcome),
        *_correction(folder, outcome),
        f"written: {folder}/confirmed/confirmed.csv, .json, .png",
    ):
        console.print(line, markup=False, highlight=False)


_COLUMNS = (
    Column(head="trial", keep=9, right=True),
    Column(head="brief val, %", keep=2, right=True),
    Column(head="full val, %", keep=5, right=True),
    Column(head="test, % (seeds)", keep=7, right=True),
    Column(head="then, ms", keep=1, right=True),
    Column(head="now, ms", keep=8, right=True),
    Column(head="on the front?", keep=6, folds=True),
)


def _cells(move: "Move") -> tuple[str, ...]:
    from scalesearch.views.words import accuracy_with_interval, latency_with_interval, milliseconds

    value, test = move.validation, move.test
    spread = f" ({100 * test.lowest:.1f}-{100 * test.highest:.1f})" if move.seeds > 1 else ""
    beaten = [f"{trial}{' (tie)' if trial in move.ties else ''}" for trial in move.beaten_by]
    named = ", ".join(beaten[:_NAMED]) + ", ..." * (len(beaten) > _NAMED)
    return (
        str(move.record.trial),
        accuracy_with_interval(move.record.quality),
        f"{100 * value.score:.1f} ({100 * value.low:.1f}-{100 * value.high:.1f})",
        f"{100 * test.score:.1f}{spread}",
        milliseconds(move.record.latency.p50_ms).removesuffix(" ms"),
        f"{'' if move.latency.stable else '!'}{latency_with_interval(move.latency)}",
        ("added: " if move.added else "") + ("yes" if move.on_front else f"no: {named}"),
    )


def _footnotes(confirmation: "Confirmation", outcome: "ConfirmOutcome") -> Iterator[str]:
    moves, ranks = confirmation.moves, confirmation.ranks
    noun = score_noun_of(move.record for move in moves)
    if not all(move.latency.stable for move in moves):
        yield "! its latency did not settle within the time limit: see its interval"
    if any(move.added for move in moves):
        yield "added: not on the brief front, confirmed by --also"
    if not all(move.on_front for move in moves):
        yield "no: not on the front of these trials; the numbers are those that beat it (tie: within the error)"
    lengths = sorted({move.steps for move in moves})
    yield (
        f"full: {lengths[0]}{f' to {lengths[-1]}' if len(lengths) > 1 else ''} steps, mean of "
        f"{max(move.seeds for move in moves)} fresh seeds; intervals are 95 %, of images and seeds together"
    )
    if ranks:
        yield f"order of brief against full {noun}: Spearman {ranks}"
    else:
        yield f"order of brief against full {noun}: nothing to say, fewer than three members differ"
    yield from _gaps(confirmation)
    fallen = confirmation.fallen
    real = [move for move in fallen if not set(move.beaten_by) <= set(move.ties)]
    members = len(moves) - sum(move.added for move in moves)
    yield f"fell off: {len(fallen)} of {members}, {len(fallen) - len(real)} of them within the error (ties)"
    pairs = [(m.record.trial, other) for m in moves for other in m.ties if m.record.trial < other]
    if pairs:
        yield f"ties (intervals overlap in both): {', '.join(f'{one} = {other}' for one, other in pairs)}"
    if outcome.timing_lost:
        yield f"warning: no session timed all engines ({outcome.timing_lost}); latencies are those of each alone"
    for lost in outcome.lost:
        yield f"warning: trial {lost.trial}, seed {lost.seed} was lost: {lost.reason}; the same command tries it again"


def _correction(folder: Path, outcome: "ConfirmOutcome") -> Iterator[str]:
    from scalesearch.views.brief_bias import correction_lines

    if outcome.confirmation and outcome.correction:
        images = train_images_of(folder)
        command = command_for(command_word(folder), outcome.confirmation.moves, train_images=images)
        yield from correction_lines(outcome.confirmation, outcome.correction, command=command)


def _gaps(confirmation: "Confirmation") -> Iterator[str]:
    """Yield the gaps between validation and test score after brief and full training, and the winner's curse.

    The winner's curse is the part of the brief gap that comes from luck in the search's choice.
    """
    from scalesearch.confirm.files import gap_text

    yield f"brief validation less test: {gap_text(confirmation.brief_gap)}: luck in the choice, and unlike splits"
    yield f"full validation less test:  {gap_text(confirmation.full_gap)}: unlike splits alone"
    if confirmation.winners_curse is not None:
        yield f"winner's curse, the one less the other: {100 * confirmation.winners_curse:+.1f} points"
    elif confirmation.splits_differ:
        yield (
            "winner's curse: cannot be told, for the splits differ by themselves: test images are harder, or less like "
            "the training images\nthan the validation images are. Believe the test column."
            if confirmation.full_gap and confirmation.full_gap.mean > 0
            else "winner's curse: cannot be told, for the splits differ by themselves: validation images are harder."
        )
    else:
        yield "winner's curse: cannot be told without the search's own test scores (front_scores.json)"
