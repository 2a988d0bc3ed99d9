"""A space of 192,000 candidates, each stage scaled by itself: a fit to what was trained of it tells the others.

A Gaussian process on the positions on the axes tells the validation accuracy of every candidate, one the logarithm of
its latency, one that of its MACs, and two those of the seconds of its trunk and of its branch. How far they are off is
found with each tenth of the trunks left out of the fit once, with all its networks. `replay.large_compare` searches it.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from replay.lines import Line
from replay.shapes import Shape, shape_of
from replay.table import shape_of_line, trunk_cpu_seconds
from scalesearch.analysis.belief import Features
from scalesearch.analysis.gaussian_process import MOST, GaussianProcess
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate
from scalesearch.values.space import SearchSpace

Array = NDArray[np.float64]

CUTS: Final = (0.25, 0.5)
DRAWN_PER_TRUNK: Final = 3
_BINS: Final = 10
_FOLDS: Final = 10


def drawn_trunks(space: SearchSpace, count: int, seed: int = 0) -> list[Shape]:
    """Return so many random uncut networks of the space, each once."""
    random, found = np.random.default_rng(seed), dict[Shape, None]()
    while len(found) < count:
        found[replace(shape_of(drawn(space, random)), cut=0.0)] = None
    return list(found)


def sampled(shapes: Sequence[Shape], planned: Mapping[str, Line], count: int) -> list[Shape]:
    """Return `count` distinct networks, as many from each tenth of the logarithm of the MACs as there are.

    Those of one identity count once. A smaller count gives the first ones of a larger one's order, bin by bin.
    """
    distinct = {planned[shape.name]["identity"]: shape for shape in reversed(shapes)}
    kept = [shape for shape in shapes if distinct[planned[shape.name]["identity"]] == shape]
    logs = np.log([planned[shape.name]["macs"] for shape in kept])
    edges = np.linspace(logs.min(), logs.max(), _BINS + 1)[1:-1]
    bins: list[list[Shape]] = [[] for _ in range(_BINS)]
    for shape, place in zip(kept, np.digitize(logs, edges), strict=True):
        bins[int(place)].append(shape)
    turns = (bins[place].pop(0) for _ in range(len(kept)) for place in range(_BINS) if bins[place])
    return [shape for _, shape in zip(range(count), turns, strict=False)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What was trained and timed of the large space, one row for each point."""

    candidates: tuple[Candidate, ...]
    trunks: tuple[str, ...]
    columns: dict[str, Array]
    """`val`, and the natural logarithms of `p50_ms`, `macs`, `trunk_s` and `branch_s`."""


def known_of(lines: Sequence[Line], steps: int) -> Known:
    """Return the points that have an accuracy of this length and a latency.

    Raises:
        SystemExit: There are fewer than 50.
    """
    networks = {line["network"]: line for line in lines if line["kind"] == "network"}
    timed: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        if line["kind"] == "latency":
            timed.setdefault((line["network"], line["precision"]), []).append(line["p50_ms"])
    trunk_cpu_s = trunk_cpu_seconds(lines)
    candidates, trunks, rows = list[Candidate](), list[str](), list[tuple[float, ...]]()
    for line in lines:
        key = (line.get("network", ""), line.get("precision", ""))
        if line["kind"] == "accuracy" and line["steps"] == steps and key in timed:
            shape, share = shape_of_line(networks[key[0]]), line["cpu_share"]
            candidates.append(shape.candidate(steps=steps, precision=line["precision"]))
            trunks.append(shape.trunk.name)
            branch_s = share * sum(line[part] for part in ("prune_s", "branch_s", "export_s"))
            seconds = (trunk_cpu_s[shape.trunk.name, line["seed"], steps], branch_s)
            rows.append((line["val"], math.log(np.mean(timed[key])), math.log(networks[key[0]]["macs"]),
                         *(math.log(max(each, 1e-3)) for each in seconds)))  # fmt: skip
    if len(rows) < 50:
        message = f"expected at least 50 points with an accuracy after {steps} updates and a latency, came {len(rows)}"
        raise SystemExit(message)
    names = ("val", "log_ms", "log_macs", "log_trunk_s", "log_branch_s")
    return Known(
        candidates=tuple(candidates), trunks=tuple(trunks), columns=dict(zip(names, np.array(rows).T, strict=True))
    )


class Surrogate:
    """Tells the numbers of any candidate of the space, by a fit to what is known.

    Args:
        space: The large space.
        known: The points that were trained and timed.
    """

    def __init__(self, space: SearchSpace, known: Known) -> None:
        self._features, self.known = Features(space), known
        self._x = self._features.of(known.candidates)
        self._models = {name: _fitted(self._x, values) for name, values in known.columns.items()}

    def tell(self, candidates: Sequence[Candidate]) -> dict[str, Array]:
        """Return every number (n,) of n candidates, by the names of `Known.columns`."""
        x = self._features.of(candidates)
        return {
            name: np.concatenate([model.predict(part)[0] for part in np.array_split(x, max(1, len(x) // 5000))])
            for name, model in self._models.items()
        }

    def held_out(self) -> dict[str, float]:
        """Return the root mean square error of every number for trunks left out of the fit; the kernels stay."""
        trunks = np.array(self.known.trunks)
        names = np.unique(trunks)
        np.random.default_rng(0).shuffle(names)
        errors: dict[str, list[Array]] = {name: [] for name in self._models}
        for fold in range(_FOLDS):
            out = np.isin(trunks, names[fold::_FOLDS])
            for name, values in self.known.columns.items():
                model = copy.copy(self._models[name])
                model.fit(self._x[~out], values[~out], tune=False)
                errors[name].append(model.predict(self._x[out])[0] - values[out])
        return {name: float(np.sqrt(np.mean(np.concatenate(each) ** 2))) for name, each in errors.items()}


def _fitted(x: Array, values: Array) -> GaussianProcess:
    """Return a process whose kernel is tuned on a part, if there are many values, and that then knows all of them."""
    model = GaussianProcess(x.shape[1])
    part = np.random.default_rng(0).permutation(len(x))[:MOST]
    model.fit(x[part], values[part])
    model.fit(x, values, tune=False)
    return model
