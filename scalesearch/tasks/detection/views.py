"""Show the details behind a detector's score: sizes, threshold, and its classes, the weakest first."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalesearch.measurement.metric import Outputs
from scalesearch.tasks.base import CardParts, ReportPart
from scalesearch.tasks.detection.levels import stages_built
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import ClassQuality, DetectionDetail, Quality, is_recall, metric_title, recall_metric
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.views.class_data import class_data
from scalesearch.views.class_picture import draw_classes
from scalesearch.views.description import Section
from scalesearch.views.layer_table import BuiltParts
from scalesearch.views.markup import bullets, chart, markdown_table, markdown_text, paragraph, section, table
from scalesearch.views.words import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WEAKEST: Final = 5
_SCORES: Final = {"map50_95": "Mean average precision", "map50": "Mean average precision at an IoU of 0.5"}
_HEADER: Final = ("class", "objects", "precision", "recall", "AP50-95")


class DetectionViews:
    """Average precision by class and size, precision and recall at the threshold, curves and confusion."""

    picture = "classes.svg"

    def __init__(self, threshold: float | None = None) -> None:
        """Take the score from which on predicted boxes are drawn; None: 0.25."""
        self._threshold = threshold

    def with_quality(self, quality: Quality) -> "DetectionViews":
        """Return views that draw the boxes that an export of this quality reports."""
        detail = _detail(quality)
        return DetectionViews(detail.threshold) if detail else self

    def sections(self, record: TrialRecord) -> tuple[Section, ...]:
        """Return the numbers behind the score, the weakest classes, and the most frequent confusions."""
        return (
            Section(title="Objects found", lines=tuple(_numbers(_detail(record.quality)))),
            Section(title="Weakest classes", lines=tuple(_weakest(record.quality))),
            Section(title="Taken for something else", lines=tuple(_confused(_detail(record.quality)))),
        )

    def draw(self, record: MeasuredTrial, to: Path) -> None:
        """Write precision-recall curves and the weakest classes as an SVG to `to`."""
        draw_classes(record, to)

    def report(self, front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> ReportPart:
        """Return curves and a table for a member that the reader chooses, and the numbers of all members."""
        data = class_data(front, knee, noun="objects", weakest_by="average")
        return ReportPart(name="classes", link="Objects", html=_section(front, knee), data=data)

    def parts(self, spec: NetworkSpec) -> BuiltParts:
        """Return the stages up to the coarsest feature map that a detector reads."""
        return BuiltParts(stages=stages_built(spec), classifier=False)

    def draw_targets(
        self,
        images: "NDArray[np.uint8]",
        targets: Any,
        class_names: Sequence[str],
        *,
        outputs: Outputs | None = None,
    ) -> "tuple[NDArray[np.uint8], ...]":
        """Return each image with its true boxes and, if `outputs` is given, once more with the predicted ones."""
        from scalesearch.tasks.detection.box_pictures import with_boxes

        raw = None if outputs is None else outputs["raw"]
        return with_boxes(images, targets, class_names, raw, threshold=self._threshold)

    def card(self, record: MeasuredTrial, score: FrontScore | None) -> CardParts:
        """Return a detector's words, its threshold, and a table of all classes.

        The table has the classes' numbers on the test images if the network was scored on them.
        """
        classes = record.spec.num_classes
        return CardParts(
            noun=f"A detector of objects of {classes} class{'es' * (classes > 1)}",
            answers=(
                f"raw answers (batch, {classes + 5}, points): distances to left, top, right and bottom in strides of "
                f"the feature map, {classes} class logits and a logit for an object; infer.py makes boxes of them"
            ),
            script="finds and draws the objects in images",
            score=_SCORES.get(record.quality.metric, record.quality.title.capitalize()),
            details=tuple(_card(record, score)),
            limits=(
                "It knows its classes alone: other objects are passed over, or taken for one of these.",
                "Where several objects of one class lie almost on one another, one of them is reported.",
            ),
        )


def _detail(quality: Quality | None) -> DetectionDetail | None:
    return quality.detail if quality and isinstance(quality.detail, DetectionDetail) else None


def _numbers(detail: DetectionDetail | None) -> Iterator[tuple[str, str]]:
    if detail is None:
        return
    yield "mAP50, mAP75", f"{percent(detail.map50)}, {percent(detail.map75)}"
    if detail.map50_95 is not None and detail.recall_at_precision is not None:
        yield "mAP50-95", percent(detail.map50_95)
        yield metric_title(recall_metric(detail.at_precision)), percent(detail.recall_at_precision)
    sizes = ((name, getattr(detail, name)) for name in ("small", "medium", "large"))
    yield "mAP50-95 by size", ", ".join(f"{name} {_share(value)}" for name, value in sizes)
    yield (
        f"at score {detail.threshold:.3g}",
        f"precision {percent(detail.precision)}, recall {percent(detail.recall)}, F1 {percent(detail.f1)}",
    )


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _weakest(quality: Quality | None) -> Iterator[tuple[str, str]]:
    for entry in [each for each in _by_precision(quality) if each.support][:_WEAKEST]:
        numbers = f"AP50-95 {percent(entry.average_precision)}, recall {percent(entry.recall)}"
        yield entry.name, f"{numbers}, precision {percent(entry.precision)}, {entry.support} objects"


def _by_precision(quality: Quality | None) -> list[ClassQuality]:
    """Return the classes, the weakest first and those without objects, of which nothing is known, last."""
    classes = quality.classes if quality else ()
    return sorted(classes, key=lambda entry: (not entry.support, entry.average_precision, entry.name))


def _confused(detail: DetectionDetail | None) -> Iterator[tuple[str, str]]:
    """Yield the most frequent mistakes at the threshold."""
    if detail is None:
        return
    names = [*(entry.name for entry in detail.classes), ""]
    last = len(names) - 1
    mistakes = [
        (count, row, column)
        for row, counts in enumerate(detail.confusion)
        for column, count in enumerate(counts)
        if count and row != column and last not in (row, column)
    ]
    for count, row, column in sorted(mistakes, key=lambda each: (-each[0], *each[1:]))[:_WEAKEST]:
        yield names[row], f"{count} times reported as {names[column]}"
    missed, made_up = sum(row[last] for row in detail.confusion), sum(detail.confusion[last])
    yield "missed", f"{missed} objects"
    yield "made up", f"{made_up} reports where there is no object"


def _section(front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> str:
    members = [(record, detail) for record in front if (detail := _detail(record.quality))]
    if not members:
        return section("classes", "Objects found", paragraph("No member of the front was scored."))
    pick = (
        '<p class="pick"><label>Member <select id="member"></select></label> '
        '<label>Class <select id="class"></select></label></p>'
    )
    shown = next((record for record, _ in members if knee and record.trial == knee.trial), members[0][0])
    by_class = table(
        ("class", "objects", "precision", "recall", "average precision"),
        [_row(entry) for entry in _by_precision(shown.quality)],
        caption="Precision and recall of each class at the threshold, and its average precision, weakest first",
    ).replace('<div class="scroll"', '<div class="scroll tall" id="class-table"', 1)
    note = (
        "On the validation images. Curves are at an IoU of 0.5; precision and recall are those from the exported "
        "threshold on; average precision is the mean over overlaps of 0.5 to 0.95. Faint lines are the other classes."
    )
    mistakes = bullets(f"{name}: {words}" for name, words in _confused(_detail(shown.quality)))
    by_member = table(
        (
            "trial",
            *_further(members[0][0]),
            "mAP50-95",
            "mAP50",
            "mAP75",
            "small",
            "medium",
            "large",
            "threshold",
            "precision",
            "recall",
            "F1",
        ),
        [_member(record, detail) for record, detail in members],
        caption="Members of the front: average precision by overlap and size, and what is reported at the threshold",
    )
    return section(
        "classes",
        "Objects: precision and recall",
        pick,
        chart("curves", "Precision-recall curves of the chosen member, one line a class"),
        paragraph(note, css="note"),
        by_class,
        paragraph(f"Taken for something else by trial {shown.trial} at its threshold, on the validation images:"),
        mistakes,
        by_member,
    )


def _further(record: MeasuredTrial) -> tuple[str, ...]:
    """Return the title of a score that no other column of the table has."""
    return (record.quality.title,) if is_recall(record.quality.metric) else ()


def _member(record: MeasuredTrial, detail: DetectionDetail) -> tuple[str, ...]:
    return (
        str(record.trial), *(percent(record.quality.score) for _ in _further(record)),
        percent(record.quality.score if detail.map50_95 is None else detail.map50_95),
        percent(detail.map50), percent(detail.map75), _share(detail.small), _share(detail.medium),
        _share(detail.large), f"{detail.threshold:.3g}",
        percent(detail.precision), percent(detail.recall), percent(detail.f1),
    )  # fmt: skip


def _row(entry: ClassQuality) -> tuple[str, ...]:
    return (
        entry.name, str(entry.support), percent(entry.precision), percent(entry.recall),
        f"{entry.average_precision:.3f}",
    )  # fmt: skip


def _card(record: MeasuredTrial, score: FrontScore | None) -> Iterator[str]:
    detail, test = _detail(record.quality), _detail(score.test) if score else None
    if detail is None:
        return
    yield ""
    yield (
        f"infer.py reports detections with a score of {detail.threshold:.3g} or more, which {_why(record, detail)} on "
        f"the validation images: precision {percent(detail.precision)}, recall {percent(detail.recall)}."
    )
    sizes = ", ".join(f"{name} {_share(getattr(detail, name))}" for name in ("small", "medium", "large"))
    whole = record.quality.score if detail.map50_95 is None else detail.map50_95
    yield f"mAP50 is {percent(detail.map50)}, mAP50-95 {percent(whole)}; mAP50-95 by size of the objects: {sizes}."
    yield ""
    yield "Taken for something else at that threshold, on the validation images:"
    yield ""
    yield from (f"* {markdown_text(f'{name}: {words}')}" for name, words in _confused(detail))
    yield ""
    yield "Per class, on validation images" + (" and on test images:" if test else ":")
    yield ""
    tested = {entry.name: entry for entry in (test.classes if test else ())}
    header = (*_HEADER, *(("test objects", "test AP50-95") if tested else ()))
    rows = ((markdown_text(entry.name), *_row(entry)[1:], *_tested(entry, tested)) for entry in detail.classes)
    yield from markdown_table(header, rows)


def _why(record: MeasuredTrial, detail: DetectionDetail) -> str:
    """Return why the threshold is what it is."""
    if is_recall(record.quality.metric) and record.quality.score > 0:
        return f"gave the largest recall with a precision of {percent(detail.at_precision)} or more"
    return "gave the best F1"


def _tested(entry: ClassQuality, tested: dict[str, ClassQuality]) -> tuple[str, ...]:
    if not tested:
        return ()
    other = tested.get(entry.name)
    return (str(other.support), f"{other.average_precision:.3f}") if other else ("", "")
