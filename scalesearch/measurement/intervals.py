"""Intervals of measured fractions."""

import math

from scalesearch.values.quality import Z_975


def wilson_interval(correct: int, images: int, *, z: float = Z_975) -> tuple[float, float]:
    """Return the interval of the fraction correct / images, which is sensible near 0 and 1 too.

    This is Wilson's interval (JASA 22(158), 1927).

    It always contains the fraction itself: at 0 and 1 one end equals the fraction, and rounding errors are corrected.

    Args:
        correct: How many images count.
        images: Out of how many, at least 1.
        z: Half its width in standard errors; by default it is the 95 % interval.
    """
    share, z2 = correct / images, z**2
    center = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2)) / (1 + z2 / images)
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))
