"""A session keeps how its images are read, so that all later work reads them alike."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.calibration_images import calibration_indices
from scalesearch.errors import ConfigError
from scalesearch.export.reading import reading_facts
from scalesearch.records.run_file import read_run_file, write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.study.preparation import Preparation
from scalesearch.study.session import open_session
from scalesearch.tasks.registry import get_task
from scalesearch.values.candidate import Recipe
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session, reference_path
from scalesearch.values.settings import DEFAULT_SAMPLER, Machine, RunSettings
from scalesearch.values.space import Axis, Choice, NamedAxis, SearchSpace

SPACE = 'network = "resnet_small"\nresolution_px = 16\n[training]\nsteps = 2\n'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    machine = Machine(device="cpu", threads=1, bf16=False, channels_last=True)
    monkeypatch.setattr("scalesearch.study.session.probe_machine", lambda *_, **__: machine)

    def made(session: Session, _: object) -> Session:
        session.folder.mkdir(exist_ok=True)
        reference_path(session.folder).write_bytes(b"reference")
        return replace(session, reference_calm_ms=0.5)

    monkeypatch.setattr("scalesearch.study.session.make_reference", made)


def write(root: Path, top: int, *, first: int = 0, names: Sequence[str] = "ab") -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(first, first + 12):
            values = np.random.default_rng((label, index)).integers(0, top + 1, (16, 20))
            Image.fromarray(values.astype(np.uint16)).save(root / name / f"{index}.png")
    return root


def opened(root: Path, *overrides: str, **more: Any) -> Session:
    space_file = root.parent / "tiny.toml"
    space_file.write_text(SPACE)
    flags = {"data.source": str(root)}
    settings, space = load_run(space=str(space_file), overrides=("data.calibration_images=4", *overrides), flags=flags)
    return open_session(settings, space, root.parent / "study", **more)


def test_the_window_found_is_kept_and_all_later_work_reads_by_it(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    session = opened(root)
    stored = read_run_file(session.folder)
    assert stored is not None
    assert session.settings.data.window == stored.settings.data.window == (0.0, 1023.0)
    again = load_dataset(
        stored.settings.data, LABEL_SOURCES, storage_px=stored.storage_px
    )  # as workers, confirm and export do
    assert again.fingerprint == session.data.fingerprint
    assert "data.window = [0, 1023]" in " ".join(session.data.warnings)
    found = calibration_indices(
        stored.settings.data, LABEL_SOURCES, storage_px=stored.storage_px, count=4, fingerprint=session.data.fingerprint
    )
    assert len(found) == 4


def test_the_time_of_the_training_that_decides_flips_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]

    def decided(session: Session, *_: object, **__: object) -> Session:
        now_s[0] += 7.0
        return session

    monkeypatch.setattr("scalesearch.study.session.with_flip", decided)
    preparation = Preparation(now=lambda: now_s[0])
    opened(write(tmp_path / "scans", 1000), preparation=preparation)
    assert preparation.seconds == 7.0


def test_a_resumed_study_keeps_its_window_without_being_told(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    first = opened(root, "data.window=[0, 2047]")
    assert opened(root).settings.data.window == first.settings.data.window == (0.0, 2047.0)


def test_a_study_from_before_goes_on_with_the_pixels_that_it_had(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 4095)
    before = opened(root, "data.window=full")
    run_file = before.folder / "run.toml"
    run_file.write_text(run_file.read_text().replace('window = "full"\n', ""))
    resumed = opened(root)
    assert resumed.data.fingerprint == before.data.fingerprint
    assert "grey levels are left" in " ".join(resumed.data.warnings)


def test_classes_that_mirror_images_mix_up_are_told_also_when_a_study_goes_on(tmp_path: Path) -> None:
    root = write(tmp_path / "arrows", 1000, names=("turn_left", "turn_right"))
    for _ in range(2):
        warnings = opened(root, "training.flip=true").data.warnings
        assert len([text for text in warnings if "classes turn_left and turn_right differ by" in text]) == 1
    other = write(tmp_path / "other" / "arrows", 1000, names=("turn_left", "turn_right"))
    assert "turn_left" not in " ".join(opened(other).data.warnings)


SIGNS = ("task=detection", "network=resnet_scene", "resolution_px=[32,64]")


def boxed(root: Path) -> Path:
    """Write a YOLO set of tall pictures with a sign in the middle, and one at the top where no crop would reach."""
    for split, count in (("train", 8), ("val", 3)):
        for number in range(count):
            image, label = (root / kind / split / str(number) for kind in ("images", "labels"))
            image, label = image.with_suffix(".png"), label.with_suffix(".txt")
            for file in (image, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng((count, number)).integers(0, 256, (40, 30, 3), np.uint8)
            Image.fromarray(pixels).save(image)
            label.write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.06 0.2 0.1\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [sign]\n")
    return root


def test_a_new_study_of_detectors_sees_whole_pictures_and_one_of_classifiers_their_centre(tmp_path: Path) -> None:
    session = opened(boxed(tmp_path / "signs"), *SIGNS)
    stored = read_run_file(session.folder)
    assert stored is not None
    assert session.settings.data.fit == stored.settings.data.fit == "pad"
    assert reading_facts(session.base, session.settings.data)["fit"] == "pad"
    assert "centre crop" not in " ".join(session.data.warnings)
    assert opened(write(tmp_path / "other" / "scans", 1000)).settings.data.fit == "crop"


@pytest.mark.parametrize("older", [False, True], ids=["cropped", "before data.fit"])
def test_a_study_that_was_begun_with_the_crop_goes_on_with_it(tmp_path: Path, older: bool) -> None:
    root = boxed(tmp_path / "signs")
    before = opened(root, *SIGNS, "data.fit=crop")
    assert "boxes lie outside the centre crop" in " ".join(before.data.warnings)
    run_file = before.folder / "run.toml"
    text = run_file.read_text()
    assert 'fit = "crop"\n' in text
    if older:
        run_file.write_text(text.replace('fit = "crop"\n', ""))
    resumed = opened(root, *SIGNS)
    assert resumed.settings.data.fit == "crop" and resumed.data.fingerprint == before.data.fingerprint
    with pytest.raises(ConfigError, match=r"data\.fit: was 'crop', is 'pad'"):
        opened(root, *SIGNS, "data.fit=pad")


def test_a_grey_network_is_given_grey_images(tmp_path: Path) -> None:
    import dataclasses

    from scalesearch.networks import find_spec

    root = write(tmp_path / "scans", 65535)
    base = dataclasses.replace(find_spec("resnet_small"), image_channels=1)
    session = opened(root, base=base)
    assert len(session.data.mean) == len(session.data.std) == 1
    data = load_dataset(session.settings.data, LABEL_SOURCES, storage_px=16, channels=1)
    assert data.train.images.shape[1:] == (16, 16, 1) and data.at(8).train.images.shape[1:] == (8, 8, 1)
    assert data.fingerprint == session.data.fingerprint


def test_a_study_goes_on_from_another_folder_and_with_its_images_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint decides: neither the folder that the command is given in nor the data's name does."""
    write(tmp_path / "project" / "scans", 255)
    (tmp_path / "away").mkdir()
    space_file = tmp_path / "tiny.toml"
    space_file.write_text(SPACE)

    def run(source: str) -> Session:
        settings, space = load_run(
            space=str(space_file), overrides=("data.calibration_images=4",), flags={"data.source": source}
        )
        return open_session(settings, space, tmp_path / "study")

    monkeypatch.chdir(tmp_path / "project")
    run("scans")
    first = run("scans")
    assert first.run_folder == os.getcwd()  # noqa: PTH109  (a text, as it is kept)
    monkeypatch.chdir(tmp_path / "away")
    assert run("scans") == first
    write(tmp_path / "away" / "scans", 200)  # others of that name here
    assert run("scans") == first
    (tmp_path / "project" / "scans").rename(tmp_path / "photos")
    with pytest.raises(ConfigError, match="was run with other settings") as caught:
        run("scans")
    assert "data.fingerprint" in str(caught.value)
    moved = run("../photos")
    assert moved.data == replace(first.data, name="photos", warnings=moved.data.warnings)
    assert read_run_file(tmp_path / "study") == moved, "the study remembers where they are now"
    monkeypatch.chdir(tmp_path)
    assert run("../photos") == moved


