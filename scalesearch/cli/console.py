"""A Rich console that prints texts literally: nothing in them is taken for markup, an emoji's name or a control code.

A module of its own because Rich's console takes long to load and most commands print without it.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from scalesearch.plain_text import visible


class PlainConsole(Console):
    """A console that prints texts as they are, with control characters made visible."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text, cleaned before Rich measures it."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of anything that can be printed, with the contents of `Text` objects cleaned."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
