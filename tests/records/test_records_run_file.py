"""run.toml: what is written comes back, and what may not change between the runs of a study."""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from scalesearch.errors import ConfigError
from scalesearch.networks.own_module import code_reader
from scalesearch.records.run_file import (
    NAME,
    layout_of_before,
    read_run_file,
    recorded_command,
    refuse_changes,
    write_run_file,
)
from scalesearch.values.session import Session
from scalesearch.values.settings import DataSettings, DetectionSettings, MachineSettings
from scalesearch.values.space import Choice, Limits


def test_what_is_written_comes_back(session: Session) -> None:
    write_run_file(session)
    assert read_run_file(session.folder) == session


def test_versions_and_machine_are_written_for_people(session: Session) -> None:
    write_run_file(session)
    document = tomllib.loads((session.folder / "run.toml").read_text())
    assert {"torch", "optuna", "onnxruntime", "python"} <= set(document["versions"])
    assert document["host"]["cpus"] >= 1


def test_no_study_is_none(session: Session) -> None:
    assert read_run_file(session.folder) is None


@pytest.mark.parametrize("content", ["", "not toml [", "[session]\nspace = 3\n"])
def test_a_damaged_file_is_named_with_the_way_out(session: Session, content: str) -> None:
    (session.folder / "run.toml").write_text(content)
    with pytest.raises(ConfigError, match="--fresh") as caught:
        read_run_file(session.folder)
    assert "run.toml cannot be read" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@dataclass(frozen=True)
class Change:
    name: str
    make: Callable[[Session], Session]
    refused: bool
    says: tuple[str, ...] = ()


def _wider(session: Session) -> Session:
    axis = replace(session.space.axes[0], axis=Choice(values=(0.5, 2.0)))
    return replace(session, space=replace(session.space, axes=(axis, *session.space.axes[1:])))


CHANGES = (
    Change("space", _wider, True, ("scaling.width", "1.0", "2.0")),
    Change(
        "limits",
        lambda s: replace(s, space=replace(s.space, limits=Limits(max_macs=5))),
        True,
        ("max_macs", "'absent'", "5"),
    ),
    Change("data", lambda s: replace(s, data=replace(s.data, fingerprint="0" * 64)), True, ("data.fingerprint",)),
    Change("device", lambda s: replace(s, device=replace(s.device, name="Xeon")), True, ("AMD EPYC", "Xeon")),
    Change(
        "version", lambda s: replace(s, device=replace(s.device, backend_version="1.33.0")), True, ("1.32.0", "1.33.0")
    ),
    Change("seed", lambda s: replace(s, settings=replace(s.settings, seed=1)), True, ("settings.seed",)),
    Change(
        "latency objective",
        lambda s: replace(s, settings=replace(s.settings, latency=replace(s.settings.latency, objective="end_to_end"))),
        True,
        ("settings.latency.objective: was 'engine', is 'end_to_end'", "--fresh"),
    ),
    Change(
        "score objective",
        lambda s: replace(s, settings=replace(s.settings, detection=DetectionSettings(objective="map50"))),
        True,
        ("settings.detection.objective: was 'map50_95', is 'map50'",),
    ),
    Change(
        "number format",
        lambda s: replace(s, settings=replace(s.settings, machine=MachineSettings(bf16="on"))),
        True,
        ("machine.bf16: was 'off', is 'on'",),
    ),
    Change(
        "the number format that there is",
        lambda s: replace(s, settings=replace(s.settings, machine=MachineSettings(bf16="off"))),
        False,
    ),
    Change("threads", lambda s: replace(s, machine=replace(s.machine, threads=1)), False),
    Change("code never stored", lambda s: replace(s, code_sha256="1" * 64), False),
    Change("budget", lambda s: replace(s, settings=replace(s.settings, budget=99)), False),
    Change("workers", lambda s: replace(s, settings=replace(s.settings, workers=4)), False),
    Change("a renamed folder of the same images", lambda s: replace(s, data=replace(s.data, name="photos")), False),
    Change("words on the space", lambda s: replace(s, space=replace(s.space, summary="as a reader wants it")), False),
    Change("words on the chip", lambda s: replace(s, target=replace(s.target, summary="a processor")), False),
    Change("warnings", lambda s: replace(s, data=replace(s.data, warnings=("two files skipped",))), False),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_what_makes_trials_incomparable_is_refused_with_the_difference(session: Session, change: Change) -> None:
    if not change.refused:
        refuse_changes(session, change.make(session))
        return
    with pytest.raises(ConfigError) as caught:
        refuse_changes(session, change.make(session))
    for part in change.says:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert str(caught.value).endswith("or --to another folder.")
    with pytest.raises(ConfigError) as caught:
        refuse_changes(session, change.make(session), way_out="Give another folder.")
    assert str(caught.value).endswith("\nGive another folder.") and "--fresh" not in str(caught.value)


def test_what_this_version_reads_otherwise_is_said_where_the_images_differ(session: Session) -> None:
    told = "data x: transparent pixels have no class (earlier versions: the second)"
    other = replace(session.data, fingerprint="b" * 64, warnings=("data x: something new", told))
    with pytest.raises(ConfigError) as caught:
        refuse_changes(session, replace(session, data=other))
    assert f"\n{told}; data.fingerprint: was " in str(caught.value)
    assert "something new" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    refuse_changes(session, replace(session, data=replace(other, fingerprint=session.data.fingerprint)))


@pytest.mark.parametrize("secret", ["xyzzy", "xy#zzy", "xy?zzy", "xy/zzy", "xy zzy"])
def test_the_recorded_command_holds_no_password(secret: str) -> None:
    refused, replaced = f"storage=postgresql://ann:{secret}@db/x", "storage=postgresql://ann@db/x"
    told = recorded_command(["/usr/bin/scalesearch", "run", "--set", refused, f"--set={refused}", "--set", replaced])
    assert "zzy" not in told
    assert told.startswith("scalesearch run --set storage=... --set=storage=... --set storage=postgresql://ann@db/x")
    assert "zzy" not in recorded_command(["scalesearch", "run", f"--data=postgresql://ann:{secret}@db/x"])


def test_names_that_are_no_utf8_are_written_by_their_bytes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"caf\xe9")
    monkeypatch.setattr("sys.argv", ["scalesearch", "run", "--data", odd])
    write_run_file(replace(session, data=replace(session.data, name=odd)))
    text = (session.folder / NAME).read_text(encoding="utf-8")
    assert r"caf\\xe9" in text
    read = read_run_file(session.folder)
    assert read is not None and read.data.name == r"caf\xe9"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"reference_calm_ms = .*", "reference_calm_ms = nan", "reference_calm_ms = nan"),
        (r"storage_px = .*", "storage_px = " + "9" * 5000, "cannot be read"),
        (r"storage_px = .*", "storage_px = " + "[" * 5000, "nests too deep"),
        (r'storage = ""', 'storage = "postgresql://ann:xyzzy#@db/x"', "storage: expected postgresql://"),
    ],
)
def test_a_spoiled_run_file_is_refused_in_words(session: Session, old: str, new: str, words: str) -> None:
    write_run_file(session)
    path = session.folder / NAME
    path.write_text(re.sub(old, new, path.read_text(), count=1))
    with pytest.raises(ConfigError, match=words) as caught:
        read_run_file(session.folder)
    assert "xyzzy" not in str(caught.value)


