"""A candidate as it is sampled: multipliers, pruning, quantization and the training recipe, before any rounding."""

from dataclasses import dataclass, field, replace
from typing import Literal

from scalesearch.values.identity import new_field
from scalesearch.values.network_spec import Decoder

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
CALIBRATED: frozenset[Precision] = frozenset({"int8", "fp8"})
"""Precisions whose value ranges are calibrated on images. The other precisions read no calibration setting."""
CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
WeightScales = Literal["per_channel", "per_tensor"]
Criterion = Literal["l2", "l1", "bn_scale", "taylor", "random"]
PruningScope = Literal["uniform", "global", "sensitivity"]
Sparsity = Literal["none", "2:4", "unstructured"]
OptimizerName = Literal["muon", "adamw", "sgd"]
LossName = Literal["cross_entropy", "focal", "bce"]
ScheduleName = Literal["wsd", "cosine"]
ClassWeights = Literal["none", "root", "inverse"]
Way = Literal["scratch", "cut"]
"""How a network smaller than the space's largest gets its size: it is trained at that size from the first update on
(`scratch`), or cut out of a larger network after the trunk, the first part of the training (`cut`)."""
NeckFollows = Literal["width", "width_depth", "width_kernel", "all"]
"""Which multipliers of the backbone apply to what stands between it and the outputs as well: width, depth, kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageScaling:
    """Multipliers of one stage. They are applied on top of the global ones."""

    depth: float = 1.0
    width: float = 1.0
    kernel: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """The four multipliers.

    `stages` holds one entry for each stage, up to the last stage that has multipliers of its own.
    """

    resolution: float = 1.0
    depth: float = 1.0
    width: float = 1.0
    kernel: float = 1.0
    stages: tuple[StageScaling, ...] = ()
    width_by: Way = new_field("scratch")  # noqa: RUF009  (new_field returns a field)
    """With `cut`, the widest network of the space is trained up to the end of the trunk and cut to this width where the
    branch begins. This needs the schedule `wsd`, and has no effect on a candidate that has the largest width itself."""
    depth_by: Way = new_field("scratch")  # noqa: RUF009
    """As `width_by`: with `cut`, the trunk is that of the deepest network, and blocks are removed from it."""
    kernel_by: Way = new_field("scratch")  # noqa: RUF009
    """As `width_by`: with `cut`, the trunk has the largest kernels, and these are cropped."""
    decoder: Decoder = new_field("topdown")  # noqa: RUF009
    """Decoder of a network that predicts every pixel, as in segmentation (`NetworkSpec.decoder`); other tasks ignore
    it."""
    neck_width: float = new_field(1.0)
    """Width multiplier of the layers between the backbone and the outputs (neck and heads of a detector, decoder of a
    segmentation network), applied on top of `width`."""
    neck_follows: NeckFollows = new_field("width")  # noqa: RUF009
    """Which multipliers these layers follow. With the depth, each 3x3 convolution of them becomes several in a row; the
    decoder `lraspp` has none. Resolution scales everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What is removed after training and before a short retraining: channels, whole blocks and single weights."""

    channel_fraction: float = 0.0
    """Fraction of the channels that is removed; 0 removes none."""
    criterion: Criterion = "l2"
    """Which channels are removed first: those with the smallest weights (l1, l2), the smallest BatchNorm scale or the
    smallest first-order Taylor term, or random ones."""
    scope: PruningScope = "uniform"
    """Where the fraction is removed: from every layer alike (uniform), from all layers ranked together (global), or
    where measurement shows that it costs least (sensitivity)."""
    block_fraction: float = 0.0
    """Fraction of the removable residual blocks (those whose input and output have the same shape) that is left out, by
    measured importance."""
    sparsity: Sparsity = "none"
    """Zeros inside the weights: two of every four (2:4), or the smallest weights anywhere (`sparse_fraction` of
    them)."""
    sparse_fraction: float = 0.5
    rounds: int = 1
    """Number of rounds in which channels are removed. Each round is followed by its share of the retraining."""

    @property
    def any(self) -> bool:
        """Whether the candidate asks for any pruning."""
        return self.channel_fraction > 0 or self.block_fraction > 0 or self.sparsity != "none"

    @property
    def shape_follows_weights(self) -> bool:
        """Whether the pruned shape depends on the trained weights, so that its cost is known only after training."""
        return self.block_fraction > 0 or (self.channel_fraction > 0 and self.scope != "uniform")

    @property
    def label(self) -> str:
        """The pruning in words, for example `channels 25 %, blocks 30 %, 2:4 zeros`; empty where nothing is pruned."""
        parts = []
        if self.channel_fraction:
            parts.append(f"channels {100 * self.channel_fraction:.0f} %")
        if self.block_fraction:
            parts.append(f"blocks {100 * self.block_fraction:.0f} %")
        if self.sparsity != "none":
            parts.append(f"{self.sparsity} zeros")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Precision of the deployed file. The calibration fields are used for int8 and fp8 only."""

    precision: Precision = "fp32"
    calibration: CalibrationMethod = "minmax"
    clip_percentile: float = 99.99
    calibration_images: int = 128
    weights: WeightScales = "per_channel"
    keep_float: int = 0
    """Number of layers that stay in float: those that lose most in 8 bits."""
    bias_correction: bool = False
    """Whether the biases are corrected for the shift of the mean that rounding the weights causes."""
    qat_steps: int = 0
    """Updates of quantization-aware training before the export; 0 means post-training quantization alone."""

    @property
    def aware_steps(self) -> int:
        """Updates of quantization-aware training that are made: `qat_steps` with int8, 0 with any other precision."""
        return self.qat_steps if self.precision == "int8" else 0

    @property
    def float_layers(self) -> int:
        """Number of layers that are left in float: `keep_float` with int8 and fp8, 0 where all are in one precision."""
        return self.keep_float if self.precision in CALIBRATED else 0

    @property
    def label(self) -> str:
        """The precision in words, for example `int8`, `int8 QAT` or `int8 but 3 layers`."""
        text = str(self.precision)
        if self.aware_steps:
            text += " QAT"
        left = self.float_layers
        return f"{text} but {left} layer{'s' * (left > 1)}" if left else text


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the named terms of a loss, of the tasks that have several terms: detection, segmentation."""

    class_: float = 1.0
    """Weight of the term that tells classes apart; in files and settings its name is `class`."""
    box: float = 5.0
    """Weight of 1 - GIoU of the predicted box."""
    objectness: float = 1.0
    """Weight of the term that tells objects from background."""
    dice: float = new_field(0.0)
    """Weight of the Dice loss of a segmentation network, which is added to the per-pixel loss; 0 leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    The length is given in steps, not seconds, so that candidates of equal length get the same number of updates.
    """

    optimizer: OptimizerName = "muon"
    learning_rate: float = 0.016
    """Peak learning rate of AdamW or SGD. With muon, it is the rate of the AdamW that trains everything else (stem,
    norms, classifier)."""
    muon_learning_rate: float = 0.04
    """Peak learning rate of muon on its convolution weights."""
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    loss: LossName = "cross_entropy"
    steps: int = 300
    retrain_steps: int = 60
    """Updates of the retraining after pruning, in addition to `steps`, with the schedule `cosine`. With `wsd`, pruning
    happens at the beginning of the branch, and every candidate makes `steps` updates in all."""
    batch_size: int = 64
    warmup_fraction: float = 0.25
    """Share of the updates over which the rate rises, with the schedule `cosine`."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights; 0 switches it off."""
    dropout: float = 0.1
    shift_fraction: float = 0.1
    """Random translation, as a fraction of the image side."""
    flip: bool = False
    """Random horizontal flip. It is off where a space says nothing, since a mirrored road sign is another sign."""
    jitter: float = 0.2
    """Brightness and contrast jitter, as a fraction."""
    schedule: ScheduleName = new_field("wsd", before="cosine")  # noqa: RUF009  (new_field returns a field)
    """How the learning rate moves: it rises, stays and falls along a line (wsd), or it rises and falls along a cosine.
    With `wsd` the updates before the fall, the trunk, are shared by all candidates that differ in compression only."""
    branch_fraction: float = new_field(1 / 3, before=0.0)
    """Share of the updates that belong to the branch, in which the rate falls, with the schedule `wsd`. What is removed
    from a network is removed where its branch begins."""
    warmup_steps: int = new_field(60, before=0)
    """Updates over which the rate rises, with the schedule `wsd`; at most half of the trunk. It is a number of updates,
    not a share of them, so that a longer training begins with the same updates as a shorter one."""
    distill_weight: float = new_field(0.0)
    """Weight, 0 to 1, of the distillation loss, which compares the outputs with those of the study's fine-tuned parent
    instead of the targets; 0 switches distillation off. Above 0, the study needs a parent."""
    distill_temperature: float = new_field(4.0)
    """Temperature of the distillation loss: the logits of both networks are divided by it, in tasks whose outputs are
    logits."""
    loss_weights: LossWeights = new_field(LossWeights())  # noqa: RUF009  (new_field returns a field)
    """Weights of the terms of the loss, where a task has several."""
    class_weights: ClassWeights = new_field("none")  # noqa: RUF009
    """Whether pixels of rare classes weigh more in the segmentation loss: by 1 / sqrt(frequency) of the class in the
    training masks (`root`), by 1 / frequency (`inverse`), or no more than others (`none`)."""
    scale_fraction: float = new_field(0.0)
    """Random zoom of images with boxes or masks: they are shrunk or enlarged by up to this fraction. No other task
    reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point of the search space, exactly as sampled."""

    scaling: Scaling = field(default_factory=Scaling)
    pruning: Pruning = field(default_factory=Pruning)
    quantization: Quantization = field(default_factory=Quantization)
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def unquantized(self) -> "Candidate":
        """What it is without its precision and how that is made: equal for all deployments of one training length."""
        return replace(self, quantization=Quantization())

    @property
    def network(self) -> "Candidate":
        """What it is without precision and length: equal for all trainings of one network. No candidate has 0 steps."""
        return replace(self.unquantized, recipe=replace(self.recipe, steps=0))
