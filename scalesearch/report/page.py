"""Assemble the report: one HTML file that contains its data, script and plotly, and loads nothing."""

import base64
import datetime
import gzip
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scalesearch.analysis.baselines import chance_ends
from scalesearch.analysis.score_error import metric_of
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.report import (
    confirmed_section,
    detail_sections,
    front_sections,
    outlook_section,
    picture_section,
    simple_ways_section,
)
from scalesearch.study.contents import StudyContents
from scalesearch.tasks.base import ReportPart, TaskViews
from scalesearch.tasks.registry import DEFAULT, get_task, task_for, views_of
from scalesearch.values.quality import score_noun
from scalesearch.values.record import TrialRecord
from scalesearch.views.figures import Figure, hypervolume_figure, importance_figure, loss_figure, paid_figure
from scalesearch.views.front_figure import front_figure
from scalesearch.views.markup import script_json, text
from scalesearch.views.outlook_figure import outlook_figure
from scalesearch.views.words import device_text

MOST_HISTOGRAM_BYTES = 400_000
"""Most bytes of histograms for all members together; the knee's come first."""
MOST_BYTES = 3_000_000
"""Most bytes of the file. Pictures and histograms are left out where it would be larger."""
_HISTOGRAM_SHARE = 5
"""The part of the room for pictures and histograms that is kept for histograms is one in so many; the knee's always."""
_WORDS_BYTES = 150_000
"""Room for everything that is neither data nor plotly, in bytes."""
TITLE_END = ": scalesearch report</title>"
"""The text by which a file is recognized as a report."""
_HERE = Path(__file__).parent
_AFTER_TASK = "histograms"
"""The section before which those of the task are placed."""
_LINKS = (
    ("answer", "Found"),
    ("front", "Front"),
    ("warnings", "Warnings"),
    ("confirmed", "Confirmed"),
    ("outlook", "Outlook"),
    ("simple_ways", "Simpler ways"),
    ("axes", "Axes"),
    ("compression", "Compression"),
    ("histograms", "Weights"),
    ("training", "Training"),
    ("machine", "Machine"),
)


def write_page(study: StudyContents, to: Path, *, written: datetime.datetime | None = None) -> int:
    """Write the report to `to`, whole or not at all, and return its size in bytes.

    Raises:
        MissingBackendError: plotly is not installed.
        OSError: `to` cannot be written.
    """
    content = utf8_text(page(study, written=written or datetime.datetime.now(datetime.UTC))).encode()
    replace_file(to, content)
    return len(content)


def page(study: StudyContents, *, written: datetime.datetime) -> str:
    """Return the whole page; equal studies at equal times give equal pages."""
    plotly, style, script = _plotly(), _own("page.css"), _own("page.js")
    parts = _task_parts(study)
    packed = base64.b64encode(gzip.compress(plotly.encode(), 9, mtime=0)).decode()
    data: dict[str, Any] = {"figures": figures(study), **{part.name: part.data for part in parts}}
    room = MOST_BYTES - len(packed) - len(script_json(data)) - _WORDS_BYTES
    shown = picture_section.pictures(study, room - _reserved(study, room))
    kept = _kept_histograms(study, min(MOST_HISTOGRAM_BYTES, room - len(shown)))
    data["histograms"] = {str(trial): figure for trial, figure in kept.items()}
    with_histogram = sum(record.trial in study.histograms for record in study.front)
    body = "".join(
        (
            front_sections.answer(study),
            front_sections.front(study),
            front_sections.warnings(study),
            confirmed_section.confirmed(study),
            outlook_section.outlook(study),
            simple_ways_section.simple_ways(study),
            detail_sections.axes(study),
            detail_sections.compression(study),
            *(part.html for part in parts),
            shown,
            detail_sections.histograms(study, tuple(kept), with_histogram - len(kept)),
            detail_sections.training(study),
            detail_sections.machine(study),
        )
    )
    links = "".join(f'<li><a href="#{name}">{words}</a></li>' for name, words in _links(parts, shown))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(script, plotly, style=style)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(study.name)}{TITLE_END}
