"""Does the predicted time hold? Predicts a run as `check` does, runs it, and prints predicted against real.

    python benchmarks/predicted_time.py --budget 8
    python benchmarks/predicted_time.py --budget 6 --space mobilenet_small --set training.steps=60 --workers 2

Do it once on a quiet machine, and once beside something that keeps a core busy. Code 1 where the range did not hold.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from scalesearch.chain.planner import PlanBasis, Planner
from scalesearch.cli.choices import choose_chip
from scalesearch.cli.samples import sampled
from scalesearch.config import load_run
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.deployment.targets import get_target
from scalesearch.networks import find_spec
from scalesearch.spaces.suggest import cheapest, for_target
from scalesearch.study.fitted_space import largest_input
from scalesearch.study.lengths import with_lengths
from scalesearch.study.pieces import measure_pieces
from scalesearch.study.predicted_time import PlannedRun, predict
from scalesearch.study.run import run_search
from scalesearch.study.time_words import PredictedTime
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace


def main() -> int:
    """Print the prediction, the run's real time and the ratio of both ends to it; 0 where the range held."""
    settings, space = _asked()
    target = get_target(settings.target)
    space = for_target(space, target)
    # The images are made or read before: a first reading of a data set is not what is predicted.
    base = find_spec(space.network)
    data = load_dataset(
        settings.data, LABEL_SOURCES, storage_px=largest_input(space, base), channels=base.image_channels
    )
    images = len(data.val)
    found = _prediction(settings, space, images)
    print(f"predicted: {found.low_s:.0f} to {found.high_s:.0f} s ({found.words})", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = run_search(settings, space, Path(scratch) / "study")
    real_s = time.monotonic() - began
    evaluated = sum(record.state == "complete" for record in outcome.records)
    held = found.low_s <= real_s <= found.high_s
    print(f"real:      {real_s:.0f} s for {outcome.charged} trained candidates, {evaluated} evaluated files")
    print(
        f"ratio:     {found.low_s / real_s:.2f} to {found.high_s / real_s:.2f} of the real time; "
        f"{'the range held' if held else 'THE RANGE DID NOT HOLD'}"
    )
    return 0 if held else 1


def _prediction(settings: RunSettings, space: SearchSpace, val_images: int) -> PredictedTime:
    target = get_target(settings.target)
    planner = Planner(
        PlanBasis(base=find_spec(space.network), space=space, target=target, num_classes=43, seed=settings.seed)
    )
    plans = [plan for plan in sampled(space, planner, seed=settings.seed).plans if not plan.rejected_because]
    first = planner(cheapest(space))
    pieces = measure_pieces([*plans, first], task=settings.task, settings=settings.machine, workers=settings.workers)
    run = PlannedRun(settings=settings, space=space, backend=target.backend, val_images=val_images)
    return predict(run, plans, pieces, first=first)


def _asked() -> tuple[RunSettings, SearchSpace]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--space", default="resnet_small")
    parser.add_argument("--data", default="signs")
    parser.add_argument("--budget", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    flags = {"data.source": arguments.data, "budget": arguments.budget, "workers": arguments.workers}
    settings, space = load_run(space=arguments.space, overrides=arguments.set, flags=flags)
    space, _ = with_lengths(space, settings, settings.sampler_name, None)
    settings, _ = choose_chip(dataclasses.replace(settings))
    return settings, space


if __name__ == "__main__":
    raise SystemExit(main())
