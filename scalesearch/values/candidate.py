"""What was asked: multipliers, pruning, quantization and the training recipe, before any rounding."""

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
CALIBRATED: frozenset[Precision] = frozenset({"int8", "fp8"})
"""Precisions whose ranges come from images; the others read no calibration setting."""
CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
WeightScales = Literal["per_channel", "per_tensor"]
Criterion = Literal["l2", "l1", "bn_scale", "taylor", "random"]
PruningScope = Literal["uniform", "global", "sensitivity"]
Sparsity = Literal["none", "2:4", "unstructured"]
OptimizerName = Literal["muon", "adamw", "sgd"]
LossName = Literal["cross_entropy", "focal", "bce"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageScaling:
    """Multipliers of one stage, applied on top of the global ones."""

    depth: float = 1.0
    width: float = 1.0
    kernel: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The four multipliers; `stages` holds an entry for each stage up to the last one that is scaled apart."""

    resolution: float = 1.0
    depth: float = 1.0
    width: float = 1.0
    kernel: float = 1.0
    stages: tuple[StageScaling, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What is cut out after training, before a short retraining: channels, whole blocks, single weights."""

    channel_fraction: float = 0.0
    """Of the channels; 0: none."""
    criterion: Criterion = "l2"
    """Which channels leave first: least weight (l1, l2), least BatchNorm scale, least first-order Taylor, by chance."""
    scope: PruningScope = "uniform"
    """The fraction is of every layer, of all layers ranked together, or goes where it costs least by measure."""
    block_fraction: float = 0.0
    """Of the residual blocks that can be left out (their input and output have one shape), by measured importance."""
    sparsity: Sparsity = "none"
    """Zeros inside the weights: two of every four (2:4), or the smallest anywhere (`sparse_fraction`)."""
    sparse_fraction: float = 0.5
    rounds: int = 1
    """Channels leave in so many rounds, each followed by its share of the retraining."""

    @property
    def any(self) -> bool:
        """Whether anything is asked to be cut."""
        return self.channel_fraction > 0 or self.block_fraction > 0 or self.sparsity != "none"

    @property
    def shape_follows_weights(self) -> bool:
        """Whether what is left depends on the trained weights, so that its cost is known only after training."""
        return self.block_fraction > 0 or (self.channel_fraction > 0 and self.scope != "uniform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Precision of the deployed file; the calibration fields mean something for int8 and fp8 only."""

    precision: Precision = "fp32"
    calibration: CalibrationMethod = "minmax"
    clip_percentile: float = 99.99
    calibration_images: int = 128
    weights: WeightScales = "per_channel"
    keep_float: int = 0
    """So many of the layers that suffer most from 8 bits stay in float."""
    bias_correction: bool = False
    """Biases take up the mean shift that rounding the weights causes."""
    qat_steps: int = 0
    """Updates of quantization-aware training before export; 0: post-training quantization alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained. Steps, not seconds: every candidate gets the same number of updates."""

    optimizer: OptimizerName = "muon"
    learning_rate: float = 0.016
    """Peak rate of AdamW or SGD; with muon, of the AdamW that trains the rest (stem, norms, classifier)."""
    muon_learning_rate: float = 0.04
    """Peak rate of muon on its convolution weights."""
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    loss: LossName = "cross_entropy"
    steps: int = 300
    retrain_steps: int = 60
    """Updates after channel pruning, starting from the surviving weights."""
    batch_size: int = 64
    warmup_fraction: float = 0.25
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights; 0 switches it off."""
    dropout: float = 0.1
    shift_fraction: float = 0.1
    """Random translation, as a fraction of the image side."""
    flip: bool = False
    """Random horizontal flip: off by default, since a mirrored road sign is another sign."""
    jitter: float = 0.2
    """Brightness and contrast jitter, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point of the search space, exactly as sampled."""

    scaling: Scaling = field(default_factory=Scaling)
    pruning: Pruning = field(default_factory=Pruning)
    quantization: Quantization = field(default_factory=Quantization)
    recipe: Recipe = field(default_factory=Recipe)