<style>{style}</style></head><body>
<header><h1>{text(study.name)}: {score_noun(study.metric)} against latency</h1>
<p class="facts">{text(_facts(study))}<br>report of {written:%Y-%m-%d %H:%M} UTC</p></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
<noscript><p>The figures need JavaScript; the tables hold the same numbers.</p></noscript>
{body}</main>
<footer><p>Written by scalesearch. Figures by plotly.js (MIT licence), which is inside this file; it loads nothing.</p>
</footer>
<div hidden>{_style_holders(plotly)}</div>
<script type="application/json" id="page-data">{script_json(data)}</script>
<script type="text/plain" id="plotly-packed">{packed}</script>
<script>{script}</script>
</body></html>
"""


def _policy(*scripts: str, style: str) -> str:
    """Return a content policy that loads nothing and allows only scripts and styles with exactly these texts.

    plotly makes one empty style element and fills it by its own rules; it sets attributes of style by script. Pictures
    (download as PNG) are made by plotly itself.
    """
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src-elem {_hash(style)} {_hash('')}; "
        "style-src-attr 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _style_holders(plotly: str) -> str:
    """Return empty elements with the names of style sheets that plotly adds unless they exist.

    They are for maps, which the report does not draw. The policy would refuse them and report that on the console.
    """
    names = sorted(set(re.findall(r'if\(!document\.getElementById\("([0-9a-f]{64})"\)\)', plotly)))
    return "".join(f'<span id="{name}"></span>' for name in names)


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _own(name: str) -> str:
    content = (_HERE / name).read_text(encoding="utf-8")
    # Either would end its element, or hide the end of it.
    assert not any(mark in content.lower() for mark in ("</script", "</style", "<!--")), name
    return content


def _plotly() -> str:
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        message = (
            "plotly is not installed, so the report has nothing to draw with.\n"
            "Install it with: pip install 'scalesearch[report]'\n"
            "Without it: `scalesearch front` and `scalesearch show --trial N` print the same numbers."
        )
        raise MissingBackendError(message)
    import plotly.offline

    return str(plotly.offline.get_plotlyjs())


def _task_parts(study: StudyContents) -> tuple[ReportPart, ...]:
    """Return the sections of the task that scored the study; if no trial has a score, those of the session's task."""
    scored = study.knee or next((record for record in study.records if record.quality), None)
    views = views_of(scored) if scored else _views_asked_for(study)
    return (views.report(study.front, study.knee),) if views else ()


def _views_asked_for(study: StudyContents) -> TaskViews | None:
    """Return the views of the session's task, or of the default one without a session; None if it is not known here."""
    try:
        task = task_for(study.session.settings) if study.session else get_task(DEFAULT)
    except ConfigError:
        return None
    return task.views()


def _links(parts: Sequence[ReportPart], shown: str) -> Iterator[tuple[str, str]]:
    """Yield name and words of the link to each section, in the order of the sections."""
    for name, words in _LINKS:
        if name == _AFTER_TASK:
            yield from ((part.name, part.link) for part in parts)
            if shown:
                yield picture_section.NAME, "Pictures"
        yield name, words


def _facts(study: StudyContents) -> str:
    feasible = sum(record.feasible and record.same_as is None for record in study.records)
    device: TrialRecord | None = next((record for record in study.records if record.device), None)
    images = next((record.quality.images for record in study.front if record.quality), 0)
    parts = (
        study.data_words,
        f"{images} validation images" if images else "",
        device_text(device.device) if device and device.device else "",
        f"{len(study.records)} trials, {feasible} feasible, {len(study.front)} on the front",
    )
    return " · ".join(part for part in parts if part)


def _reserved(study: StudyContents, room: int) -> int:
    """Return how many of these bytes are kept for histograms before the pictures take theirs."""
    sizes = [
        len(json.dumps(study.histograms[trial])) for trial in picture_section.order(study) if trial in study.histograms
    ]
    return min(MOST_HISTOGRAM_BYTES, sum(sizes), max(sizes[0], room // _HISTOGRAM_SHARE)) if sizes else 0


def _kept_histograms(study: StudyContents, room: int) -> Mapping[int, dict[str, Any]]:
    """Return the figures of front members that fit into the file: the knee's first, then in the front's order."""
    kept: dict[int, dict[str, Any]] = {}
    for trial in picture_section.order(study):
        figure = study.histograms.get(trial)
        size = len(json.dumps(figure)) if figure else 0
        if figure and size <= room:
            kept[trial] = figure
            room -= size
    return kept


def figures(study: StudyContents) -> dict[str, Figure]:
    """Return every figure that is drawn at once and is not empty.

    Figures of classes and histograms are drawn when the reader chooses a trial.
    """
    made = {
        "front": front_figure(study.records, chance=study.chance, base=study.base, knee=study.knee),
        "hypervolume": hypervolume_figure(study.records, chance_until=chance_ends(study.records, study.samplers)),
        "outlook": outlook_figure(study.outlook, study.records),
        "importance": importance_figure(study.importance, metric_of(study.records)),
        "paid": paid_figure(study.records),
        "confirmed": confirmed_section.confirmed_figure(study),
        "losses": loss_figure(study.front, study.knee),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}
