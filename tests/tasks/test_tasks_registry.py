"""Tasks of other packages are found by their entry points; a package that gives none is told by name."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_task.task import ToyTask

from scalesearch.compression.importance import Judged
from scalesearch.compression.inherit import inherit
from scalesearch.config import load_run
from scalesearch.errors import ConfigError
from scalesearch.networks import find_spec, scale
from scalesearch.networks.build import build
from scalesearch.spaces.axes import plain_axis_names
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import (
    READ_BY_SOME,
    check_task_name,
    get_task,
    require_own_axes,
    sources_of,
    task_names,
    usual_fit,
    views_of,
)
from scalesearch.values.candidate import Scaling
from scalesearch.values.identity import content_hash
from scalesearch.values.network import Network
from scalesearch.values.network_spec import InputSize
from scalesearch.values.record import TrialRecord
from scalesearch.values.space import Choice, NamedAxis


def install(folder: Path, offers: str, *, name: str = "brightness-pack", code: str = "") -> None:
    """A distribution on sys.path: its metadata, and the module `bright_pack`."""
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[scalesearch.tasks]\n{offers}\n")
    (folder / "bright_pack.py").write_text(code or "from toy_task.task import ToyTask\nTASK = ToyTask()\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bright_pack", raising=False)
    return tmp_path


def test_a_task_of_another_package_is_found_by_its_name(site: Path) -> None:
    own = task_names()
    assert {"classification", "segmentation"} <= set(own)
    install(site, "brightness = bright_pack:TASK")
    assert task_names() == tuple(sorted(("brightness", *own)))
    assert isinstance(get_task("brightness"), ToyTask)
    with pytest.raises(
        ConfigError, match=r"'brightnes'\. Did you mean 'brightness'\? There are: brightness, classification"
    ):
        get_task("brightnes")


@pytest.mark.parametrize(
    ("offers", "code", "told"),
    [
        ("bright_pack:TASK", "raise OSError('no licence')", r"came OSError: no licence\."),
        ("bright_pack:TASKS", "TASK = 1", r"came AttributeError: module 'bright_pack' has no attribute 'TASKS'"),
        ("absent_pack:TASK", "", r"came ModuleNotFoundError: No module named 'absent_pack'"),
        (
            "bright_pack:TASK",
            "class TASK: name = metric = 'brightness'",
            r"came an object without distill_losses, divergence, infer_scr",
        ),
        (
            "bright_pack:TASK",
            "from toy_task.task import ToyTask\nclass Dark(ToyTask): name = 'dark'\nTASK = Dark()",
            r"came a task with name = 'dark'",
        ),
    ],
)
def test_a_package_that_gives_no_task_is_told(site: Path, offers: str, code: str, told: str) -> None:
    install(site, f"brightness = {offers}", code=code)
    with pytest.raises(ConfigError, match=told) as caught:
        get_task("brightness")
    assert f"at {offers} of brightness-pack 1.2" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert get_task("classification").name == "classification"


def test_a_task_that_is_older_than_its_own_axes_is_taken_and_reads_none_of_them(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "brightness = bright_pack:TASK")
    monkeypatch.delattr(ToyTask, "own_axes")
    task = get_task("brightness")
    assert isinstance(task, ToyTask)
    require_own_axes(task, (NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 1.0))),))
    axis = NamedAxis(name="training.class_weights", axis=Choice(values=("root",)))
    with pytest.raises(ConfigError, match=r"^training\.class_weights: expected an axis that the task 'brightness'"):
        require_own_axes(task, (axis,))


def test_a_task_says_how_pictures_of_another_shape_are_fitted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "brightness = bright_pack:TASK")
    monkeypatch.setattr(ToyTask, "fit", "stretch")
    fits = {name: usual_fit(get_task(name)) for name in task_names()}
    assert fits == {"brightness": "stretch", "classification": "crop", "detection": "pad", "segmentation": "pad"}
    monkeypatch.delattr(ToyTask, "fit")
    assert usual_fit(get_task("brightness")) == "crop"  # a task that is older than this attribute


def test_a_name_is_checked_without_loading_its_task(site: Path) -> None:
    install(site, "brightness = pack:TASK", code="raise RuntimeError('loaded')")
    check_task_name("brightness")
    check_task_name("classification")
    with pytest.raises(ConfigError, match=r"'brightnes'\. Did you mean 'brightness'"):
        check_task_name("brightnes")


def test_two_tasks_of_one_name_are_refused(site: Path) -> None:
    install(site, "brightness = bright_pack:TASK\nclassification = bright_pack:TASK")
    install(site, "brightness = other_pack:TASK", name="other-pack")
    with pytest.raises(
        ConfigError, match=r"found (bright|other)_pack:TASK of \S+ 1\.2 and (bright|other)_pack:TASK of"
    ):
        get_task("brightness")
    with pytest.raises(ConfigError, match=r"found scalesearch itself and bright_pack:TASK of brightness-pack 1\.2"):
        get_task("classification")


def test_a_broken_package_does_not_hide_what_stands_behind_a_score(site: Path, make_record: object) -> None:
    install(site, "a_broken_one = absent_pack:TASK\nbrightness = bright_pack:TASK")
    assert callable(make_record)
    record: TrialRecord = make_record(0)
    views = views_of(record)
    assert views is not None and views.picture == "classes.svg"


def test_the_sources_of_a_task_give_its_targets(site: Path) -> None:
    install(site, "brightness = bright_pack:TASK")
    for name in task_names():
        assert {source.targets for source in sources_of(name)} == {get_task(name).targets}
    assert [source.kind for source in sources_of("classification")] == ["synthetic", "torchvision", "folder", "npz"]


def test_a_task_whose_sources_give_other_targets_is_told(site: Path) -> None:
    code = "from toy_task.task import ToyTask\nclass Mixed(ToyTask): targets = 'boxes'\nTASK = Mixed()\n"
    install(site, "brightness = bright_pack:TASK", code=code)
    with pytest.raises(ConfigError, match=r"expected data sources with boxes, came its source 'flats' with levels"):
        sources_of("brightness")


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


def shapes(task: str, **scaling: Any) -> dict[str, tuple[int, ...]]:
    spec = scale(find_spec("resnet_scene"), Scaling(**scaling), resolution_px=SIZE, num_classes=5)
    return {name: tuple(each.shape) for name, each in get_task(task).make_module(spec).named_parameters()}


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_the_neck_follows_what_it_is_told_to(task: str) -> None:
    row = "heads.0.class_tower" if task == "detection" else "smooth"
    alone = shapes(task, depth=2, kernel=1.67)
    backbone = {name: shape for name, shape in alone.items() if name.startswith(("stem.", "stages."))}
    for follows, deep, wide in (
        ("width", False, False), ("width_depth", True, False), ("width_kernel", False, True), ("all", True, True),
    ):  # fmt: skip
        found = shapes(task, depth=2, kernel=1.67, neck_follows=follows)
        assert backbone.items() <= found.items()
        assert found[f"{row}.0.weight"][2:] == ((5, 5) if wide else (3, 3))
        assert (f"{row}.3.weight" in found) == deep
    assert shapes(task) == shapes(task, neck_follows="all"), "nothing to follow at multiplier 1"


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_longer_row_begins_without_effect_in_a_child(task: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.randn(4, 3, *SIZE.sides)

    def made(seed: int, **scaling: Any) -> Network:
        spec = scale(find_spec("resnet_scene"), Scaling(**scaling), resolution_px=SIZE, num_classes=3)
        network = build(spec, get_task(task).make_module, seed=seed)
        with torch.no_grad():
            network.module.train()(images)  # norms with statistics of their own
        network.module.eval()
        return network

    parent, child = made(0), made(1, depth=2.0, kernel=1.67, neck_follows="all")
    judged = Judged(images=images, targets=images, loss=lambda answers, _: answers.pow(2).mean())
    with torch.no_grad():  # not inference mode, in which no dependency graph can be read
        wanted = parent.module(images)
        given = inherit(parent, child, judged=judged, loss_without=lambda _: 0.0).module.eval()(images)
    torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4)


def test_lraspp_has_nothing_that_could_follow() -> None:
    usual = Scaling(depth=2, kernel=1.67, decoder="lraspp")
    specs = {
        scale(find_spec("resnet_scene"), each, resolution_px=SIZE, num_classes=5)
        for each in (usual, replace(usual, neck_follows="all"))
    }
    assert len(specs) == 1, "one network, so it is trained once"


def test_identities_of_networks_with_the_usual_neck_stay() -> None:
    usual = Scaling(width=0.5)
    assert content_hash(usual) == content_hash(replace(usual, neck_width=1.0, neck_follows="width"))
    assert content_hash(usual) != content_hash(replace(usual, neck_follows="all"))
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


@pytest.mark.parametrize(
    ("task", "name", "readers"),
    [
        ("classification", "training.scale_fraction", "--task detection or --task segmentation"),
        ("classification", "training.class_weights", "--task segmentation"),
        ("detection", "training.class_weights", "--task segmentation"),
    ],
)
def test_what_is_done_to_pixels_is_for_tasks_of_pixels(task: str, name: str, readers: str) -> None:
    axis = NamedAxis(name=name, axis=Choice(values=("root",) if name.endswith("weights") else (0.2,)))
    with pytest.raises(ConfigError, match=rf"^{name}: expected an axis that the task '{task}' reads") as caught:
        require_own_axes(get_task(task), (axis,))
    assert str(caught.value).endswith(f"give {readers}.") and len(str(caught.value).splitlines()) <= 3


def test_a_run_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    settings, space = load_run(overrides=["scaling.neck_width=[0.5, 1.0]"], flags={"target": "cpu"})
    with pytest.raises(
        ConfigError, match=r"scaling\.neck_width: expected an axis that the task 'classification' reads"
    ):
        open_session(settings, space, tmp_path / "study")
    assert not (tmp_path / "study").exists()
