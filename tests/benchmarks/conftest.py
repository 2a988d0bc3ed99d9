"""A made-up table of the default space, on which replayed searches are tested."""

import pytest
from replay.lines import Line
from replay.synthetic import synthetic_lines
from replay.table import Table, table_of


@pytest.fixture(scope="session")
def made_up_lines() -> list[Line]:
    """The lines of the made-up table."""
    return synthetic_lines((240, 480))


@pytest.fixture(scope="session")
def made_up(made_up_lines: list[Line]) -> Table:
    """The table of these lines, for 240 updates."""
    return table_of(made_up_lines, 240)
