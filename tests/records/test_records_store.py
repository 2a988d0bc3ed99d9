import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loading import loaded

from scalesearch.errors import ConfigError
from scalesearch.records.store import RecordStore
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import LossCurve, TrialRecord


def test_every_field_comes_back_as_it_was(tmp_path: Path, make_record: Any) -> None:
    store = RecordStore(tmp_path)
    whole = make_record(12)
    path = store.save(whole)
    assert path == tmp_path / "records" / "000012.json"
    assert store.load(12) == whole
    assert type(store.load(12).quality.classes[0].curve[0]) is tuple  # type: ignore[union-attr]


def test_a_record_that_never_got_anywhere_comes_back_too(tmp_path: Path) -> None:
    bare = TrialRecord(trial=0, key="", state="rejected", candidate=Candidate(), charged=False, reason="é | \n <b>")
    RecordStore(tmp_path).save(bare)
    assert RecordStore(tmp_path).all() == (bare,)


def test_nan_and_infinity_survive(tmp_path: Path, make_record: Any) -> None:
    # A diverged training that the safe recipe saved may leave one; as null it would make the study unreadable.
    record = make_record(0)
    curve = LossCurve(steps=2, losses=(1.0, math.inf))
    odd = replace(record, training=replace(record.training, final_loss=math.nan, loss_curves=(curve,)))
    RecordStore(tmp_path).save(odd)
    training = RecordStore(tmp_path).load(0).training
    assert training is not None and math.isnan(training.final_loss) and training.loss_curves == (curve,)


def test_all_are_sorted_by_trial_and_other_files_are_let_be(tmp_path: Path, make_record: Any) -> None:
    store = RecordStore(tmp_path)
    assert store.all() == ()
    records = [make_record(trial) for trial in (2, 1_000_000, 0)]
    for record in records:
        store.save(record)
    (store.folder / ".000003.json.partial").write_text("{")  # of a run that was killed while it wrote
    (store.folder / "notes.txt").write_text("mine")
    assert [record.trial for record in store.all()] == [0, 2, 1_000_000]
    assert (store.folder / "notes.txt").exists()


def test_a_second_save_replaces_the_first_whole(tmp_path: Path, make_record: Any) -> None:
    store = RecordStore(tmp_path)
    store.save(make_record(1, top1=0.5))
    store.save(make_record(1, top1=None))
    assert store.load(1) == make_record(1, top1=None)
    assert [path.name for path in store.folder.iterdir()] == ["000001.json"]


def _edit(document: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split(".")
    for parent in parents:
        document = document[int(parent)] if isinstance(document, list) else document[parent]
    document[last] = value


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("colour", "red", "unknown field 'colour'"),
        ("latency.p75_ms", 1.0, "unknown field 'latency.p75_ms'"),
        ("quality.detail.classes.1.hue", 1.0, "classes.1.hue'"),
        ("candidate.scaling.height", 1.0, "unknown field 'candidate.scaling.height'"),
        ("state", "done", "state: Input should be 'complete', 'failed', 'rejected' or 'cached'"),
        ("trial", "0", "trial: Input should be a valid integer"),
        ("quality.score", None, "quality.score: Input should be a valid number"),
        ("trial", 5, "holds trial 5"),
    ],
)
def test_what_this_program_did_not_write_is_refused_by_place(
    tmp_path: Path, make_record: Any, place: str, value: Any, problem: str
) -> None:
    store = RecordStore(tmp_path)
    path = store.save(make_record(0))
    document = json.loads(path.read_text())
    _edit(document, place, value)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError) as caught:
        store.all()
    assert str(path) in str(caught.value) and problem in str(caught.value)
    assert "Restore the file" in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_torn_file_is_refused_by_name_and_not_touched(tmp_path: Path, make_record: Any, size: int) -> None:
    store = RecordStore(tmp_path)
    path = store.save(make_record(0))
    path.write_text(path.read_text()[:size])
    with pytest.raises(ConfigError, match=r"cannot read the record .*000000\.json"):
        store.load(0)
    assert path.stat().st_size == size


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.folder.mkdir()
    store.path(0).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"000000\.json"):
        store.all()


def test_a_missing_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no record of trial 3 in .*: expected 000003\.json"):
        RecordStore(tmp_path).load(3)


def test_a_file_of_an_earlier_version_without_a_later_field_is_read(tmp_path: Path, make_record: Any) -> None:
    store = RecordStore(tmp_path)
    path = store.save(make_record(0))
    document = json.loads(path.read_text())
    del document["warnings"]
    path.write_text(json.dumps(document))
    assert store.load(0) == make_record(0)


def test_a_save_is_synced_before_its_name_is_there(
    tmp_path: Path, make_record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, steps = RecordStore(tmp_path), list[str]()
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync file")
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    store.save(make_record(0))
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_the_store_loads_neither_torch_nor_optuna() -> None:
    assert not loaded("import scalesearch.records.store", of={"torch", "optuna", "pandas"})


def test_a_class_whose_name_is_no_utf8_comes_back_by_its_bytes(tmp_path: Path, make_record: Any) -> None:
    """As JSON half a surrogate pair is written, and then read by nobody."""
    RecordStore(tmp_path).save(make_record(0, classes=(os.fsdecode(b"caf\xe9"), "tea", "milk", "rum")))
    quality = RecordStore(tmp_path).load(0).quality
    assert quality is not None and quality.classes[0].name == r"caf\xe9"


@pytest.mark.parametrize(
    "name", ["1.json", "000001 (copy).json", "000001.json.bak", "2024-notes.json", "00000\u00b2.json"]
)
def test_files_of_other_names_are_no_records(tmp_path: Path, make_record: Any, name: str) -> None:
    store = RecordStore(tmp_path)
    store.save(make_record(3))
    (store.folder / name).write_text("{}")
    assert [record.trial for record in store.all()] == [3]


def test_a_record_from_before_calm_was_asked_for_opens_and_says_what_it_said(tmp_path: Path, make_record: Any) -> None:
    store = RecordStore(tmp_path)
    path = store.save(make_record(4))
    document = json.loads(path.read_text())
    for name in ("calm_fraction", "raw_calm_p50_ms", "raw_disturbed_p50_ms", "reference_lowest_ms"):
        del document["latency"][name]
    document["latency"]["stable"] = False
    path.write_text(json.dumps(document))
    latency = RecordStore(tmp_path).load(4).latency
    assert latency is not None
    assert latency.why_unstable == "its latency did not settle within the time limit"
    assert not latency.unit_too_slow
