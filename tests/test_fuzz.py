"""A small part of benchmarks/fuzz.py: hostile inputs of every family are refused in words or treated rightly."""

import pytest
from fuzz import count
from fuzz_families import FAMILIES

CASES = 40


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_inputs_are_refused_in_words_or_accepted(family: str) -> None:
    found = count(FAMILIES[family], CASES, seed=20_261)
    assert found.cases == CASES
    assert found.faults == []
    assert found.refused + found.accepted == CASES
