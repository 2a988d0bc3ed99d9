import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesearch.cli.full_training import check_target, compared_numbers, full_recipe, train_export, training_space
from scalesearch.config.checks import require_branch
from scalesearch.errors import ConfigError
from scalesearch.export.metadata import ExportedConfig, read_config, write_config
from scalesearch.networks import base_spec
from scalesearch.networks.scaling import scale_base
from scalesearch.records.run_file import refuse_changes, write_run_file
from scalesearch.values.candidate import Quantization, Recipe, Scaling, ScheduleName
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.network_spec import InputSize
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.values.settings import RunSettings

MakeRecord = Callable[..., MeasuredTrial]


@pytest.mark.parametrize(
    ("longer", "top1", "verdict"),
    [
        (0, 0.8, "agrees within its interval"),
        (0, 0.1, "lies OUTSIDE of it"),
        (1, 0.1, "has 100 and cannot be compared"),
    ],
)
def test_seeds_are_compared_at_equal_length_only(
    session: Session, make_record: Callable[..., MeasuredTrial], longer: int, top1: float, verdict: str
) -> None:
    record = make_record(1, top1=0.8)
    quality, latency = record.quality, record.latency
    assert quality and latency and record.training
    record = dataclasses.replace(record, training=dataclasses.replace(record.training, steps=100))
    test = dataclasses.replace(quality, score=0.8, score_low=0.78, score_high=0.82)
    runs = [
        ConfirmedRun(
            trial=1, seed=seed, steps=100 + longer, train_s=1.0, float_score=top1, validation=test,
            test=dataclasses.replace(test, score=top1), latency=latency, size_bytes=1, onnx_sha256="0",
            network_sha256="0",
        )
        for seed in (1, 2)
    ]  # fmt: skip
    config = read_config(write_config(record, session, session.folder, confirmed=runs))
    (line,) = [line for line in compared_numbers(config, record, test, "this chip") if "seeds" in line]
    assert line.endswith(f"this one {verdict}")


@pytest.fixture
def config(session: Session, make_record: MakeRecord, tmp_path: Path) -> ExportedConfig:
    return read_config(write_config(make_record(4), session, tmp_path / "export"))


def trained(session: Session, folder: Path, space: str = "export") -> Path:
    write_run_file(dataclasses.replace(session, folder=folder, space=dataclasses.replace(session.space, name=space)))
    (folder / "model.onnx").write_text("trained")
    return folder


def test_full_length_is_eight_times_the_brief_one_or_four_times_the_greatest(config: ExportedConfig) -> None:
    brief = config.candidate.recipe.steps
    assert full_recipe(config, None).steps == 8 * brief
    short = dataclasses.replace(config, full_updates=2 * brief)  # also one that was trained in part
    assert full_recipe(short, None).steps == 4 * 2 * brief
    assert full_recipe(short, 7).steps == 7


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_a_length_whose_branch_has_no_room_for_rounding_is_refused_before_anything_is_made(
    session: Session, make_record: MakeRecord, tmp_path: Path, schedule: ScheduleName
) -> None:
    record = make_record(4)
    candidate = dataclasses.replace(
        record.candidate,
        recipe=Recipe(steps=480, branch_fraction=1 / 3, schedule=schedule),
        quantization=Quantization(precision="int8", qat_steps=60),
    )
    path = write_config(dataclasses.replace(record, candidate=candidate), session, tmp_path / "export")
    if schedule == "cosine":  # its updates with rounding come after all others
        require_branch(full_recipe(read_config(path), 100), candidate.quantization, origin="")
        return
    with pytest.raises(ConfigError, match="more than the 60 updates that simulate rounding") as caught:
        train_export(path, steps=100, data=None, seed=None, to=tmp_path / "to")
    # Of 182 updates a third is 60.7: 61 updates, of which one is in float.
    assert str(caught.value).endswith("of 100 updates, 33 belong to it.\nGive --steps 182, or more.")
    assert not (tmp_path / "to").exists()
    require_branch(full_recipe(read_config(path), 182), candidate.quantization, origin="")


