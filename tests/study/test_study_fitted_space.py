"""A space is fitted to its study: what trained weights change, and what the first run decided."""

from dataclasses import replace

import pytest

from scalesearch.deployment.targets import get_target
from scalesearch.networks import base_spec
from scalesearch.study.fitted_space import fitted_space
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.space import Axis, Choice, NamedAxis, SearchSpace

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
