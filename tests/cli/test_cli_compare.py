import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command import run_command

from scalesearch.cli import compare
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.measurement.metric import wilson_interval
from scalesearch.records.run_file import write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def studies(make_record: MakeRecord, session: Session, tmp_path: Path) -> tuple[Path, Path]:
    folders = (tmp_path / "one", tmp_path / "$other$")
    for folder, shift in zip(folders, (0.0, 0.05), strict=True):
        folder.mkdir()
        write_run_file(replace(session, folder=folder))
        for trial, (top1, p50_ms) in enumerate([(0.5, 1.0), (0.7, 2.0)]):
            RecordStore(folder).save(make_record(trial, top1=top1 + shift, p50_ms=p50_ms))
    return folders


_run = partial(run_command, compare.register)


def test_both_are_told_and_drawn(studies: tuple[Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "new" / "fronts.png"
    text = _run(*studies, "--to", picture)
    assert "one and $other$: same device, same images: their points share a front" in text
    assert "$other$ beats 100 % of the front of one" in text
    assert "one front of all: 2 points" in text
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_json_is_one_object_for_each_study(studies: tuple[Path, Path]) -> None:
    first, second = json.loads(_run(*studies, "--json"))
    assert (first["study"], second["study"]) == ("one", "$other$")
    assert first["on_common_front"] == [] and second["on_common_front"] == [0, 1]
    assert first["with"][0]["own_front_beaten"] == 1
    assert first["front"][0] == {"trial": 0, "top1": 0.5, "p50_ms": 1.0}


def test_one_study_is_not_enough(studies: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="two or more different studies"):
        _run(studies[0])
    with pytest.raises(ConfigError, match="two or more different studies"):
        _run(studies[0], studies[0])


def test_studies_of_one_name_are_told_apart_by_their_folders(studies: tuple[Path, Path], tmp_path: Path) -> None:
    twin = tmp_path / "elsewhere" / "one"
    twin.parent.mkdir()
    studies[1].rename(twin)
    text = _run(studies[0], twin, "--to", tmp_path / "x.png")
    assert f"{studies[0]} and {twin}: same device" in text


def test_a_study_without_a_front_is_named(studies: tuple[Path, Path], make_record: MakeRecord) -> None:
    for trial in (0, 1):
        RecordStore(studies[0]).path(trial).unlink()
    RecordStore(studies[0]).save(make_record(0, top1=None))
    with pytest.raises(NoFeasibleTrialError, match=f"{re.escape(str(studies[0]))}: no feasible trial among 1"):
        _run(*studies)


@pytest.mark.parametrize("top1", [0.0, 1.0])
def test_fronts_at_the_ends_of_the_scale_are_drawn(
    make_record: MakeRecord, studies: tuple[Path, Path], tmp_path: Path, top1: float
) -> None:
    record = make_record(2, top1=top1, p50_ms=0.004)
    assert record.quality
    low, high = wilson_interval(round(97 * top1), 97)
    for folder in studies:
        for trial in (0, 1):
            (folder / "records" / f"{trial:06d}.json").unlink()
        RecordStore(folder).save(replace(record, quality=replace(record.quality, score_low=low, score_high=high)))
    text = _run(*studies, "--to", tmp_path / "ends.png")
    assert f"{100 * top1:.1f} % at 0.00400 ms" in text


def test_batches_are_named_and_kept_apart(studies: tuple[Path, Path], session: Session, tmp_path: Path) -> None:
    folder = studies[1]
    latency = replace(session.settings.latency, batch=16)
    write_run_file(replace(session, folder=folder, settings=replace(session.settings, latency=latency)))
    for record in RecordStore(folder).all():
        assert record.latency
        RecordStore(folder).save(replace(record, latency=replace(record.latency, batch=16)))
    text = _run(*studies, "--to", tmp_path / "batches.png")
    assert "TIMED UNLIKE (batch 1 and 16): latencies do not compare" in text
    assert "one front of all" not in text and "beats" not in text
    assert json.loads(_run(*studies, "--json"))[0]["with"][0]["timed_unlike"] == ["batch 1 and 16"]


def test_metrics_are_named_and_kept_apart(studies: tuple[Path, Path], tmp_path: Path) -> None:
    for folder, metric in zip(studies, ("map50", "map50_95"), strict=True):
        for record in RecordStore(folder).all():
            assert record.quality
            RecordStore(folder).save(replace(record, quality=replace(record.quality, metric=metric)))
    text = _run(*studies, "--to", tmp_path / "metrics.png")
    assert "same device, same images, but SCORED UNLIKE (mAP50 and mAP50-95): scores (and hypervolumes) do not" in text
    assert "share a front" not in text and "one front of all" not in text and "beats" not in text
    assert json.loads(_run(*studies, "--json"))[0]["with"][0]["scored_unlike"] == "mAP50 and mAP50-95"
