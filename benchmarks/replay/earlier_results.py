"""Turn results of `rank_fidelity.py` into a small table: real accuracies and latencies of 20 networks, fp32 alone.

    export PYTHONPATH=benchmarks
    python -m replay.earlier_results benchmarks/results/rank_fidelity_wsd_grocery42.jsonl --to small.jsonl

Latencies are read from the file that `recipe_choice.py` keeps beside the results. The four networks of width 1.5 are
left out, since the default space does not have that width. Seconds of export, scoring and timing were not recorded;
6 s a network stand for them. One seed is taken, and there is one process, so the table tells nothing about noise, and
it is too small to compare samplers. It is for trying the replay on real numbers.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from replay.lines import Line
from replay.shapes import BRANCH_SHARE, SPACE, Shape

BASE_PX = 64
OTHER_S = 6.0
"""Seconds of a trial beside its training, as in `recipe_choice.py`."""
WIDEST = 1.25
SEED = 0


def shape_named(name: str) -> Shape:
    """Return the network of a name such as `48px w0.5 d1 k1.67 -25%`."""
    px, width, depth, kernel, *cut = name.split()
    return Shape(
        resolution=int(px.removesuffix("px")) / BASE_PX,
        width=float(width[1:]),
        depth=float(depth[1:]),
        kernel=float(kernel[1:]),
        cut=float(cut[0][1:-1]) / 100 if cut else 0.0,
    )


def table_lines(results: Path, steps: int) -> list[Line]:
    """Return the lines of a table of what was trained by `wsd` without flips at this length, with seed 0.

    Raises:
        OSError: The results, or the latencies beside them, cannot be read.
    """
    latencies: dict[str, float] = json.loads(results.with_suffix(".latency.json").read_text(encoding="utf-8"))
    parsed = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = [row for row in parsed if row.get("way") == f"wsd {steps}" and row["seed"] == SEED]
    shapes = {row["network"]: shape_named(row["network"]) for row in rows}
    whole_s = {shapes[row["network"]]: row["cpu_s"] for row in rows if not shapes[row["network"]].cut}
    about = {"kind": "about", "data": parsed[0]["data"], "val_images": parsed[0]["val_images"], "space": SPACE}
    lines: list[Line] = [about]
    for row in rows:
        shape = shapes[row["network"]]
        if shape.width > WIDEST:
            continue
        cost = {"macs": row["macs"], "params": row["macs"], "identity": shape.name, "rejected": ""}
        lines.append({"kind": "network", "network": shape.name, **asdict(shape), **cost})
        trunk_s = whole_s[shape.trunk] * (1 - BRANCH_SHARE)
        own = {"network": shape.name, "precision": "fp32"}
        lines.append(
            {
                "kind": "accuracy",
                **own,
                "steps": steps,
                "seed": row["seed"],
                "val": row["val"],
                "test": row["test"],
                "trunk_s": trunk_s,
                "branch_s": row["cpu_s"] if shape.cut else row["cpu_s"] - trunk_s,
                "cpu_share": 1.0,
                **{"prune_s": 0.0, "export_s": 0.0, "quantize_s": 0.0, "score_s": 0.0},
            }
        )
        timed = {"process": 0, "p50_ms": latencies[row["network"]], "make_s": 0.0, "time_s": OTHER_S}
        lines.append({"kind": "latency", **own, **timed})
    return lines


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results file of rank_fidelity.py")
    parser.add_argument("--to", type=Path, required=True, help="file to write (JSON lines)")
    parser.add_argument("--steps", type=int, default=240, help="length of the trainings; only 240 has true seconds")
    told = parser.parse_args()
    lines = table_lines(told.results, told.steps)
    told.to.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    print(f"{told.to}: {len(lines)} lines")


if __name__ == "__main__":
    main()