def test_the_reference_is_known_from_the_second_run_on_and_refused_if_it_is_another(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 255)
    assert opened(root).reference_sha256 == "", "as in a run.toml of an older version"
    second = opened(root)
    assert len(second.reference_sha256) == 64 and opened(root) == second
    reference_path(second.folder).write_bytes(b"twice as slow")
    with pytest.raises(ConfigError, match=r"reference\.onnx is not the file"):
        opened(root)


def put(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for index in range(12):
            pixels = np.random.default_rng((number, index)).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{index}.png")
    return root


def without_layout(session: Session) -> Session:
    """The study as a program without `data.layout` left it."""
    run_file = session.folder / "run.toml"
    text = run_file.read_text()
    run_file.write_text(text.replace(f'layout = "{session.settings.data.layout}"\n', ""))
    assert run_file.read_text() != text
    stored = read_run_file(session.folder)
    assert stored
    return stored


@pytest.mark.parametrize(
    ("layout", "folders", "classes"),
    [
        ("classes", ("ill/left", "ill/right", "well/left", "well/right"), ("ill", "well")),
        ("splits", ("train/x", "train/y", "val/x", "val/y", "more"), ("x", "y")),
        ("splits", ("train/x", "train/y", "more"), ("x", "y")),
    ],
)
def test_a_study_from_before_layouts_goes_on_where_a_new_one_is_asked(
    layout: str, folders: tuple[str, ...], classes: tuple[str, ...], tmp_path: Path
) -> None:
    root = put(tmp_path / "set", *folders)
    before = opened(root, f"data.layout={layout}")
    stored = without_layout(before)
    assert (
        load_dataset(stored.settings.data, LABEL_SOURCES, storage_px=stored.storage_px).fingerprint
        == before.data.fingerprint
    )
    resumed = opened(root)
    assert resumed.data.fingerprint == before.data.fingerprint and resumed.data.class_names == classes
    run_file = resumed.folder / "run.toml"
    run_file.unlink()
    if len(folders) != 5:
        with pytest.raises(ConfigError, match=r"--set data\.layout=classes"):
            opened(root)


def test_a_study_that_took_splits_for_classes_is_not_continued(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "Training/x", "Training/y", "Testing/x", "Testing/y")
    without_layout(opened(root, "data.layout=classes"))
    with pytest.raises(ConfigError, match=r"data\.fingerprint"):
        opened(root)


def test_a_study_goes_on_with_its_images_on_disk(tmp_path: Path) -> None:
    root, said = put(tmp_path / "set", "a", "b"), list[str]()
    before = opened(root, "data.memory=ram")
    run_file = before.folder / "run.toml"
    text = run_file.read_text()
    run_file.write_text(text.replace('memory = "ram"\n', ""))  # as a program without the setting left it
    assert run_file.read_text() != text
    stored = read_run_file(before.folder)
    assert stored and stored.settings.data.memory == "auto"
    resumed = opened(root, "data.memory=disk", say=said.append)
    assert resumed.data == before.data and resumed.settings.data.memory == "disk"
    assert any("are read from" in line and "as data.memory says" in line for line in said)
    with pytest.raises(ConfigError, match=r"data\.memory"):
        opened(root, "data.memory=tape")


def test_a_built_in_set_is_stored_by_its_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.data.signs.SPLIT_SIZES", (("train", 80), ("val", 20), ("test", 20)))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "signs", "train/x", "train/y")
    session = opened(Path("builtin:signs"))
    assert session.settings.data.source == session.data.name == "signs"
    assert session.synthetic
    stored = read_run_file(session.folder)
    assert stored and stored.settings == session.settings
    assert load_dataset(stored.settings.data, LABEL_SOURCES, storage_px=16).fingerprint == session.data.fingerprint


def test_a_task_that_needs_other_targets_than_the_sources_give_is_refused_before_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(get_task("classification")), "targets", "boxes")
    with pytest.raises(
        ConfigError,
        match=r"'classification': expected data sources with boxes, came its source 'synthetic' with labels",
    ):
        opened(tmp_path / "not_there")


