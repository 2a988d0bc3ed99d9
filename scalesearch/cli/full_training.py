"""`train`: trains an exported network at full length, through the same steps as the trial that it came from."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from scalesearch.chain.evaluate import TrialEvaluator
from scalesearch.chain.planner import Planner
from scalesearch.cli.studies import RESULTS
from scalesearch.cli.study_folder import prepare_folder
from scalesearch.cli.terminal import echo
from scalesearch.config.checks import require_branch, require_teacher
from scalesearch.data.finding import WantedData, find_data, leads_somewhere
from scalesearch.deployment.graph_structure import first_difference
from scalesearch.deployment.onnx_file import read_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.execution.stopping import interrupted_by_sigterm
from scalesearch.export.metadata import NAME, ExportedConfig, read_config
from scalesearch.files import is_folder, replace_file
from scalesearch.folder_lock import hold_folder
from scalesearch.records.run_file import read_run_file
from scalesearch.records.tables import by_metric, trial_rows
from scalesearch.study.parent import PriorParent
from scalesearch.study.parent_sources import RESULT
from scalesearch.study.run import clear_leftovers
from scalesearch.study.searched_trunk import lay_searched_trunk
from scalesearch.study.session import open_session
from scalesearch.tasks.base import built_parts
from scalesearch.tasks.registry import get_task, sources_of
from scalesearch.values.candidate import Recipe
from scalesearch.values.parent import parent_folder
from scalesearch.values.quality import Quality
from scalesearch.values.record import MeasuredTrial, TrialRecord
from scalesearch.values.session import Session, model_path, reference_path
from scalesearch.values.settings import DataSettings, RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.values.training_length import full_length
from scalesearch.views.words import cut_text, milliseconds

_SPACE = "export"
"""Name of the space without axes that a training's run.toml contains."""
_WAY_OUT = "Give the --seed and --data of the training that is there, or another folder with --to."


def train_export(config_path: Path, *, steps: int | None, data: str | None, seed: int | None, to: Path) -> None:
    """Train the exported network, and write model.onnx and result.json into `to`.

    The results are printed next to the search's numbers.
    """
    config = read_config(config_path)
    # A wrong length is reported before anything is read or made.
    require_branch(full_recipe(config, steps), config.candidate.quantization, origin=str(config_path))
    require_teacher(config.candidate.recipe.distill_weight, config.settings.parent)
    settings = dataclasses.replace(
        config.settings,
        data=_data_settings(config, config_path, data),
        seed=config.settings.seed if seed is None else seed,
    )
    check_target(to, config)
    with hold_folder(to, "training"), interrupted_by_sigterm():
        _train(config, config_path, settings, steps=steps, to=to)


def full_recipe(config: ExportedConfig, steps: int | None) -> Recipe:
    """Return the recipe at full length; None as `steps` takes the default."""
    return full_length(config.candidate.recipe, full_updates=config.full_updates, steps=steps)


def _train(config: ExportedConfig, config_path: Path, settings: RunSettings, *, steps: int | None, to: Path) -> None:
    recipe = full_recipe(config, steps)
    prepare_folder(to, fresh=False)
    clear_leftovers(to, echo)
    replace_file(to / NAME, _config_file(config_path).read_bytes())  # says whose network the folder holds
    space = training_space(config, read_run_file(to))
    alike = dataclasses.replace(settings, lengths="off", workers=1)  # there is one training, and all cores are its own
    prior = _prior_parent(config, config_path)
    session = open_session(
        alike, space, to, base=config.network, storage=config.storage, prior=prior, way_out=_WAY_OUT, say=echo
    )
    classes = len(session.data.class_names)
    spec = dataclasses.replace(config.network, num_classes=classes)
    cut_from = config.cut_from and dataclasses.replace(config.cut_from, num_classes=classes)
    candidate = dataclasses.replace(config.candidate, recipe=recipe)
    plan = Planner(session).plan_spec(spec, candidate, cut_from=cut_from)
    built = built_parts(get_task(settings.task).views(), plan.spec).stages
    larger = f", begun with {cut_text(plan.spec, plan.cut_from, built=built)}" if plan.cut_from else ""
    echo(f"training {spec.name} for {recipe.steps} steps{larger}")
    if continued := lay_searched_trunk(plan, session, _study_places(config, config_path)):
        echo(continued)
    evaluator = TrialEvaluator(session)
    record = evaluator.evaluate(plan, trial=0, report=lambda stage: echo(f"  {stage}"))
    test = evaluator.test_quality(record)
    (to / RESULT).unlink(missing_ok=True)  # from an earlier training: its numbers are not the new model's
    model_path(to, 0).replace(to / "model.onnx")
    result = {
        **trial_rows([record])[0],
        "new_steps": record.training.new_steps,  # the others were stored
        **by_metric(
            {"test_score": test.score, "test_score_low": test.score_low, "test_score_high": test.score_high},
            test.metric,
        ),
    }
    replace_file(to / RESULT, json.dumps(result, indent=1).encode())
    for line in (
        *_equality(config, record, config_path, to),
        *compared_numbers(config, record, test, session.device.name),
    ):
        echo(line)
    echo(f"written: {to}/model.onnx, {to}/{RESULT}")


def training_space(config: ExportedConfig, stored: Session | None) -> SearchSpace:
    """Return the space of the exported network alone, for images of exactly its size.

    A folder that an earlier version began keeps the `resolution_multiple` that it was begun with: it is part of what
    the training is recognised by.
    """
    return SearchSpace(
        name=_SPACE,
        network=config.network.name,
        resolution_px=config.network.resolution_px,
        width_px=config.network.width_px,
        axes=(),
        resolution_multiple=stored.space.resolution_multiple if stored else 1,
    )


