"""Names are looked up in one way, and members of a family are loaded by the place of their code."""

import pytest

from scalesearch.errors import ConfigError
from scalesearch.registry import load, look_up, nearest

_MEMBERS = {"north": 1, "south": 2}


def test_a_member_is_found_by_its_name() -> None:
    assert look_up("south", _MEMBERS, missing="no side is called") == 2


def test_an_unknown_name_is_told_with_the_nearest_and_all() -> None:
    with pytest.raises(
        ConfigError, match=r"^no side is called 'sout'\. Did you mean 'south'\? There are: north, south$"
    ):
        look_up("sout", _MEMBERS, missing="no side is called")
    with pytest.raises(ConfigError, match=r"^no side is called 'zzz'\. There are: north, south, auto$"):
        look_up("zzz", _MEMBERS, missing="no side is called", more_names=["auto"])


def test_the_nearest_may_be_none() -> None:
    assert nearest("width", ["widht", "depth"]) == "widht"
    assert nearest("zzz", ["widht", "depth"]) == ""
    assert nearest("wide", ["width"], cutoff=0.9) == ""


def test_a_member_is_loaded_when_asked_for() -> None:
    assert load("scalesearch.errors:ConfigError") is ConfigError
    with pytest.raises(AttributeError):
        load("scalesearch.errors:Missing")
