"""`pick`: chooses one point of the front under a limit, and says why that one and how sure it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.screen import command_word
from scalesearch.cli.studies import (
    StudyArgument,
    find_study,
    front_under,
    parse_fraction,
    parse_latency_ms,
    read_records,
)
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError
from scalesearch.values.quality import best_words, score_noun
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.views.words import accuracy_with_interval, latency_with_interval, percent, shape_text

if TYPE_CHECKING:
    from scalesearch.analysis.choice import Choice, Wish


def register(app: typer.Typer) -> None:
    """Add `pick` to the app."""
    app.command()(pick)


def pick(
    study: StudyArgument = None,
    max_latency: Annotated[str | None, typer.Option("--max-latency", help="The best score within: 5ms.")] = None,
    min_accuracy: Annotated[
        str | None, typer.Option("--min-accuracy", help="The fastest with this score or more: 0.8 or 80%.")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="The best trade of score for latency (default), within the bounds if any.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="accuracy=2,latency=1: what counts how much; equal ones: the knee.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of objects on stdout: the choice first, then neighbours and ties.")
    ] = False,
) -> int:
    """Choose one trial of the front, and say why, what its neighbours would cost, and what cannot be told apart."""
    from scalesearch.analysis.choice import Wish, choose
    from scalesearch.analysis.front import pareto_front

    if knee and weights:
        message = "Give one of --knee and --weights: equal weights are the knee."
        raise ConfigError(message)
    wish = Wish(
        max_latency_ms=None if max_latency is None else parse_latency_ms(max_latency),
        min_score=None if min_accuracy is None else parse_fraction(min_accuracy),
        knee=knee,
        weights=None if weights is None else parse_weights(weights),
    )
    folder = find_study(study)
    records = read_records(folder)
    front_under(
        records, max_latency_ms=wish.max_latency_ms, min_score=wish.min_score
    )  # says which members are near, if none is within the bounds
    choice = choose(pareto_front(records), wish)
    if as_json:
        typer.echo(json.dumps(_rows(folder, records, choice), indent=1, allow_nan=False))
        return 0
    for line in (*_lines(choice, wish), *_seen_again(folder, choice.record), *_next(folder, choice.record)):
        echo(line)
    return 0


def parse_weights(text: str) -> tuple[float, float]:
    """Parse `accuracy=2,latency=1` into (accuracy, latency); a weight that is not named is 1.

    Raises:
        ConfigError: A name is unknown, a weight is negative or not a number, or all weights are 0.
    """
    found = {"accuracy": 1.0, "latency": 1.0}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name not in found or not 0 <= value < float("inf"):
            message = (
                f"--weights {text!r}: {part.strip()!r} is not accuracy=NUMBER or latency=NUMBER (0 or more).\n"
                "For example --weights accuracy=2,latency=1."
            )
            raise ConfigError(message)
        found[name] = value
    if not any(found.values()):
        message = f"--weights {text!r}: one of accuracy and latency must count."
        raise ConfigError(message)
    return found["accuracy"], found["latency"]


def _lines(choice: "Choice", wish: "Wish") -> Iterator[str]:
    yield f"trial {choice.record.trial}: {_told(choice.record)}"
    yield f"chosen:      {choice.rule}"
    if choice.faster:
        yield f"not faster:  {_step(choice.record, choice.faster)}{_beyond(choice.faster, wish)}"
    else:
        yield "not faster:  it is the fastest of the front"
    if choice.slower:
        yield f"not slower:  {_step(choice.record, choice.slower)}{_beyond(choice.slower, wish)}"
    else:
        yield f"not slower:  it is the {best_words(choice.record.quality.metric)} of the front"
    if choice.ties:
        told = ", ".join(f"trial {record.trial}" for record in choice.ties)
        yield f"tie:         with {told}: all intervals overlap, these images and timings cannot tell them apart"
    for doubt in choice.doubts:
        yield f"not certain: {doubt}"


def _told(record: MeasuredTrial) -> str:
    shape = f"{record.spec.input_size}, "
    score = f"{record.quality.title} {accuracy_with_interval(record.quality)} %"
    return (
        f"{score}, {record.latency.title} {latency_with_interval(record.latency)} ms, {shape}"
        f"depth x width x kernel {shape_text(record)}, {record.candidate.quantization.precision}"
    )


def _step(chosen: MeasuredTrial, other: MeasuredTrial) -> str:
    """Say what going to `other` would win and cost."""
    points = 100 * (other.quality.score - chosen.quality.score)
    more_ms = other.latency.p50_ms - chosen.latency.p50_ms
    share = 100 * more_ms / chosen.latency.p50_ms
    overlap = max(chosen.quality.score_low, other.quality.score_low) <= min(
        chosen.quality.score_high, other.quality.score_high
    )
    error = ", within the error of these images," if overlap else ""
    return f"trial {other.trial}: {points:+.1f} points{error} for {more_ms:+.3g} ms ({share:+.0f} %)"


def _beyond(record: MeasuredTrial, wish: "Wish") -> str:
    return "" if wish.allows(record) else ", out of bounds"


def _seen_again(folder: Path, record: MeasuredTrial) -> Iterator[str]:
    """Yield the results on images that the search never saw; the winner of a search tends to do worse on them."""
    from scalesearch.records.confirmed import read_confirmed
    from scalesearch.records.front_scores import read_front_scores

    for score in read_front_scores(folder):
        if score.trial == record.trial:
            test = accuracy_with_interval(score.test)
            yield f"on test:     the same file {test} %, {latency_with_interval(score.latency)} ms in a fresh process"
    runs = [run for run in read_confirmed(folder) if run.trial == record.trial]
    if runs:
        told = ", ".join(percent(run.test.score) for run in runs)
        yield f"confirmed:   trained at full length, {told} on test images ({len(runs)} seed{'s' * (len(runs) > 1)})"
    else:
        noun = score_noun(record.quality.metric)
        yield f"confirmed:   no: its {noun} is that of brief training (scalesearch confirm trains the front in full)"


def _next(folder: Path, record: MeasuredTrial) -> Iterator[str]:
    from scalesearch.records.confirmed import first_runs

    full = " --confirmed" if record.trial in first_runs(folder) else ""
    yield f"take it:     scalesearch export {command_word(folder)} --trial {record.trial}{full} --to best"


def _rows(folder: Path, records: tuple[TrialRecord, ...], choice: "Choice") -> list[dict[str, object]]:
    from scalesearch.analysis.front import pareto_front
    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.records.tables import trial_rows

    members = {record.trial for record in pareto_front(records)}
    rows = {row["trial"]: row for row in trial_rows(records, front=members, scores=read_front_scores(folder))}
    roles = [("choice", choice.record), ("faster", choice.faster), ("slower", choice.slower)]
    roles += [("tie", record) for record in choice.ties]
    said = {"rule": choice.rule, "doubts": list(choice.doubts)}
    return [
        {"role": role, **rows[record.trial], **(said if role == "choice" else {})} for role, record in roles if record
    ]
