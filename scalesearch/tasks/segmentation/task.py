"""The segmentation task: mean intersection over union with a class for each pixel."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalesearch.errors import ConfigError
from scalesearch.measurement.metric import Metric, Outputs
from scalesearch.tasks.answers import Predictor
from scalesearch.tasks.base import MirrorVerdict, TaskViews, TorchOutputs
from scalesearch.values.candidate import Recipe
from scalesearch.values.settings import Fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor, nn

    from scalesearch.data.mapped import ImageSource
    from scalesearch.data.normalisation import PerChannel
    from scalesearch.data.source import Sources
    from scalesearch.deployment.formats.c_answer import CAnswer
    from scalesearch.training.batches import BatchSource
    from scalesearch.values.network import OnnxModel
    from scalesearch.values.network_spec import NetworkSpec

_LOGITS: Final = "logits"


class Segmentation:
    """Which of N classes does each pixel show? Torch is loaded only when a method needs it."""

    name = "segmentation"
    metric = "miou"
    targets = "masks"
    output_names: tuple[str, ...] = (_LOGITS,)
    space = "resnet_scene"
    fit: Fit = "pad"
    own_axes: tuple[str, ...] = (
        "scaling.decoder",
        "scaling.neck_width",
        "scaling.neck_follows",
        "training.loss_weights.dice",
        "training.class_weights",
        "training.scale_fraction",
    )

    def sources(self) -> "Sources":
        """Return the sources of images with masks."""
        from scalesearch.data import mask_folder, street_masks

        return (street_masks.SOURCE, mask_folder.SOURCE)

    def made_up_targets(self, spec: "NetworkSpec", number: int, random: "Generator") -> "Tensor":
        """Return random masks (number, H, W)."""
        import torch

        shape = (number, *spec.input_size.sides)
        return torch.randint(0, spec.num_classes, shape, generator=random, dtype=torch.uint8)

    def make_module(self, spec: "NetworkSpec", *, dropout: float = 0.0) -> "nn.Module":
        """Return the backbone with the spec's decoder.

        Raises:
            ConfigError: There are fewer than two classes to tell apart, or feature maps of this size cannot be joined.
        """
        from scalesearch.tasks.segmentation.head import DECODERS, require_sides

        if spec.num_classes < 2:
            message = f"network {spec.name!r}: expected at least two classes to tell apart, came {spec.num_classes}."
            raise ConfigError(message)
        require_sides(spec)
        return DECODERS[spec.decoder](spec, dropout=dropout)

    def make_batches(
        self,
        images: "Tensor | ImageSource",
        targets: "Tensor",
        recipe: Recipe,
        *,
        mean: "PerChannel",
        std: "PerChannel",
        device: str,
        seed: int,
    ) -> "BatchSource":
        """Return batches of uint8 images (N, C, H, W) with masks (N, H, W), moved and mirrored together."""
        from scalesearch.data.normalisation import Normalisation
        from scalesearch.tasks.segmentation.augment import MaskBatches

        constants = Normalisation(mean=mean, std=std)
        return MaskBatches(images, targets, recipe, normalisation=constants, device=device, seed=seed)

    def losses(self, outputs: TorchOutputs, targets: Any, recipe: Recipe) -> "Mapping[str, Tensor]":
        """Return the loss terms of logits (batch, classes, h, w) against masks (batch, H, W), by name."""
        from scalesearch.tasks.segmentation.losses import terms

        return terms(outputs[_LOGITS], targets, recipe)

    def distill_losses(
        self, outputs: TorchOutputs, taught: TorchOutputs, *, temperature: float
    ) -> "Mapping[str, Tensor]":
        """Return the divergence of softened class probabilities from the teacher's, averaged over places."""
        from scalesearch.tasks.segmentation.losses import distillation

        return {"distillation": distillation(outputs[_LOGITS], taught[_LOGITS], temperature)}

    def mirror_verdict(
        self, plain: Iterable[Any], mirrored: Iterable[Any], targets: "Tensor", class_names: Sequence[str]
    ) -> MirrorVerdict:
        """Return whether every class is still found in the mirror."""
        from scalesearch.tasks.segmentation.mirror import mirror_verdict

        return mirror_verdict(plain, mirrored, targets, class_names)

    def make_metric(self, class_names: Sequence[str]) -> Metric:
        """Return a metric: mean intersection over union at the masks' own size, with an interval over images."""
        from scalesearch.tasks.segmentation.quality import MeanIoU

        return MeanIoU(class_names)

    def divergence(self, expected: Outputs, answers: Outputs) -> float:
        """Return the Kullback-Leibler divergence of class probabilities in nats, averaged over places and images."""
        from scalesearch.tasks.segmentation.quality import mean_divergence

        return mean_divergence(expected[_LOGITS], answers[_LOGITS])

    def torch_divergence(self, expected: TorchOutputs, answers: TorchOutputs) -> "Tensor":
        """Return what `divergence` returns, with gradients."""
        from scalesearch.tasks.segmentation.losses import divergence

        return divergence(expected[_LOGITS], answers[_LOGITS])

    def infer_script(self) -> bytes:
        """Return the text of infer.py, made of the module that `scalesearch predict` runs."""
        from scalesearch.tasks.infer_script import infer_script

        return infer_script(__package__)

    def c_answer(self, model: "OnnxModel", expected: "NDArray[np.float32]") -> "CAnswer":
        """Return the task's part of the C files: the mask."""
        from scalesearch.tasks.segmentation.c_mask import mask_answer

        return mask_answer(model, expected)

    def views(self) -> TaskViews:
        """Return the views, which show the numbers of each class, and masks."""
        from scalesearch.tasks.segmentation.views import SegmentationViews

        return SegmentationViews()

    def open_export(self, model: Path, *, threads: int) -> Predictor:
        """Open an exported ONNX file, ready to find the class of each pixel."""
        from scalesearch.tasks.segmentation.predictor import MaskPredictor

        return MaskPredictor(model, threads=threads)


TASK: Final = Segmentation()
"""The single object of the task."""
