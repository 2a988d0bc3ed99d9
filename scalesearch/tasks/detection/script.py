"""The infer.py of exported detectors."""

from typing import Final

from scalesearch.tasks.script import joined_script

_OF_LABELS: Final = ("Labeller", "NotFiniteError", "softmax", "main")
"""What only the labelling of images needs."""


def infer_script() -> bytes:
    """Return the text of infer.py, in which the reading of images stands before the finding of objects."""
    return joined_script("scalesearch.tasks.detection", without=_OF_LABELS)