def test_a_study_of_before_the_standard_error_said_its_unit_goes_on(session: Session) -> None:
    write_run_file(session)
    path = session.folder / "run.toml"
    path.write_text(path.read_text().replace("val_standard_error_points", "val_standard_error"))
    stored = read_run_file(session.folder)
    assert stored == session
    refuse_changes(stored, session)


def test_a_study_of_old_opens_without_what_was_added_since(session: Session) -> None:
    write_run_file(replace(session, reference_sha256="a" * 64, run_folder="/somewhere"))
    file = session.folder / "run.toml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(line for line in lines if not line.startswith(("reference_sha256", "run_folder"))))
    stored = read_run_file(session.folder)
    assert stored == session
    refuse_changes(session, replace(session, reference_sha256="a" * 64, run_folder="/somewhere"))


def test_a_study_from_before_a_latency_setting_was_there_goes_on(session: Session) -> None:
    write_run_file(session)
    path = session.folder / "run.toml"
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith("stable_within")]
    assert len(kept) == len(lines) - 1
    path.write_text("\n".join(kept))
    stored = read_run_file(session.folder)
    assert stored == session
    assert stored is not None
    refuse_changes(stored, session)


def test_a_study_from_before_scores_could_be_chosen_goes_on(session: Session) -> None:
    write_run_file(session)
    path = session.folder / "run.toml"
    before, _, after = path.read_text().partition("[session.settings.detection]")
    path.write_text(before + "[" + after.partition("[")[2])
    assert "detection" not in path.read_text()
    stored = read_run_file(session.folder)
    assert stored == session
    refuse_changes(stored, session)


def test_a_module_with_other_weights_cannot_go_on(session: Session) -> None:
    base = replace(session.base, stages=(), origin="mine:network", origin_sha256="a" * 64, mean=(0.5,), std=(0.2,))
    own = replace(session, base=base)
    write_run_file(own)
    stored = read_run_file(own.folder)
    assert stored == own
    refuse_changes(own, own)
    with pytest.raises(ConfigError, match=r"base\.origin_sha256: was 'aaaa"):
        refuse_changes(own, replace(own, base=replace(base, origin_sha256="b" * 64)))


def test_other_code_of_a_users_module_is_refused_where_both_are_known(session: Session) -> None:
    session = replace(session, base=replace(session.base, origin="mine:network"), code_sha256="a" * 64)
    refuse_changes(session, session)
    refuse_changes(replace(session, code_sha256=""), session)
    changed = replace(session, code_sha256="b" * 64)
    refuse_changes(session, replace(changed, code_read_by="Python 3.12, torch 2.99"))
    with pytest.raises(ConfigError, match=r"the code of mine:network: was a{12}\.\.\., is b{12}\.") as told:
        refuse_changes(session, changed)
    assert len(str(told.value).splitlines()) <= 3
    write_run_file(changed)  # as earlier versions did, without the versions that read the code
    stored = read_run_file(session.folder)
    assert stored and stored.code_read_by == code_reader()
    assert replace(stored, code_read_by="") == changed


def test_a_study_of_before_opens_where_its_images_are_those_of_another_user() -> None:
    for source in ("~a_user_that_nobody_is/photos", "no such folder"):
        data = DataSettings(source=source)
        assert layout_of_before(data, ("a", "b")) == data
