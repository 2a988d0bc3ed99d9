"""A made-up table of the default space: formulas in place of trainings, to try the replay before the table exists.

    PYTHONPATH=benchmarks python -m replay.synthetic --to synthetic.jsonl

The constants are rounded from the 24 networks of `benchmarks/results/rank_fidelity_wsd_grocery42.jsonl`: MACs, latency
as a power of them, seconds of training, and test accuracy after 240 updates. What int8 does is invented. It is smoother
than a real table, so it shows whether the code works, and nothing about which sampler is best on real networks.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replay.lines import Line
from replay.shapes import BRANCH_SHARE, PRECISIONS, SECONDS_AT_240, SPACE, Shape, every_shape, table_space

SEEDS, PROCESSES = (0, 1), (0, 1)
TRUNK_NOISE, NETWORK_NOISE, PROCESS_NOISE = 0.010, 0.005, 0.012
"""Standard deviations: of accuracy by a trunk's seed and by a branch's, as fractions, and of the log latency."""


def macs_of(shape: Shape) -> int:
    """Return the multiply-accumulates of a network at 64 px, by powers of its multipliers."""
    count: float = 9.15e6 * shape.resolution**2 * (shape.width * (1 - shape.cut)) ** 1.71
    return round(count * (2.08 if shape.depth > 1 else 1.0) * (2.57 if shape.kernel > 1 else 1.0))


def accuracy(shape: Shape, precision: str, steps: int) -> float:
    """Return the mean test accuracy as a fraction; depth and large kernels need more updates to pay."""
    size, width, longer = math.log2(shape.resolution / 0.75), math.log2(shape.width), math.log2(steps / 240)
    value = 0.56 + 0.03 * longer + (0.075 + 0.01 * longer) * size - 0.02 * size**2
    value += 0.05 * width - 0.03 * width**2 + (0.012 * longer - 0.015) * (shape.depth - 1)
    value += (0.003 + 0.01 * longer) * (shape.kernel > 1) - 0.05 * shape.cut - 0.1 * shape.cut**2
    return value - (0.004 + 0.012 * (1.25 - shape.width) * shape.cut if precision == "int8" else 0.0)


def latency_ms(shape: Shape, precision: str) -> float:
    """Return the latency in milliseconds; int8 is slower on small images and faster on large kernels."""
    value: float = 0.2165 * (macs_of(shape) / 9.15e6) ** 0.744 * (1.12 if shape.depth > 1 else 1.0)
    return value * (
        (1.15 - 0.35 * shape.resolution) * (0.85 if shape.kernel > 1 else 1.0) if precision == "int8" else 1
    )


def synthetic_lines(
    steps: Sequence[int] = (240, 480), *, seed: int = 0, shapes: Sequence[Shape] | None = None
) -> list[Line]:
    """Return the lines of a whole table, or of one with these networks; equal seeds give equal lines."""
    random, space = np.random.default_rng(seed), table_space()
    limit = space.limits.max_macs or math.inf
    lines: list[Line] = [{"kind": "about", "data": "made up", "val_images": 881, "test_images": 2485, "space": SPACE}]
    lines[0]["command"] = "python -m replay.synthetic"
    trunk_noise = dict[tuple[Shape, int], float]()
    for shape in every_shape(space) if shapes is None else shapes:
        macs = macs_of(shape)
        rejected = f"max_macs exceeded by {100 * (macs / limit - 1):.0f} %" if macs > limit else ""
        own = {name: getattr(shape, name) for name in Shape.__dataclass_fields__ if name != "stages"}
        cost = {"macs": macs, "params": round(macs / shape.resolution**2 / 100), "trunk_macs": macs_of(shape.trunk)}
        lines.append({"kind": "network", "network": shape.name, **own, **cost, "identity": shape.name})
        lines[-1]["rejected"] = rejected
        if not rejected:
            for training_seed in SEEDS:
                luck = trunk_noise.setdefault((shape.trunk, training_seed), random.normal(0, TRUNK_NOISE))
                for length in steps:
                    lines += _trained(shape, length, training_seed, luck + random.normal(0, NETWORK_NOISE))
            lines += _timed(shape, random)
    return lines


def _trained(shape: Shape, steps: int, seed: int, luck: float) -> list[Line]:
    def seconds(of: Shape) -> float:
        return (SECONDS_AT_240[0] + SECONDS_AT_240[1] * macs_of(of) / 1e6) * steps / 240

    return [
        {
            "kind": "accuracy",
            "network": shape.name,
            "precision": precision,
            "steps": steps,
            "seed": seed,
            "val": accuracy(shape, precision, steps) + 0.15 + luck,
            "test": accuracy(shape, precision, steps) + luck,
            "trunk_s": seconds(shape.trunk) * (1 - BRANCH_SHARE),
            "branch_s": seconds(shape) * BRANCH_SHARE,
            "cpu_share": 1.0,
            **{"prune_s": 0.3, "export_s": 1.0, "quantize_s": 1.5, "score_s": 1.0},
        }
        for precision in PRECISIONS
    ]


def _timed(shape: Shape, random: np.random.Generator) -> list[Line]:
    return [
        {
            "kind": "latency",
            "network": shape.name,
            "precision": precision,
            "process": process,
            "p50_ms": latency_ms(shape, precision) * math.exp(random.normal(0, PROCESS_NOISE)),
            "make_s": 1.5,
            "time_s": 4.0,
        }
        for precision in PRECISIONS
        for process in PROCESSES
    ]


def main() -> None:
    """Write the made-up table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="file to write (JSON lines)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    told = parser.parse_args()
    lines = synthetic_lines(seed=told.seed)
    told.to.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{told.to}: {len(lines)} lines")


if __name__ == "__main__":
    main()
