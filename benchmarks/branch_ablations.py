"""What matters about a branch: its share of the updates, the optimizer's state at the cut, and how channels are chosen.

    python benchmarks/branch_ablations.py --data DIR --to branch_ablations.jsonl --seeds 0 1 2

All networks make the same number of updates (`--steps`). The reference is the program's default: a third of them on the
branch, the trunk's optimizer state kept (cut along with the weights), the channels with the smallest L2 norm removed.
Each ablation changes one of the three:

* fraction: a fifth, a third or half of the updates on the branch; dense, 25 and 50 % of the channels cut;
* state: the branch begins with fresh moments of the optimizer, and anew with the order of the images;
* criterion: Taylor or chance in place of L2; 25 and 50 %.

Equal updates of one network take nearly equal CPU time; a longer trunk costs a cut candidate less, since the trunk is
shared, and the last column says how many updates a further cut of the same trunk costs.

Printed is the score on validation images (float32, torch), as the difference from the reference of the same network,
cut and seed: mean and standard error over networks and seeds. The recipe is the space's. With `--parent` (as of
`scalesearch run`), the networks inherit trained weights. Every finished training is a line of the results file; the
same command continues where it was stopped, and prints the tables alone once all is there.
"""

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rank_fidelity import Job, Results

from scalesearch.chain.parts import Part
from scalesearch.chain.planner import Planner
from scalesearch.chain.shrink import Shrinker
from scalesearch.chain.stages import StageClock
from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES, Dataset
from scalesearch.data.finding import load_study_data
from scalesearch.host import computing_threads
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.spaces.suggest import random_candidates
from scalesearch.study.run import tune_parent
from scalesearch.study.session import open_session
from scalesearch.training.weights import WeightStore
from scalesearch.values.candidate import Candidate, Criterion, Pruning, Recipe, Scaling
from scalesearch.values.plan import Plan
from scalesearch.values.session import Session

