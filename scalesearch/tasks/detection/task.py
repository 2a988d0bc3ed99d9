"""The detection task: boxes of objects with their classes, judged by mean average precision."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalesearch.measurement.metric import Metric, Outputs
from scalesearch.tasks.answers import Predictor
from scalesearch.tasks.base import MirrorVerdict, TaskViews, TorchOutputs
from scalesearch.values.candidate import Recipe
from scalesearch.values.quality import is_recall, recall_metric
from scalesearch.values.settings import DetectionSettings, Fit, RunSettings

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

_RAW: Final = "raw"
_MADE_UP_BOXES: Final = 3
_DEFAULT: Final = DetectionSettings()


class Detection:
    """Which objects are in the picture, and where? Torch is loaded only when a method needs it."""

    name = "detection"
    targets = "boxes"
    output_names: tuple[str, ...] = (_RAW,)
    space = "resnet_scene_boxes"
    fit: Fit = "pad"
    own_axes: tuple[str, ...] = (
        "scaling.neck_width",
        "scaling.neck_follows",
        *(f"training.loss_weights.{term}" for term in ("class", "box", "objectness")),
        "training.scale_fraction",
    )

    def __init__(self, settings: DetectionSettings = _DEFAULT) -> None:
        """Take the settings of the score."""
        self._settings = settings

    @property
    def metric(self) -> str:
        """Name of the score that the settings ask for."""
        recall = self._settings.objective == "recall_at_precision"
        return recall_metric(self._settings.precision) if recall else self._settings.objective

    def with_settings(self, settings: RunSettings) -> "Detection":
        """Return this task with the score that a run's settings ask for."""
        return Detection(settings.detection)

    def gives(self, metric: str) -> bool:
        """Tell whether this task gives a score of that name with any of its settings."""
        return metric in ("map50_95", "map50") or is_recall(metric)

    def sources(self) -> "Sources":
        """Return the sources of images with boxes, in the order in which a name or path is offered to them."""
        from scalesearch.data import coco, street_boxes, voc, yolo

        return street_boxes.SOURCE, yolo.SOURCE, coco.SOURCE, voc.SOURCE

    def made_up_targets(self, spec: "NetworkSpec", number: int, random: "Generator") -> "Tensor":
        """Return three random boxes for each image, (number, 4, 6), as `Boxes.tensor` has them."""
        import torch

        from scalesearch.data.boxes import COLUMNS, NO_CLASS

        height, width = spec.input_size.sides
        targets = torch.zeros(number, 1 + _MADE_UP_BOXES, COLUMNS)
        targets[:, 0, 2:5] = torch.tensor([width, height, NO_CLASS], dtype=torch.float32)
        corners = torch.rand(number, _MADE_UP_BOXES, 2, 2, generator=random).sort(dim=2).values
        targets[:, 1:, :4] = corners.flatten(2) * torch.tensor([width, height, width, height])
        targets[:, 1:, 4] = torch.randint(0, spec.num_classes, (number, _MADE_UP_BOXES), generator=random)
        return targets

    def make_module(self, spec: "NetworkSpec", *, dropout: float = 0.0) -> "nn.Module":
        """Return a `Detector`.

        Raises:
            ConfigError: The spec has no feature maps of the needed strides, or image sides that these do not divide.
        """
        from scalesearch.tasks.detection.head import Detector

        return Detector(spec, dropout=dropout)

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
        """Return shuffled, moved, mirrored and jittered batches of uint8 images (N, C, H, W) with their boxes."""
        from scalesearch.data.normalisation import Normalisation
        from scalesearch.tasks.detection.augment import Batches

        constants = Normalisation(mean=mean, std=std)
        return Batches(images, targets, recipe, normalisation=constants, device=device, seed=seed)

    def losses(self, outputs: TorchOutputs, targets: "Tensor", recipe: Recipe) -> "Mapping[str, Tensor]":
        """Return the weighted terms `class`, `box` and `objectness`; targets are those of `Boxes.tensor`."""
        from scalesearch.tasks.detection.losses import detection_losses

        return detection_losses(outputs[_RAW], targets, recipe)

    def distill_losses(
        self, outputs: TorchOutputs, taught: TorchOutputs, *, temperature: float
    ) -> "Mapping[str, Tensor]":
        """Return loss terms against the teacher's objectness, classes and boxes; the temperature is ignored."""
        from scalesearch.tasks.detection.teaching import taught_losses

        return taught_losses(outputs[_RAW], taught[_RAW])

    def resized(self, outputs: TorchOutputs, sides_px: tuple[int, int], to_px: tuple[int, int]) -> TorchOutputs:
        """Return raw outputs for images of `sides_px` as those for the same images of `to_px`, level by level."""
        from scalesearch.tasks.detection.teaching import resized

        return {_RAW: resized(outputs[_RAW], sides_px, to_px)}

    def mirror_verdict(
        self, plain: Iterable[Any], mirrored: Iterable[Any], targets: "Tensor", class_names: Sequence[str]
    ) -> MirrorVerdict:
        """Return whether objects of every class are still found in the mirror."""
        from scalesearch.tasks.detection.mirror import mirror_verdict

        return mirror_verdict(plain, mirrored, targets, class_names)

    def make_metric(self, class_names: Sequence[str]) -> Metric:
        """Return a metric: the score with an interval over images, and each class's precision, recall and curve."""
        from scalesearch.tasks.detection.objectives import ScoreObjective
        from scalesearch.tasks.detection.quality import MeanAveragePrecision

        objective = ScoreObjective(kind=self._settings.objective, precision=self._settings.precision)
        return MeanAveragePrecision(class_names, objective)

    def divergence(self, expected: Outputs, answers: Outputs) -> float:
        """Return how far outputs are from the expected ones (`divergence.mean_divergence`)."""
        from scalesearch.tasks.detection.divergence import mean_divergence

        return mean_divergence(expected[_RAW], answers[_RAW])

    def torch_divergence(self, expected: TorchOutputs, answers: TorchOutputs) -> "Tensor":
        """Return what `divergence` returns, with gradients."""
        from scalesearch.tasks.detection.teaching import torch_divergence

        return torch_divergence(expected[_RAW], answers[_RAW])

    def infer_script(self) -> bytes:
        """Return the text of infer.py: the reading of images as for every task, and the decoding that scores use."""
        from scalesearch.tasks.infer_script import infer_script

        return infer_script("scalesearch.tasks.detection")

    def c_answer(self, model: "OnnxModel", expected: "NDArray[np.float32]") -> "CAnswer":
        """Return the task's part of the C files: decoding and suppression."""
        from scalesearch.tasks.detection.c_decoding import detector_answer

        return detector_answer(model, expected)

    def views(self) -> TaskViews:
        """Return the views, which show precision and recall of each class, curves and pictures."""
        from scalesearch.tasks.detection.views import DetectionViews

        return DetectionViews()

    def open_export(self, model: Path, *, threads: int) -> Predictor:
        """Open an exported ONNX file for predictions."""
        from scalesearch.tasks.detection.predictor import BoxPredictor

        return BoxPredictor(model, threads=threads)


TASK: Final = Detection()
