"""The section on the baselines that a user has in mind: chance, a grid of width x resolution, compound scaling."""

from scalesearch.report.detail_sections import NO_MEMBER, SPACE_UNKNOWN
from scalesearch.study.contents import StudyContents
from scalesearch.views.markup import paragraph, section, table
from scalesearch.views.words import milliseconds, percent, score_noun_of

_TITLE = "What simpler ways would have found"


def simple_ways(study: StudyContents) -> str:
    """Write what the model of the trials expects of simpler ways, beside the front."""
    found = study.outlook.simple if study.outlook else None
    if found is None:
        words = "This needs a few measured trials, and a space with several widths, depths or resolutions."
        if study.session is None:
            words = SPACE_UNKNOWN
        elif study.outlook and study.knee is None:
            words = f"{NO_MEMBER} This compares simpler ways with its knee."
        return section("simple_ways", _TITLE, paragraph(words))
    noun = score_noun_of(study.records)
    rows = [["this study", "", "100 %", percent(found.score)]]
    for way in found.ways:
        score = percent(way.score) if way.score is not None else "none as fast"
        rows.append([way.name, str(way.networks), f"{100 * way.hypervolume:.0f} %", score])
    note = (
        "None of these networks had to be trained: the model of the section before expects a score and a latency of "
        "each, in every precision of the space. This study's trials are judged by the same model, so luck in their "
        "measurements does not count. Networks by chance, cut or uncut, are as many as this study has; two that were "
        "trained half as long count as one. Above 100 %, the model expects more of the simpler way than of this study."
    )
    if all(way.name != "by chance" for way in found.ways):
        note += (
            f" There is no line for chance: {found.by_chance} other networks within the limits, as many as this study "
            "has, were not found."
        )
    return section(
        "simple_ways",
        _TITLE,
        paragraph(note),
        table(
            ["way", "networks", "hypervolume", f"best {noun} up to {milliseconds(found.at_ms)}"],
            rows,
            caption="As the model of the trials expects",
        ),
    )
