"""Axes that only some tasks read: the width of neck and decoder, and the refusal where no part of a task reads them."""

from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.config import load_run
from scalesearch.errors import ConfigError
from scalesearch.networks import find_spec, scale
from scalesearch.spaces.axes import plain_axis_names
from scalesearch.study.session import open_session
from scalesearch.tasks.own_axes import READ_BY_SOME, require_own_axes
from scalesearch.tasks.registry import get_task, task_names
from scalesearch.values.candidate import Scaling
from scalesearch.values.identity import content_hash
from scalesearch.values.network_spec import InputSize
from scalesearch.values.space import Choice, NamedAxis

SIZE = InputSize(height_px=64, width_px=96)


def params(task: str, neck_width: float, network: str = "resnet_scene") -> dict[str, int]:
    spec = scale(find_spec(network), Scaling(neck_width=neck_width), resolution_px=SIZE, num_classes=5)
    module = get_task(task).make_module(spec)
    return {name: each.numel() for name, each in module.named_parameters()}


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_neck_is_scaled_and_the_backbone_is_not(task: str) -> None:
    whole, half = params(task, 1.0), params(task, 0.5)
    assert whole.keys() == half.keys()
    smaller = {name for name in whole if half[name] < whole[name]}
    assert smaller == {name for name in whole if not name.startswith(("stem.", "stages."))} - {
        name for name in whole if whole[name] == half[name]
    }
    assert smaller and all(whole[name] == half[name] for name in whole if name.startswith(("stem.", "stages.")))
    # Convolutions from neck to neck have channels squared as many weights, all others channels as many.
    inner = "heads.0.class_tower.0.weight" if task == "detection" else "smooth.0.weight"
    assert whole[inner] == 4 * half[inner]


def test_identities_of_networks_with_the_usual_neck_stay() -> None:
    usual = Scaling(width=0.5)
    assert content_hash(usual) == content_hash(replace(usual, neck_width=1.0))
    assert content_hash(usual) != content_hash(replace(usual, neck_width=0.5))


@pytest.mark.parametrize("task", task_names())
@pytest.mark.parametrize("name", READ_BY_SOME)
def test_an_axis_that_is_not_read_is_refused(task: str, name: str) -> None:
    assert name in plain_axis_names() or name.startswith("training.loss_weights.")
    axis, asked = NamedAxis(name=name, axis=Choice(values=(0.5, 1.0))), get_task(task)
    if name in asked.own_axes:
        require_own_axes(asked, (axis,))
    else:
        readers = " or ".join(f"--task {other}" for other in task_names() if name in get_task(other).own_axes)
        said = rf"^{name}: expected an axis that the task '{task}' reads.*\nRemove it.*, or give {readers}\.$"
        with pytest.raises(ConfigError, match=said):
            require_own_axes(asked, (axis,))


def test_every_axis_of_a_task_is_one_of_these() -> None:
    asked = [name for task in task_names() for name in get_task(task).own_axes]
    assert set(asked) == set(READ_BY_SOME)


def test_a_run_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    settings, space = load_run(overrides=["scaling.neck_width=[0.5, 1.0]"], flags={"target": "cpu"})
    with pytest.raises(
        ConfigError, match=r"scaling\.neck_width: expected an axis that the task 'classification' reads"
    ):
        open_session(settings, space, tmp_path / "study")
    assert not (tmp_path / "study").exists()
