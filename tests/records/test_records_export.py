"""config.toml of an exported trial: everything comes back, and a damaged file says what is wrong."""

import json
from collections.abc import Callable

import pytest

from scalesearch.errors import ConfigError
from scalesearch.records.export import onnx_metadata, read_config, write_config
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session

RecordFactory = Callable[..., TrialRecord]


def test_the_config_holds_all_that_rebuilds_the_network(session: Session, make_record: RecordFactory) -> None:
    record = make_record(7, top1=0.83, network_sha256="a" * 64)
    path = write_config(record, session, session.folder)
    config = read_config(path)
    assert (config.trial, config.candidate, config.network) == (7, record.candidate, record.spec)
    assert (config.data, config.settings) == (session.data, session.settings)
    assert config.expected.top1 == 0.83
    assert config.expected.network_sha256 == "a" * 64
    assert read_config(session.folder) == config


def test_a_missing_or_foreign_file_is_an_error_that_names_it(session: Session, make_record: RecordFactory) -> None:
    with pytest.raises(ConfigError, match=r"Cannot read .*config\.toml"):
        read_config(session.folder)
    path = write_config(make_record(1), session, session.folder)
    path.write_text(path.read_text().replace("[expected]", "[unexpected]"))
    with pytest.raises(ConfigError, match="expected"):
        read_config(path)


def test_metadata_tells_how_to_feed_the_file(session: Session, make_record: RecordFactory) -> None:
    texts = onnx_metadata(make_record(1), session.data)
    assert json.loads(texts["scalesearch.class_names"]) == list(session.data.class_names)
    assert json.loads(texts["scalesearch.mean"]) == list(session.data.mean)
    assert texts["scalesearch.resolution_px"] == "32"
