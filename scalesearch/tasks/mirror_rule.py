"""The limits by which a class counts as lost in mirror images, and the words for a result."""

from typing import Final

LOST_SHARE: Final = 0.25
"""A class counts as lost if certainly more than this share of its recognised images are not recognised when mirrored.

Road signs for left and right lose 97 to 100 % of them (docs/measurements.md, "Mirror images").
"""
KNOWN_IMAGES: Final = 5
"""A class is judged only if at least this many of its images, and at least half of them, are recognised unmirrored."""


def none_lost(judged: int, classes: int) -> str:
    """Return the words for mirror images in which no class is lost, and how many were judged if not all were."""
    return f"no class is lost in the mirror{_share(judged, classes)}"


def too_few(judged: int, classes: int) -> str:
    """Return the words for a network that recognises too few classes to tell anything about mirror images."""
    return f"of too few classes to tell{_share(judged, classes)}"


def _share(judged: int, classes: int) -> str:
    return "" if judged == classes else f" ({judged} of {classes} could be judged)"
