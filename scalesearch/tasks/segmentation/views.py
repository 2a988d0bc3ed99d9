"""Show the details behind a segmentation network's mean intersection over union: its classes, the weakest first."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalesearch.measurement.metric import Outputs
from scalesearch.tasks.base import CardParts, ReportPart
from scalesearch.values.quality import MaskClass, MaskDetail, Quality
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.views.description import Section
from scalesearch.views.markup import markdown_table, markdown_text, paragraph, section, table
from scalesearch.views.words import percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WEAKEST: Final = 5
_HEADS: Final = ("class", "pixels", "IoU", "pixel accuracy", "precision")


class SegmentationViews:
    """Intersection over union and pixel accuracy of each class, as text and as a picture, and pictures of masks."""

    picture = "classes.svg"

    def sections(self, record: TrialRecord) -> tuple[Section, ...]:
        """Return the weakest classes by intersection over union; no lines for a trial that was not scored."""
        return (Section(title="Weakest classes", lines=tuple(_weakest(record.quality))),)

    def draw(self, record: MeasuredTrial, to: Path) -> None:
        """Write the intersection over union and pixel accuracy of each class as an SVG to `to`."""
        from scalesearch.tasks.segmentation.class_bars import draw_bars

        draw_bars(record, to)

    def report(self, front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> ReportPart:
        """Return a table of the classes' intersection over union for each member of the front."""
        return ReportPart(name="classes", link="Classes", html=_section(front, knee), data={})

    def card(self, record: MeasuredTrial, score: FrontScore | None) -> CardParts:
        """Return a segmentation network's words and a table of all classes.

        The table has the classes' numbers on the test images if the network was scored on them.
        """
        classes, sides = record.spec.num_classes, record.spec.input_size
        return CardParts(
            noun=f"A segmentation network of {classes} classes",
            answers=f"logits (batch, {classes}, h, w) for places of the {sides} image, to be enlarged bilinearly",
            script="finds the class of each pixel of images",
            score="Mean intersection over union",
            details=tuple(_card(record, score)),
            limits=(
                "It answers with one of its classes for every pixel, whatever it sees.",
                "Its latency is that of the logits: enlarging them to the picture's size and taking the largest is not "
                "in it.",
            ),
        )

    def draw_targets(
        self,
        images: "NDArray[np.uint8]",
        targets: Any,
        class_names: Sequence[str],
        *,
        outputs: Outputs | None = None,
    ) -> "tuple[NDArray[np.uint8], ...]":
        """Return each image side by side with its mask in colours and, if `outputs` is given, the predicted mask."""
        from scalesearch.tasks.segmentation.mask_pictures import beside_masks

        return beside_masks(images, targets, class_names, None if outputs is None else outputs["logits"])


def _detail(quality: Quality | None) -> MaskDetail | None:
    return quality.detail if quality and isinstance(quality.detail, MaskDetail) else None


def _weakest(quality: Quality | None) -> Iterator[tuple[str, str]]:
    detail = _detail(quality)
    if detail is None:
        return
    accuracy = f"{percent(detail.pixel_accuracy)} of the pixels, mean over classes {percent(detail.mean_accuracy)}"
    yield ("pixel accuracy", accuracy)
    for entry in detail.weakest_first[:_WEAKEST]:
        numbers = f"IoU {percent(entry.iou)}, pixel accuracy {percent(entry.recall)}"
        yield (entry.name, f"{numbers}, precision {percent(entry.precision)}, {entry.pixels} pixels")


def _section(front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> str:
    members = [(record, detail) for record in front if (detail := _detail(record.quality))]
    if not members:
        return section("classes", "Classes", paragraph("No member of the front has per-class numbers."))
    shown, detail = next(
        ((record, each) for record, each in members if knee and record.trial == knee.trial), members[0]
    )
    note = (
        f"Trial {shown.trial}: {percent(detail.pixel_accuracy)} of the labelled validation pixels have their class. "
        "Pixels of all images are counted together, at the size of the mask files. Pixel accuracy is the share of a "
        "class's pixels that got it, precision the share of the pixels with that answer that are of the class. A class "
        "without pixels counts in no mean."
    )
    by_class = table(
        _HEADS, [_row(entry) for entry in detail.weakest_first], caption="The classes, weakest intersection first"
    )
    names = [entry.name for entry in detail.weakest_first]
    rows = []
    for record, each in members:
        found = {entry.name: entry for entry in each.classes}
        rows.append((
            str(record.trial), percent(record.quality.score), percent(each.pixel_accuracy),
            *(percent(found[name].iou) if name in found else "" for name in names),
        ))  # fmt: skip
    by_member = table(("trial", record_title(members[0][0]), "pixels", *names), rows, caption="IoU of each member, %")
    return section("classes", "Classes: intersection over union", paragraph(note, css="note"), by_class, by_member)


def record_title(record: MeasuredTrial) -> str:
    """Return the name of the record's score as people write it."""
    return record.quality.title


def _row(entry: MaskClass) -> tuple[str, ...]:
    return (entry.name, str(entry.pixels), percent(entry.iou), percent(entry.recall), percent(entry.precision))


def _card(record: MeasuredTrial, score: FrontScore | None) -> Iterator[str]:
    detail, tested = _detail(record.quality), _detail(score.test if score else None)
    if detail is None:
        return
    yield ""
    yield (
        f"{percent(detail.pixel_accuracy)} of the labelled validation pixels get their class"
        + (f", {percent(tested.pixel_accuracy)} of the test pixels." if tested else ".")
    )
    yield ""
    yield "Per class, on validation images" + (" and on test images:" if tested else ":")
    yield ""
    others = {entry.name: entry for entry in (tested.classes if tested else ())}
    header = (*_HEADS, *(("test IoU", "test pixel accuracy") if tested else ()))
    rows = []
    for entry in detail.classes:
        other = others.get(entry.name)
        more = () if not tested else (percent(other.iou), percent(other.recall)) if other else ("", "")
        name, *numbers = _row(entry)
        rows.append((markdown_text(name), *numbers, *more))
    yield from markdown_table(header, rows)
