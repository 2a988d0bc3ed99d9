"""A parent is for the base networks of this program."""

from dataclasses import replace

import pytest

from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.study.parent import look_ahead
from scalesearch.values.settings import RunSettings


def test_a_module_of_the_users_own_takes_no_parent() -> None:
    module = replace(base_spec("resnet_small"), origin="mine.nets:make")

    with pytest.raises(ConfigError, match=r"came the module of mine\.nets:make, which has its own weights") as caught:
        look_ahead(RunSettings(parent="weights.pth"), module)

    assert len(str(caught.value).splitlines()) <= 3
    assert look_ahead(RunSettings(), module) is None
