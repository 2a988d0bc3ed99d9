"""`train`: an exported network at full length, through the same chain as the trial it came from."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import typer

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.cli.run import prepare_folder
from scalesearch.deployment.graph_structure import first_difference
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import StageFailed
from scalesearch.files import replace_file
from scalesearch.folder_lock import hold_folder
from scalesearch.records.export import ExportedConfig, read_config
from scalesearch.records.tables import trial_rows
from scalesearch.run import clear_leftovers
from scalesearch.search.stopping import interrupted_by_sigterm
from scalesearch.session import open_session
from scalesearch.values.candidate import Recipe
from scalesearch.values.record import Quality, TrialRecord
from scalesearch.values.session import model_path
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.values.training_length import full_length


def train_export(config_path: Path, *, steps: int | None, data: str | None, seed: int | None, to: Path) -> None:
    """Trains the exported network, writes model.onnx and result.json into `to`, and prints them beside the search's."""
    config = read_config(config_path)
    recipe = full_length(config.candidate.recipe, steps=steps)
    settings = dataclasses.replace(
        config.settings,
        data=dataclasses.replace(config.settings.data, source=data or config.settings.data.source),
        seed=config.settings.seed if seed is None else seed,
    )
    with hold_folder(to, "training"), interrupted_by_sigterm():
        _train(config, config_path, settings, recipe=recipe, to=to)


def _train(config: ExportedConfig, config_path: Path, settings: RunSettings, *, recipe: Recipe, to: Path) -> None:
    prepare_folder(to, fresh=False)
    clear_leftovers(to, typer.echo)
    space = SearchSpace(name="export", network=config.network.name, resolution_px=config.network.resolution_px, axes=())
    session = open_session(settings, space, to, base=config.network, storage_px=config.storage_px, say=typer.echo)
    spec = dataclasses.replace(config.network, num_classes=len(session.data.class_names))
    plan = Planner(session).plan_spec(spec, dataclasses.replace(config.candidate, recipe=recipe))
    typer.echo(f"training {spec.name} for {recipe.steps} steps")
    evaluator = TrialEvaluator(session)
    record = evaluator.evaluate(plan, trial=0, report=lambda stage: typer.echo(f"  {stage}"))
    test = evaluator.test_quality(record)
    model_path(to, 0).replace(to / "model.onnx")
    assert record.quality and record.latency
    result = {
        **trial_rows([record])[0],
        "test_top1": test.top1,
        "test_top1_low": test.top1_low,
        "test_top1_high": test.top1_high,
    }
    replace_file(to / "result.json", json.dumps(result, indent=1).encode())
    for line in (
        *_equality(config, record, config_path, to),
        *compared_numbers(config, record, test, session.device.name),
    ):
        typer.echo(line)
    typer.echo(f"written: {to}/model.onnx, {to}/result.json")


def _equality(config: ExportedConfig, record: TrialRecord, config_path: Path, to: Path) -> Iterator[str]:
    """Whether this is the exported network: by name and shape of every tensor, and by the graph of its ONNX file."""
    same = record.network_sha256 == config.expected.network_sha256
    other = "NOT the same as exported (other data or program version)"
    yield f"network: {'the same as exported' if same else other}, every tensor by name and shape"
    exported = (config_path if config_path.is_dir() else config_path.parent) / "model.onnx"
    if not exported.is_file():
        yield f"graph: not compared, for {exported} is not there"
        return
    try:
        difference = first_difference(read_onnx(to / "model.onnx"), read_onnx(exported))
    except StageFailed as error:
        yield f"graph: not compared, {error.reason}"
        return
    yield f"graph: {f'NOT the one of {exported}: {difference}' if difference else f'that of {exported}, weights aside'}"


def compared_numbers(config: ExportedConfig, record: TrialRecord, test: Quality, device: str) -> Iterator[str]:
    """What training gave beside what the search saw; and the spread of seeds, where the study was confirmed."""
    expected = config.expected
    assert record.quality and record.latency and record.training
    interval = ""
    if expected.top1_low is not None and expected.top1_high is not None:
        interval = f", {100 * expected.top1_low:.1f} to {100 * expected.top1_high:.1f}"
    yield (
        f"top-1 on validation: {100 * record.quality.top1:.1f} % (as exported {100 * expected.top1:.1f} %{interval})"
    )
    before = "" if expected.test_top1 is None else f"; as exported {100 * expected.test_top1:.1f} %"
    yield f"top-1 on test: {100 * test.top1:.1f} % ({100 * test.top1_low:.1f} to {100 * test.top1_high:.1f}{before})"
    seeds = expected.confirmed_test_top1
    if seeds:
        low, high = min(seeds), max(seeds)
        steps = f"{len(seeds)} seeds of {expected.confirmed_steps} steps gave {100 * low:.1f} to {100 * high:.1f} %"
        inside = test.top1_low <= high and low <= test.top1_high
        verdict = "agrees within its interval" if inside else "lies OUTSIDE of it"
        if record.training.steps != expected.confirmed_steps:
            verdict = f"has {record.training.steps} and cannot be compared"
        yield f"spread of seeds: {steps}: this one {verdict}"
    yield f"latency: {record.latency.p50_ms:.3f} ms on {device} (as exported: {expected.p50_ms:.3f} ms)"
