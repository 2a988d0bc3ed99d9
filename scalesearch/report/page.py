"""Puts the report together: one HTML file that holds its data, script and plotly, and loads nothing."""

import base64
import datetime
import gzip
import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalesearch.errors import MissingBackendError
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.records.report import device_text
from scalesearch.report import confirmed_section, detail_sections, front_sections
from scalesearch.report.charts import figures
from scalesearch.report.classes import class_data
from scalesearch.report.markup import script_json, text
from scalesearch.report.study import Study
from scalesearch.values.record import TrialRecord

MOST_HISTOGRAM_BYTES = 400_000
"""Of all members together, the knee's first."""
MOST_BYTES = 3_000_000
"""Of the file; histograms give way."""
_WORDS_BYTES = 150_000
"""Room for all that is neither data nor plotly."""
TITLE_END = ": scalesearch report</title>"
"""By which a file is known to be a report."""
_HERE = Path(__file__).parent
_LINKS = (
    ("answer", "Found"),
    ("front", "Front"),
    ("warnings", "Warnings"),
    ("confirmed", "Confirmed"),
    ("axes", "Axes"),
    ("compression", "Compression"),
    ("classes", "Classes"),
    ("histograms", "Weights"),
    ("training", "Training"),
    ("machine", "Machine"),
)


def write_page(study: Study, to: Path, *, written: datetime.datetime | None = None) -> int:
    """Size in bytes of the report written to `to`, whole or not at all.

    Raises:
        MissingBackendError: plotly is not installed.
        OSError: `to` cannot be written.
    """
    content = utf8_text(page(study, written=written or datetime.datetime.now(datetime.UTC))).encode()
    replace_file(to, content)
    return len(content)


def page(study: Study, *, written: datetime.datetime) -> str:
    """The whole page; equal studies at equal times give equal pages."""
    plotly, style, script = _plotly(), _own("page.css"), _own("page.js")
    of_classes = class_data(study.front, study.knee)
    packed = base64.b64encode(gzip.compress(plotly.encode(), 9, mtime=0)).decode()
    data: dict[str, Any] = {"figures": figures(study), "classes": of_classes}
    rest_bytes = len(packed) + len(script_json(data)) + _WORDS_BYTES
    kept = _kept_histograms(study, min(MOST_HISTOGRAM_BYTES, MOST_BYTES - rest_bytes))
    data["histograms"] = {str(trial): figure for trial, figure in kept.items()}
    with_histogram = sum(record.trial in study.histograms for record in study.front)
    body = "".join(
        (
            front_sections.answer(study),
            front_sections.front(study),
            front_sections.warnings(study),
            confirmed_section.confirmed(study),
            detail_sections.axes(study),
            detail_sections.compression(study),
            detail_sections.classes(study, left_out=of_classes["left_out"]),
            detail_sections.histograms(study, tuple(kept), with_histogram - len(kept)),
            detail_sections.training(study),
            detail_sections.machine(study),
        )
    )
    links = "".join(f'<li><a href="#{name}">{words}</a></li>' for name, words in _LINKS)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(script, plotly, style=style)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{text(study.name)}{TITLE_END}
<style>{style}</style></head><body>
<header><h1>{text(study.name)}: accuracy against latency</h1>
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
    """Nothing from anywhere; scripts and style sheets only with these very texts.

    plotly makes one empty style element and fills it by its own rules; attributes of style it sets by script. Pictures
    are of its own making (download as PNG).
    """
    allowed = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {allowed}; style-src-elem {_hash(style)} {_hash('')}; "
        "style-src-attr 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _style_holders(plotly: str) -> str:
    """Empty elements under the names of style sheets that plotly adds unless they are there: maps, which we draw none.

    The policy would refuse them, and say so on the console.
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


def _facts(study: Study) -> str:
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


def _kept_histograms(study: Study, room: int) -> Mapping[int, dict[str, Any]]:
    """Figures of front members that fit into the file, the knee's first, then in the front's order."""
    first = [study.knee.trial] if study.knee else []
    order = [*first, *(record.trial for record in study.front if record.trial not in first)]
    kept: dict[int, dict[str, Any]] = {}
    for trial in order:
        figure = study.histograms.get(trial)
        size = len(json.dumps(figure)) if figure else 0
        if figure and size <= room:
            kept[trial] = figure
            room -= size
    return kept
