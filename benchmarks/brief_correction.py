"""Does the correction of brief scores predict long ones better than simpler ways? Each network from all the others.

    python benchmarks/brief_correction.py --ranks benchmarks/results/rank_fidelity.jsonl --study results/example

`--ranks` takes result files of `rank_fidelity.py` (of this and its earlier format); for each brief recipe, the long
scores are the means of the long trainings. `--study` takes folders that hold the trials.csv and confirmed.csv of a
confirmed study: members of a front, as `confirm` has them. Scores are on validation images.

Printed for each: the effects at equal brief scores with their 95 % intervals, and the root mean square error, in
points, of each network predicted from all others by the correction, by the mean gain, by the brief score alone, and by
a correction that does not know the brief score.
Where there are enough networks, the same with a front's usual few: the errors over `DRAWS` random sets of `FEW`.
"""

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rank_fidelity import BASE_PX, SHAPES, SPACE

from scalesearch.analysis.bayesian_regression import fit
from scalesearch.analysis.brief_bias import BriefBias, Traits, fit_brief_bias
from scalesearch.config import load_run
from scalesearch.measurement.cost import formula_cost
from scalesearch.networks import find_spec
from scalesearch.networks.build import outline
from scalesearch.networks.scaling import scale
from scalesearch.tasks.classification.task import TASK
from scalesearch.values.candidate import Recipe

FEW, DRAWS = 7, 100
CLASSES = 43
Pair = tuple[Traits, float, float]
"""Traits, long score and the square of its standard error."""


def of_ranks(path: Path) -> Iterator[tuple[str, list[Pair]]]:
    """The networks of each brief recipe (of its first seed) in a results file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if "network" in line:
            found[_recipe(line)][line["network"]].append(line)
    images = next((line["val_images"] for line in lines if "val_images" in line), 881)
    for name, brief in found.items():
        long = found.get(_long_of(name, found), {})
        if "long" not in name and long:
            yield (
                f"{path.name}: {name}",
                [_pair(brief[each], long[each], images) for each in sorted(long) if each in brief],
            )


def _recipe(line: dict[str, Any]) -> str:
    if "way" in line:
        return f"long {line['way']}" if line["seed"] >= 1000 else str(line["way"])
    return f"{line['arm']} {line['optimizer']} {line['steps']}"


def _long_of(name: str, found: dict[str, Any]) -> str:
    optimizer = next((word for word in ("muon", "adamw") if word in name), "")
    return next((each for each in found if each.startswith("long") and optimizer in each), "")


def _pair(brief: list[dict[str, Any]], long: list[dict[str, Any]], images: int) -> Pair:
    shape = next(shape for shape in SHAPES if shape.name == long[0]["network"])
    score = float(np.mean([line["val"] for line in long]))
    traits = Traits(
        brief_score=brief[0]["val"],
        side_px=shape.resolution_px,
        macs=long[0].get("macs") or _dense_macs(shape.name),
        cut=shape.cut > 0,
    )
    return traits, score, score * (1 - score) / images


def _dense_macs(name: str) -> int:
    shape = next(shape for shape in SHAPES if shape.name == name)
    _, space = load_run(space=SPACE)
    spec = scale(
        find_spec(space.network),
        shape.candidate(Recipe()).scaling,
        resolution_px=BASE_PX,
        num_classes=CLASSES,
        channel_multiple=8,
        resolution_multiple=space.resolution_multiple,
    )
    return formula_cost(outline(spec, TASK.make_module)).macs


def of_study(folder: Path) -> tuple[str, list[Pair]]:
    """The confirmed members of a study, each network once."""
    trials = {row["trial"]: row for row in _rows(folder / "trials.csv")}
    networks: dict[tuple[str, ...], list[tuple[dict[str, str], dict[str, str]]]] = defaultdict(list)
    for row in _rows(folder / "confirmed.csv"):
        trial = trials[row["trial"]]
        shape = ("resolution_px", "depth", "width", "kernel", "channel_fraction", "criterion", "scope", "macs")
        networks[tuple(trial[name] for name in shape)].append((trial, row))
    return f"{folder}: its confirmed front", [_member(own) for own in networks.values()]


def _member(own: Sequence[tuple[dict[str, str], dict[str, str]]]) -> Pair:
    trial = own[0][0]
    traits = Traits(
        brief_score=float(np.mean([float(row["brief_top1"]) for _, row in own])),
        side_px=float(trial["resolution_px"]),
        macs=float(trial["macs"]),
        cut=bool(own[0][1]["pruned"]),
    )
    halves = [(float(row["val_high"]) - float(row["val_low"])) / (2 * 1.959964) for _, row in own]
    return traits, float(np.mean([float(row["val_top1"]) for _, row in own])), float(np.mean(np.square(halves)))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report(title: str, pairs: Sequence[Pair]) -> Iterator[str]:
    """The lines to print."""
    bias = _fitted(pairs)
    yield f"{title}, {len(pairs)} networks"
    if bias is None:
        yield "  nothing to say: too few, or too like ones"
        return
    told = [
        f"{each.aspect} {each.points:+.1f} ({each.low:+.1f} to {each.high:+.1f})"
        for each in bias.effects
        if each.varies
    ]
    yield f"  mean gain {bias.mean_gain:+.1f}; {', '.join(told)}; residual {bias.residual_sd:.1f}"
    yield f"  {_errors([bias])}; without the brief score among its causes {_without_brief_score(pairs):.2f}"
    if len(pairs) > 2 * FEW:
        random = np.random.default_rng(0)
        drawn = (random.choice(len(pairs), FEW, replace=False) for _ in range(DRAWS))
        few = [_fitted([pairs[place] for place in places]) for places in drawn]
        yield f"  sets of {FEW}: {_errors([each for each in few if each])}"


def _without_brief_score(pairs: Sequence[Pair]) -> float:
    columns = np.array([traits.columns[1:] for traits, _, _ in pairs])
    gains = np.array([100 * (score - traits.brief_score) for traits, score, _ in pairs])
    noise = np.array([1e4 * variance for _, _, variance in pairs])
    errors = []
    for place in range(len(pairs)):
        others = np.arange(len(pairs)) != place
        errors.append(gains[place] - fit(columns[others], gains[others], noise[others]).value(columns[place]))
    return math.sqrt(np.mean(np.square(errors)))


def _fitted(pairs: Sequence[Pair]) -> BriefBias | None:
    return fit_brief_bias([pair[0] for pair in pairs], [pair[1] for pair in pairs], [pair[2] for pair in pairs])


def _errors(found: Sequence[BriefBias]) -> str:
    def mean(name: str) -> float:
        return math.sqrt(np.mean([getattr(bias.left_out, name) ** 2 for bias in found]))

    better = np.mean([bias.left_out.helps for bias in found])
    return (
        f"left out: corrected {mean('corrected'):.2f}, mean gain {mean('mean_gain'):.2f}, brief score alone "
        f"{mean('brief_score_alone'):.2f} points; the correction is the best of the three in {100 * better:.0f} %"
    )


def main() -> None:
    """Print the report of every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=Path, nargs="*", default=[], help="result files of rank_fidelity.py")
    parser.add_argument("--study", type=Path, nargs="*", default=[], help="folders with trials.csv and confirmed.csv")
    told = parser.parse_args()
    for title, pairs in (*(each for path in told.ranks for each in of_ranks(path)), *map(of_study, told.study)):
        print("\n".join(report(title, pairs)))


if __name__ == "__main__":
    main()
