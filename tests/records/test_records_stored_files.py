"""Stored files are used only if their content is what was written down."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.errors import ConfigError
from scalesearch.records.stored_files import file_sha256, kept_model, kept_reference
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session, model_path, reference_path

CONTENT = b"weights and wires"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_a_model_is_given_only_if_it_is_the_measured_one(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial]
) -> None:
    record = make_record(7, onnx_sha256=SHA256)
    assert kept_model(tmp_path, record) is None
    path = model_path(tmp_path, 7)
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert file_sha256(path) == SHA256
    assert kept_model(tmp_path, record) == path
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(ConfigError) as caught:
        kept_model(tmp_path, record)
    told = str(caught.value)
    assert f"{path} is not the file that trial 7 measured" in told and SHA256[:12] in told
    assert "delete this one: it is then made again" in told and len(told.splitlines()) <= 3
    # a record of old that kept no hash
    assert kept_model(tmp_path, replace(record, onnx_sha256="")) == path


def test_the_reference_is_known_by_the_hash_in_run_toml(session: Session) -> None:
    known = replace(session, reference_sha256=SHA256)
    assert kept_reference(known) is None
    path = reference_path(session.folder)
    path.write_bytes(CONTENT)
    assert kept_reference(known) == path
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match="that this study's latencies are relative to"):
        kept_reference(known)
    assert kept_reference(session) == path, "a study of old, which kept no hash"
