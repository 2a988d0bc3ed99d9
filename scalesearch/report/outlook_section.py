"""The section on what may still be found: the front that a model of the trials expects, and the best untried ones."""

import math

from scalesearch.analysis.outlook import FEWEST, Outlook, Promise
from scalesearch.report.detail_sections import SPACE_UNKNOWN
from scalesearch.study.contents import StudyContents
from scalesearch.views.columns import NONE
from scalesearch.views.markup import chart, paragraph, section, table
from scalesearch.views.outlook_figure import SURE, other_axes
from scalesearch.views.words import milliseconds, percent, scaling_text, score_noun_of

_TITLE = "What may still be found"


def outlook(study: StudyContents) -> str:
    """Write what the model expects, its errors, and the candidates that promise most."""
    found = study.outlook
    if found is None:
        words = f"A model of the trials needs {FEWEST} measured ones and a space with a choice."
        if study.session is None:
            words = SPACE_UNKNOWN
        return section("outlook", _TITLE, paragraph(words))
    noun = score_noun_of(study.records)
    sampler = study.session.sampler_after(len(study.records)) if study.session else ""
    used = f"The study's last sampler, {sampler}, does not use it."
    if sampler == "growth":
        used = "The study's last sampler, growth, chooses by such a model."
    note = (
        f"Two Gaussian processes, one for the {noun} and one for the logarithm of the latency, were fitted to the "
        f"measured trials. {used} It is asked about {found.considered} candidates, tried and untried."
    )
    rows = [_row(each) for each in found.best]
    head = ["resolution", "depth x width x kernel", "pruned", "precision", noun, "latency", "growth of the front"]
    caption = "Untried candidates that promise most, with 95 % intervals of the model"
    others = [other_axes(each) for each in found.best]
    if any(others):
        head, rows = _with_column(head, rows, "other sampled axes", [each or NONE for each in others], at=4)
    if any(each.trained for each in found.best):
        told = [f"{each.trained} updates" if each.trained else NONE for each in found.best]
        head, rows = _with_column(head, rows, "trained so far", told, at=len(head))
        caption = "Candidates, untried or trained in part, that promise most, with 95 % intervals of the model"
    return section(
        "outlook",
        _TITLE,
        paragraph(note),
        paragraph(_errors_text(found, noun)),
        chart("outlook", "The front that the model expects, over the measured trials"),
        table(head, rows, caption=caption),
    )


def _with_column(
    head: list[str], rows: list[list[str]], name: str, cells: list[str], *, at: int
) -> tuple[list[str], list[list[str]]]:
    """Return a table's head and rows with one more column, before the one at `at`."""
    wider = [[*row[:at], cell, *row[at:]] for row, cell in zip(rows, cells, strict=True)]
    return [*head[:at], name, *head[at:]], wider


def _errors_text(found: Outlook, noun: str) -> str:
    if found.errors is None:
        return "How far the model is off cannot be told from fewer than three networks."
    return (
        f"Asked about {found.errors.networks} networks that were left out of the fit one by one, it is off by "
        f"{100 * found.errors.score_rms:.1f} points of {noun} (root mean square) and by "
        f"{100 * found.errors.latency_median:.0f} % of the latency (median)."
    )


def _row(each: Promise) -> list[str]:
    candidate, spread = each.candidate, math.exp(SURE * each.log_ms_sd)
    return [
        f"x{candidate.scaling.resolution:.4g}",
        scaling_text(candidate.scaling),
        candidate.pruning.label or NONE,
        candidate.quantization.label,
        f"{percent(each.score)} ± {100 * SURE * each.score_sd:.1f}",
        f"{milliseconds(each.p50_ms)} ({milliseconds(each.p50_ms / spread)} to {milliseconds(each.p50_ms * spread)})",
        "-" if each.growth is None else f"{100 * each.growth:.2f} %",
    ]
