"""Whether training mirrors images is decided once a study, told, and kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parent_studies import plain_study, trained_folder

from scalesearch.config import load_run, parse_space
from scalesearch.errors import ConfigError
from scalesearch.records.run_file import read_run_file
from scalesearch.spaces.suggest import random_candidates
from scalesearch.study import flips
from scalesearch.study import run as running
from scalesearch.study.flips import judged_images
from scalesearch.study.run import tune_parent
from scalesearch.study.session import open_session
from scalesearch.training.answers import answers
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import MachineSettings, RunSettings
from scalesearch.values.space import Choice, SearchSpace

pytestmark = pytest.mark.usefixtures("stand_in_reference")

SPACE = {
    "network": "resnet_small",
    "resolution_px": 16,
    "scaling": {"width": [0.5, 1.0]},
    "training": {"steps": 60, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.01, "shift_fraction": 0.0},
}


def space(**training: object) -> SearchSpace:
    return parse_space({**SPACE, "training": {**SPACE["training"], **training}}, name="s", origin="s.toml")  # type: ignore[dict-item]


def pictures(folder: Path, *, sided: bool, names: tuple[str, ...] = ()) -> RunSettings:
    """Bright spots: left or right of the centre, which a mirror swaps; or high or low, which it does not."""
    random = np.random.default_rng(0)
    labels = np.arange(240) % 2
    images = random.integers(0, 60, (240, 16, 16, 3))
    for image, label in zip(images, labels, strict=True):
        spot = slice(2, 6) if label else slice(10, 14)
        image[(slice(4, 12), spot) if sided else (spot, slice(4, 12))] += 150
    named = {"class_names": np.array(names)} if names else {}
    np.savez(folder / "spots.npz", images=images.astype(np.uint8), labels=labels, **named)  # type: ignore[arg-type]
    settings, _ = load_run(flags={"data.source": str(folder / "spots.npz"), "target": "cpu"}, overrides=[])
    quick = replace(settings.latency, max_s=0.2, warmup_s=0.02)
    return replace(settings, latency=quick, machine=MachineSettings(threads=1, bf16="off", device="cpu"))


def opened(folder: Path, settings: RunSettings, asked: SearchSpace, said: list[str]) -> Session:
    study = folder / "study"
    study.mkdir(exist_ok=True)
    return open_session(settings, asked, study, say=said.append)


def flip_of(session: Session) -> object:
    axis = next(named.axis for named in session.space.axes if named.name == "training.flip")
    assert isinstance(axis, Choice)
    return axis.values


@pytest.mark.slow
@pytest.mark.parametrize(("sided", "flip"), [(True, False), (False, True)])
def test_images_are_mirrored_only_where_their_classes_survive_it(tmp_path: Path, sided: bool, flip: bool) -> None:
    settings, said = pictures(tmp_path, sided=sided), list[str]()

    session = opened(tmp_path, settings, space(flip="auto"), said)

    assert flip_of(session) == (flip,)
    (line,) = [line for line in said if line.startswith("flips: o")]
    assert line.startswith("flips: on: " if flip else "flips: off: ")
    assert ("lost in the mirror: " in line) != flip
    stored = read_run_file(session.folder)
    assert stored is not None
    assert flip_of(stored) == (flip,)


@pytest.mark.slow
def test_images_on_disk_are_read_a_few_at_a_time_and_lead_to_the_same_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pictures(tmp_path, sided=False)
    lines = dict[str, list[str]]()

    def answers_of_sources(network: object, images: object, *others: object, **more: object) -> object:
        assert not isinstance(images, torch.Tensor) or memory == "ram"
        return answers(network, images, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(flips, "answers", answers_of_sources)
    for memory in ("ram", "disk"):
        folder = tmp_path / memory
        folder.mkdir()
        stored = replace(settings, data=replace(settings.data, memory=memory))
        opened(folder, stored, space(flip="auto"), lines.setdefault(memory, []))
    ram, disk = ([line for line in said if line.startswith("flips: o")] for said in lines.values())
    assert ram == disk and len(ram) == 1


@pytest.mark.slow
def test_the_decision_is_kept_and_nothing_is_trained_for_it_again(tmp_path: Path) -> None:
    settings, said = pictures(tmp_path, sided=False), list[str]()
    first = opened(tmp_path, settings, space(flip="auto"), [])

    second = opened(tmp_path, settings, space(flip="auto"), said)

    assert second.space == first.space
    assert not [line for line in said if line.startswith("flips")]
    with pytest.raises(ConfigError, match=r"training\.flip|space\.axes"):
        opened(tmp_path, settings, space(flip=False), [])


def test_classes_called_left_and_right_are_not_mirrored_and_nothing_is_trained_to_find_out(tmp_path: Path) -> None:
    said = list[str]()

    session = opened(
        tmp_path, pictures(tmp_path, sided=False, names=("turn_left", "turn_right")), space(flip="auto"), said
    )

    assert flip_of(session) == (False,)
    (line,) = [line for line in said if line.startswith("flips")]
    assert line.startswith("flips: off: the classes turn_left and turn_right differ by left and right alone; ")
    assert not (session.folder / "weights").exists()


def test_a_study_that_was_begun_without_a_word_on_mirrors_goes_on_without_them(tmp_path: Path) -> None:
    settings, said = pictures(tmp_path, sided=False), list[str]()
    begun = opened(tmp_path, settings, space(), [])

    session = opened(tmp_path, settings, space(flip="auto"), said)

    assert session.space == begun.space
    assert not [line for line in said if line.startswith("flips")]


@pytest.mark.parametrize("training", [{}, {"flip": True}, {"flip": [False, True]}])
def test_where_it_is_not_left_to_the_program_nothing_is_decided(tmp_path: Path, training: dict[str, object]) -> None:
    said = list[str]()

    session = opened(tmp_path, pictures(tmp_path, sided=False), space(**training), said)

    flips = [line for line in said if line.startswith("flips")]
    assert not (session.folder / "weights").exists()
    assert len(flips) == (training.get("flip") is True)
    assert all("on, by the space: training mirrors images" in line for line in flips)
    said.clear()
    opened(tmp_path, pictures(tmp_path, sided=False), space(**training), said)
    assert not [line for line in said if line.startswith("flips")], "said once"


@pytest.mark.parametrize("labels", [torch.arange(20).repeat_interleave(100), torch.arange(2000) % 2])
def test_of_many_images_those_of_every_class_are_looked_at(labels: torch.Tensor) -> None:
    """Sorted by class, as a folder has them, or in turn, so that every fifth image would be of half of the classes."""
    chosen, classes = judged_images(2000, most=400), int(labels.max()) + 1

    assert torch.equal(chosen, judged_images(2000, most=400))
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == 400
    counts = torch.bincount(labels[chosen], minlength=classes)
    expected = 400 / classes
    # Five standard deviations of a draw: sqrt(20 * 0.95 * 0.8) and sqrt(200 * 0.5 * 0.8).
    assert float((counts - expected).abs().max()) < 5 * (expected * (1 - expected / 400) * 0.8) ** 0.5
    assert torch.equal(judged_images(400, most=400), torch.arange(400))


@pytest.mark.slow
def test_a_parent_is_fine_tuned_before_and_its_score_is_said(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = plain_study(tmp_path)
    trained_folder(plain, make_record(0), tmp_path / "trained")
    settings = replace(pictures(tmp_path, sided=False), parent=str(tmp_path / "trained"), parent_steps=4)
    said, later = list[str](), list[str]()

    session = opened(tmp_path, settings, space(flip="auto"), said)

    tuning = said.index("parent: fine-tuning it by 4 updates, once for the whole study")
    (score,) = [place for place, line in enumerate(said) if "on the validation images at 16 px, after 4" in line]
    (decided,) = [place for place, line in enumerate(said) if line.startswith("flips: training")]
    assert tuning < score < decided
    monkeypatch.setattr(running, "run_apart", lambda work, given, **_: work(given))
    assert tune_parent(session, later.append) == () and later == []


def test_before_the_decision_candidates_are_planned_without_flips() -> None:
    assert {candidate.recipe.flip for candidate in random_candidates(space(flip="auto"), 4, 0)} == {False}


def test_auto_is_no_choice_among_others() -> None:
    with pytest.raises(ConfigError, match=r"training\.flip must be true or false, got 'auto'"):
        space(flip=["auto", True])
