"""The stages of the chain with the classification task filled in, for scripts, benchmarks and tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from scalesearch.compression import layer_ranking, qat
from scalesearch.compression import quantize as quantizing
from scalesearch.compression.calibration import Ranges
from scalesearch.compression.importance import Judged
from scalesearch.compression.layer_ranking import Insert, LayerDamage
from scalesearch.compression.qat import Lessons, QatResult
from scalesearch.compression.quantize import Calibration
from scalesearch.data.mapped import ImageSource
from scalesearch.deployment import to_onnx as exporting
from scalesearch.networks import build as building
from scalesearch.tasks.classification.task import TASK
from scalesearch.tasks.hooks import Objective, plain_loss, score_torch, torch_divergence
from scalesearch.training import train as training
from scalesearch.training.answers import answers
from scalesearch.training.fit import Course
from scalesearch.training.train import Examples, Trained
from scalesearch.values.candidate import Quantization, Recipe
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import Machine

LOSS, DIVERGENCE, TORCH_DIVERGENCE = plain_loss(TASK, Recipe()), TASK.divergence, torch_divergence(TASK)


def build(spec: NetworkSpec, *, dropout: float = 0.0, seed: int = 0) -> Network:
    """Build a classifier from a spec, with seeded weights (`networks.build.build`)."""
    return building.build(spec, TASK.make_module, dropout=dropout, seed=seed)


def outline(spec: NetworkSpec) -> Network:
    """Build a classifier without weights (`networks.build.outline`)."""
    return building.outline(spec, TASK.make_module)


def train(
    network: Network,
    images: torch.Tensor | ImageSource,
    labels: torch.Tensor,
    recipe: Recipe,
    machine: Machine,
    **more: Any,
) -> Trained:
    """Train a copy on uint8 images (N, C, H, W) and labels (N,) by `training.train.train`.

    The keywords are the `mean` and `std` of the pixels, and those of its `Course`.
    """
    examples = Examples(images=images, targets=labels, mean=more.pop("mean"), std=more.pop("std"))
    return training.train(network, examples, recipe, machine, Course(**more), objective=Objective(task=TASK))


def score(network: Network, images: torch.Tensor, labels: torch.Tensor, machine: Machine, mean: Any, std: Any) -> float:
    """Return the top-1 accuracy (0..1) of the torch module on uint8 images (N, C, H, W) and labels (N,)."""
    names = [str(place) for place in range(network.spec.num_classes)]
    given = answers(network, images, machine, mean=mean, std=std)
    return score_torch(TASK, TASK.make_metric(names), given, labels)


def to_onnx(network: Network, *, to: Path, check_images: NDArray[np.float32], **more: Any) -> OnnxModel:
    """Write the classifier as an ONNX file (`deployment.to_onnx.to_onnx`, whose keywords it takes).

    `check_images` are float32 (N, C, H, W), normalised.
    """
    return exporting.to_onnx(network, to=to, check_images=check_images, output_names=TASK.output_names, **more)


def judged(images: torch.Tensor, labels: torch.Tensor) -> Judged:
    """Bundle normalised images (N, C, H, W), labels (N,) and the task's loss, as pruning by `taylor` takes them."""
    return Judged(images=images, targets=labels, loss=LOSS)


def quantize(
    model: OnnxModel,
    quantization: Quantization,
    *,
    calibration: NDArray[np.float32],
    input_ranges: Mapping[str, tuple[float, float]] | None = None,
    **more: Any,
) -> OnnxModel:
    """Write the classifier in the asked precision (`compression.quantize.quantize`, whose keywords it takes).

    `calibration` are images (N, C, H, W), float32, normalised.
    """
    known = Calibration(images=calibration, input_ranges=input_ranges, divergence=TASK.divergence)
    return quantizing.quantize(model, quantization, calibration=known, **more)


def quantization_aware(network: Network, quantization: Quantization, **more: Any) -> QatResult:
    """Train the classifier with its rounding simulated (`compression.qat.quantization_aware`, with its keywords).

    `batches`, `masks` and `breathe` are those of its `Lessons`.
    """
    given = {name: more.pop(name) for name in ("batches", "masks", "breathe") if name in more}
    lessons = Lessons(loss=LOSS, divergence=TORCH_DIVERGENCE, **given)
    return qat.quantization_aware(network, quantization, lessons, **more)


def rank_layers(
    proto: onnx.ModelProto, ranges: Ranges, images: NDArray[np.float32], *, insert: Insert
) -> tuple[LayerDamage, ...]:
    """Rank the layers by how much 8 bits change the class probabilities (`compression.layer_ranking.rank_layers`).

    The images are (N, C, H, W), normalised as in training.
    """
    return layer_ranking.rank_layers(proto, ranges, images, insert=insert, divergence=TASK.divergence)


def run_as_written(proto: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the first output for images (N, C, H, W), with every Q/DQ node executed exactly as written in the file."""
    return next(iter(layer_ranking.run_as_written(proto, images).values()))
