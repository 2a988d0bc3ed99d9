"""What a layer's weights and activations look like, and what eight bits make of them."""

from dataclasses import dataclass

WASTED_BELOW = 0.25
"""Of the range: a layer whose weights hardly ever leave it gives two of its eight bits to a few outliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorHistogram:
    """The values of one tensor (or of one activation over all images), and what eight bits make of them."""

    low: float
    high: float
    """The least and the largest value."""
    first_edge: float
    last_edge: float
    counts: tuple[int, ...]
    """Of bins of equal width between the two edges; together as many as there are values."""
    clip_low: float
    clip_high: float
    """What eight bits reach; for weights with a scale per channel, in the widest channel."""
    clipped_fraction: float
    """Share of the values beyond it."""
    sqnr_db: float | None
    """Signal to quantization noise, 10 log10(sum x^2 / sum (x - Q(x))^2); None where nothing is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHistogram:
    """A convolution or linear layer: its weights, and what it reads."""

    name: str
    """Of its weight, as the network calls it, without `.weight`."""
    node: str
    """In the ONNX file."""
    kind: str
    shape: tuple[int, ...]
    weights: TensorHistogram
    activations: TensorHistogram
    within_99: float
    """The share of its range, from 0 to the largest |w|, that holds 99 % of the |w|."""

    @property
    def wasted_range(self) -> bool:
        """Whether 99 % of the weights lie within a quarter of the range."""
        return self.within_99 < WASTED_BELOW