def test_a_space_that_distils_is_refused_without_a_parent_before_images_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.distill_weight = 0\.5: expected a parent"):
        opened(tmp_path / "nothing", "training.distill_weight=[0.0, 0.5]")


def test_end_to_end_is_refused_for_a_task_whose_answers_are_results_before_images_are_read(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"latency\.objective = 'end_to_end': expected a task .*classification has no"
    ):
        opened(tmp_path / "nothing", "latency.objective=end_to_end")


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_sizes_that_the_task_cannot_take_are_refused_before_images_are_read(tmp_path: Path, task: str) -> None:
    flags = {"data.source": str(tmp_path / "nothing"), "task": task, "target": "cpu"}
    odd = ("resolution_px=[720,1280]", "resolution_multiple=16")
    settings, space = load_run(space=get_task(task).space, overrides=odd, flags=flags)
    with pytest.raises(ConfigError, match=r"expected sides that are multiples of 32 px.*came 720x1280 px"):
        open_session(settings, space, tmp_path / "study")


def test_sides_that_are_rounded_are_told(tmp_path: Path) -> None:
    said = list[str]()
    opened(write(tmp_path / "scans", 1000), "resolution_px=20", say=said.append)
    (told,) = [line for line in said if line.startswith("images: ")]
    assert told.startswith("images: resolution_px asks for 20 px, which becomes 24 px: sides are multiples of 8 px, ")


