"""How exact latencies must be for what they decide: the front of a stored study with its latencies blurred.

For each half width of a 95 % interval: the share of the front's members that stay, of its neighbours that swap places,
and of its hypervolume (accuracy times log latency, by the true values) that is lost; last, what the error of the
accuracies does alone. `latency.stable_within` is chosen by this.

    python benchmarks/front_half_width.py [results/example/trials.csv] [--repeats 400]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HALF_WIDTHS = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08)
Z_975 = 1.959964

Values = NDArray[np.float64]


def main() -> None:
    """Print the table of one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=Path, nargs="?", default=Path("results/example/trials.csv"))
    parser.add_argument("--repeats", type=int, default=400)
    asked = parser.parse_args()
    table = pd.read_csv(asked.trials)
    table = table[(table.state == "complete") & table.feasible & table.p50_ms.notna()]
    top1, p50_ms = table.top1.to_numpy(), table.p50_ms.to_numpy()
    rng = np.random.default_rng(0)
    front = front_of(top1, p50_ms)
    gaps = np.sort(np.exp(np.diff(np.log(np.sort(p50_ms[list(front)])))) - 1)
    print(f"{len(table)} networks, {len(front)} on the front; gaps between neighbours, %:", np.round(100 * gaps, 1))
    print("| half width, % | members kept, % | neighbours swapped, % | hypervolume lost, % |\n|---|---|---|---|")
    for half_width in HALF_WIDTHS:
        blurred = [
            (top1, p50_ms * np.exp(rng.normal(size=len(p50_ms)) * half_width / Z_975)) for _ in range(asked.repeats)
        ]
        print(row(f"{100 * half_width:g}", blurred, top1, p50_ms))
    error = np.sqrt(top1 * (1 - top1) / table.images.to_numpy())
    blurred = [(top1 + rng.normal(size=len(top1)) * error, p50_ms) for _ in range(asked.repeats)]
    print(row("accuracies' own error", blurred, top1, p50_ms))


def row(name: str, blurred: list[tuple[Values, Values]], top1: Values, p50_ms: Values) -> str:
    """Means over the blurred studies."""
    front = front_of(top1, p50_ms)
    in_order = sorted(front, key=lambda network: p50_ms[network])
    fronts = [front_of(*each) for each in blurred]
    kept = np.mean([len(each & front) / len(front) for each in fronts])
    swapped = np.mean([np.diff(each_ms[in_order]) < 0 for _, each_ms in blurred])
    whole = volume(front, top1, p50_ms)
    lost = np.mean([1 - volume(each, top1, p50_ms) / whole for each in fronts])
    return f"| {name} | {100 * kept:.1f} | {100 * swapped:.1f} | {100 * lost:.2f} |"


def front_of(top1: Values, p50_ms: Values) -> frozenset[int]:
    """Networks that no other beats in both."""

    def beaten(network: int) -> bool:
        no_worse = (p50_ms <= p50_ms[network]) & (top1 >= top1[network])
        return bool((no_worse & ((p50_ms < p50_ms[network]) | (top1 > top1[network]))).any())

    return frozenset(network for network in range(len(top1)) if not beaten(network))


def volume(front: frozenset[int], top1: Values, p50_ms: Values) -> float:
    """Accuracy times log latency that these networks cover, down to the slowest network of the study."""
    best, covered, before_ms = 0.0, 0.0, 0.0
    for network in sorted(front, key=lambda each: (p50_ms[each], -top1[each])):
        if top1[network] > best:
            covered += best * float(np.log(p50_ms[network] / before_ms)) if before_ms else 0.0
            best, before_ms = float(top1[network]), float(p50_ms[network])
    return covered + best * float(np.log(p50_ms.max() / before_ms))


if __name__ == "__main__":
    main()
