"""Describes unusual ways in which a study's images are read: for the metadata of exports, and in words."""

from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import DataSettings, Fit, Window

PLAIN, SECOND = "1", "2"
"""Versions of what `infer.py` can do. The second is required only where it is needed, so that older copies of the
script still read all other files, and refuse these."""
FIT_TEXTS: dict[Fit, str] = {
    "crop": "centre square",
    "stretch": "stretched to a square",
    "pad": "shrunk whole into a square, centred, on grey 114",
}
GREY_TEXT = "to grey: (19595 R + 38470 G + 7471 B + 32768) >> 16, as Pillow's mode L"


def fixed_window(data: DataSettings) -> Window | None:
    """Return the window, where images of more than 8 bits are not read on their whole scale."""
    return None if isinstance(data.window, str) else data.window


def reading_facts(spec: NetworkSpec, data: DataSettings) -> dict[str, object]:
    """Return what version 2 of the preprocessing says beyond version 1; empty where version 1 is enough."""
    window = fixed_window(data)
    if window is None and data.fit == "crop" and spec.image_channels == 3:
        return {}
    return {
        "fit": data.fit,
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


def reading_words(spec: NetworkSpec, data: DataSettings) -> str:
    """Return a sentence on everything unusual; empty where nothing is."""
    parts = []
    if fixed_window(data) is not None:
        parts.append(f"pixels of {depth_text(data)}")
    if data.fit != "crop":
        parts.append(f"an image that is no square is {FIT_TEXTS[data.fit]}")
    if spec.image_channels == 1:
        parts.append("colours become grey (ITU-R BT.601, as Pillow's mode L)")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