SHIPPED_WITH_OTHER_STEPS = (
    ("resnet_small", 240, "240, 480 or 960"),
    ("resnet_small", 480, "240, 480 or 960"),
    ("resnet_small_compressed", 240, "480"),
    ("resnet_small_compress_only", 240, "480"),
)


def steps_of(space: SearchSpace) -> list[Axis]:
    return [named.axis for named in space.axes if named.name == "training.steps"]


@pytest.mark.parametrize(("name", "former", "now_told"), SHIPPED_WITH_OTHER_STEPS)
def test_a_study_goes_on_with_the_updates_that_its_space_had_when_it_was_begun(
    tmp_path: Path, name: str, former: int, now_told: str
) -> None:
    source = {"data.source": str(write(tmp_path / "scans", 1000))}
    settings, begun = load_run(space=name, overrides=(f"training.steps={former}",), flags=source)
    now = load_run(space=name, flags=source)[1]
    assert steps_of(now) != [Choice(values=(former,))]
    told = list[str]()
    assert open_session(settings, begun, tmp_path / "study", say=told.append).space.name == name
    session = open_session(settings, now, tmp_path / "study", say=told.append)
    assert (steps_of(session.space), session.full_updates) == ([Choice(values=(former,))], 0)
    lines = [line for line in told if f"the {former} updates" in line and f"{name} has {now_told} by now" in line]
    assert len(lines) == 1


@pytest.mark.parametrize(("begun_with", "asked"), [(500, 480), (480, 240)])
def test_fewer_updates_than_a_study_was_begun_with_are_refused(tmp_path: Path, begun_with: int, asked: int) -> None:
    source = {"data.source": str(write(tmp_path / "scans", 1000))}
    spaces = [
        load_run(space="resnet_small", overrides=(f"training.steps={steps}",), flags=source)
        for steps in (begun_with, asked)
    ]
    open_session(*spaces[0], tmp_path / "study")
    with pytest.raises(ConfigError, match=rf"was \D*{begun_with}.*is \D*{asked}"):
        open_session(*spaces[1], tmp_path / "study")


