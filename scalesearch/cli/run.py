"""The commands that work: `run`, `check` and `train`."""

from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.choices import (
    choose_chip,
    choose_workers,
    continues,
    default_folder,
    is_set,
    refuse_two_meanings,
    task_defaults,
)
from scalesearch.cli.study_folder import leave_no_trace, prepare_folder
from scalesearch.errors import ConfigError, NoFeasibleTrialError
from scalesearch.values.settings import UNLIMITED_BUDGET

Space = Annotated[
    str | None,
    typer.Option(
        "--space", help="Search space: a name from `scalesearch spaces`, or a .toml file (default: the task's)."
    ),
]
Task = Annotated[
    str | None, typer.Option("--task", help="What the network is for: classification (default), segmentation, ...")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override any setting, e.g. training.steps=500. Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add `run`, `check` and `train` to the app."""
    app.command()(run)
    app.command()(check)
    app.command()(train)


def run(
    space: Space = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="signs (default, synthetic), a folder, a .npz file, or cifar10, gtsrb, ..."),
    ] = None,
    task: Task = None,
    network: Annotated[
        str | None,
        typer.Option("--network", help="Replace the space's base network: a name or package.module:function."),
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option(
            "--parent",
            help="Inherit trained weights: an export, a .safetensors or .pth, pretrained, torchvision:NAME, timm:NAME.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="The chip, from `scalesearch targets` (default: auto).")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", help="rtx: every graph must also compile with TensorRT for RTX (no GPU needed)."),
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", help="Full trainings, in updates.")] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", help="Begin no candidate that is expected to end later, e.g. 30m, 1h30m."),
    ] = None,
    workers: Annotated[
        str | None, typer.Option("--workers", help="Candidates that are evaluated at once (default: auto).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the search and of every training.")] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="auto, tpe, gp, growth, nsga2 or random.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The study's folder (default: results/SPACE-DATA-TARGET).")
    ] = None,
    siblings: Annotated[
        bool | None,
        typer.Option("--siblings/--no-siblings", help="Also evaluate other precisions of networks near the front."),
    ] = None,
    adaptive: Annotated[
        bool | None,
        typer.Option("--adaptive/--no-adaptive", help="Stop asking for a precision that never paid on this chip."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; an old study is kept beside it.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, five candidates and the predicted time; run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Events as NDJSON on stdout.")] = False,
    overrides: Overrides = None,
) -> int:
    """Search: sample, train, compress, deploy and measure candidates, and find the Pareto front.

    The same command continues a stopped run to its budget. With --max-time and no --budget, the time alone ends it.
    """
    from scalesearch.cli.time_span import seconds_of
    from scalesearch.cli.workers import number_of
    from scalesearch.config import load_run
    from scalesearch.data import find_source
    from scalesearch.networks import find_spec
    from scalesearch.records.run_file import continues_with
    from scalesearch.tasks.registry import check_task_name, sources_of

    only_time_limits = max_time is not None and budget is None and not is_set("budget", overrides)
    space, source = task_defaults(space, data, task, overrides or ())
    flags = {
        "data.source": source,
        "task": task,
        "network": network,
        "parent": parent,
        "target": target,
        "accept": accept,
        "siblings": siblings,
        "adaptive": adaptive,
        "budget": UNLIMITED_BUDGET if only_time_limits else budget,
        "max_time_s": None if max_time is None else seconds_of(max_time),
        "workers": number_of(workers),
        "seed": seed,
        "sampler": sampler,
    }
    settings, search_space = load_run(space=space, overrides=overrides or (), flags=flags)
    settings, chosen = choose_chip(settings)
    find_spec(search_space.network)  # wrong names are reported now, not once torch is loaded
    check_task_name(settings.task)
    folder = to or default_folder(search_space.name, settings.data.source, settings.target)
    settings, shared = choose_workers(settings, overrides, asked=workers, study=None if fresh else folder)
    if fresh or not continues_with(settings.data, folder):
        find_source(settings.data.source, sources_of(settings.task))
    if fresh or not continues(folder, settings.data.source):
        refuse_two_meanings(settings, data, overrides)
    if dry_run:
        from scalesearch.cli.preview import preview_run

        preview_run(settings, search_space, study=None if fresh else folder)
        return 0
    from scalesearch.folder_lock import hold_folder

    with hold_folder(folder, "run") as hold:
        aside = prepare_folder(folder, fresh=fresh, hold=hold)

        from scalesearch.cli.live import view
        from scalesearch.spaces.suggest import ends_short, without_effect
        from scalesearch.study.run import run_search

        try:
            with view(folder, as_json=as_json) as shown:
                for line in filter(None, (chosen, shared)):
                    shown.say(line)
                for line in (*ends_short(search_space), *without_effect(search_space)):
                    shown.say(f"note: {line}")
                outcome = run_search(settings, search_space, folder, on_event=shown.event, say=shown.say, hold=hold)
        except BaseException:
            leave_no_trace(hold, aside)
            raise
    shown.ended(outcome)
    if outcome.ended == "interrupted":
        return 130
    if outcome.ended == "error":
        return 1
    if not outcome.front:
        from scalesearch.cli.screen import command_word
        from scalesearch.views.words import remedy

        if not outcome.records:
            message = (
                f"No trial was begun: {outcome.message}\nWhat was prepared is kept, so the same command goes on with "
                "it; give it more time or budget."
            )
            raise NoFeasibleTrialError(message)
        last = outcome.records[-1].trial
        message = (
            f"No feasible trial among {len(outcome.records)}: {outcome.message}\n"
            f"See why with `scalesearch show {command_word(folder)} --trial {last}`. {remedy(outcome.records)}"
        )
        raise NoFeasibleTrialError(message)
    return 0


def check(
    space: Annotated[
        str | None, typer.Argument(help="A name from `scalesearch spaces`, or a .toml file (default: the task's).")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Also check this data set.")] = None,
    task: Task = None,
    network: Annotated[str | None, typer.Option("--network", help="Replace the space's base network.")] = None,
    parent: Annotated[str | None, typer.Option("--parent", help="Also check the trained network to inherit.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="The chip.")] = None,
    budget: Annotated[int | None, typer.Option("--budget", help="The budget to predict the cost of.")] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="With --data: where the sheet of training pictures goes (default: check-DATA.png)."),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Also compile networks of the space with TensorRT for RTX (no GPU needed)."),
    ] = False,
    overrides: Overrides = None,
) -> int:
    """Check a space before anything runs: every key, which choices collapse after rounding, and what a budget costs.

    With --data, a sheet of pictures with their targets is drawn too, as training sees them.
    """
    from scalesearch.cli.preview import check_space
    from scalesearch.config import load_run

    space, source = task_defaults(space, data, task, overrides or ())
    flags = {
        "data.source": source, "task": task, "network": network, "parent": parent, "target": target, "budget": budget,
    }  # fmt: skip
    settings, search_space = load_run(space=space, overrides=overrides or (), flags=flags)
    refuse_two_meanings(settings, data, overrides)
    settings, _ = choose_chip(settings)
    settings, _ = choose_workers(settings, overrides)
    check_space(settings, search_space, with_data=data is not None, to=to)
    if compiled:
        from scalesearch.cli.compiling import compile_space
        from scalesearch.cli.screen import wide_console

        title, table, refused = compile_space(settings, search_space)
        wide_console().print(title, table, sep="\n", highlight=False)
        if refused:
            message = f"{refused} of the compiled graphs were refused: see the table above for node and remedy."
            raise ConfigError(message)
    return 0


def train(
    config: Annotated[Path, typer.Argument(help="config.toml of an exported trial.")],
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", min=1, help="Updates of the full training (default: 8 times the search's, 4 times its longest)."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Train on this data set instead of the exported one.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed (default: the study's).")] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for model.onnx, weights and result.json.")] = Path("trained"),
) -> int:
    """Train an exported trial at full length: the same network, compressed and deployed the same way."""
    from scalesearch.config import check_stored
    from scalesearch.export.metadata import read_config
    from scalesearch.networks.validity import check_spec

    exported = read_config(config)  # a wrong file is reported now, not once torch is loaded
    check_stored(exported.settings, exported.candidate, origin=str(config))
    for spec in (exported.network, *filter(None, (exported.cut_from,))):
        check_spec(spec)
    if data is not None:
        from scalesearch.data import refuse_ambiguous_source
        from scalesearch.tasks.registry import sources_of

        refuse_ambiguous_source(data, sources_of(exported.settings.task))
    from scalesearch.cli.full_training import train_export

    train_export(config, steps=steps, data=data, seed=seed, to=to)
    return 0
