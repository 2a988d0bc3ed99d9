"""What judges a cut sees all calibration images, a few at a time, with masks that may be unpacked late."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scalesearch.chain.cutter import Cutter, cut_on_paper
from scalesearch.chain.inheritance import Starter
from scalesearch.config import load_run
from scalesearch.data import Dataset, ImageSplit
from scalesearch.data import masks as masks_module
from scalesearch.data.dataset import make_dataset
from scalesearch.data.masks import Masks, MaskStore
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.networks import base_spec, scale
from scalesearch.networks.build import build, outline
from scalesearch.tasks.registry import get_task
from scalesearch.tasks.segmentation.task import TASK
from scalesearch.values.candidate import Candidate, Pruning, Recipe, Scaling
from scalesearch.values.network import Network
from scalesearch.values.network_spec import InputSize, StageSpec

SIZE = InputSize(height_px=32, width_px=64)
NAMES = ("dark", "grey", "bright")
CUT = Candidate(recipe=Recipe(), pruning=Pruning(channel_fraction=0.5, block_fraction=0.5, criterion="taylor"))


def some(count: int, seed: int) -> ImageSplit:
    """Images of tiles of three brightnesses, which are the classes."""
    random = np.random.default_rng(seed)
    masks = random.integers(0, 3, (count, 4, 8)).astype(np.uint8)
    tiles = masks.repeat(8, axis=1).repeat(8, axis=2)[..., None]
    images = (80 * tiles.astype(np.int64) + random.integers(0, 60, (count, *SIZE.sides, 3))).astype(np.uint8)
    targets = Masks(store=MaskStore.pack(masks), places=np.arange(count), storage=SIZE, fit="stretch")
    return ImageSplit(images=images, targets=targets)


@pytest.fixture(scope="module")
def data() -> Dataset:
    splits = (some(4, 0), some(4, 1), some(10, 2), some(4, 3))
    return make_dataset(name="tiles", class_names=NAMES, splits=splits)


def made(width: float, *, depth: float = 2.0, seed: int = 1) -> Network:
    spec = scale(base_spec("resnet_scene"), Scaling(width=width, depth=depth), resolution_px=SIZE, num_classes=3)
    network = build(spec, TASK.make_module, seed=seed)
    network.module.eval()
    return network


def cutter_of(data: Dataset, candidate: Candidate = CUT) -> Cutter:
    plan: Any = SimpleNamespace(candidate=candidate, pruning=candidate.pruning, shape_key="shape")
    return Cutter(plan, data, TASK, channel_multiple=4)


def state(network: Network) -> dict[str, torch.Tensor]:
    return dict(network.module.state_dict())


def test_large_images_are_judged_a_few_at_a_time(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    network, sizes = made(0.25), list[int]()
    network.module.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    cutter = cutter_of(data)
    loss, score = cutter._loss(network), cutter.score(network)
    assert sizes == [10, 10]
    monkeypatch.setattr("scalesearch.host._MOST_PIXELS", 4 * SIZE.pixels)
    sizes.clear()
    cutter = cutter_of(data)
    assert cutter._loss(network) == pytest.approx(loss, rel=1e-5)
    assert cutter.score(network) == pytest.approx(score, abs=1e-3)
    assert sizes == [4, 4, 2, 4, 4, 2]


def test_masks_that_do_not_fit_are_unpacked_for_the_cut(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    network = made(0.25)
    cutter = cutter_of(data)
    loss, cut = cutter._loss(network), state(cutter.cut(network, 1))
    monkeypatch.setattr(masks_module, "fits_beside", lambda size_bytes: False)
    cutter = cutter_of(data)
    assert cutter._loss(network) == pytest.approx(loss, rel=1e-6)
    again = state(cutter.cut(network, 1))
    assert all(torch.equal(again[name], each) for name, each in cut.items())


def test_masks_that_do_not_fit_are_unpacked_for_what_is_inherited(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings, _ = load_run(flags={"task": "segmentation", "target": "cpu"}, overrides=[])
    session: Any = SimpleNamespace(settings=settings, folder=tmp_path, data=None, machine=None, parent=None)
    starter = Starter(session, DeviceLock("cpu", folder=tmp_path))
    held, fresh = made(0.5), made(0.25, depth=1.0, seed=2)
    recipe = replace(Recipe(), class_weights="root")
    plain = state(starter.inherited(held, fresh, data, recipe))
    monkeypatch.setattr(masks_module, "fits_beside", lambda size_bytes: False)
    monkeypatch.setattr("scalesearch.host._MOST_PIXELS", 4 * SIZE.pixels)
    again = state(starter.inherited(held, fresh, data, recipe))
    assert all(torch.equal(again[name], each) for name, each in plain.items())


@pytest.mark.parametrize(("task", "depths"), [("classification", 2), ("detection", 3), ("segmentation", 2)])
def test_blocks_that_a_task_does_not_build_are_not_cut_on_paper(task: str, depths: int) -> None:
    base = base_spec("resnet_scene")
    coarsest = StageSpec(block="basic", depth=3, channels=48, kernel=3, stride=2)
    spec = replace(base, stages=(*base.stages, coarsest), resolution_px=64, width_px=128, num_classes=3)
    shorter, _ = cut_on_paper(
        outline(spec, get_task(task).make_module), Pruning(block_fraction=0.5), channel_multiple=8
    )
    assert [stage.depth for stage in shorter.spec.stages] == [1, 1, 1, 1, depths]
