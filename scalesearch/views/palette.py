"""The colours of all pictures: Okabe and Ito's, which colour-blind readers can tell apart.

Whatever has a colour of its own has a shape of its own, too, for print in grey.
"""

from dataclasses import dataclass
from typing import Final

from scalesearch.values.candidate import Precision

BLUE, GREEN, SKY, RED, PURPLE, ORANGE, YELLOW = (
    "#0072B2", "#009E73", "#56B4E9", "#D55E00", "#CC79A7", "#E69F00", "#F0E442",
)  # fmt: skip
INK = "#333333"
"""Colour of lines and words."""
FAINT = "#777777"
"""Colour of less important parts in HTML pages."""
PALE = "#888888"
"""Colour of less important parts in PNG pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Colour and shape of the points of one kind."""

    colour: str
    symbol: str
    """The shape's name in plotly."""
    marker: str
    """The shape's name in matplotlib."""


LOOKS: Final[dict[Precision, Look]] = {
    "fp32": Look(colour=BLUE, symbol="circle", marker="o"),
    "fp16": Look(colour=GREEN, symbol="square", marker="s"),
    "bf16": Look(colour=SKY, symbol="diamond", marker="D"),
    "int8": Look(colour=RED, symbol="triangle-up", marker="^"),
    "fp8": Look(colour=PURPLE, symbol="triangle-down", marker="v"),
}
"""How each precision is drawn, in every picture."""
