"""The figures of the page, by the name of their place."""

from scalesearch.analysis.baselines import chance_ends
from scalesearch.report.confirmed_section import confirmed_figure
from scalesearch.study.contents import StudyContents
from scalesearch.views.figures import (
    Figure,
    hypervolume_figure,
    importance_figure,
    loss_figure,
    paid_figure,
)
from scalesearch.views.front_figure import front_figure


def figures(study: StudyContents) -> dict[str, Figure]:
    """Return every figure that is drawn at once and is not empty; classes and histograms follow the reader's choice."""
    sampler = study.session.settings.sampler if study.session else "tpe"
    made = {
        "front": front_figure(study.records, chance=study.chance, base=study.base, knee=study.knee),
        "hypervolume": hypervolume_figure(study.records, chance_until=chance_ends(study.records, sampler)),
        "importance": importance_figure(study.importance),
        "paid": paid_figure(study.records),
        "confirmed": confirmed_figure(study),
        "losses": loss_figure(study.front, study.knee),
    }
    return {name: figure for name, figure in made.items() if figure["data"]}