def test_a_training_goes_on_in_its_own_folder_or_a_free_one(
    config: ExportedConfig, session: Session, tmp_path: Path
) -> None:
    check_target(tmp_path / "new", config)
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", config)
    begun = tmp_path / "begun"
    shutil.copytree(tmp_path / "export", begun)
    for name in ("reference.onnx", ".result.json.x.partial", "study.lock"):
        (begun / name).write_text("")
    check_target(begun, config)
    for name in ("parent/found.safetensors", "logs/reference.log"):  # written before run.toml, too
        (begun / name).parent.mkdir()
        (begun / name).write_text("")
    check_target(begun, config)
    check_target(trained(session, tmp_path / "of_old"), config)  # older versions left no config.toml there
    again = trained(session, tmp_path / "again")
    shutil.copy(tmp_path / "export" / "config.toml", again)
    check_target(again, config)


def test_a_folder_of_anything_else_is_refused(
    config: ExportedConfig, session: Session, make_record: MakeRecord, tmp_path: Path
) -> None:
    (tmp_path / "export" / "model.onnx").write_text("exported")
    other = trained(session, tmp_path / "other")
    write_config(make_record(5), session, other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.onnx").write_text("mine")
    (tmp_path / "parents" / "parent").mkdir(parents=True)  # and no config.toml
    cases = (
        (tmp_path / "export", "holds model.onnx, which no training wrote"),
        (tmp_path / "parents", "holds parent, which no training wrote"),
        (tmp_path / "mine", "holds model.onnx, which no training wrote"),
        (trained(session, tmp_path / "search", space="resnet_small"), "is the study of a search"),
        (other, "holds a training of trial 5 of"),
    )
    for folder, says in cases:
        with pytest.raises(ConfigError) as caught:
            check_target(folder, config)
        assert says in str(caught.value) and "--to" in str(caught.value)


def test_an_export_that_was_taught_is_not_trained_without_its_parent(
    session: Session, make_record: MakeRecord, tmp_path: Path
) -> None:
    record = make_record(4)
    recipe = dataclasses.replace(record.candidate.recipe, distill_weight=0.5)
    taught = dataclasses.replace(record, candidate=dataclasses.replace(record.candidate, recipe=recipe))
    path = write_config(taught, session, tmp_path / "export")
    with pytest.raises(ConfigError, match=r"distill_weight = 0\.5: expected a parent"):
        train_export(path, steps=None, data=None, seed=None, to=tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_one_training_has_all_cores_however_many_workers_the_search_had(
    session: Session, make_record: MakeRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = dataclasses.replace(session, settings=dataclasses.replace(session.settings, workers=4))
    path = write_config(make_record(4), searched, tmp_path / "export")
    assert read_config(path).settings.workers == 4
    asked = list[RunSettings]()

    def opened(settings: RunSettings, *_: object, **__: object) -> Session:
        asked.append(settings)
        raise ConfigError("enough")

    monkeypatch.setattr("scalesearch.cli.full_training.open_session", opened)
    with pytest.raises(ConfigError, match="enough"):
        train_export(path, steps=None, data="signs", seed=None, to=tmp_path / "to")
    assert [settings.workers for settings in asked] == [1]


def test_images_have_the_size_of_the_exported_network(config: ExportedConfig, session: Session) -> None:
    """80 px are no multiple of resnet18's total stride of 32: the study's `resolution_multiple` allowed them."""
    network = dataclasses.replace(base_spec("resnet18"), resolution_px=80)
    space = training_space(dataclasses.replace(config, network=network), None)
    assert scale_base(space, network, Scaling(), 10).input_size == InputSize.square(80)
    begun = dataclasses.replace(session, space=dataclasses.replace(session.space, resolution_multiple=0))
    assert training_space(config, begun).resolution_multiple == 0


def test_another_seed_is_told_what_train_offers(
    config: ExportedConfig, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(settings: RunSettings, *_: object, way_out: str, **__: object) -> None:
        refuse_changes(session, dataclasses.replace(session, settings=settings), way_out=way_out)

    monkeypatch.setattr("scalesearch.cli.full_training.open_session", refused)
    with pytest.raises(ConfigError, match=r"settings\.seed: was 0, is 9") as caught:
        train_export(tmp_path / "export", steps=None, data=None, seed=9, to=tmp_path / "to")
    assert "--seed and --data of the training that is there" in str(caught.value)
    assert "--fresh" not in str(caught.value)  # train has no such flag
