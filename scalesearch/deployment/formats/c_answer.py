"""What the C files of a network need to know about its answer; each task that is written in C says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from scalesearch.values.network import OnnxModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAY_EXCEED_IN_INT8: Final = 0.1
"""For answers of many places. In an untrained network, 8 % of the numbers of one image were beyond the tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CAnswer:
    """The task's part of the C files.

    The self-test compares every number of the answer with ONNX Runtime's. What else it compares is in `check`: the
    text of a function `static int check_image(int number, const float *mine, const float *theirs)`. It takes the number
    of a check image, the answer of the C code and that of ONNX Runtime, prints one line, and returns how many things
    are wrong. It may use the headers, and `tolerance`, the allowed difference of a number.
    """

    noun: str
    """What the network is, with its article, for a comment in model.h: `An image classifier`."""
    parameter: str
    """Name of the answer in the declaration of `model`."""
    sizes: Mapping[str, int]
    """Sizes of the answer without the batch, outermost first, by the names of the constants in model.h."""
    check: str
    may_exceed_in_int8: float = 0.0
    """Share of an answer's numbers that may differ by more than the tolerance in int8: one activation that is rounded
    to the other side lies behind many numbers of an answer for places of the picture."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Further constants of model.h, as C writes them, by name."""
    modules: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Further C files by their names without ending: the texts of the header and of the source."""


class MakesCAnswer(Protocol):
    """A function that returns the task's part of the C files."""

    def __call__(self, model: OnnxModel, expected: "NDArray[np.float32]") -> CAnswer:
        """Return it for a network and ONNX Runtime's answers to the check images.

        Raises:
            StageFailed: The network is of another task.
        """
        ...