def test_a_study_keeps_its_sampler_unless_another_is_asked_for(tmp_path: Path) -> None:
    source = {"data.source": str(write(tmp_path / "scans", 1000))}

    def sampler(*overrides: str) -> str:
        settings, space = load_run(space="resnet_small", overrides=overrides, flags=source)
        return open_session(settings, space, tmp_path / "study").settings.sampler

    assert RunSettings().sampler == "auto"
    assert sampler("sampler=nsga2") == "nsga2"
    assert sampler() == "nsga2"
    assert sampler("sampler=random") == "random"
    settings, space = load_run(space="resnet_small", flags=source)
    new = open_session(settings, space, tmp_path / "other").settings.sampler
    assert new == RunSettings().sampler_name == DEFAULT_SAMPLER


def test_a_study_remembers_whether_its_sampler_was_taken_by_itself(tmp_path: Path) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()

    def gives_way(*overrides: str) -> bool:
        session = opened(root, *overrides, say=said.append)
        kept = read_run_file(session.folder)
        assert kept and kept.sampler_gives_way == session.sampler_gives_way
        return session.sampler_gives_way

    assert gives_way()
    assert gives_way(), "it goes on"
    told = [line for line in said if line.startswith("sampler: growth, ")]
    assert len(told) == 2 and "samplers were not compared here" in told[0] and "as before" in told[1]
    assert not gives_way("sampler=growth"), "it was asked for"
    assert not gives_way()
    assert [line for line in said if line.startswith("sampler")][-1] == "sampler: growth, as before (--sampler NAME)"


