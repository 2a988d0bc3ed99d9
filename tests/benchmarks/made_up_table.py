"""A made-up table of the default space, on which replayed searches are tested; made once."""

import functools

from replay.synthetic import synthetic_lines
from replay.table import Table, table_of


@functools.cache
def made_up_table() -> Table:
    """Return the table of all networks with 240 updates."""
    return table_of(synthetic_lines((240,)), 240)
