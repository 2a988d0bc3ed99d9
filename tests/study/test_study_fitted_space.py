"""A space is fitted to its study: what trained weights change, and what the first run decided."""

from dataclasses import replace

import pytest

from scalesearch.deployment.targets import get_target
from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.study.fitted_space import fitted_space, require_sizes, size_notes
from scalesearch.tasks.registry import get_task
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.space import Axis, Choice, NamedAxis, Range, SearchSpace

CRITERION = "pruning.criterion"
CUT = NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25)))
TRAINED = "torchvision:IMAGENET1K_V1"


def space(*axes: NamedAxis) -> SearchSpace:
    return SearchSpace(name="own", network="resnet_small", resolution_px=32, axes=axes)


def criterion(
    asked: SearchSpace, *, base: NetworkSpec | None = None, stored: SearchSpace | None = None, parent: str = ""
) -> Axis | None:
    fitted = fitted_space(asked, base or base_spec("resnet_small"), get_target("cpu"), stored, parent=parent)
    return next((named.axis for named in fitted.axes if named.name == CRITERION), None)


def test_channels_of_trained_weights_are_ranked_by_taylor() -> None:
    own = replace(base_spec("resnet_small"), origin="package.module:function")
    assert criterion(space(CUT), parent=TRAINED) == Choice(values=("taylor",))
    assert criterion(space(CUT), base=own) == Choice(values=("taylor",))
    assert criterion(space(CUT)) is None


def test_a_space_without_cuts_or_with_a_criterion_of_its_own_keeps_what_it_has() -> None:
    named = NamedAxis(name=CRITERION, axis=Choice(values=("l2", "random")))
    assert criterion(space(), parent=TRAINED) is None
    assert criterion(space(CUT, named), parent=TRAINED) == named.axis


@pytest.mark.parametrize("begun_with", [None, "taylor", "l2"])
def test_a_study_goes_on_with_the_criterion_of_its_first_run(begun_with: str | None) -> None:
    stored = space(CUT) if begun_with is None else space(CUT).with_fixed(CRITERION, begun_with)
    kept = criterion(space(CUT), stored=stored, parent=TRAINED)
    assert kept == (None if begun_with is None else Choice(values=(begun_with,)))


def wide(height_px: int, width_px: int, *, multiple: int = 0, resolution: Axis | None = None) -> SearchSpace:
    axes = (NamedAxis(name="scaling.resolution", axis=resolution),) if resolution else ()
    return SearchSpace(
        name="wide",
        network="resnet_scene",
        resolution_px=height_px,
        width_px=width_px,
        resolution_multiple=multiple,
        axes=axes,
    )


REFUSED = (
    (wide(720, 1280, multiple=16), "720x1280 px"),
    (wide(704, 1280, multiple=16, resolution=Choice(values=(0.5, 0.75))), "528x960 px"),
    (wide(128, 128, multiple=8, resolution=Range(low=0.5, high=1.0)), "72 px"),
)
TAKEN = (
    wide(720, 1280),
    wide(704, 1280, multiple=64),
    wide(704, 1280, multiple=16, resolution=Choice(values=(0.5, 1.0))),
    wide(128, 128, multiple=8, resolution=Range(low=0.5, high=1.0, step=0.25)),
)


@pytest.mark.parametrize("task", ["segmentation", "detection"])
@pytest.mark.parametrize(("asked", "came"), REFUSED)
def test_sizes_whose_feature_maps_cannot_be_joined_are_refused(task: str, asked: SearchSpace, came: str) -> None:
    with pytest.raises(ConfigError, match=f"expected sides that are multiples of 32 px.*came {came}"):
        require_sizes(asked, base_spec("resnet_scene"), get_task(task))


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_sizes_that_the_stride_divides_are_taken_and_classifiers_take_all(task: str) -> None:
    for asked in (*TAKEN, *((asked for asked, _ in REFUSED) if task == "classification" else ())):
        require_sizes(asked, base_spec("resnet_scene"), get_task(task))


def test_sides_that_are_rounded_are_told_with_what_the_crop_loses_by_that() -> None:
    base = base_spec("resnet_scene")
    rounded = "images: resolution_px asks for 720x1280 px, which becomes 736x1280 px: sides are multiples of 32 px"
    asked = wide(720, 1280)
    stride = f"{rounded}, the network's total stride"
    assert list(size_notes(asked, base, "crop")) == [f"{stride}; of an image of 720x1280 px the crop keeps 720x1252 px"]
    assert list(size_notes(asked, base, "pad")) == list(size_notes(asked, base, "stretch")) == [stride]
    assert list(size_notes(wide(720, 1280, multiple=32), base, "pad")) == [rounded]
    for whole in (wide(704, 1280), wide(736, 1280), wide(720, 1280, multiple=16)):
        assert not list(size_notes(whole, base, "crop"))
    assert not list(size_notes(asked, base_spec("resnet_small"), "crop"))
    square = replace(asked, resolution_px=100, width_px=0)
    (told,) = size_notes(square, base, "crop")
    assert told.startswith("images: resolution_px asks for 100 px, which becomes 96 px: ") and "crop" not in told
