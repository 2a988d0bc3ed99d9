"""The confirmed front compared with the searched one: what moved, rank agreement, and the winner's curse."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from scalesearch.analysis.confirmation import Confirmation, Move, SeedMean
from scalesearch.analysis.front import point
from scalesearch.analysis.longer_trainings import longer_trainings
from scalesearch.confirm.files import gap_text
from scalesearch.confirm.request import command_for
from scalesearch.study.contents import StudyContents
from scalesearch.views.brief_bias import correction_lines, longer_lines
from scalesearch.views.figures import STYLES, Figure, layout, ticks
from scalesearch.views.markup import bullets, chart, paragraph, section, table
from scalesearch.views.palette import FAINT, INK
from scalesearch.views.words import (
    accuracy_with_interval,
    latency_axis,
    latency_title,
    latency_with_interval,
    score_axis,
    score_noun_of,
    unknown_bias_line,
)


def confirmed(study: StudyContents) -> str:
    """Write the section on how full training changed the front's members."""
    title, found = "Confirmed front", study.confirmation
    if found is None:
        words = "Not confirmed yet. `scalesearch confirm` trains members of the front at full length and measures anew."
        if off := study.confirmed_off_front:
            trials = ", ".join(map(str, off))
            were = f"trial {trials} was, but is" if len(off) == 1 else f"trials {trials} were, but are"
            words = (
                f"No member of the front is confirmed; {were} not on the front (any more). "
                "`scalesearch confirm` trains its members at full length and measures anew."
            )
        if study.unreadable:
            words = f"Left out: {study.unreadable}"
        trained_on = longer_trainings(study.records)
        lines = longer_lines(trained_on) if trained_on else [unknown_bias_line(study.front)] if study.front else []
        told = [f"{line[0].upper()}{line[1:]}." for line in lines]
        return section("confirmed", title, *(paragraph(text) for text in (words, *told)))
    noun = score_noun_of(move.record for move in found.moves)
    caption = f"{noun.capitalize()} against latency after full training"
    latency = latency_title(move.record for move in found.moves)
    header = ("trial", "seeds", "steps", "searched, %", "confirmed, %", "moved, points", "test, %",
              f"searched {latency}, ms", f"confirmed {latency}, ms", "on the front")  # fmt: skip
    return section(
        "confirmed",
        title,
        chart("confirmed", f"{caption}, joined with where the search had put each"),
        table(header, map(_row, found.moves), caption="Members trained anew at full length, with 95 % intervals"),
        bullets((*_lines(found, noun), *_correction(study, found))),
    )  # fmt: skip


def _row(move: Move) -> tuple[str, ...]:
    record = move.record
    standing = "added: " * move.added
    standing += "yes" if move.on_front else f"no: {', '.join(map(str, move.beaten_by))} beat it"
    return (
        str(record.trial),
        str(move.seeds),
        str(move.steps),
        accuracy_with_interval(record.quality),
        _mean(move.validation),
        f"{100 * (move.validation.score - record.quality.score):+.1f}",
        _mean(move.test),
        latency_with_interval(record.latency),
        latency_with_interval(move.latency) + ("" if move.timed_together else " (timed apart)"),
        standing + (f", ties with {', '.join(map(str, move.ties))}" if move.ties else ""),
    )


def _mean(found: SeedMean) -> str:
    return f"{100 * found.score:.1f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def _lines(found: Confirmation, noun: str) -> Iterator[str]:
    fallen = ", ".join(str(move.record.trial) for move in found.fallen)
    yield f"Off the front after full training: {fallen}." if fallen else "Every confirmed member stayed on the front."
    added = [move for move in found.moves if move.added]
    if added:
        told = ", ".join(f"{move.record.trial} ({'on' if move.on_front else 'off'} the front now)" for move in added)
        yield f"Added, though not on the brief front: {told}."
    yield (
        f"Order of brief and full validation {noun} (Spearman): {found.ranks}."
        if found.ranks
        else "Rank agreement needs three members that differ."
    )
    brief, full = gap_text(found.brief_gap), gap_text(found.full_gap)
    yield f"Validation less test, searched files: {brief}; trained anew: {full}."
    if found.winners_curse is not None:
        score_nouns = score_noun_of((move.record for move in found.moves), plural=True)
        curse = f"{100 * found.winners_curse:+.1f} points"
        yield f"Winner's curse (what luck in the selection had added to the searched {score_nouns}): {curse}."
    yield f"The test images were seen by neither the search nor this training; membership goes by validation {noun}."


