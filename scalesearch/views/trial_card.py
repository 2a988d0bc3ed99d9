"""A trial as a card in Markdown: the numbers that decide first, then the network's layers, then everything else."""

import re
from collections.abc import Iterable, Iterator, Sequence

from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.record import TrialRecord
from scalesearch.views.columns import (
    FILE,
    MACS,
    NONE,
    PARAMETERS,
    PRECISION,
    PRUNED,
    RESOLUTION,
    SHAPE,
    TrialColumn,
    latency_column,
    score_column,
)
from scalesearch.views.description import Section, describe
from scalesearch.views.layer_table import BuiltParts, layer_rows
from scalesearch.views.words import (
    accuracy_with_interval,
    latency_with_interval,
    named_steps,
    percent,
    score_noun_of,
    score_title,
    verdict,
)

STUDY_NOTE = """\
**Where to look:** the figure *Feasible front* on the study's first page. It holds only trials within every limit.

* The label "Best Trial" is Optuna Dashboard's own and knows nothing of limits: trust the attribute `feasible`.
* The first objective is the score of the deployed file (0 to 1), `p50_ms` its latency on the device;
  `end_to_end_ms` is that with the post-processing of the answers (decoding, suppression) in it.
* Each trial's note is a card: what was measured, where score was lost, its layers, and everything else.
* Members of the front have their files at the trial's artifacts: config.toml, model.onnx, classes.svg.
* The same on the command line: `scalesearch front`, `scalesearch show --trial N`, `scalesearch report`.
"""
_GAP = "\u00a0\u00a0\u00a0"
"""The dashboard draws tables without any space between columns."""
_IN_THE_CARD = frozenset({"What it became"})


def trial_note(record: TrialRecord, task_sections: Iterable[Section] = (), *, parts: BuiltParts | None = None) -> str:
    """Return the record as Markdown in which text from the user cannot become markup.

    Args:
        record: The trial.
        task_sections: What the task adds (`TaskViews.sections`).
        parts: Which parts of its spec the network has; None: all of them.
    """
    texts = [f"**{inert(summary(record))}**", "\n".join(_facts(record))]
    if record.accuracy_path:
        texts += [f"#### Where {score_noun_of([record])} went", "\n".join(_way(record))]
    if record.gains:
        texts += ["#### What compression brought", "\n".join(_gains(record))]
    if record.spec:
        texts += ["#### Layers", "\n".join(_layers(record.spec, parts))]
    texts += ["#### Everything", "\n".join(_everything(record, task_sections))]
    return "\n\n".join(text for text in texts if text) + "\n"


def summary(record: TrialRecord) -> str:
    """Return scores, precision and verdict in a line."""
    if record.quality is None or record.latency is None:
        return verdict(record)
    score = f"{record.quality.title} {accuracy_with_interval(record.quality)} %"
    precision = record.candidate.quantization.precision
    return f"{score}, {record.latency.title} {latency_with_interval(record.latency)} ms, {precision}, {verdict(record)}"


def inert(text: str) -> str:
    """Return `text` as one line of plain Markdown: class and study names may hold HTML, links or table bars."""
    one_line = " ".join(text.split())
    return re.sub(r"([!-,/:-@\[-`{-~])", r"\\\1", one_line)


def _table(header: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(f"{cell}{_GAP}" for cell in header) + " |"
    yield "|:---" * len(header) + "|"
    for row in rows:
        yield "| " + " | ".join(f"{inert(cell)}{_GAP}" for cell in row) + " |"


def _facts(record: TrialRecord) -> Iterator[str]:
    """Yield two short tables: what the trial costs, and what was asked for."""
    pruned = TrialColumn(head=PRUNED.head, cell=lambda record: record.candidate.pruning.label or NONE)
    yield from _row(record, (score_column([record]), latency_column([record]), MACS, PARAMETERS, FILE))
    yield ""
    yield from _row(record, (RESOLUTION, SHAPE, pruned, PRECISION))


def _row(record: TrialRecord, columns: Sequence[TrialColumn]) -> Iterator[str]:
    return _table([column.head for column in columns], iter([tuple(column.cell(record) for column in columns)]))


def _way(record: TrialRecord) -> Iterator[str]:
    first = record.accuracy_path[0].score
    rows = (
        (name, percent(score), f"{100 * (score - first):+.1f}" if place else "")
        for place, (name, score) in enumerate(named_steps(record))
    )
    return _table(("step", score_title([record]), "points"), rows)


def _gains(record: TrialRecord) -> Iterator[str]:
    rows = (
        (
            gain.what,
            f"{gain.speedup:.2f}x ({gain.speedup_low:.2f}-{gain.speedup_high:.2f})",
            "" if gain.score_change is None else f"{100 * gain.score_change:+.1f}",
            "NO GAIN" if gain.no_gain else "",
        )
        for gain in record.gains
    )
    return _table(("step", "speed-up", "points", ""), rows)


def _layers(spec: NetworkSpec, parts: BuiltParts | None) -> Iterator[str]:
    if spec.origin:
        weights = f"weights of SHA-256 {spec.origin_sha256[:12]}..."
        yield f"The module that {inert(spec.origin)} returns, with its {inert(weights)} Its layers are its own."
        return
    yield f"{inert(spec.name)}, {spec.activation}, as built before pruning; sizes are those of one image."
    yield ""
    yield from _table(
        ("stage", "block", "repeats", "channels", "kernel", "stride", "output"),
        (
            (
                row.stage,
                row.block,
                str(row.repeats),
                str(row.channels),
                f"{row.kernel}x{row.kernel}",
                str(row.stride),
                f"{row.channels} x {row.output.height_px} x {row.output.width_px}",
            )
            for row in layer_rows(spec, parts)
        ),
    )


def _everything(record: TrialRecord, task_sections: Iterable[Section]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for part in describe(record, task_sections=task_sections):
        if part.title not in _IN_THE_CARD:
            yield f"| **{inert(part.title)}** | |"
            yield from (f"| {inert(label)} | {inert(words)} |" for label, words in part.lines)
