"""Draws confirmed.png: where each front member was after the search, and where full training put it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from scalesearch.analysis.confirmation import Confirmation, Move
from scalesearch.views.front_picture import STYLES, bars, dress
from scalesearch.views.palette import INK, PALE
from scalesearch.views.words import device_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def confirmation_figure(confirmation: Confirmation, *, caption: str = "") -> "Figure":
    """Draw arrows from the searched to the confirmed point of every member, both on validation images.

    The points have their 95 % intervals. Trials that are no longer on the front are hollow, and those that were added
    to it are labelled as such. A short bar at each point is its mean score on the test images.
    """
    from matplotlib.figure import Figure  # takes 0.5 s, so it is imported only once a picture is asked for

    moves = confirmation.moves
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    kept = [move for move in moves if move.on_front]
    axes.step(
        [move.latency.p50_ms for move in kept], [100 * move.validation.score for move in kept],
        where="post", color=INK, linewidth=1.0, alpha=0.6, zorder=2,
    )  # fmt: skip
    crowded = _crowded(moves)
    for move in moves:
        _draw(axes, move, crowded=move.record.trial in crowded)
    # The axes must hold both places of every member.
    now = [replace(move.record, latency=move.latency) for move in moves]
    dress(axes, [*(move.record for move in moves), *now], title="The front after full training")
    _legend(figure, moves)
    device = moves[0].record.device
    under = "  |  ".join(part for part in (device_text(device) if device else "", caption) if part)
    figure.supxlabel(under, fontsize=8, color=PALE, x=0.01, ha="left", parse_math=False)
    return figure


def _then(move: Move) -> tuple[float, float]:
    return move.record.latency.p50_ms, 100 * move.record.quality.score


def _crowded(moves: Sequence[Move]) -> set[int]:
    """Return the trials whose number would run into that of the faster neighbour: within about a label's size."""
    found = set[int]()
    for one, other in pairwise(moves):
        near = other.latency.p50_ms < 1.03 * one.latency.p50_ms
        if near and abs(other.validation.score - one.validation.score) < 0.03 and one.record.trial not in found:
            found.add(other.record.trial)
    return found


def _draw(axes: "Axes", move: Move, *, crowded: bool) -> None:
    from matplotlib.patheffects import withStroke

    colour, marker = STYLES[move.record.candidate.quantization.precision]
    then, now = _then(move), (move.latency.p50_ms, 100 * move.validation.score)
    axes.scatter(*then, color=colour, marker=marker, s=24, alpha=0.35, linewidths=0, zorder=2)
    axes.annotate(
        "", xy=now, xytext=then, zorder=3,
        arrowprops={"arrowstyle": "-|>", "color": colour, "alpha": 0.45, "linewidth": 1.0, "shrinkA": 2, "shrinkB": 5},
    )  # fmt: skip
    latency, mean = move.latency, move.validation
    axes.errorbar(
        *now,
        xerr=bars([(latency.p50_low_ms, now[0], latency.p50_high_ms)]),
        yerr=bars([(100 * mean.low, now[1], 100 * mean.high)]),
        fmt=marker, color=colour, markersize=7.5, elinewidth=1.1, capsize=2.5, zorder=4,
        markerfacecolor=colour if move.on_front else "white",
        markeredgecolor="white" if move.on_front else colour, markeredgewidth=0.8 if move.on_front else 1.4,
    )  # fmt: skip
    axes.scatter(now[0], 100 * move.test.score, marker="_", s=130, color=INK, linewidths=1.6, zorder=5)
    name = f"{move.record.trial}{' added' * move.added}"
    axes.annotate(
        name, now, xytext=(6, -13) if crowded else (6, 6), textcoords="offset points",
        fontsize=8.5, color=INK, zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )  # fmt: skip


def _legend(figure: "Figure", moves: Sequence[Move]) -> None:
    from matplotlib.lines import Line2D

    used = {move.record.candidate.quantization.precision for move in moves}
    marks = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=7, label=precision)
        for precision, (colour, marker) in STYLES.items()
        if precision in used
    ]
    marks += [
        Line2D([], [], color=PALE, marker="o", alpha=0.5, markersize=4.5, linestyle="", label="as searched"),
        Line2D([], [], color=INK, linewidth=1, alpha=0.6, label="front now, with 95 % intervals (validation)"),
        Line2D([], [], color=INK, marker="_", markersize=9, linestyle="", label="test images, mean over seeds"),
    ]
    if not all(move.on_front for move in moves):
        off = "not on the front" if any(move.added for move in moves) else "fell off the front"
        marks.append(Line2D([], [], color=PALE, marker="o", markerfacecolor="white", linestyle="", label=off))
    # Outside: marks of the test images may be anywhere below the front.
    columns = len(marks) if len(marks) < 6 else math.ceil(len(marks) / 2)  # six in one line are wider than the picture
    figure.legend(handles=marks, loc="outside upper center", ncols=columns, fontsize=8, frameon=False)
