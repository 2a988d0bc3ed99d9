"""The sections that answer what was found and how far it can be trusted."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from scalesearch.analysis.baselines import distance_from_base, drawn_by_chance, starts_uncut
from scalesearch.analysis.front import hypervolume, point, reference_of, ties
from scalesearch.analysis.score_error import variance
from scalesearch.analysis.timing_doubts import timing_doubts
from scalesearch.spaces.suggest import uncut_parameters
from scalesearch.study.contents import StudyContents
from scalesearch.values.latency import UNSETTLED
from scalesearch.values.quality import PROPORTIONS, best_words, score_noun
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.views.columns import (
    FILE,
    MACS,
    PARAMETERS,
    PRECISION,
    PRUNED,
    SHAPE,
    SIDES,
    TrialColumn,
    latency_column,
    number_column,
    score_column,
    tested_columns,
)
from scalesearch.views.markup import bullets, chart, paragraph, section, table, text
from scalesearch.views.words import (
    accuracy_with_interval,
    bytes_text,
    count,
    latency_with_interval,
    milliseconds,
    percent,
    remedy,
    shape_text,
)

LARGE_GAP = 0.02
"""The report warns if the score falls by more than this from the float network to the engine, as a fraction."""
HIGH_STANDARD_ERROR = 0.01
"""The report warns above this standard error of a validation score, as a fraction."""
_MOST_WARNINGS = 12
_MOST_NAMED = 20
"""Largest number of unstable trials that are named."""
_REPEATED = re.compile(r"^(as trial \d+: )+")
_NO_STAGES = {"not gone on with": "not gone on with after a kill", "bug": "by a bug", "": "in an unknown stage"}
"""In words, what begins the reason of a failed trial without being a stage."""


def answer(study: StudyContents) -> str:
    """Write the ends and the knee of the front as cards."""
    if not study.front:
        words = f"None of {len(study.records)} trials is feasible. {remedy(study.records)}"
        return section("answer", "What was found", paragraph(words))
    best = best_words(study.metric).capitalize()
    named = [("Fastest", study.front[0]), ("Best trade (knee)", study.knee), (best, study.front[-1])]
    cards = "".join(_card(title, record) for title, record in named if record)
    return section("answer", "What was found", f'<div class="cards">{cards}</div>', bullets(_comparisons(study)))


def _card(title: str, record: MeasuredTrial) -> str:
    size = f"{count(record.cost.macs)} MACs, " if record.cost else ""
    lines = (
        f"{latency_with_interval(record.latency)} ms",
        f"trial {record.trial}, {record.spec.input_size}, {shape_text(record)}, {record.candidate.quantization.label}",
        f"{size}{bytes_text(record.size_bytes or 0)}",
    )
    told = "".join(f"<p>{text(line)}</p>" for line in lines)
    return (
        f'<article class="card"><h3>{text(title)}</h3><p class="big">{text(percent(record.quality.score))}</p>'
        f"<p>{text(accuracy_with_interval(record.quality))}, 95 % interval</p>{told}</article>"
    )


def _comparisons(study: StudyContents) -> Iterator[str]:
    """Compare the front with the base network and with chance, in words that claim no more than was measured."""
    base = study.base
    if base:
        score, p50_ms = point(base)
        which = "the base network" if distance_from_base(base) == 0 else "what was measured nearest to the base network"
        yield (
            f"Trial {base.trial} is {which}, dense and in fp32: {percent(score)} at {milliseconds(p50_ms)} (the star)."
        )
        as_good = [record for record in study.front if point(record)[0] >= score]
        if as_good and point(as_good[0])[1] < p50_ms:
            fast, good = as_good[0], "accurate" if study.metric in PROPORTIONS else "good"
            yield (
                f"Trial {fast.trial} is at least as {good} ({percent(point(fast)[0])}) and "
                f"{p50_ms / point(fast)[1]:.2f}x as fast."
            )
    if set(study.samplers) == {"random"}:
        yield (
            "The sampler was random, so the whole study was drawn by chance, except for the cheapest candidate (trial "
            "0) and siblings. There is no search to be compared with chance."
        )
    if study.chance:
        reference = reference_of(study.records)
        found, chance = (hypervolume(map(point, each), reference) for each in (study.front, study.chance))
        yield (
            f"The dashed line is the front of the {study.chance_trials} candidates that were drawn by chance before "
            f"the sampler learned, of {len(study.records)}: hypervolume {chance:.3f} against {found:.3f}. It is a "
            f"smaller budget, so the difference is not the sampler's merit alone.{_drawn_uncut(study)}"
        )


def _drawn_uncut(study: StudyContents) -> str:
    """Say that a part of the random start was not drawn from the whole space; empty where all of it was."""
    if study.session is None:
        return ""
    settings = study.session.settings
    asked = study.session.samplers or (settings.sampler_name,)
    sampler = next((each for each in asked if starts_uncut(each, branches=settings.branches)), None)
    if sampler is None or not uncut_parameters(study.session.space):
        return ""
    drawn = drawn_by_chance(study.records, study.samplers)
    uncut = sum(record.candidate.pruning.channel_fraction == 0 for record in drawn)
    if uncut < len(drawn) // 2:  # drawn by another sampler, before the study went on with this one
        return ""
    why = "the sampler growth" if sampler == "growth" else "branches = true"
    return (
        f" With {why}, the first of them, up to half the budget, were drawn without cut channels, because cuts of the "
        f"best follow: {uncut} of the {len(drawn)} have none, so they are no random search of the whole space."
    )


def front(study: StudyContents) -> str:
    """Write the section with the interactive front and a table of its members."""
    members = {record.trial: place for place, record in enumerate(study.front)}
    columns = _front_columns(study)
    noun = score_noun(study.metric)
    caption = f"{noun.capitalize()} against latency of {len(study.records)} trials"
    strong = frozenset({members[study.knee.trial]} if study.knee else ())
    parts = [
        chart("front", f"{caption}; the table below holds the front"),
        paragraph(
            "Bars are 95 % intervals. Faint marks are dominated. A yellow band joins members whose intervals overlap "
            f"in both {noun} and latency: these images and timings cannot tell them apart. Drag to zoom, double-click "
            "to see all again, click on a name to hide it.",
            css="note",
        ),
        table(
            [column.head for column in columns],
            [[column.cell(record) for column in columns] for record in study.front],
            caption="The front, fastest first; the knee in bold",
            strong=strong,
        ),
    ]
    pairs = ties(study.front)
    if pairs:
        parts.append(paragraph("Ties: " + ", ".join(f"{one} = {other}" for one, other in pairs) + "."))
    parts.append(chart("hypervolume", "Hypervolume of the front after each trial", height_px=300))
    return section("front", "The front", *parts)


def _front_columns(study: StudyContents) -> list[TrialColumn]:
    return [
        number_column(_marked),
        score_column(study.front, metric=study.metric),
        *tested_columns(study.scores, accuracy_with_interval),
        latency_column(study.records),
        MACS,
        PARAMETERS,
        FILE,
        SIDES,
        SHAPE,
        PRUNED,
        PRECISION,
    ]


def _marked(record: TrialRecord) -> str:
    return str(record.trial) + (" !" if record.latency and record.latency.unsettled else "")


def warnings(study: StudyContents) -> str:
    """Write the section on what a reader should doubt."""
    lines = tuple(warning_lines(study))
    told = bullets(lines, css="warnings") if lines else paragraph("Nothing to warn of.")
    return section("warnings", "Warnings", told)


def warning_lines(study: StudyContents) -> Iterator[str]:
    """Yield one line for each doubt: latencies, gaps, brief training, few images, failures, and warnings of trials."""
    measured = [record for record in study.records if record.same_as is None]  # others repeat what those say
    unstable = [record for record in measured if record.latency and record.latency.unsettled]
    if unstable:
        on_front = _numbers(record for record in study.front if record.latency.unsettled)
        yield (
            f"Unstable latency: {len(unstable)} trial{'' if len(unstable) == 1 else 's'} did not settle in time (too "
            f"wide an interval, or the machine was disturbed): {_numbers(unstable, most=_MOST_NAMED)}; "
            f"{f'on the front: {on_front}' if on_front else 'none of them on the front'}."
        )
    yield from timing_doubts(study.records)
    yield from _gaps(study)
    if study.unreadable:
        yield study.unreadable
    elif study.front and study.confirmation is None:
        scores = score_noun(study.metric, plural=True)
        steps = sorted({record.training.steps for record in study.front if record.training})
        told = f"{steps[0]} to {steps[-1]} steps" if len(steps) > 1 else f"{steps[0]} steps" if steps else "few steps"
        yield (
            f"Brief training: members of the front were trained for {told}. Absolute {scores} are too low for a "
            "shipped network, and members that lie close may change places at full length: `scalesearch confirm`."
        )
    yield from _few_images(study)
    failed = Counter(_cause(record.reason) for record in study.records if record.state == "failed")
    if failed:
        causes = ", ".join(f"{number} {cause}" for cause, number in failed.most_common(4))
        yield f"{failed.total()} of {len(study.records)} trials failed ({causes})."
    yield from study.session.data.warnings if study.session else ()
    # The first line told of unsettled latencies: their texts have numbers of their own, so each would count as a kind.
    told_by = Counter(
        warning for record in measured for warning in record.warnings if not warning.startswith(UNSETTLED)
    )
    for warning, number in told_by.most_common(_MOST_WARNINGS):
        yield f"{warning} ({number} trial{'' if number == 1 else 's'})"
    if len(told_by) > _MOST_WARNINGS:
        yield f"{len(told_by) - _MOST_WARNINGS} more kinds of warning are in the records."


def _cause(reason: str) -> str:
    """Return where a trial failed, in words; one that repeats another failed where that one did."""
    stage = _REPEATED.sub("", reason).partition(":")[0]
    return _NO_STAGES.get(stage, f"in {stage}")


def _gaps(study: StudyContents) -> Iterator[str]:
    for record in study.front:
        if record.quality and record.accuracy_path:
            lost = record.accuracy_path[0].score - record.quality.score
            if lost > LARGE_GAP:
                yield f"Trial {record.trial} lost {100 * lost:.1f} points between the float network and the engine."


def _few_images(study: StudyContents) -> Iterator[str]:
    best = study.front[-1].quality if study.front else None
    if best is None:
        return
    error = variance(best) ** 0.5
    if error > HIGH_STANDARD_ERROR:
        scores = score_noun(best.metric, plural=True)
        yield (
            f"High standard error: {best.images} validation images tell {scores} apart to {100 * error:.1f} points "
            "(one standard error), so smaller differences on the front are noise. The best of many trials is also "
            "luckier than it is good."
        )


def _numbers(records: Iterable[TrialRecord], *, most: int | None = None) -> str:
    """Return the trials' numbers as text; beyond `most`, how many more there are."""
    numbers = [str(record.trial) for record in records]
    told, more = ", ".join(numbers[:most]), 0 if most is None else len(numbers) - most
    return f"{told} and {more} more" if more > 0 else told
