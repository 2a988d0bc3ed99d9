"""The numbers behind a segmentation network's score: intersection over union and pixel accuracy of each class."""

from dataclasses import dataclass
from typing import Literal

from scalesearch.values.named_number import NamedNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskClass:
    """How well the pixels of one class are found, over all images together."""

    name: str
    pixels: int
    """Pixels of this class in the truth; with 0 the class counts in no mean."""
    iou: float
    """Intersection over union; 0 for a class without pixels."""
    recall: float
    """Share of its pixels that got this class: the class's pixel accuracy."""
    precision: float
    """Share of the pixels with this answer that are of the class; 0 where none got it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDetail:
    """The numbers behind a mean intersection over union."""

    pixel_accuracy: float
    """Share of the labelled pixels that got their class."""
    mean_accuracy: float
    """Mean of the pixel accuracies of the classes in the truth."""
    classes: tuple[MaskClass, ...]
    kind: Literal["masks"] = "masks"

    @property
    def numbers(self) -> tuple[NamedNumber, ...]:
        """What tables show beside the score."""
        return tuple(NamedNumber(name=name, value=getattr(self, name)) for name in ("pixel_accuracy", "mean_accuracy"))

    @property
    def weakest_first(self) -> tuple[MaskClass, ...]:
        """The classes that are in the truth, by intersection over union."""
        return tuple(sorted((each for each in self.classes if each.pixels), key=lambda each: (each.iou, each.name)))
