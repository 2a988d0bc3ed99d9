"""Describes unusual ways in which a study's images are read: for the metadata of exports, and in words."""

from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.settings import DataSettings, Fit, Window

PLAIN, SECOND, THIRD = "1", "2", "3"
"""Versions of the preprocessing that `infer.py` knows. The second adds window, fit and grey, the third rectangles. A
file requires the lowest version that it needs, so older copies of the script run all files that they can, and refuse
the others."""
GREY_TEXT = "to grey: (19595 R + 38470 G + 7471 B + 32768) >> 16, as Pillow's mode L"


def preprocessing_version(spec: NetworkSpec, data: DataSettings, storage: InputSize) -> str:
    """Return the lowest version of the preprocessing that can make the network's input from a picture."""
    if not (spec.input_size.is_square and storage.is_square):
        return THIRD
    return SECOND if reading_facts(spec, data) else PLAIN


def sides_px(size: InputSize) -> int | list[int]:
    """Return the size as exports state it: the side of a square, or height and width, in pixels."""
    return size.height_px if size.is_square else list(size.sides)


def fit_text(fit: Fit, storage: InputSize) -> str:
    """Say how a picture of another aspect ratio is fitted to the stored size."""
    shape = "square" if storage.is_square else f"rectangle of height x width {storage.label}"
    crop = "centre square" if storage.is_square else f"largest centred part of the shape height x width {storage.label}"
    texts: dict[Fit, str] = {
        "crop": crop,
        "stretch": f"stretched to a {shape}",
        "pad": f"shrunk whole into a {shape}, centred, on grey 114",
    }
    return texts[fit]


def fixed_window(data: DataSettings) -> Window | None:
    """Return the window by which images of more than 8 bits are read; None if they are read on their whole scale."""
    return None if isinstance(data.window, str) else data.window


def reading_facts(spec: NetworkSpec, data: DataSettings) -> dict[str, object]:
    """Return the facts that version 2 of the preprocessing adds to version 1; empty if version 1 is enough."""
    window = fixed_window(data)
    if window is None and data.framing == "crop" and spec.image_channels == 3:
        return {}
    return {
        "fit": data.framing,
        "channels": spec.image_channels,
        **({} if window is None else {"window": list(window)}),
    }


def depth_text(data: DataSettings) -> str:
    """Say how images of more than 8 bits become bytes."""
    window = fixed_window(data)
    if window is None:
        return "16 bits scaled to 8"
    low, high = window
    return f"more than 8 bits scaled to 8, {low:.10g} and less to 0, {high:.10g} and more to 255"


def reading_words(spec: NetworkSpec, data: DataSettings, storage: InputSize) -> str:
    """Return a sentence on everything unusual; empty where nothing is."""
    parts = []
    if fixed_window(data) is not None:
        parts.append(f"pixels of {depth_text(data)}")
    if data.framing != "crop" or not storage.is_square:
        other = "an image that is no square is" if storage.is_square else "an image of another shape is"
        cut = "cut to its " if data.framing == "crop" else ""
        parts.append(f"{other} {cut}{fit_text(data.framing, storage)}")
    if spec.image_channels == 1:
        parts.append("colours become grey (ITU-R BT.601, as Pillow's mode L)")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