def check_target(to: Path, config: ExportedConfig) -> None:
    """Raise ConfigError where `to` holds anything but earlier trainings of this same network."""
    remedy = "Give another folder with --to."
    if not to.is_dir():
        return
    stored = read_run_file(to)
    if stored is None:
        begun = {reference_path(to).name, RESULT}  # left by a training that was stopped early
        if (to / NAME).is_file():  # written before all else; whose network it names is compared below
            begun |= {NAME, parent_folder(to).name, "logs"}
        others = sorted(path.name for path in to.iterdir() if path.name not in begun and not _is_hidden(path))
        if others:
            message = f"{to} holds {', '.join(others[:4])}, which no training wrote: it would be mixed up.\n{remedy}"
            raise ConfigError(message)
    elif stored.space.name != _SPACE:
        message = f"{to} is the study of a search, and no folder of a training.\n{remedy}"
        raise ConfigError(message)
    if (to / NAME).is_file():
        there = read_config(to)
        if _network_of(there) != _network_of(config):
            message = (
                f"{to} holds a training of trial {there.trial} of {there.study}, and this is trial {config.trial} of "
                f"{config.study}, or that trial of another search.\n{remedy}"
            )
            raise ConfigError(message)


def _is_hidden(path: Path) -> bool:
    """Tell whether the file is a lock, or is hidden as files of systems and of killed processes are."""
    return path.name.startswith(".") or path.suffix == ".lock"


def _network_of(config: ExportedConfig) -> tuple[object, ...]:
    return (config.study, config.trial, config.candidate, config.network, config.expected.network_sha256)


def _config_file(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _data_settings(config: ExportedConfig, config_path: Path, data: str | None) -> DataSettings:
    """Return the data settings: with `data` if it is given, else the network's own images, found from any folder."""
    asked = config.settings.data
    if data is not None:
        return dataclasses.replace(asked, source=data)
    sources = sources_of(config.settings.task)
    folders = _folders(config, _config_file(config_path))
    wanted = WantedData(
        settings=asked,
        expected=config.data,
        storage=config.storage,
        channels=config.network.image_channels,
        asker=f"the study of {config_path}",
    )
    try:
        found = find_data(wanted, sources, folders=folders)
    except ConfigError as error:
        if not leads_somewhere(asked.source, (Path.cwd(),), sources):
            raise
        echo(f"data: {str(error).splitlines()[0]}")  # training on other images is not forbidden
        return asked
    return found.settings


def _prior_parent(config: ExportedConfig, config_path: Path) -> PriorParent | None:
    """Return the parent that the exported network inherited from, and where it may be found again."""
    if config.parent is None:
        return None
    file = _config_file(config_path)
    places = _study_places(config, config_path)
    return PriorParent(
        parent=config.parent,
        fingerprint=config.data.fingerprint,
        study=next((place for place in places if is_folder(place)), places[0]),
        folders=_folders(config, file),
        config=file,
    )


def _study_places(config: ExportedConfig, config_path: Path) -> list[Path]:
    """Return the folders that may be that of the exported network's study, the likeliest first."""
    # An older export does not tell the study's folder: it is looked for where studies are by default.
    study = config.study_folder or Path(RESULTS, config.study)
    return [folder / study for folder in _folders(config, _config_file(config_path))]


def _folders(config: ExportedConfig, file: Path) -> tuple[Path, ...]:
    """Return the folders that relative paths in a config may start from, the likeliest first."""
    run_folder = (Path(config.run_folder),) if config.run_folder else ()
    return (*run_folder, Path.cwd(), file.resolve().parent)


def _equality(config: ExportedConfig, record: TrialRecord, config_path: Path, to: Path) -> Iterator[str]:
    """Yield lines on whether this is the exported network: by name and shape of every tensor, and by the ONNX graph."""
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


def compared_numbers(config: ExportedConfig, record: MeasuredTrial, test: Quality, device: str) -> Iterator[str]:
    """Yield the training's results next to the search's, and the spread of seeds if the study was confirmed."""
    expected = config.expected
    interval = ""
    if expected.score_low is not None and expected.score_high is not None:
        interval = f", {100 * expected.score_low:.1f} to {100 * expected.score_high:.1f}"
    exported = f"as exported {100 * expected.score:.1f} %{interval}"
    yield f"{test.title} on validation: {100 * record.quality.score:.1f} % ({exported})"
    before = "" if expected.test_score is None else f"; as exported {100 * expected.test_score:.1f} %"
    interval = f"{100 * test.score_low:.1f} to {100 * test.score_high:.1f}"
    yield f"{test.title} on test: {100 * test.score:.1f} % ({interval}{before})"
    seeds = expected.confirmed_test_score
    if seeds:
        low, high = min(seeds), max(seeds)
        steps = f"{len(seeds)} seeds of {expected.confirmed_steps} steps gave {100 * low:.1f} to {100 * high:.1f} %"
        inside = test.score_low <= high and low <= test.score_high
        verdict = "agrees within its interval" if inside else "lies OUTSIDE of it"
        if record.training.steps != expected.confirmed_steps:
            verdict = f"has {record.training.steps} and cannot be compared"
        yield f"spread of seeds: {steps}: this one {verdict}"
    alone, whole = record.latency.of_engine, record.latency.end_to_end
    yield f"latency: {milliseconds(alone.p50_ms)} on {device} (as exported: {milliseconds(expected.p50_ms)})"
    if whole and expected.end_to_end_ms is not None:
        yield f"end to end: {milliseconds(whole.p50_ms)} (as exported: {milliseconds(expected.end_to_end_ms)})"
