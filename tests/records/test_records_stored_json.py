"""Values in stored JSON: back as they were, under the names of earlier versions too, and refused where damaged."""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from scalesearch.records.stored_json import read_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    score: float
    final_loss: float = 0.0


_ADAPTER = TypeAdapter(_Stored)


def _file(folder: Path, text: str) -> Path:
    path = folder / "stored.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize("value", [_Stored(score=0.5), _Stored(score=1.0, final_loss=math.inf)])
def test_a_value_comes_back(value: _Stored, tmp_path: Path) -> None:
    assert read_json(_file(tmp_path, to_json(value, _ADAPTER).decode()), _ADAPTER, strict=True) == value


def test_names_of_earlier_versions_are_understood(tmp_path: Path) -> None:
    assert read_json(_file(tmp_path, '{"top1": 0.25}'), _ADAPTER) == _Stored(score=0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"score": 2.0}', r"^score = 2\.0, which no measurement gives$"),
        ('{"score": "much"}', "^score: "),
        ('{"score"', "^the file: "),
        ('{"top1"', "^"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        read_json(_file(tmp_path, text), _ADAPTER)


def test_unknown_fields_are_refused_where_asked(tmp_path: Path) -> None:
    path = _file(tmp_path, '{"score": 0.5, "speed": 1}')
    assert read_json(path, _ADAPTER).score == 0.5
    with pytest.raises(ValueError, match="speed"):
        read_json(path, _ADAPTER, strict=True)


def test_a_missing_file_is_a_value_error_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stored\.json"):
        read_json(tmp_path / "stored.json", _ADAPTER)
