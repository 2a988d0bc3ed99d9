"""config.toml of an exported trial: everything comes back, and a damaged file says what is wrong."""

import dataclasses
import tomllib
from collections.abc import Callable

import pytest

from scalesearch.errors import ConfigError
from scalesearch.export.metadata import onnx_metadata, read_config, write_config, write_preprocessing
from scalesearch.export.parts import calibration_document
from scalesearch.tasks.infer_parts import preprocessing as infer_preprocessing
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.latency import Postprocessing
from scalesearch.values.record import FrontScore, MeasuredTrial
from scalesearch.values.session import Session

RecordFactory = Callable[..., MeasuredTrial]


def test_the_config_holds_all_that_rebuilds_the_network(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7, top1=0.83, network_sha256="a" * 64)
    path = write_config(record, session, session.folder)
    config = read_config(path)
    assert (config.trial, config.candidate, config.network) == (7, record.candidate, record.spec)
    assert (config.data, config.settings) == (session.data, session.settings)
    assert config.expected.score == 0.83
    assert config.expected.network_sha256 == "a" * 64
    assert read_config(session.folder) == config
    assert config.cut_from is None


def test_the_config_holds_the_time_of_the_postprocessing(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7, p50_ms=2.0)
    after = Postprocessing(p50_ms=0.5, p50_low_ms=0.4, p50_high_ms=0.6, images=64)
    timed = dataclasses.replace(record, latency=record.latency.beside(after, "end_to_end"))
    path = write_config(timed, session, session.folder)
    expected = read_config(path).expected
    assert (expected.p50_ms, expected.postprocessing_ms, expected.end_to_end_ms) == (2.0, 0.5, 2.5)
    assert "postprocessing_ms = 0.5" in path.read_text()
    path.write_text(path.read_text().replace("postprocessing_ms = 0.5\n", ""))  # as older exports
    assert read_config(path).expected.postprocessing_ms is None
    assert "postprocessing_ms" not in write_config(record, session, session.folder).read_text()


def test_the_config_holds_the_larger_network_that_was_cut(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7)
    wide = dataclasses.replace(record.spec, stem=dataclasses.replace(record.spec.stem, channels=32))
    config = read_config(write_config(dataclasses.replace(record, cut_from=wide), session, session.folder))
    assert (config.network, config.cut_from) == (record.spec, wide)


def test_a_missing_or_foreign_file_is_an_error_that_names_it(session: Session, make_record: RecordFactory) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*config\.toml"):
        read_config(session.folder)
    path = write_config(make_record(1), session, session.folder)
    path.write_text(path.read_text().replace("[expected]", "[unexpected]"))
    with pytest.raises(ConfigError, match="expected"):
        read_config(path)


def test_metadata_tells_how_to_feed_the_file(session: Session, make_record: RecordFactory) -> None:
    texts = onnx_metadata(make_record(1), session)
    told = infer_preprocessing.read_preprocessing(texts)
    assert (told.class_names, told.mean, told.std) == (session.data.class_names, session.data.mean, session.data.std)
    assert (told.storage_px, told.resolution_px) == (session.storage.sides, (32, 32))


def test_preprocessing_says_the_same_in_toml(session: Session, make_record: RecordFactory) -> None:
    names = ('say "stop"', "a\nb = 1", "\u00e9\\")  # what would break a careless writer
    hostile = dataclasses.replace(session, data=dataclasses.replace(session.data, class_names=names))
    told = tomllib.loads(write_preprocessing(make_record(1), hostile, session.folder).read_text(encoding="utf-8"))
    metadata = infer_preprocessing.read_preprocessing(onnx_metadata(make_record(1), hostile))
    assert tuple(told["class_names"]) == metadata.class_names == names
    assert (tuple(told["mean"]), tuple(told["std"])) == (metadata.mean, metadata.std)
    assert (told["resolution_px"], told["storage_px"], told["version"]) == (
        32,
        session.storage_px,
        infer_preprocessing.VERSION,
    )


def test_the_spread_of_confirmed_seeds_is_kept_for_the_retraining(session: Session, make_record: RecordFactory) -> None:
    record = make_record(1)
    assert record.quality and record.latency

    def run(seed: int, steps: int, top1: float) -> ConfirmedRun:
        assert record.quality and record.latency
        quality = dataclasses.replace(record.quality, score=top1)
        return ConfirmedRun(
            trial=1,
            seed=seed,
            steps=steps,
            train_s=1,
            float_score=top1,
            validation=quality,
            test=quality,
            latency=record.latency,
            size_bytes=1,
            onnx_sha256="0",
            network_sha256="0",
        )

    runs = (run(1, 800, 0.7), run(2, 800, 0.74), run(3, 100, 0.2))
    score = FrontScore(trial=1, test=record.quality, latency=record.latency)
    expected = read_config(write_config(record, session, session.folder, score=score, confirmed=runs)).expected
    assert (expected.confirmed_steps, expected.confirmed_test_score) == (800, (0.7, 0.74))
    assert expected.test_score == record.quality.score


def test_a_config_from_before_the_intervals_still_reads(session: Session, make_record: RecordFactory) -> None:
    path = write_config(make_record(1), session, session.folder)
    new = ("top1_low", "top1_high", "confirmed")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(new)))
    assert read_config(path).expected.score_low is None


def test_calibration_names_images_only_where_some_calibrated(session: Session, make_record: RecordFactory) -> None:
    told = calibration_document(make_record(1, precision="int8"), session, [5, 3])
    assert (told["method"], told["indices"], told["data_fingerprint"]) == ("percentile", [5, 3], "f" * 64)
    gone = calibration_document(make_record(1, precision="int8"), session, None, why_not="the data are gone")
    assert (gone["indices"], gone["note"]) == (None, "the data are gone")
    assert calibration_document(make_record(1), session, ())["method"] is None
