"""`train`: an exported network at full length, through the same chain as the trial it came from."""

import dataclasses
import json
from pathlib import Path

import typer

from scalesearch.chain.evaluate import TrialEvaluator, model_path
from scalesearch.chain.planner import Planner
from scalesearch.cli.run import prepare_folder
from scalesearch.files import replace_file
from scalesearch.records.export import read_config
from scalesearch.records.tables import trial_rows
from scalesearch.session import open_session
from scalesearch.values.space import SearchSpace

_FULL_LENGTH = 8


def train_export(config_path: Path, *, steps: int | None, data: str | None, seed: int | None, to: Path) -> None:
    """Trains the exported network, writes model.onnx and result.json into `to`, and prints them beside the search's."""
    config = read_config(config_path)
    recipe = config.candidate.recipe
    recipe = dataclasses.replace(
        recipe,
        steps=steps or _FULL_LENGTH * recipe.steps,
        # The retrain after pruning grows with it.
        retrain_steps=max(1, round(recipe.retrain_steps * (steps or _FULL_LENGTH * recipe.steps) / recipe.steps)),
    )
    settings = dataclasses.replace(
        config.settings,
        data=dataclasses.replace(config.settings.data, source=data or config.settings.data.source),
        seed=config.settings.seed if seed is None else seed,
    )
    prepare_folder(to, fresh=False)
    space = SearchSpace(name="export", network=config.network.name, resolution_px=config.network.resolution_px, axes=())
    session = open_session(settings, space, to, base=config.network, storage_px=config.storage_px, say=typer.echo)
    spec = dataclasses.replace(config.network, num_classes=len(session.data.class_names))
    plan = Planner(session).plan_spec(spec, dataclasses.replace(config.candidate, recipe=recipe))
    typer.echo(f"training {spec.name} for {recipe.steps} steps")
    evaluator = TrialEvaluator(session)
    record = evaluator.evaluate(plan, trial=0, report=lambda stage: typer.echo(f"  {stage}"))
    test = evaluator.score_on_test(record).test
    model_path(to, 0).replace(to / "model.onnx")
    assert record.quality and record.latency
    result = {
        **trial_rows([record])[0],
        "test_top1": test.top1,
        "test_top1_low": test.top1_low,
        "test_top1_high": test.top1_high,
    }
    replace_file(to / "result.json", json.dumps(result, indent=1).encode())
    same = record.network_sha256 == config.expected.network_sha256
    typer.echo(
        f"network: {'the same as exported' if same else 'NOT the same as exported (other data or program version)'}"
    )
    typer.echo(
        f"top-1 on validation: {100 * record.quality.top1:.1f} % (in the search {100 * config.expected.top1:.1f} %)"
    )
    typer.echo(f"top-1 on test: {100 * test.top1:.1f} % ({100 * test.top1_low:.1f} to {100 * test.top1_high:.1f})")
    typer.echo(
        f"latency: {record.latency.p50_ms:.3f} ms on {session.device.name} (search: {config.expected.p50_ms:.3f} ms)"
    )
    typer.echo(f"written: {to}/model.onnx, {to}/result.json")
