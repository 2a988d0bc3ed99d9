"""Finds the scaling choices of a space that round to the same network; `check` reports them before any training."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from scalesearch.spaces.axes import Value
from scalesearch.spaces.trunks import BY_AXES
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

if TYPE_CHECKING:
    from scalesearch.values.target import Target

GRID_LIMIT = 20_000
"""Up to this many combinations, all are tried (in a second or two). If there are more, SAMPLE random ones are tried."""
SAMPLE = 2_000
PAIRS_A_SAMPLE = 200
SHOWN_PAIRS = 8

Values = tuple[Value, ...]


def collapses(space: SearchSpace, base: NetworkSpec, target: "Target") -> Iterator[str]:
    """Yield lines that say how many distinct networks the scaling choices give, and which choices collapse.

    Only neighbouring values of an axis are compared. Rounding is monotonic, so if two values give the same network, all
    values between them give it too. Axes of names, such as decoders, are counted, but have no neighbours.
    """
    scaled = [named for named in space.axes if named.name.startswith("scaling.") and named.name not in BY_AXES]
    axes = [named for named in scaled if _listed(named)]
    ranged = [named.name for named in scaled if not _listed(named)]
    values = [_listed(named) for named in axes]
    names = [named.name for named in axes]
    combinations = math.prod(len(each) for each in values)
    also = f" (ranges left at 1: {', '.join(ranged)})" if ranged else ""

    def network(chosen: Values) -> NetworkSpec:
        return _scaled(space, base, dict(zip(names, chosen, strict=True)), target)

    if combinations <= GRID_LIMIT:
        specs = {chosen: network(chosen) for chosen in itertools.product(*values)}
        yield f"{combinations} combinations of scaling choices give {len(set(specs.values()))} distinct networks{also}."
    else:
        tried = _by_chance(values, SAMPLE)
        specs = {chosen: network(chosen) for chosen in tried}
        yield (
            f"{combinations} combinations of scaling choices, too many to compare one by one: {len(specs)} of them, "
            f"drawn by chance, give {len(set(specs.values()))} distinct networks{also}."
        )
    for place, named in enumerate(axes):
        if _is_of_names(named):
            continue
        if combinations <= GRID_LIMIT:
            rests = [chosen for chosen in specs if chosen[place] == values[place][0]]
        else:
            rests = list(specs)[: max(2, PAIRS_A_SAMPLE // len(values[place]))]
        yield from _of_axis(named.name, place, values[place][:GRID_LIMIT], rests, specs, network)


def _of_axis(
    name: str,
    place: int,
    values: Values,
    rests: Sequence[Values],
    specs: dict[Values, NetworkSpec],
    network: Callable[[Values], NetworkSpec],
) -> Iterator[str]:
    """Yield a line for each pair of neighbouring values that gives the same network.

    The line says whether that is so for all values of the other axes, or for some.
    """
    lines = []
    for one, other in itertools.pairwise(sorted(float(value) for value in values)):
        same = 0
        for rest in rests:
            pair = [(*rest[:place], value, *rest[place + 1 :]) for value in (one, other)]
            first, second = (specs.get(chosen) or network(chosen) for chosen in pair)
            same += first == second
        if same:
            share = "always" if same == len(rests) else f"in {same} of {len(rests)} combinations"
            lines.append(f"  {name} {one:g} and {other:g} give the same network {share}.")
    yield from lines[:SHOWN_PAIRS]
    if len(lines) > SHOWN_PAIRS:
        yield f"  {name}: so do {len(lines) - SHOWN_PAIRS} more pairs of neighbouring values."


def _is_of_names(named: NamedAxis) -> bool:
    """Tell whether the axis lists names, such as decoders, which have no order and give different networks."""
    return isinstance(named.axis, Choice) and any(isinstance(value, str) for value in named.axis.values)


def _listed(named: NamedAxis) -> Values:
    """Return the values that the axis can take, numbers as floats; none for a continuous range."""
    axis = named.axis
    if isinstance(axis, Choice):
        return axis.values if _is_of_names(named) else tuple(float(value) for value in axis.values)
    return axis.values if axis.steps < GRID_LIMIT else ()


def _by_chance(values: Sequence[Values], count: int) -> Iterable[Values]:
    chance = random.Random(0)
    return dict.fromkeys(tuple(chance.choice(each) for each in values) for _ in range(count))


def _scaled(space: SearchSpace, base: NetworkSpec, chosen: Mapping[str, Value], target: "Target") -> NetworkSpec:
    from scalesearch.networks.scaling import scale
    from scalesearch.spaces.suggest import candidate_of

    return scale(
        base,
        candidate_of(chosen).scaling,
        resolution_px=space.input_size,
        num_classes=base.num_classes,
        channel_multiple=target.channel_multiple,
        resolution_multiple=space.resolution_multiple,
    )
