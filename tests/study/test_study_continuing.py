"""What is known of the study that a command would continue: what it has used, and whether it can go on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from parent_studies import SPACE, colours, opened

from scalesearch.config import load_run, parse_space
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.networks import find_spec
from scalesearch.records.run_file import read_run_file
from scalesearch.records.store import RecordStore
from scalesearch.study import continuing
from scalesearch.study.continuing import begun_study, refuse_other_settings, target_here
from scalesearch.study.fitted_space import fitted_space
from scalesearch.study.parent_sources import FoundParent
from scalesearch.values.parent import Parent
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings, RunSettings
from scalesearch.values.space import SearchSpace

pytestmark = pytest.mark.usefixtures("stand_in_reference")


@pytest.fixture
def begun(tmp_path: Path) -> Session:
    colours(tmp_path / "three.npz", 3, seed=0)
    opened(tmp_path / "study", tmp_path / "three.npz")
    stored = read_run_file(tmp_path / "study")
    assert stored
    return stored


def asked(data: Path) -> tuple[RunSettings, SearchSpace]:
    """The settings and the space of the study, as its command gives them."""
    settings, _ = load_run(flags={"data.source": str(data), "target": "cpu"}, overrides=[])
    settings = replace(
        settings,
        latency=replace(settings.latency, max_s=0.2, warmup_s=0.02),
        machine=MachineSettings(threads=1, bf16="off", device="cpu"),
    )
    return settings, parse_space(dict(SPACE), name="s", origin="s.toml")


def refuse(stored: Session, settings: RunSettings, space: SearchSpace) -> None:
    base = find_spec(space.network)
    space = fitted_space(space, base, stored.target, stored.space, parent=settings.parent)
    refuse_other_settings(stored, settings, space, base, stored.target)


def test_a_folder_without_a_study_has_none(tmp_path: Path) -> None:
    assert begun_study(tmp_path) is None and begun_study(tmp_path / "nowhere") is None


def test_what_was_trained_is_used_of_the_budget(begun: Session, make_record: Callable[..., MeasuredTrial]) -> None:
    store = RecordStore(begun.folder)
    for trial, new_steps in ((0, 300), (1, 100), (2, 0)):
        record = make_record(trial)
        training = replace(record.training, steps=300, new_steps=new_steps)
        store.save(replace(record, training=training, charged=bool(new_steps)))
    found = begun_study(begun.folder)
    assert found and found.charged == pytest.approx(4 / 3, abs=1e-6) and found.session == begun
    assert replace(found, full_updates=1200).charged == pytest.approx(1 / 3, abs=1e-6), "made longer"


def test_the_same_command_goes_on_and_another_is_told_what_differs(begun: Session, tmp_path: Path) -> None:
    settings, space = asked(tmp_path / "three.npz")
    refuse(begun, settings, space)
    refuse(begun, replace(settings, budget=99, workers=3, sampler="random"), space)
    with pytest.raises(ConfigError, match=r"settings\.seed: was 0, is 5.*\n.*--fresh"):
        refuse(begun, replace(settings, seed=5), space)
    wider = parse_space({**SPACE, "scaling": {"width": [0.5, 2.0], "depth": [1.0]}}, name="s", origin="s.toml")
    with pytest.raises(ConfigError, match=r"space\.axes\.scaling\.width"):
        refuse(begun, settings, wider)
    elsewhere = replace(begun, device=replace(begun.device, backend_version="0.1"))
    with pytest.raises(ConfigError, match=r"device\.backend_version: was '0\.1'"):
        refuse(elsewhere, settings, space)


def test_a_space_is_fitted_to_the_chip_that_is_here_as_in_a_run(
    begun: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study's chip has no fp8, though the target by its name alone may have it."""
    plain = replace(begun.target, precisions=(*begun.target.precisions, "fp8"))
    fitted = replace(plain, precisions=begun.target.precisions)
    monkeypatch.setattr(continuing, "fit_chip", lambda _: fitted)
    assert target_here(plain, begun, threads=1) == fitted

    def absent(_: str) -> None:
        raise MissingBackendError("no such backend here")

    monkeypatch.setattr(continuing, "get_backend", absent)
    assert target_here(plain, begun, threads=1) == begun.target
    other = replace(plain, name="other")
    assert target_here(other, begun, threads=1) == other


def test_a_parent_is_compared_as_far_as_it_is_known(
    begun: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, space = asked(tmp_path / "three.npz")
    found = FoundParent(
        spec=begun.base, sha256="a" * 64, tensors={}, class_names=(), mean=(0.5,) * 3, std=(0.5,) * 3, licence="free",
    )  # fmt: skip
    monkeypatch.setattr(continuing, "find_parent", lambda *_: found)
    inheriting = replace(settings, parent="moved.pth")
    with pytest.raises(ConfigError, match=r"parent\.\w+: was 'absent'"):
        refuse(begun, inheriting, space)
    parent = Parent(
        source="weights.pth", sha256="a" * 64, licence="free", network=begun.base, mean=(0.5,) * 3, std=(0.5,) * 3,
        head="new", steps=240, key="b" * 64,
    )  # fmt: skip
    with_parent = replace(begun, parent=parent)
    refuse(with_parent, inheriting, space)
    with pytest.raises(ConfigError, match=r"parent\.\w+: was .*, is 'absent'"):
        refuse(with_parent, settings, space)
    with pytest.raises(ConfigError, match=r"parent\.steps: was 240, is 4"):
        refuse(with_parent, replace(inheriting, parent_steps=4), space)
    monkeypatch.setattr(continuing, "find_parent", lambda *_: replace(found, sha256="c" * 64))
    with pytest.raises(ConfigError, match=r"parent\.sha256"):
        refuse(with_parent, inheriting, space)
    refuse(with_parent, replace(settings, parent="weights.pth"), space)  # the study keeps it, whatever is there now
