"""Histograms of a layer's weights and activations, and how well eight bits represent them."""

from dataclasses import dataclass

WASTED_BELOW = 0.25
"""Fraction of the range. A layer whose weights hardly ever leave this part of their range spends two of its eight bits
on a few outliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorHistogram:
    """The values of one tensor (or of one activation over all images), and how well eight bits represent them."""

    low: float
    high: float
    """The smallest and the largest value."""
    first_edge: float
    last_edge: float
    counts: tuple[int, ...]
    """Number of values in each bin. The bins have equal width and lie between the two edges; all counts add up to the
    number of values."""
    clip_low: float
    clip_high: float
    """The range that eight bits can represent; for weights with a scale per channel, that of the channel with the
    widest range."""
    clipped_fraction: float
    """Fraction of the values outside that range."""
    sqnr_db: float | None
    """Signal to quantization noise ratio, 10 log10(sum x^2 / sum (x - Q(x))^2), in dB; None where nothing is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHistogram:
    """A convolution or linear layer: histograms of its weights and of its input."""

    name: str
    """Name of the layer's weight in the network, without `.weight`."""
    node: str
    """Name of the layer's node in the ONNX file."""
    kind: str
    shape: tuple[int, ...]
    weights: TensorHistogram
    activations: TensorHistogram
    within_99: float
    """Fraction of the range from 0 to the largest |w| that contains 99 % of the |w|."""

    @property
    def wasted_range(self) -> bool:
        """Whether 99 % of the weights lie within a quarter of the range."""
        return self.within_99 < WASTED_BELOW
