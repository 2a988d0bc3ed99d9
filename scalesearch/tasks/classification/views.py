"""Show the details behind a classifier's top-1: its classes, the weakest first."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalesearch.measurement.metric import Outputs
from scalesearch.tasks.base import CardParts, ReportPart
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import ClassQuality, Quality
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.views.class_data import class_data
from scalesearch.views.class_picture import draw_classes
from scalesearch.views.description import Section
from scalesearch.views.layer_table import BuiltParts, all_parts
from scalesearch.views.markup import chart, markdown_table, markdown_text, paragraph, section, table
from scalesearch.views.words import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WEAKEST: Final = 5


class ClassificationViews:
    """Precision and recall of each class, in text, as a picture, in the report and on the model card."""

    picture = "classes.svg"

    def sections(self, record: TrialRecord) -> tuple[Section, ...]:
        """Return the weakest classes by recall; no lines for a trial that was not scored."""
        return (Section(title="Weakest classes", lines=tuple(_weakest(record.quality))),)

    def draw(self, record: MeasuredTrial, to: Path) -> None:
        """Write precision-recall curves and the weakest classes as an SVG to `to`."""
        draw_classes(record, to)

    def report(self, front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> ReportPart:
        """Return curves and a table for a member that the reader chooses."""
        data = class_data(front, knee)
        html = _section(front, knee, left_out=data["left_out"])
        return ReportPart(name="classes", link="Classes", html=html, data=data)

    def card(self, record: MeasuredTrial, score: FrontScore | None) -> CardParts:
        """Return a classifier's words and a table of all classes.

        The table has the classes' numbers on the test images if those were looked at.
        """
        return CardParts(
            noun=f"An image classifier of {record.spec.num_classes} classes",
            answers=f"logits (batch, {record.spec.num_classes})",
            script="labels images",
            score="Accuracy",
            details=tuple(_card(record, score)),
            limits=("It answers with one of its classes whatever it sees: an image of none of them gets a label too.",),
        )

    def parts(self, spec: NetworkSpec) -> BuiltParts:
        """Return all parts of the spec: a classifier follows the stages."""
        return all_parts(spec)

    def draw_targets(
        self,
        images: "NDArray[np.uint8]",
        targets: Any,
        class_names: Sequence[str],
        *,
        outputs: Outputs | None = None,
    ) -> "tuple[NDArray[np.uint8], ...]":
        """Return each image with the name of its class below it, followed by that of the predicted class, if any."""
        from scalesearch.tasks.pictures import captioned

        answers = None if outputs is None else outputs["logits"].argmax(axis=1)
        names = [
            class_names[int(label)] + ("" if answers is None else f" / {class_names[int(answers[place])]}")
            for place, label in enumerate(targets)
        ]
        return tuple(captioned(image, name) for image, name in zip(images, names, strict=True))


def _weakest(quality: Quality | None) -> Iterator[tuple[str, str]]:
    for entry in [each for each in _by_recall(quality) if each.support][:_WEAKEST]:
        numbers = f"recall {percent(entry.recall)}, precision {percent(entry.precision)}"
        yield (entry.name, f"{numbers}, average precision {entry.average_precision:.3f}, {entry.support} images")


def _by_recall(quality: Quality | None) -> list[ClassQuality]:
    """Return the classes, the weakest first and those without images, of which nothing is known, last."""
    classes = quality.classes if quality else ()
    return sorted(classes, key=lambda entry: (not entry.support, entry.recall, entry.name))


def _section(front: Sequence[MeasuredTrial], knee: MeasuredTrial | None, *, left_out: int) -> str:
    if not any(record.quality and record.quality.classes for record in front):
        return section("classes", "Classes", paragraph("No member of the front has per-class numbers."))
    pick = (
        '<p class="pick"><label>Member <select id="member"></select></label> '
        '<label>Class <select id="class"></select></label></p>'
    )
    rest = f" {left_out} members are left out to keep the file small." if left_out else ""
    note = (
        "One class against all others, on the validation images. Faint lines are the other classes; the table is "
        "sorted by recall, weakest first and classes without images last. Choose a class by its row or in the list."
        f"{rest}"
    )
    static = table(
        ("class", "images", "precision", "recall", "average precision"),
        [_row(entry) for entry in _by_recall((knee or front[0]).quality)],
        caption="Precision and recall of each class, weakest recall first",
    ).replace('<div class="scroll"', '<div class="scroll tall" id="class-table"', 1)
    return section(
        "classes",
        "Classes: precision and recall",
        pick,
        chart("curves", "Precision-recall curves of the chosen member, one line a class"),
        paragraph(note, css="note"),
        static,
    )


def _row(entry: ClassQuality) -> tuple[str, ...]:
    return (
        entry.name, str(entry.support), percent(entry.precision), percent(entry.recall),
        f"{entry.average_precision:.3f}",
    )  # fmt: skip


def _card(record: MeasuredTrial, score: FrontScore | None) -> Iterator[str]:
    tested = {entry.name: entry for entry in (score.test.classes if score else ())}
    header: tuple[str, ...] = ("class", "precision", "recall", "average precision", "images")
    if tested:
        header = (*header, "test precision", "test recall", "test images")
    classes = record.quality.classes
    rows = ((markdown_text(entry.name), *_card_cells(entry, tested)) for entry in classes)
    yield ""
    yield "Per class, on validation images" + (" and on test images:" if tested else ":")
    yield ""
    yield from markdown_table(header, rows)


def _card_cells(entry: ClassQuality, tested: dict[str, ClassQuality]) -> tuple[str, ...]:
    cells = (
        percent(entry.precision), percent(entry.recall), f"{entry.average_precision:.3f}", str(entry.support),
    )  # fmt: skip
    if not tested:
        return cells
    other = tested.get(entry.name)
    more = (percent(other.precision), percent(other.recall), str(other.support)) if other else ("",) * 3
    return (*cells, *more)
