"""The toy task: it proves that a task is one folder and one line in the registry.

It is trained on real numbers, not on classes, and has its own source of data (`levels.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scalesearch.data.mapped import ImageSource
from scalesearch.data.source import Sources
from scalesearch.errors import StageFailed
from scalesearch.measurement.metric import Outputs
from scalesearch.networks.backbone import Backbone, feature_strides
from scalesearch.tasks.answers import Answer, Head
from scalesearch.tasks.base import CardParts, MirrorVerdict, ReportPart, Task, TorchOutputs
from scalesearch.tasks.exported import ExportedNetwork
from scalesearch.tasks.pictures import captioned
from scalesearch.training.batches import BatchSource, Drawn
from scalesearch.values.candidate import Recipe
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.quality import NamedNumber, NumbersDetail, Quality
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.values.settings import Fit
from scalesearch.views.description import Section
from scalesearch.views.markup import paragraph, section
from toy_task.levels import KIND, SOURCE, Levels


class Brightness(Backbone):
    """Two heads on two feature maps: a level for the picture, and one for each cell of the last map but one."""

    output_layers = ("level", "cells")

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        *_, before, last = (stage.channels for stage in spec.stages)
        assert feature_strides(spec)[f"stage{len(spec.stages)}"] == spec.total_stride
        self._places = (f"stage{len(spec.stages) - 1}", f"stage{len(spec.stages)}")
        self.cells, self.level = nn.Conv2d(before, 1, 1), nn.Conv2d(last, 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.feature_maps(images)
        before, last = (maps[place] for place in self._places)
        return torch.sigmoid(self.level(last).mean(dim=(2, 3))), torch.sigmoid(self.cells(before))


class _Batches:
    def __init__(self, images: Tensor, levels: Tensor, recipe: Recipe, mean: Any, std: Any, seed: int) -> None:
        self._images = (images.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        self._levels, self._size = levels, recipe.batch_size
        self._random = torch.Generator().manual_seed(seed)

    def state(self) -> dict[str, Tensor]:
        return {"generator": self._random.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._random.set_state(state["generator"])

    def next(self) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(self._images), (self._size,), generator=self._random)
        self._drawn = Drawn(indices=chosen, mirrored=torch.zeros(self._size, dtype=torch.bool))
        return self._images[chosen], self._levels[chosen]

    def drawn(self) -> Drawn:
        return self._drawn


class Closeness:
    """One less the mean error of the level."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._error, self._cells, self._images = 0.0, 0.0, 0

    def update(self, outputs: Outputs, targets: Levels) -> None:
        wanted = targets.values
        self._error += float(np.abs(outputs["level"][:, 0] - wanted).sum())
        self._cells += float(outputs["cells"].mean(axis=(1, 2, 3)).sum())
        self._images += len(wanted)

    def score(self) -> float:
        if not self._images:
            raise StageFailed("quality", "no image")
        return 1 - self._error / self._images

    def result(self) -> Quality:
        score = self.score()
        detail = NumbersDetail(numbers=(NamedNumber(name="mean_cell", value=self._cells / self._images),))
        return Quality(
            score=score, score_low=score - 0.01, score_high=score + 0.01, images=self._images, metric="closeness",
            detail=detail,
        )  # fmt: skip

    def doubts(self) -> tuple[str, ...]:
        return ()


class Views:
    picture = ""

    def sections(self, record: TrialRecord) -> tuple[Section, ...]:
        return (Section(title="Cells", lines=(("cells", "seen"),) if record.quality else ()),)

    def draw(self, record: MeasuredTrial, to: Path) -> None:
        raise AssertionError("it offers no picture")

    def report(self, front: Sequence[MeasuredTrial], knee: MeasuredTrial | None) -> ReportPart:
        html = section("cells", "Cells", paragraph(f"{len(front)} members look at cells."))
        return ReportPart(name="cells", link="Cells", html=html, data={"members": len(front)})

    def card(self, record: MeasuredTrial, score: FrontScore | None) -> CardParts:
        return CardParts(
            noun="A light meter",
            answers="level (batch, 1) and cells (batch, 1, height, width)",
            script="tells the brightness of images",
            details=("Its cells were looked at.",),
        )

    def draw_targets(
        self, images: NDArray[np.uint8], targets: Any, class_names: Sequence[str], *, outputs: Outputs | None = None
    ) -> tuple[NDArray[np.uint8], ...]:
        return tuple(captioned(image, f"{float(level):.2f}") for image, level in zip(images, targets, strict=True))


class LevelPredictor:
    noun = "level"
    draws = False

    def __init__(self, model: Path, *, threads: int) -> None:
        self._network = ExportedNetwork(model, threads=threads)

    def answer(self, image: Path, *, top: int, to: Path | None = None) -> Answer:
        level = float(self._network.outputs(image)["level"][0, 0])
        return Answer(cells=(f"{level:.2f}",), fields={"level": level})

    def heads(self, cells: int) -> tuple[Head, ...]:
        return (Head(text="level", number=True),)


class ToyTask:
    name = "brightness"
    metric = "closeness"
    targets = KIND
    output_names: tuple[str, ...] = ("level", "cells")
    space = "resnet_small"
    fit: Fit = "crop"
    own_axes: tuple[str, ...] = ()

    def sources(self) -> Sources:
        return (SOURCE,)

    def made_up_targets(self, spec: NetworkSpec, number: int, random: torch.Generator) -> Tensor:
        return torch.rand(number, generator=random)

    def make_module(self, spec: NetworkSpec, *, dropout: float = 0.0) -> nn.Module:
        return Brightness(spec)

    def make_batches(
        self,
        images: Tensor | ImageSource,
        targets: Tensor,
        recipe: Recipe,
        *,
        mean: Any,
        std: Any,
        device: str,
        seed: int,
    ) -> BatchSource:
        assert device == "cpu"
        images = images if isinstance(images, Tensor) else images.take(torch.arange(len(images)))
        return _Batches(images, targets, recipe, mean, std, seed)

    def losses(self, outputs: TorchOutputs, targets: Any, recipe: Recipe) -> Mapping[str, Tensor]:
        wide = targets.view(-1, 1)
        cells = outputs["cells"].mean(dim=(2, 3))
        return {"level": ((outputs["level"] - wide) ** 2).mean(), "cells": 0.5 * ((cells - wide) ** 2).mean()}

    def distill_losses(self, outputs: TorchOutputs, taught: TorchOutputs, *, temperature: float) -> dict[str, Tensor]:
        return {name: ((outputs[name] - taught[name]) ** 2).mean() for name in self.output_names}

    def mirror_verdict(
        self, plain: Iterable[Any], mirrored: Iterable[Any], targets: Any, class_names: Sequence[str]
    ) -> MirrorVerdict:
        return MirrorVerdict(flip=True, words="brightness has no left and right")

    def make_metric(self, class_names: Sequence[str]) -> Closeness:
        assert not class_names
        return Closeness()

    def divergence(self, expected: Outputs, answers: Outputs) -> float:
        return float(sum(np.abs(expected[name] - answers[name]).mean() for name in expected))

    def torch_divergence(self, expected: TorchOutputs, answers: TorchOutputs) -> Tensor:
        return torch.stack([((expected[name] - answers[name]) ** 2).mean() for name in expected]).sum()

    def infer_script(self) -> bytes:
        return b"print('bright')\n"

    def views(self) -> Views:
        return Views()

    def open_export(self, model: Path, *, threads: int) -> LevelPredictor:
        return LevelPredictor(model, threads=threads)


TASK: Task = ToyTask()
