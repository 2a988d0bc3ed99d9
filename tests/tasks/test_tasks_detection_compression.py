"""A detector that has learnt a few scenes, compressed and quantized in every way: what is left of its score."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scalesearch.chain.planner import layer_shapes
from scalesearch.compression import qat
from scalesearch.compression.blocks import drop_blocks
from scalesearch.compression.fold import fold_batchnorm
from scalesearch.compression.importance import Evidence, Judged
from scalesearch.compression.inherit import inherit
from scalesearch.compression.prune import prune
from scalesearch.compression.quantize import Calibration, quantize
from scalesearch.compression.sparsity import masked, sparsity_masks
from scalesearch.data.boxes import Boxes, ImageBoxes, boxes_at
from scalesearch.data.mapped import planes
from scalesearch.data.normalisation import to_input
from scalesearch.data.street_scenes import SIGN_CLASSES, draw_scene
from scalesearch.deployment.onnx_file import checking_session, read_onnx
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.networks import base_spec
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale
from scalesearch.tasks.detection.head import Detector
from scalesearch.tasks.detection.task import TASK
from scalesearch.tasks.hooks import Objective, plain_loss, score_torch, torch_divergence
from scalesearch.training.answers import answers
from scalesearch.training.fit import Course
from scalesearch.training.train import Examples, train
from scalesearch.values.candidate import Pruning, Quantization, Recipe, Scaling
from scalesearch.values.network import Network, OnnxModel
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Machine

SIZE = InputSize(height_px=64, width_px=96)
pytestmark = pytest.mark.slow

MACHINE = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
RECIPE = Recipe(steps=140, batch_size=8, loss="bce", label_smoothing=0, dropout=0, shift_fraction=0, jitter=0)
JUDGE = plain_loss(TASK, RECIPE)
MEAN, STD = (0.45,) * 3, (0.25,) * 3
SCENES = 16


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """A trained detector and the scenes that it was trained on."""

    network: Network
    images: NDArray[np.uint8]
    targets: Boxes
    score: float
    model: OnnxModel

    @property
    def inputs(self) -> NDArray[np.float32]:
        return to_input(self.images, mean=MEAN, std=STD)


def scored(network: Network, images: NDArray[np.uint8], targets: Boxes) -> float:
    given = answers(network, planes(images), MACHINE, mean=MEAN, std=STD)
    return score_torch(TASK, TASK.make_metric(SIGN_CLASSES), given, targets)


def file_score(model: OnnxModel, learnt: Learnt) -> float:
    session = checking_session(read_onnx(model.path), as_written=True)
    metric = TASK.make_metric(SIGN_CLASSES)
    for place in range(SCENES):
        raw = session.run(None, {"image": learnt.inputs[place : place + 1]})[0]
        metric.update({"raw": raw}, learnt.targets[place : place + 1])
    return metric.score()


def fitted(network: Network, images: NDArray[np.uint8], targets: Boxes, **changes: Any) -> Network:
    examples = Examples(images=planes(images), targets=targets.tensor(), mean=MEAN, std=STD)
    recipe, objective = replace(RECIPE, **changes), Objective(task=TASK)
    return train(network, examples, recipe, MACHINE, Course(seed=0), objective=objective).network


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    scenes = [draw_scene(rng=np.random.default_rng((1, place)), size=SIZE) for place in range(SCENES)]
    images = np.stack([scene.image for scene in scenes])
    boxes = [ImageBoxes(boxes=each.boxes, classes=each.classes, ignored=each.ignored) for each in scenes]
    targets = boxes_at(boxes, np.tile([96, 64], (SCENES, 1)), SIZE, "stretch")
    spec = scale(base_spec("resnet_scene"), Scaling(width=0.75, depth=2), resolution_px=SIZE, num_classes=8)
    network = fitted(build(spec, TASK.make_module), images, targets)
    path = tmp_path_factory.mktemp("learnt") / "model.onnx"
    model = to_onnx(fold_batchnorm(network), to=path, check_images=to_input(images, mean=MEAN, std=STD)[:4],
                    output_names=TASK.output_names)  # fmt: skip
    return Learnt(network=network, images=images, targets=targets, score=scored(network, images, targets), model=model)


def test_it_has_learnt_and_its_file_answers_alike(learnt: Learnt) -> None:
    assert learnt.score > 0.3
    assert file_score(learnt.model, learnt) == pytest.approx(learnt.score, abs=0.005)


def known(learnt: Learnt) -> Calibration:
    """What quantization knows of the detector."""
    return Calibration(images=learnt.inputs, divergence=TASK.divergence)


@pytest.mark.parametrize("profile", ["onnxruntime_cpu", "tensorrt"])
@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_quantized_files_find_the_same_objects(precision: Any, profile: Any, learnt: Learnt, tmp_path: Path) -> None:
    if (precision, profile) == ("fp8", "onnxruntime_cpu"):
        pytest.skip("no CPU runs fp8")
    model = quantize(
        learnt.model,
        Quantization(precision=precision),
        calibration=known(learnt),
        profile=profile,
        to=tmp_path / "q.onnx",
    )
    assert file_score(model, learnt) > 0.85 * learnt.score


def test_layers_that_stay_in_float_are_ranked_by_the_tasks_divergence(learnt: Learnt, tmp_path: Path) -> None:
    def damage(keep: int) -> float:
        asked = Quantization(precision="int8", keep_float=keep)
        model = quantize(
            learnt.model, asked, calibration=known(learnt), profile="onnxruntime_cpu", to=tmp_path / f"{keep}.onnx"
        )
        session = checking_session(read_onnx(model.path), as_written=True)
        (raw,) = session.run(None, {"image": learnt.inputs[:8]})
        (wanted,) = checking_session(read_onnx(learnt.model.path)).run(None, {"image": learnt.inputs[:8]})
        return TASK.divergence({"raw": wanted}, {"raw": raw})

    assert 0 < damage(12) < damage(0)


def test_channels_blocks_and_zeros(learnt: Learnt) -> None:
    batch = Judged(images=torch.from_numpy(learnt.inputs), targets=learnt.targets.tensor(), loss=JUDGE)
    pruned = prune(
        learnt.network,
        Pruning(channel_fraction=0.25, criterion="taylor"),
        channel_multiple=8,
        evidence=Evidence(batch=batch),
    )
    assert layer_shapes(pruned) != layer_shapes(learnt.network)

    def loss_without(network: Network) -> float:
        with torch.no_grad():
            return float(batch.loss(network.module.eval()(batch.images), batch.targets))

    shorter = drop_blocks(learnt.network, 0.25, loss_without=loss_without)
    assert sum(stage.depth for stage in shorter.spec.stages) == 7
    zeros = masked(learnt.network, sparsity_masks(learnt.network, Pruning(sparsity="2:4")))
    assert scored(zeros, learnt.images, learnt.targets) > 0.1
    for smaller in (pruned, shorter):
        before = scored(smaller, learnt.images, learnt.targets)
        again = fitted(smaller, learnt.images, learnt.targets, steps=30)
        # What lost much gains by 30 updates; what lost little may lose more, since they begin at the full rate.
        assert scored(again, learnt.images, learnt.targets) > max(min(before, 0.6 * learnt.score), 0.2)


def test_a_narrower_detector_inherits(learnt: Learnt) -> None:
    spec = scale(base_spec("resnet_scene"), Scaling(width=0.5, depth=1), resolution_px=SIZE, num_classes=8)
    batch = Judged(images=torch.from_numpy(learnt.inputs), targets=learnt.targets.tensor(), loss=JUDGE)
    child = inherit(learnt.network, build(spec, TASK.make_module), judged=batch, loss_without=lambda _: 0.0)
    assert layer_shapes(child) == layer_shapes(build(spec, TASK.make_module))
    fresh = build(spec, TASK.make_module)
    scores = [
        scored(fitted(begun, learnt.images, learnt.targets, steps=30), learnt.images, learnt.targets)
        for begun in (child, fresh)
    ]
    assert scores[0] > scores[1] + 0.1


def test_training_with_simulated_rounding(learnt: Learnt, tmp_path: Path) -> None:
    asked = Quantization(precision="int8", qat_steps=40)
    recipe = replace(RECIPE, batch_size=8)
    batches = TASK.make_batches(
        planes(learnt.images), learnt.targets.tensor(), recipe, mean=MEAN, std=STD, device="cpu", seed=1
    )
    lessons = qat.Lessons(
        batches=batches.next,
        loss=JUDGE,
        divergence=torch_divergence(TASK),
        rate=Detector.rounding_rate,
    )
    tuned = qat.quantization_aware(
        fold_batchnorm(learnt.network),
        asked,
        lessons,
        calibration=torch.from_numpy(learnt.inputs),
        profile="onnxruntime_cpu",
        seed=0,
    )
    model = to_onnx(tuned.network, to=tmp_path / "float.onnx", check_images=learnt.inputs[:4],
                    output_names=TASK.output_names)  # fmt: skip
    quantized = quantize(
        model,
        asked,
        calibration=replace(known(learnt), input_ranges=tuned.ranges),
        profile="onnxruntime_cpu",
        to=tmp_path / "qat.onnx",
    )
    assert file_score(quantized, learnt) > 0.85 * learnt.score
