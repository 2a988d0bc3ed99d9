"""The classification task: top-1 accuracy with one label for each image."""

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
    from torch import Generator, Tensor, nn

    from scalesearch.data.mapped import ImageSource
    from scalesearch.data.normalisation import PerChannel
    from scalesearch.data.source import Sources
    from scalesearch.training.batches import BatchSource
    from scalesearch.values.network_spec import NetworkSpec

_LOGITS: Final = "logits"


class Classification:
    """Which of N classes does the picture show? Torch is loaded only when a method needs it."""

    name = "classification"
    metric = "top1"
    targets = "labels"
    output_names: tuple[str, ...] = (_LOGITS,)
    space = "resnet_small"
    fit: Fit = "crop"
    own_axes: tuple[str, ...] = ()

    def sources(self) -> "Sources":
        """Return the sources of images with one class each."""
        from scalesearch.data import LABEL_SOURCES

        return LABEL_SOURCES

    def made_up_targets(self, spec: "NetworkSpec", number: int, random: "Generator") -> "Tensor":
        """Return random labels (number,)."""
        import torch

        return torch.randint(0, spec.num_classes, (number,), generator=random)

    def make_module(self, spec: "NetworkSpec", *, dropout: float = 0.0) -> "nn.Module":
        """Return an `ImageClassifier`.

        Raises:
            ConfigError: There are fewer than two classes to tell apart.
        """
        from scalesearch.tasks.classification.head import ImageClassifier

        if spec.num_classes < 2:
            message = f"network {spec.name!r}: expected at least two classes to tell apart, came {spec.num_classes}."
            raise ConfigError(message)

        return ImageClassifier(spec, dropout=dropout)

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
        """Return shuffled, shifted, flipped and jittered batches of uint8 images (N, C, H, W) with labels (N,)."""
        from scalesearch.data.normalisation import Normalisation
        from scalesearch.tasks.classification.augment import Batches

        constants = Normalisation(mean=mean, std=std)
        return Batches(images, targets, recipe, normalisation=constants, device=device, seed=seed)

    def losses(self, outputs: TorchOutputs, targets: "Tensor", recipe: Recipe) -> "Mapping[str, Tensor]":
        """Return the recipe's loss of logits (batch, classes) against labels (batch,), by the loss's name."""
        from scalesearch.training.losses import LOSSES

        return {recipe.loss: LOSSES[recipe.loss](outputs[_LOGITS], targets, recipe.label_smoothing)}

    def distill_losses(
        self, outputs: TorchOutputs, taught: TorchOutputs, *, temperature: float
    ) -> "Mapping[str, Tensor]":
        """Return the divergence of softened class probabilities (batch, classes) from the teacher's."""
        from scalesearch.training.losses import distillation

        return {"distillation": distillation(outputs[_LOGITS], taught[_LOGITS], temperature)}

    def mirror_verdict(
        self, plain: Iterable[Any], mirrored: Iterable[Any], targets: "Tensor", class_names: Sequence[str]
    ) -> MirrorVerdict:
        """Return whether every class is still recognised in the mirror."""
        from scalesearch.tasks.classification.mirror import mirror_verdict

        return mirror_verdict(plain, mirrored, targets, class_names)

    def make_metric(self, class_names: Sequence[str]) -> Metric:
        """Return a metric: top-1 with a Wilson interval, and precision, recall and a precision-recall curve.

        The last three are given for each class.
        """
        from scalesearch.tasks.classification.quality import Top1

        return Top1(class_names)

    def divergence(self, expected: Outputs, answers: Outputs) -> float:
        """Return the Kullback-Leibler divergence of the class probabilities, in nats, averaged over the images."""
        from scalesearch.tasks.classification.quality import mean_divergence

        return mean_divergence(expected[_LOGITS], answers[_LOGITS])

    def torch_divergence(self, expected: TorchOutputs, answers: TorchOutputs) -> "Tensor":
        """Return what `divergence` returns, with gradients."""
        from torch.nn.functional import kl_div, log_softmax

        wanted, given = (log_softmax(outputs[_LOGITS], dim=1) for outputs in (expected, answers))
        return kl_div(given, wanted, reduction="batchmean", log_target=True)

    def infer_script(self) -> bytes:
        """Return the text of infer.py, made of the module that `scalesearch predict` runs."""
        from scalesearch.tasks.infer_script import infer_script

        return infer_script(__package__)

    def views(self) -> TaskViews:
        """Return the views, which show per-class numbers, curves and pictures."""
        from scalesearch.tasks.classification.views import ClassificationViews

        return ClassificationViews()

    def open_export(self, model: Path, *, threads: int) -> Predictor:
        """Open an exported ONNX file, ready to label."""
        from scalesearch.tasks.classification.predictor import LabelPredictor

        return LabelPredictor(model, threads=threads)


TASK: Final = Classification()