def test_a_study_of_before_that_was_stored_goes_on_with_its_own_sampler(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    session = opened(root)
    assert session.sampler_gives_way
    file = session.folder / "run.toml"
    file.write_text(file.read_text().replace("sampler_gives_way = true\n", ""))
    assert not opened(root).sampler_gives_way


def test_a_begun_study_takes_other_threads_but_no_other_number_format(tmp_path: Path) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    assert opened(root).machine.threads == 1
    machine = opened(root, "machine.threads=4", "machine.bf16=off", say=said.append).machine
    assert machine == Machine(device="cpu", threads=4, bf16=False, channels_last=True)
    assert "machine: as probed by the first run, but with machine.threads = 4" in said
    assert opened(root, say=said.append).machine.threads == 4
    assert "machine: as probed by the first run" in said
    with pytest.raises(ConfigError, match=r"machine\.bf16: was 'off', is 'on'"):
        opened(root, "machine.bf16=on")


SEVERAL = "training.steps=[2,4]"


def test_several_lengths_are_lengths_of_one_training_unless_the_study_was_begun_otherwise(tmp_path: Path) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    session = opened(root, SEVERAL, say=said.append)
    assert (session.settings.lengths, session.full_updates) == ("on", 4)
    assert "lengths: trainings of 2 or 4 updates, as the search decides; the front: 4" in said
    assert opened(root, SEVERAL).settings.lengths == "on"
    with pytest.raises(ConfigError, match="was begun with lengths = on, got off"):
        opened(root, SEVERAL, "lengths=off")
    with pytest.raises(ConfigError, match="need the sampler growth, got tpe"):
        opened(root, SEVERAL, "sampler=tpe")
    # A study of before the setting: every length is a setting like any other.
    file = session.folder / "run.toml"
    file.write_text(file.read_text().replace('lengths = "on"\n', ""))
    assert opened(root, SEVERAL).settings.lengths == "off"


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_sampler_that_cannot_choose_lengths_trains_all_by_the_greatest_unless_told_otherwise(
    tmp_path: Path, sampler: str
) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    session = opened(root, SEVERAL, f"sampler={sampler}", say=said.append)
    assert (steps_of(session.space), session.full_updates) == ([Choice(values=(4,))], 0)
    told = [line for line in said if line.startswith("lengths: 4 updates for every candidate")]
    assert len(told) == 1
    assert f"the sampler {sampler} cannot choose among 2 or 4" in told[0]
    # Continued, also by a sampler that could choose, it stays the study that it is.
    for overrides in ((), ("sampler=growth",), ()):
        said.clear()
        assert steps_of(opened(root, SEVERAL, *overrides, say=said.append).space) == [Choice(values=(4,))]
        assert "lengths: 4 updates for every candidate, as the study was begun" in said
        assert not any("by now" in line for line in said)
    with pytest.raises(ConfigError, match=r"training\.steps|other settings"):
        opened(root, SEVERAL, "lengths=off")
    with pytest.raises(ConfigError, match="was begun with lengths = off, got on"):
        opened(root, SEVERAL, "lengths=on")


def test_a_study_is_made_longer_and_goes_on_so(tmp_path: Path) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    begun = opened(root, "training.steps=4")
    assert begun.sampler_gives_way and not begun.full_updates
    session = opened(root, "training.steps=16", say=said.append)
    assert (session.space.lengths, session.settings.lengths, session.full_updates) == ((4, 16), "on", 16)
    assert not session.sampler_gives_way, "no other sampler chooses among lengths"
    assert "lengths: trainings of 4 or 16 updates, as the search decides; the front: 16" in said
    (told,) = [line for line in said if line.startswith("lengths: longer than before.")]
    assert "Candidates of 4 updates leave the front" in told and told.endswith(
        "begins anew, since its warm-up is longer"
    )
    for overrides in ("training.steps=16", "training.steps=[4,16]"):
        said.clear()
        again = opened(root, overrides, say=said.append)
        assert (again.space.lengths, again.full_updates) == ((4, 16), 16)
        assert not any(line.startswith("lengths: longer") for line in said)
    said.clear()
    assert opened(root, "training.steps=[16,64]", say=said.append).space.lengths == (4, 16, 64)
    assert [line for line in said if "longer than before. Candidates of 4 or 16 updates leave" in line]
    for others in ("training.steps=4", "training.steps=16", "training.steps=[32,128]", "training.steps=[2,128]"):
        with pytest.raises(ConfigError, match=r"space\.axes\.training\.steps"):
            opened(root, others)


def test_the_numbers_of_a_space_of_its_own_make_no_study_longer(tmp_path: Path) -> None:
    source = {"data.source": str(write(tmp_path / "scans", 1000))}

    def lengths(*overrides: str, folder: str, budget: int = 20) -> tuple[int, ...]:
        settings, space = load_run(space="resnet_small", overrides=overrides, flags=source)
        return open_session(replace(settings, budget=budget), space, tmp_path / folder).space.lengths

    assert lengths("training.steps=60", folder="tried") == (60,)
    with pytest.raises(ConfigError, match=r"(?s)training\.steps.*--fresh"):
        lengths(folder="tried")
    assert lengths("training.steps=961", folder="tried") == (60, 961)
    # Begun when 240 was the default, it is continued without a setting, also after it was made longer.
    assert lengths("training.steps=240", folder="before") == (240,) == lengths(folder="before")
    assert lengths("lengths=off", folder="before") == (240,), "as by `scalesearch.evaluate`"
    assert lengths("training.steps=[480,1920]", folder="before") == (240, 480, 1920) == lengths(folder="before")


def test_a_space_without_a_number_of_updates_is_made_longer(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    settings, space = load_run(overrides=("latency.warmup_s=0.01",), flags={"data.source": str(root), "target": "cpu"})
    bare = replace(space, axes=tuple(named for named in space.axes if named.name != "training.steps"))
    default = Recipe().steps
    assert open_session(settings, bare, tmp_path / "study").space.lengths == ()
    longer = replace(bare, axes=(*bare.axes, NamedAxis(name="training.steps", axis=Choice(values=(9 * default,)))))
    assert open_session(settings, longer, tmp_path / "study").space.lengths == (default, 9 * default)
    with pytest.raises(ConfigError, match=r"training\.steps"):
        open_session(settings, bare, tmp_path / "study")
    several = replace(bare, axes=(*bare.axes, NamedAxis(name="training.steps", axis=Choice(values=(9, default)))))
    assert open_session(settings, several, tmp_path / "other").full_updates == default
    said = list[str]()
    assert open_session(settings, bare, tmp_path / "other", say=said.append).space.lengths == (9, default)
    assert [line for line in said if f"goes on with the 9 or {default} updates" in line and f"has {default} by" in line]


def test_a_list_in_the_file_of_a_space_makes_no_study_longer_that_has_one_of_its_numbers(tmp_path: Path) -> None:
    source = {"data.source": str(write(tmp_path / "scans", 1000))}
    file = tmp_path / "mine.toml"
    file.write_text(SPACE.replace("steps = 2", "steps = [2, 4, 8]"))
    for sampler in ("growth", "tpe"):

        def lengths(*overrides: str, folder: str = sampler) -> tuple[int, ...]:
            settings, space = load_run(space=str(file), overrides=overrides, flags=source)
            return open_session(settings, space, tmp_path / folder).space.lengths

        assert lengths("training.steps=4", f"sampler={sampler}") == (4,) == lengths()
    assert lengths("training.steps=8", "sampler=growth") == (4, 8) == lengths("training.steps=8")


def test_the_file_is_that_of_the_space_which_the_library_was_given(tmp_path: Path) -> None:
    settings, _ = load_run(flags={"data.source": str(write(tmp_path / "scans", 1000))})
    assert settings.space == "resnet_small"

    def lengths(*overrides: str) -> tuple[int, ...]:
        _, space = load_run(space="mobilenet_small", overrides=overrides)
        return open_session(settings, space, tmp_path / "study").space.lengths

    assert lengths("training.steps=100") == (100,)
    with pytest.raises(ConfigError, match=r"training\.steps"):
        lengths()
    assert lengths("training.steps=[240,480,960]") == (100, 240, 480, 960)


def test_a_study_is_not_made_longer_where_the_budget_has_no_room_for_it(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial]
) -> None:
    root = write(tmp_path / "scans", 1000)
    session = opened(root, "training.steps=4")
    for trial in range(4):
        record = make_record(trial)
        recipe = replace(record.candidate.recipe, steps=4)
        training = replace(record.training, steps=4, new_steps=4)
        candidate = replace(record.candidate, recipe=recipe)
        RecordStore(session.folder).save(replace(record, candidate=candidate, training=training))
    stored = (session.folder / "run.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"budget 2: expected at least 3 .* count as 2 of 8 updates"):
        opened(root, "training.steps=8", "budget=2")
    assert (session.folder / "run.toml").read_bytes() == stored
    assert opened(root, "training.steps=8", "budget=3").full_updates == 8


@pytest.mark.parametrize(
    ("begun", "again"),
    [
        (("training.schedule='cosine'", "training.steps=4"), ("training.schedule='cosine'", "training.steps=16")),
        (("training.steps=4",), ("training.steps=16", "lengths=off")),
        (("training.steps=[2,4]", "lengths=off"), ("training.steps=16",)),
    ],
)
def test_a_study_is_made_longer_only_where_a_longer_training_goes_on_with_a_shorter_one(
    tmp_path: Path, begun: tuple[str, ...], again: tuple[str, ...]
) -> None:
    root = write(tmp_path / "scans", 1000)
    session = opened(root, *begun)
    with pytest.raises(ConfigError, match=r"space\.axes\.training\.steps"):
        opened(root, *again)
    assert opened(root, *begun).space == session.space


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training.warmup_steps=1", "a full training of 16; one that is trained longer goes on with its trunk"),
        ("training.branch_fraction=1", "begins anew, since it has no trunk (branch_fraction)"),
    ],
)
def test_a_trunk_is_trained_on_if_there_is_one_and_both_lengths_have_the_whole_warm_up(
    tmp_path: Path, setting: str, says: str
) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    opened(root, setting, "training.steps=4")
    opened(root, setting, "training.steps=16", say=said.append)
    (told,) = [line for line in said if line.startswith("lengths: longer than before.")]
    assert told.endswith(says)


