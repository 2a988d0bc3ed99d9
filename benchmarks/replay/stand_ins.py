"""Which point of a thinned table answers for a candidate of the space: its own network, or the nearest one."""

import math

from replay.shapes import place_in, shape_of, table_space, values_of
from replay.table import Table
from scalesearch.values.candidate import Candidate


class StandIns:
    """Finds for every candidate within the limits the point that answers for it.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self._table, self._values = table, values_of(table_space())
        self._positions = [place_in(self._values, point.shape) for point in table.points]

    def is_rejected(self, candidate: Candidate) -> bool:
        """Tell whether the candidate is above the limits of the space."""
        return shape_of(candidate) in self._table.rejected

    def own(self, candidate: Candidate) -> int | None:
        """Return the place of the candidate's own network in its precision; None if it is not in the table."""
        shape = shape_of(candidate)
        return self._table.places.get((self._table.equal.get(shape, shape), candidate.quantization.precision))

    def nearest(self, candidate: Candidate) -> int:
        """Return the place of the nearest network in the table, in the candidate's precision if it is there."""
        wanted, precision = place_in(self._values, shape_of(candidate)), candidate.quantization.precision

        def distance(place: int) -> tuple[float, bool]:
            return math.dist(wanted, self._positions[place]), self._table.points[place].precision != precision

        return min(range(len(self._table.points)), key=distance)
