"""Images of more than 8 bits: find, on training images, the range of values that becomes 0..255, and report it."""

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.facts import CUT, EIGHT_BITS, FLOAT, WHOLE, ImageFacts
from scalesearch.values.settings import Window, WindowSetting

# Share of values at either end that may be dead or hot pixels, in per cent of all values.
_TAIL_PERCENT = 0.1
# Whole numbers that fill at least half of their bit depth are read over the whole bit depth. They keep at least 128
# grey levels, every set of one camera gets the same window, and full 16-bit sets are read as they always were.
# Fractions in 0..1 are read over 0..1 if they fill at least an eighth of it (32 levels), since that is the scale they
# are meant on.
_FILLED_WHOLE, _FILLED_UNIT = 1 / 2, 1 / 8
# The smallest or largest value can be a filler (a border, a masked part) only if the rest is a picture, with more grey
# levels than this, and not just a few labels.
_FEWEST_GREYS = 32
_FEW_GREYS = 64
_MUCH_CUT = 0.01


def to_8_bits(values: NDArray[np.generic], window: WindowSetting) -> NDArray[np.uint8]:
    """Map the values to bytes: the ends of the window become 0 and 255, and so do the values beyond them.

    The same formula is in `tasks/infer_parts/images.py`.

    Args:
        values: Whole numbers or floats, of any shape.
        window: Two numbers, low and high, or one of two words. "full" stands for 0..65535 for whole numbers and for
            0..1 for fractions, which must then lie in that range. "auto" is the same, but fractions beyond 0..1 are cut
            off, since the window is still to be found.

    Returns:
        Bytes of the same shape.

    Raises:
        ValueError: A value is not finite, or lies outside 0..1.
    """
    fractions = values.dtype.kind == "f"
    if fractions and not np.isfinite(values).all():
        msg = "pixels that are NaN or infinite"
        raise ValueError(msg)
    if not isinstance(window, str):
        low, high = window
        return np.asarray((255 * (values.astype(np.float64) - low) / (high - low)).round().clip(0, 255), np.uint8)
    if not fractions:
        return np.asarray((np.clip(values.astype(np.int64), 0, 65535) / 257).round(), np.uint8)
    if window == "full" and (values.min() < 0 or values.max() > 1):
        msg = "float pixels outside 0..1"
        raise ValueError(msg)
    return np.asarray((255 * values.clip(0, 1)).round(), np.uint8)


def deep(facts: ImageFacts) -> NDArray[np.bool_]:
    """Tell which of the images have more than 8 bits that can be read.

    Returns:
        Booleans of shape (number,), one for each image.
    """
    return np.asarray((facts.kinds == WHOLE) | (facts.kinds == FLOAT))


def find_window(training: ImageFacts, every: ImageFacts) -> WindowSetting:
    """Find the window of a set: the range of its training images without dead pixels, hot pixels and fillers.

    Returns:
        The ends of the window. "full" if whole numbers or fractions are read by that range anyway, or if no training
        image has more than 8 bits.
    """
    found = _range(training)
    if found is None:
        return "full"
    low, high = found
    whole = bool((training.kinds[deep(training)] == WHOLE).all())
    if not whole and low >= 0 and high <= 1 and high - low >= _FILLED_UNIT:
        # Return (0, 1) only if some values lie beyond 0..1: they are then cut off, whereas "full" would refuse an image
        # that has such values.
        inside = every.samples[every.kinds == FLOAT]
        return "full" if inside[:, 0].min() >= 0 and inside[:, 1].max() <= 1 else (0.0, 1.0)
    if low >= 0:
        bits = max(8, int(np.ceil(np.log2(max(high, 1) + 1))))
        top = float(2**bits - 1)
        if high - low >= _FILLED_WHOLE * top and (whole or bits == 8):
            return "full" if bits == 16 else (0.0, top)
    return low, high


