"""A user's own network: found in the current folder, and every way it can go wrong."""

import sys
from pathlib import Path

import pytest

from scalesearch.errors import ConfigError
from scalesearch.networks import find_spec, load_spec

OWN_NETWORK = """
from dataclasses import replace
from scalesearch.networks import base_spec

def tiny():
    return replace(base_spec("resnet_small"), name="tiny")

def broken():
    return replace(base_spec("resnet_small"), stages=())

def wants(width):
    return width

def a_number():
    return 3

constant = 5
"""

LATE_IMPORT = """
import pickle

def late():
    from my_nets_xyz import tiny
    return tiny()

def unpickled():
    return pickle.loads(b"cpack_xyz.inner\\ntiny\\n.")()

def missing():
    import surely_not_there_xyz
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_nets_xyz.py").write_text(OWN_NETWORK)
    (tmp_path / "needs_more_xyz.py").write_text("import surely_not_installed_xyz")
    (tmp_path / "crashes_xyz.py").write_text("1 / 0")
    (tmp_path / "pack_xyz").mkdir()
    (tmp_path / "pack_xyz" / "inner.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if "_xyz" in name]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize("reference", ["my_nets_xyz:tiny", "pack_xyz.inner:tiny"])
def test_a_function_in_the_current_folder_gives_its_spec(reference: str) -> None:
    path = list(sys.path)
    assert load_spec(reference).name == "tiny"
    assert find_spec(reference).name == "tiny"
    assert sys.path == path


def test_a_function_may_import_modules_beside_its_own_when_it_is_called(own_folder: Path) -> None:
    (own_folder / "late_xyz.py").write_text(LATE_IMPORT)
    path = list(sys.path)
    assert load_spec("late_xyz:late").name == "tiny"
    assert load_spec("late_xyz:unpickled").name == "tiny"
    with pytest.raises(ConfigError, match="failed with ModuleNotFoundError: No module named 'surely_not_there_xyz'"):
        load_spec("late_xyz:missing")
    assert sys.path == path


FAULTS = {
    "my_nets_xyz": r"given as package.module:function, not 'my_nets_xyz'",
    ":tiny": "given as package.module:function",
    "my_nets_xyz:": "given as package.module:function",
    "my nets:tiny()": "given as package.module:function",
    "..my_nets:tiny": "given as package.module:function",
    "no_such_xyz:tiny": "no module 'no_such_xyz', neither installed nor in",
    "pack_xyz.outer:tiny": "no module 'pack_xyz.outer', neither installed nor in",
    "needs_more_xyz:tiny": "module needs_more_xyz itself needs 'surely_not_installed_xyz', which is not installed",
    "crashes_xyz:tiny": "importing crashes_xyz failed with ZeroDivisionError",
    "my_nets_xyz:tinny": "module my_nets_xyz has no 'tinny'; did you mean 'tiny'",
    "my_nets_xyz:constant": "expected a function that returns a NetworkSpec, found 5",
    "my_nets_xyz:wants": "calling it without arguments failed with TypeError",
    "my_nets_xyz:a_number": "expected a scalesearch NetworkSpec or a torch.nn.Module, got int",
    "my_nets_xyz:broken": "network 'resnet_small' cannot be built: stages is empty",
}


@pytest.mark.parametrize("reference", FAULTS)
def test_faults_are_named(reference: str) -> None:
    with pytest.raises(ConfigError, match=FAULTS[reference]):
        load_spec(reference)


HOSTILE_NETWORKS = """
import os, sys
from dataclasses import replace
from scalesearch.networks import base_spec

class Own(KeyboardInterrupt): ...
class Mute(Exception):
    def __str__(self): raise RuntimeError

def exits(): sys.exit("enough")
def exits_well(): sys.exit(0)
def interrupts(): raise Own("own words")
def generator(): raise GeneratorExit
def mute(): raise Mute
def talks():
    print("to stdout"); os.write(1, b"by descriptor"); os.system("echo by a child"); sys.__stdout__.write("back door")
    return replace(base_spec("resnet_small"), name="talks")
def numbers(): return replace(base_spec("resnet_small"), stages=(1, 2))
def nothing(): return replace(base_spec("resnet_small"), stem=None)
def huge():
    base = base_spec("resnet_small")
    return replace(base, stages=(replace(base.stages[0], kernel=1000001),))
def ctrl_c(): raise KeyboardInterrupt
"""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("exits", "failed with SystemExit: enough"),
        ("exits_well", "failed with SystemExit: 0"),
        ("interrupts", "failed with Own: own words"),
        ("generator", "failed with GeneratorExit"),
        ("mute", "failed with Mute"),
        ("numbers", "stages must be a tuple of StageSpec"),
        ("nothing", "stem must be a StemSpec, not NoneType"),
        ("huge", "stages.1.kernel must be at most 255, not 1000001"),
    ],
)
def test_whatever_a_function_raises_is_told(function: str, words: str, own_folder: Path) -> None:
    (own_folder / "hostile_xyz.py").write_text(HOSTILE_NETWORKS)
    with pytest.raises(ConfigError, match=words) as caught:
        load_spec(f"hostile_xyz:{function}")
    assert len(str(caught.value).splitlines()) == 1


def test_ctrl_c_stays_ctrl_c(own_folder: Path) -> None:
    (own_folder / "hostile_xyz.py").write_text(HOSTILE_NETWORKS)
    with pytest.raises(KeyboardInterrupt):
        load_spec("hostile_xyz:ctrl_c")


def test_what_a_function_prints_is_not_in_stdout(own_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own_folder / "hostile_xyz.py").write_text(HOSTILE_NETWORKS)
    assert load_spec("hostile_xyz:talks").name == "talks"
    print("after")
    out, err = capfd.readouterr()
    assert out == "after\n"
    assert all(f"{words}" in err for words in ("to stdout", "by descriptor", "by a child"))
