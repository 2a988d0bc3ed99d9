"""The size of the images that a network takes."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """Height and width in pixels."""

    height_px: int
    width_px: int

    @classmethod
    def square(cls, side_px: int) -> "InputSize":
        """Return the size of a square image."""
        return cls(height_px=side_px, width_px=side_px)

    @classmethod
    def of(cls, size: "int | InputSize") -> "InputSize":
        """Return the size itself; a number stands for the side of a square in pixels."""
        return size if isinstance(size, InputSize) else cls.square(size)

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height_px == self.width_px

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height_px * self.width_px

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width, in the order of array shapes."""
        return self.height_px, self.width_px

    @property
    def label(self) -> str:
        """The size as text: `64`, or `720x1280` (height, width). Meant for columns whose header names the unit px."""
        return str(self.height_px) if self.is_square else f"{self.height_px}x{self.width_px}"

    @property
    def cell(self) -> int | str:
        """The size for tables that programs read: a number for squares, as it always was, and text for rectangles."""
        return self.height_px if self.is_square else self.label

    def __str__(self) -> str:
        return f"{self.label} px"