def _correction(study: StudyContents, found: Confirmation) -> Iterator[str]:
    if study.correction:
        images = study.session.data.train_images if study.session else 0
        command = command_for(shlex.quote(study.name), found.moves, train_images=images)
        for line in correction_lines(found, study.correction, command=command):
            yield f"{line[0].upper()}{line[1:]}{'' if command in line else '.'}"


def confirmed_figure(study: StudyContents) -> Figure:
    """Draw every confirmed member with its intervals, joined to the place where the search had put it.

    Without any confirmed member the figure is empty.
    """
    moves = study.confirmation.moves if study.confirmation else ()
    x: list[float | None] = []
    y: list[float | None] = []
    for move in moves:
        score, p50_ms = point(move.record)
        x += [p50_ms, move.latency.p50_ms, None]
        y += [100 * score, 100 * move.validation.score, None]
    lines = {
        "type": "scatter", "mode": "lines", "name": "move", "hoverinfo": "skip", "x": x, "y": y,
        "line": {"color": FAINT, "width": 1, "dash": "dot"},
    }  # fmt: skip
    before = [(100 * point(move.record)[0], point(move.record)[1]) for move in moves]
    then = [(100 * move.validation.score, move.latency.p50_ms) for move in moves]
    test = [(100 * move.test.score, move.latency.p50_ms) for move in moves]
    data = [
        lines,
        _marks("searched", moves, before, STYLES["bf16"]) | {"mode": "markers"},
        _marks("confirmed, validation", moves, then, STYLES["fp32"]) | _bars(moves),
        _marks("confirmed, test", moves, test, (INK, "x-thin-open")) | {"mode": "markers"},
    ]
    records = [move.record for move in moves]
    latencies = ticks(records, also_ms=[move.latency.p50_ms for move in moves])
    axes = layout(
        title="Searched and confirmed",
        x={"type": "log", "title": {"text": f"{latency_axis(records)} (log scale)"}} | latencies,
        y={"title": {"text": f"{score_axis(records)}, %"}},
    )
    return {"data": data if moves else [], "layout": axes}


def _marks(
    name: str, moves: Sequence[Move], points: Sequence[tuple[float, float]], style: tuple[str, str]
) -> dict[str, Any]:
    colour, symbol = style
    return {
        "type": "scatter", "name": name, "mode": "markers+text", "textposition": "bottom right",
        "x": [float(f"{p50_ms:.5g}") for _, p50_ms in points], "y": [round(score, 2) for score, _ in points],
        "text": [str(move.record.trial) for move in moves], "marker": {"color": colour, "symbol": symbol, "size": 10},
        "hovertemplate": "trial %{text}: %{y:.2f} %, %{x:.4g} ms<extra>" + name + "</extra>",
    }  # fmt: skip


def _bars(moves: Sequence[Move]) -> dict[str, Any]:
    return {
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [round(100 * (move.validation.high - move.validation.score), 2) for move in moves],
            "arrayminus": [round(100 * (move.validation.score - move.validation.low), 2) for move in moves],
        },
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1,
            "array": [float(f"{move.latency.p50_high_ms - move.latency.p50_ms:.3g}") for move in moves],
            "arrayminus": [float(f"{move.latency.p50_ms - move.latency.p50_low_ms:.3g}") for move in moves],
        },
    }  # fmt: skip