def test_another_sampler_than_growth_goes_on_with_no_longer_trainings(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    opened(root, "training.steps=4", "sampler=tpe")
    with pytest.raises(ConfigError, match=r"need the sampler growth, got tpe: give --sampler growth"):
        opened(root, "training.steps=16")
    assert opened(root, "training.steps=16", "sampler=growth").full_updates == 16


def test_lengths_that_are_a_setting_like_any_other_stay_one(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)
    axis = [Choice(values=(2, 4))]
    assert steps_of(opened(root, SEVERAL, "sampler=tpe", "lengths=off").space) == axis
    assert steps_of(opened(root, SEVERAL).space) == axis


@pytest.mark.parametrize("overrides", [(), (SEVERAL, "sampler=tpe"), (SEVERAL, "lengths=off")])
def test_elsewhere_all_trainings_are_alike(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    session = opened(write(tmp_path / "scans", 1000), *overrides)
    assert (session.settings.lengths, session.full_updates) == ("off", 0)


def test_lengths_without_a_list_of_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected several values of training.steps .* got 2. Give some: --set"):
        opened(write(tmp_path / "scans", 1000), "lengths=on")


def test_a_range_in_a_few_steps_lists_lengths_and_another_is_said_to_compare_unlike_trainings(tmp_path: Path) -> None:
    root, said = write(tmp_path / "scans", 1000), list[str]()
    session = opened(root, "training.steps={low=2,high=6,step=2}", say=said.append)
    assert (session.space.lengths, session.settings.lengths, session.full_updates) == ((2, 4, 6), "on", 6)
    assert not any(line.startswith("note: training.steps") for line in said)
    other = write(tmp_path / "other" / "scans", 1000)
    session = opened(other, "training.steps={low=2,high=200}", say=said.append)
    assert (session.space.lengths, session.settings.lengths, session.full_updates) == ((), "off", 0)
    assert [line for line in said if line.startswith("note: training.steps is a range")]


def test_a_study_of_before_goes_on_with_an_axis_that_its_task_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "scans", 255)
    with pytest.raises(ConfigError, match=r"training\.scale_fraction: expected an axis"):
        opened(root, "training.scale_fraction=0.2")
    with monkeypatch.context() as earlier:
        earlier.setattr("scalesearch.study.session.require_own_axes", lambda *_: None)
        begun = opened(root, "training.scale_fraction=0.2")
    assert opened(root, "training.scale_fraction=0.2").space == begun.space


def test_a_study_knows_the_samplers_of_all_its_runs(tmp_path: Path) -> None:
    root = write(tmp_path / "scans", 1000)

    def samplers(sampler: str, *, searches: bool = True) -> tuple[str, ...] | None:
        return opened(root, f"sampler={sampler}", searches=searches).samplers

    assert samplers("tpe") == ("tpe",)
    assert samplers("random") == ("tpe", "random") == samplers("tpe")
    assert samplers("growth", searches=False) == ("tpe", "random"), "nothing was searched"
    stored = read_run_file(tmp_path / "study")
    assert stored
    write_run_file(replace(stored, samplers=None))
    assert samplers("tpe") is None, "a study of an earlier version, whose first runs nobody knows"
    given = write(tmp_path / "by_hand" / "scans", 1000)
    assert opened(given, "sampler=tpe").samplers == ()
    assert opened(given, "sampler=tpe", searches=True).samplers == (), "its first candidates were given by hand"
