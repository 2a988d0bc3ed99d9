"""Spans of time on the command line."""

import pytest

from scalesearch.cli.time_span import seconds_of, span
from scalesearch.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("1.5h", 5400), ("1h 2m 3s", 3723), ("2M", 120)]
)
def test_spans_are_read_with_their_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30m1h", "-5m", "0s", "1d", "h30m"])
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a span of time with units, such as 30m"):
        seconds_of(text)


def test_spans_are_shown_in_the_unit_that_is_easiest_to_read() -> None:
    assert [span(seconds) for seconds in (42, 89, 120, 5399, 5400)] == ["42 s", "89 s", "2 min", "90 min", "1.5 h"]