CUTS = (0.0, 0.25, 0.5)
FRACTIONS = (0.2, 0.33, 0.5)
CRITERIA: tuple[Criterion, ...] = ("taylor", "random")
ABLATIONS = ("fraction", "criterion", "state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One network of a trunk, under the reference or one ablation of it."""

    cut: float
    fraction: float = 0.33
    criterion: Criterion = "l2"
    keep_state: bool = True

    @property
    def ablation(self) -> str:
        """What is changed, in a word."""
        changed = [
            f"fraction {self.fraction:g}" if self.fraction != Variant.__dataclass_fields__["fraction"].default else "",
            self.criterion if self.criterion != "l2" else "",
            "" if self.keep_state else "fresh state",
        ]
        return " ".join(filter(None, changed)) or "reference"

    @property
    def name(self) -> str:
        """Short and unique."""
        return f"{self.ablation}, {100 * self.cut:.0f} %"


def variants(ablations: Sequence[str] = ABLATIONS) -> Iterator[Variant]:
    """The reference and every ablation; shorter trunks first, since longer ones continue them."""
    fractions = sorted(FRACTIONS, reverse=True) if "fraction" in ablations else [Variant(cut=0.0).fraction]
    for fraction in fractions:
        yield from (Variant(cut=cut, fraction=fraction) for cut in CUTS)
    if "criterion" in ablations:
        yield from (Variant(cut=cut, criterion=criterion) for criterion in CRITERIA for cut in CUTS if cut)
    if "state" in ablations:
        yield from (Variant(cut=cut, keep_state=False) for cut in CUTS)


class FreshState(Shrinker):
    """Begins every branch with a fresh optimizer; trunks come from the ordinary store, branches go to their own."""

    def __init__(self, session: Session, lock: DeviceLock) -> None:
        super().__init__(session, lock)
        self._trunks, self._branches = self._weights, WeightStore(session.folder / "weights_fresh_state")

    def _trunk(self, plan: Plan, data: Dataset) -> Part:
        self._weights = self._trunks
        try:
            return replace(super()._trunk(plan, data), state=None)
        finally:
            self._weights = self._branches


def train(session: Session, data: Dataset, variant: Variant, *, px: int, recipe: Recipe) -> dict[str, Any]:
    """Train one network, or find it stored, and return its line."""
    recipe = replace(recipe, branch_fraction=variant.fraction)
    scaling = Scaling(resolution=px / session.space.resolution_px)
    pruning = Pruning(channel_fraction=variant.cut, criterion=variant.criterion)
    plan = Planner(session)(Candidate(scaling=scaling, pruning=pruning, recipe=recipe))
    shrinker = Shrinker if variant.keep_state else FreshState
    began_s = time.process_time()
    shrunk = shrinker(session, DeviceLock(MEASURED_DEVICE))(plan, data.at(plan.spec.input_size), StageClock())
    return {
        "val": shrunk.training.float_score,
        "branch_updates": plan.branch_updates,
        "cpu_s": time.process_time() - began_s,
        "safe_recipe_used": shrunk.training.safe_recipe_used,
    }


def tables(done: dict[Job, dict[str, Any]], networks: list[str], seeds: list[int]) -> list[str]:
    """The differences from the reference, as lines to print."""
    lines = []
    for cut in CUTS:
        reference = Variant(cut=cut)
        lines += [
            "",
            f"{100 * cut:.0f} % of the channels cut{'':14} points less reference     updates of a further cut",
        ]
        for variant in (each for each in variants() if each.cut == cut):
            pairs = [
                (
                    done.get(Job(network=network, way=variant.name, seed=seed)),
                    done.get(Job(network=network, way=reference.name, seed=seed)),
                )
                for network in networks
                for seed in seeds
            ]
            both = [(one, other) for one, other in pairs if one and other]
            if not both:
                continue
            less = np.array([100 * (one["val"] - other["val"]) for one, other in both])
            error = float(np.std(less, ddof=1) / math.sqrt(len(less))) if len(less) > 1 else math.nan
            mean = np.mean([100 * one["val"] for one, _ in both])
            told = f"{mean:5.1f} %" if variant == reference else f"{less.mean():+5.1f} ({error:.1f})"
            lines.append(f"  {variant.ablation:24} {told:>20}   n = {len(both)}   {both[0][0]['branch_updates']:8d}")
    return lines


def main() -> None:
    """Train what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as of `scalesearch run --data`")
    parser.add_argument("--to", type=Path, required=True, help="results file (JSON lines), continued if there")
    parser.add_argument("--space", default="resnet_small")
    parser.add_argument("--parent", default="", help="as of `scalesearch run --parent`")
    parser.add_argument("--px", type=int, nargs="+", default=[32, 48], help="resolutions; each is one network")
    parser.add_argument("--steps", type=int, default=240, help="updates of every network")
    parser.add_argument("--ablations", nargs="+", choices=ABLATIONS, default=ABLATIONS, help="what is changed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="settings, e.g. data.val_fraction=0.3")
    told = parser.parse_args()

    flags = {"data.source": told.data, "parent": told.parent or None}
    overrides = ("machine.threads=1", "machine.bf16=off", *told.set)
    settings, space = load_run(space=told.space, overrides=overrides, flags=flags)
    folder = told.to.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    session = open_session(settings, space, folder, say=print)
    print(*tune_parent(session, print), sep="\n")
    data = load_study_data(session, LABEL_SOURCES)
    about = {"data": session.data.fingerprint, "space": told.space, "parent": told.parent, "steps": told.steps}
    results = Results(told.to, about)
    # Of a space that samples a recipe this is one of them: give such a setting one value with --set.
    recipe = replace(random_candidates(session.space, 1, 0)[0].recipe, steps=told.steps)
    for seed in told.seeds:
        seeded = replace(session, settings=replace(session.settings, seed=seed))
        for px in told.px:
            for variant in variants(told.ablations):
                job = Job(network=f"{px} px", way=variant.name, seed=seed)
                if job in results.done():
                    continue
                with computing_threads(1):
                    line = train(seeded, data, variant, px=px, recipe=recipe)
                results.add({**asdict(job), **line})
                print(
                    f"{job.network}, seed {seed}, {job.way}: val {100 * line['val']:.1f}, {line['cpu_s']:.0f} s",
                    flush=True,
                )
    print(*tables(results.done(), [f"{px} px" for px in told.px], told.seeds), sep="\n")


if __name__ == "__main__":
    main()
