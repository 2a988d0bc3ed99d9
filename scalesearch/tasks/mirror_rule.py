"""The limits by which a class counts as lost in mirror images."""

from typing import Final

LOST_SHARE: Final = 0.25
"""A class counts as lost if certainly more than this share of its recognised images are not recognised when mirrored.

Road signs for left and right lose 97 to 100 % of them (docs/measurements.md, "Mirror images").
"""
KNOWN_IMAGES: Final = 5
"""A class is judged only if at least this many of its images, and at least half of them, are recognised unmirrored."""
