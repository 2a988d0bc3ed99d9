"""The interface of a task, by which the chain trains, compresses, deploys and scores networks of any task alike.

Nothing here loads torch: types of torch and NumPy are named in annotations only.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from scalesearch.measurement.metric import Metric, Outputs
from scalesearch.tasks.answers import Predictor
from scalesearch.values.candidate import Recipe
from scalesearch.values.quality import Quality
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.values.settings import Fit, RunSettings
from scalesearch.views.layer_table import BuiltParts

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
    from scalesearch.views.description import Section

TorchOutputs = Mapping[str, "Tensor"]
"""A module's outputs: tensors by the names of the task's outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPart:
    """A task's section of the report."""

    name: str
    """Name of the section, used by links to it and for its `data` in the page's script."""
    link: str
    """Text of the link to the section."""
    html: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CardParts:
    """What a task says on the model card of an exported network."""

    noun: str
    """What the network is, with its article: `An image classifier of 10 classes`."""
    answers: str
    """What the ONNX file gives: `logits (batch, 10)`."""
    script: str
    """What infer.py does with the file: `labels images`."""
    score: str = "Score"
    """Heading of the section on the score; in lower case, it is also the name of the score in sentences."""
    details: tuple[str, ...] = ()
    """Lines on the details behind the score."""
    limits: tuple[str, ...] = ()
    """Sentences on what the network cannot do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorVerdict:
    """Whether training may mirror images left to right, and why."""

    flip: bool
    words: str


class TaskViews(Protocol):
    """Shows the details behind a task's score. Loads neither torch nor Optuna."""

    picture: str
    """File name of the picture that the dashboard offers for download; empty if there is none."""

    def sections(self, record: TrialRecord) -> "tuple[Section, ...]":
        """Return sections of lines with a title, for `scalesearch show` and the dashboard's card."""
        ...

    def draw(self, record: MeasuredTrial, to: Path) -> None:
        """Write the picture of a measured trial to `to`; the file is written whole or not at all."""

    def report(self, front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> ReportPart:
        """Return the section of the report about the members of the front."""
        ...

    def card(self, record: MeasuredTrial, score: FrontScore | None) -> CardParts:
        """Return what the model card says about the network and the details behind its score.

        `score` holds the score on the test images, or None if the network was not scored on them.
        """
        ...

    def draw_targets(
        self,
        images: "NDArray[np.uint8]",
        targets: Any,
        class_names: Sequence[str],
        *,
        outputs: Outputs | None = None,
    ) -> "tuple[NDArray[np.uint8], ...]":
        """Return a picture of each image with its targets and, if `outputs` is given, with a network's predictions.

        `scalesearch check --data` puts them on a sheet, and the report shows them for members of the front.

        Args:
            images: Images (number, height, width, C), with 3 channels or 1.
            targets: Their targets, as `Targets.tensor` of the data set or a batch of the task gives them.
            class_names: Names of the classes; empty for targets without classes.
            outputs: A network's outputs for these images, which are drawn too; None: only the targets are drawn.

        Returns:
            For each image a picture of shape (picture height, picture width, 3), of any size.
        """
        ...


@runtime_checkable
class ReportingViews(Protocol):
    """The further method of views of a task whose exports report what is certain enough."""

    def with_quality(self, quality: Quality) -> TaskViews:
        """Return views that draw, of a network's predictions, those that an export of this quality reports."""
        ...


@runtime_checkable
class PartViews(Protocol):
    """The further method of views of a task whose networks have a classifier after the stages, or not all stages."""

    def parts(self, spec: "NetworkSpec") -> BuiltParts:
        """Return which parts of a spec the task's networks have."""
        ...


def built_parts(views: TaskViews, spec: "NetworkSpec") -> BuiltParts:
    """Return which parts of a spec a task's networks have: all stages and no classifier, if its views do not say."""
    if isinstance(views, PartViews):
        return views.parts(spec)
    return BuiltParts(stages=len(spec.stages), classifier=False)


class Task(Protocol):
    """A task: one object without state, registered in `tasks/registry.py` or by the entry point of another package."""

    name: str
    """Name of the task, as in `task = "classification"`."""
    targets: str
    """Kind of targets that the task is trained on, and that all of its data sources give."""
    output_names: tuple[str, ...]
    """Outputs of the ONNX file, in the order in which the module returns them; images are along their first axes."""
    space: str
    """Default search space. The default data set is the first name of the first of the task's `sources`."""
    fit: Fit
    """What `data.fit = "auto"` is in a new study: how a picture of another shape becomes the network's. A task that
    judges places in the picture wants all of it."""
    own_axes: tuple[str, ...]
    """Axes of `registry.READ_BY_SOME` that the task reads; spaces with any other of them are refused."""

    @property
    def metric(self) -> str:
        """Name of the score, as columns, figures and exports show it."""
        ...

    def sources(self) -> "Sources":
        """Return the data sources of the task, in the order in which a name or path is offered to them."""
        ...

    def made_up_targets(self, spec: "NetworkSpec", number: int, random: "Generator") -> "Tensor":
        """Return random targets for `number` images, of the form that `Targets.tensor` returns.

        They serve to time a training step before any data are loaded.
        """
        ...

    def make_module(self, spec: "NetworkSpec", *, dropout: float = 0.0) -> "nn.Module":
        """Return the backbone with the task's head on its feature maps; its weights are not initialised.

        The module takes images (batch, C, H, W) and returns one tensor, or a tuple of them in the order of
        `output_names`.
        """
        ...

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
        """Return endless augmented batches of uint8 images (N, C, H, W) and their targets (N, ...).

        The targets are those that `Targets.tensor` of the data set returned. If the images are too large for memory,
        they are an `ImageSource`, which gives the same images batch by batch.
        """
        ...

    def losses(self, outputs: TorchOutputs, targets: Any, recipe: Recipe) -> "Mapping[str, Tensor]":
        """Return the loss terms by name, each already weighted and averaged over the batch; training adds them up."""
        ...

    def distill_losses(
        self, outputs: TorchOutputs, taught: TorchOutputs, *, temperature: float
    ) -> "Mapping[str, Tensor]":
        """Return loss terms by name that are smallest if the outputs equal the teacher's; training adds them up.

        Each is averaged over the batch, with gradients of about the size of those of `losses`. A task whose outputs are
        no logits may ignore the temperature.
        """
        ...

    def mirror_verdict(
        self, plain: Iterable[Any], mirrored: Iterable[Any], targets: Any, class_names: Sequence[str]
    ) -> MirrorVerdict:
        """Return whether training may mirror images, from a module's outputs for images and for their mirror images.

        The module must have been trained without mirror images.
        """
        ...

    def make_metric(self, class_names: Sequence[str]) -> Metric:
        """Return a new metric, which has seen no outputs yet."""
        ...

    def divergence(self, expected: Outputs, answers: Outputs) -> float:
        """Return how far the outputs `answers` are from the expected ones: 0 if they are equal, never negative."""
        ...

    def torch_divergence(self, expected: TorchOutputs, answers: TorchOutputs) -> "Tensor":
        """Return what `divergence` returns, with gradients, for training against a teacher's outputs."""
        ...

    def infer_script(self) -> bytes:
        """Return the text of infer.py, which runs an exported file with onnxruntime, numpy and Pillow only."""
        ...

    def views(self) -> TaskViews:
        """Return the object that shows the details behind the task's scores."""
        ...

    def open_export(self, model: Path, *, threads: int) -> Predictor:
        """Open an exported ONNX file for `scalesearch predict`; with `threads` 0 it uses all cores.

        It may raise any error of ONNX Runtime; the caller adds which file it was.
        """
        ...


@runtime_checkable
class SettableScore(Protocol):
    """The further methods of a task whose score is a setting."""

    def with_settings(self, settings: RunSettings) -> Task:
        """Return the task with the score that the settings of a run ask for."""
        ...

    def gives(self, metric: str) -> bool:
        """Tell whether the task gives a score of that name with any of its settings."""
        ...


@runtime_checkable
class ResizedOutputs(Protocol):
    """The further method of a task whose outputs for images of two sizes cannot be compared as they are."""

    def resized(self, outputs: TorchOutputs, sides_px: tuple[int, int], to_px: tuple[int, int]) -> TorchOutputs:
        """Return outputs for images of one size as those for the same images of another, without gradients.

        `distill_losses` gets them if the teacher sees the images at another size than the network that it teaches.

        Args:
            outputs: Tensors by name, images along their first axes.
            sides_px: Height and width of the images that they are for.
            to_px: The other height and width.
        """
        ...


@runtime_checkable
class AnswersInC(Protocol):
    """The further method of a task whose answers can be read in C; other tasks are not exported as C."""

    def c_answer(self, model: "OnnxModel", expected: "NDArray[np.float32]") -> "CAnswer":
        """Return the task's part of the C files, for a network and its answers to a few images.

        Raises:
            StageFailed: The network is of another task.
        """
        ...


def named(output_names: Sequence[str], returned: "Tensor | tuple[Tensor, ...]") -> "dict[str, Tensor]":
    """Return a module's output or outputs, tensors (batch, ...), as a dictionary by the names of the outputs."""
    tensors = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip(output_names, tensors, strict=True))