def depth_notes(name: str, training: ImageFacts, every: ImageFacts, window: WindowSetting) -> tuple[str, ...]:
    """Return notes for the user on how images of more than 8 bits were read."""
    notes = []
    mine, found = deep(every), _range(training)
    if mine.any():
        if found is not None:
            notes += _window_notes(name, training, found, window)
        if not mine.all():
            notes.append(
                f"data {name}: {int(mine.sum())} of {len(mine)} images have more than 8 bits; the others keep their "
                f"own scale 0..255, so look whether the two look alike"
            )
    elif not isinstance(window, str):
        notes.append(f"data {name}: data.window has no effect, for no image has more than 8 bits")
    cut = training.kinds == CUT
    if cut.any() and (largest := float(training.samples[cut, 1].max())) < _FILLED_WHOLE * 65535:
        notes.append(
            f"data {name}: {int(cut.sum())} training images have 16 bits a colour, of which Pillow reads the upper 8; "
            f"they hold values up to about {largest + 256:.0f} only, so {largest / 257 + 1:.0f} levels are left. Give "
            f"them as 8-bit images, 16-bit grey ones, or uint16 arrays in an .npz file"
        )
    return tuple(notes)


def window_text(window: Window) -> str:
    """Return the window as it is written for --set and in the documents."""
    return f"[{_number(window[0])}, {_number(window[1])}]"


def _window_notes(name: str, training: ImageFacts, found: Window, window: WindowSetting) -> list[str]:
    kind, low, high = _kind_text(training, found), *found
    values = f"data {name}: {kind} images: values {_number(low)}..{_number(high)} found in training"
    if isinstance(window, str):
        full = (0.0, 65535.0) if (training.kinds[deep(training)] == WHOLE).any() else (0.0, 1.0)
        greys = round(255 * (min(high, full[1]) - max(low, full[0])) / (full[1] - full[0])) + 1
        if greys >= _FEW_GREYS:
            return []
        return [
            f"{values}, read on the whole scale {_number(full[0])}..{_number(full[1])}: {max(greys, 1)} grey levels "
            f"are left; --set data.window=auto in a new study gives them all"
        ]
    drawn = training.samples[deep(training), 2:]
    beyond = float(((drawn < window[0]) | (drawn > window[1])).mean())
    cut = f", which cuts off {100 * beyond:.0f} % of the values" if beyond > _MUCH_CUT else ""
    return [f"{values}, data.window = {window_text(window)}{cut}"]


def _kind_text(training: ImageFacts, found: Window) -> str:
    if (training.kinds == FLOAT).any():
        return "float"
    return "16-bit" if found[0] >= -32768 and found[1] <= 65535 else "32-bit"


def _range(training: ImageFacts) -> Window | None:
    """Return the smallest and largest value that count, or None if there is no picture of more than 8 bits.

    All values count, unless that makes the range more than twice as wide as the range of 99.8 % of them. A range twice
    as wide costs only one bit and keeps rare hot or dark spots, which may be what the classes differ by. Dead and hot
    pixels lie further out.
    """
    samples = training.samples[deep(training)]
    samples = samples[samples[:, 0] < samples[:, 1]] if len(samples) else samples  # blank frames tell nothing
    if not len(samples):
        return None
    low, high = float(samples[:, 0].min()), float(samples[:, 1].max())
    drawn = samples[:, 2:]
    inner_low, inner_high = (float(each) for each in np.percentile(drawn, [_TAIL_PERCENT, 100 - _TAIL_PERCENT]))
    if high - low > 2 * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    levels = np.unique(drawn[(drawn >= low) & (drawn <= high)])
    if len(levels) > _FEWEST_GREYS and levels[1] - levels[0] > levels[-1] - levels[1]:
        low = float(levels[1])
    if len(levels) > _FEWEST_GREYS and levels[-1] - levels[-2] > levels[-2] - levels[0]:
        high = float(levels[-2])
    return (low, high) if low < high else None


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.6g}"


__all__ = ["EIGHT_BITS", "deep", "depth_notes", "find_window", "to_8_bits", "window_text"]
