"""When a class does not survive the mirror, whatever the task."""

from typing import Final

LOST_SHARE: Final = 0.25
"""From this share on a class does not survive the mirror: so many of its recognised images must certainly be lost.

Road signs for left and right lose 97 to 100 % of them (docs/measurements.md, "Mirror images").
"""
KNOWN_IMAGES: Final = 5
"""A class is judged if at least so many of its images, and at least half of them, are recognised unmirrored."""
