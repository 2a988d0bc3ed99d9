"""`export`: folders from which the best trials are rebuilt, retrained, run or shipped."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.screen import command_word
from scalesearch.cli.studies import MovedData, StudyArgument, find_study, parse_latency_ms
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session
from scalesearch.views.words import milliseconds, percent


def register(app: typer.Typer) -> None:
    """Add `export` to the app."""
    app.command()(export)


def export(
    study: StudyArgument = None,
    trial: Annotated[int | None, typer.Option("--trial", help="This trial.")] = None,
    best: Annotated[
        bool, typer.Option("--best", help="The knee of the front, or the most accurate under --max-latency (default).")
    ] = False,
    front: Annotated[bool, typer.Option("--front", help="Every member of the front, a folder each.")] = False,
    max_latency: Annotated[str | None, typer.Option("--max-latency", help="With --best or --front: 5ms, 0.5s.")] = None,
    confirmed: Annotated[
        bool, typer.Option("--confirmed", help="The file trained at full length by `confirm`, not the search's.")
    ] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Folder (default: export/STUDY/trial_N).")] = None,
    data: MovedData = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", help="Also as c, openvino, tensorrt, executorch, litert, onnx-nms, tensorrt-nms; onnx always."
        ),
    ] = None,
) -> int:
    """Write a folder that rebuilds, explains and runs a trial's network: config.toml, model.onnx, infer.py and more.

    config.toml retrains it (`scalesearch train config.toml`), infer.py runs it on images with nothing but onnxruntime,
    numpy and Pillow, MODEL_CARD.md tells the rest. The folder holds this one trial: an earlier export in it is
    replaced whole, anything else there is refused.

    With --front, a format is left out where it cannot hold a member's precision or network. A member that fails does
    not stop the others. The exit code is 1 if a member, or a format other than for its precision, was left out.
    """
    if sum((trial is not None, best, front)) > 1:
        message = "Give one of --trial N, --best and --front."
        raise ConfigError(message)
    if trial is not None and max_latency is not None:
        message = "Give one of --trial N and --max-latency: the limit chooses among the trials, for --best or --front."
        raise ConfigError(message)
    from scalesearch.data.finding import with_data
    from scalesearch.export.formats import get_format
    from scalesearch.export.target import check_place, earlier_export
    from scalesearch.records.confirmed import first_runs
    from scalesearch.records.run_file import stored_session
    from scalesearch.tasks.registry import sources_of

    for name in formats or ():
        get_format(name)  # a wrong name is reported before anything is read
    folder = find_study(study)
    session = stored_session(folder)
    session = with_data(session, data, sources_of(session.settings.task))
    runs = first_runs(folder)
    if confirmed and not runs:
        message = f"{folder} has no network of full length: nothing was confirmed.\n{_how_to_confirm(folder)}"
        raise ConfigError(message)
    max_latency_ms = parse_latency_ms(max_latency) if max_latency else None
    chosen = _choose(folder, trial=trial, front=front, max_latency_ms=max_latency_ms, runs=runs if confirmed else None)
    base = to or Path("export") / folder.name
    single = to is not None and not front
    targets = {record.trial: base if single else base / f"trial_{record.trial:06d}" for record in chosen}
    for target in targets.values():  # all are reported before any work
        check_place(target, session)
        earlier_export(target)
    held = {record.trial: _formats_held(record, formats or ()) for record in chosen}
    if unheld := _held_by_none(held.values()):
        raise unheld
    failed, partly = list[int](), list[int]()
    for record in chosen:
        unwritten = dict[str, str]()
        try:
            _export(
                record,
                session,
                targets[record.trial],
                formats=held[record.trial],
                run=runs.get(record.trial),
                confirmed=confirmed,
                unwritten=unwritten if front else None,
            )
        except (ConfigError, StageFailed) as error:
            if not front:
                raise
            failed.append(record.trial)
            echo(f"trial {record.trial} is not exported: {error}", err=True)
        if unwritten:
            partly.append(record.trial)
    if failed:
        echo(f"{len(failed)} of {len(chosen)} members of the front are not exported.", err=True)
    return 1 if failed or partly else 0


Held = Mapping[str, ConfigError | None]
"""For each format that was asked for: None if it can hold a trial's precision, else the error that says why not."""


def _formats_held(record: MeasuredTrial, formats: Sequence[str]) -> Held:
    from scalesearch.export.formats import get_format

    held = dict[str, ConfigError | None]()
    for name in formats:
        held[name] = None
        try:
            get_format(name).ensure_holds(record.candidate.quantization.precision)
        except ConfigError as error:
            held[name] = error
    return held


def _held_by_none(held: Iterable[Held]) -> ConfigError | None:
    """Return the error of a format that can hold none of the trials; None if each format can hold some trial."""
    refusals = dict[str, ConfigError]()
    holding = set[str]()
    for formats in held:
        holding.update(name for name, error in formats.items() if error is None)
        refusals.update({name: error for name, error in formats.items() if error})
    return next((error for name, error in refusals.items() if name not in holding), None)


def _export(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    formats: Held,
    run: ConfirmedRun | None,
    confirmed: bool,
    unwritten: dict[str, str] | None,
) -> None:
    """Write the export of a trial in those formats that can hold it, and print what was written.

    Args:
        record: The trial.
        session: The session of its study.
        folder: The folder of the export.
        formats: Which of the formats can hold it.
        run: Its run at full length, if it was confirmed.
        confirmed: Whether that run's file is exported, not the search's.
        unwritten: If given, formats that turn out not to hold the network are left out and entered here.
    """
    from scalesearch.export.target import earlier_export

    earlier, study = earlier_export(folder), session.folder.name
    written = [name for name, error in formats.items() if error is None]
    notes = export_trial(record, session, folder, formats=written, run=run if confirmed else None, unwritten=unwritten)
    length = f" at full length ({run.steps} steps)" if run and confirmed else ""
    echo(
        f"trial {record.trial}{length}: {record.quality.title} {percent(record.quality.score)}, "
        f"{milliseconds(record.latency.p50_ms)} -> {folder}: "
        f"{', '.join(sorted(path.name for path in folder.iterdir()))}"
    )
    if earlier and (earlier.study, earlier.trial) != (study, record.trial):
        echo(f"  it replaces the export of trial {earlier.trial} of {earlier.study} that was there")
    for name, error in formats.items():
        if error:
            echo(f"  not written as {name}, which cannot hold {record.candidate.quantization.precision}")
    for name, reason in (unwritten or {}).items():
        echo(f"  not written as {name}: {reason}", err=True)
    for note in notes:
        echo(f"  {note}")
    if run and not confirmed:
        better = f"{100 * run.validation.score:.1f} % on validation, {100 * run.test.score:.1f} % on test images"
        echo(f"  trained briefly; the same network at full length ({better}) is exported by --confirmed")


def export_trial(
    record: MeasuredTrial,
    session: Session,
    folder: Path,
    *,
    formats: Sequence[str] = (),
    run: ConfirmedRun | None = None,
    unwritten: dict[str, str] | None = None,
) -> tuple[str, ...]:
    """Write the export of a complete trial into `folder`; return a line for each part that could not be made."""
    from scalesearch.export.folder import write_export

    every = ("onnx", *default_formats(session), *formats)
    return write_export(record, session, folder, formats=every, run=run, unwritten=unwritten)


def default_formats(session: Session) -> tuple[str, ...]:
    """Return the formats that are exported by default, besides ONNX.

    That is a TensorRT engine, if the study's target is a TensorRT one and its GPU is in this machine. On another GPU
    it would be an engine that nobody timed, or could not be built at all.
    """
    from scalesearch.deployment.backends import get_backend

    if session.target.backend != "tensorrt":  # engines of TensorRT for RTX are quick to build where they run
        return ()
    backend = get_backend(session.target.backend)
    if not backend.probe().available:
        return ()
    here, timed_on = backend.device(session.settings.latency.threads), session.device
    return ("tensorrt",) if (here.name, here.features) == (timed_on.name, timed_on.features) else ()


def _choose(
    folder: Path,
    *,
    trial: int | None,
    front: bool,
    max_latency_ms: float | None,
    runs: Mapping[int, ConfirmedRun] | None,
) -> tuple[MeasuredTrial, ...]:
    """Return the trials to be exported.

    With `runs`, only those trials are candidates, and they are chosen by their results at full length; among several,
    by those of one length.

    Raises:
        ConfigError: The trial has no result, or was not confirmed; or no confirmed trial has a record any more.
        NoFeasibleTrialError: No trial has finished yet, or none is feasible.
    """
    from scalesearch.analysis.choice import Wish, choose
    from scalesearch.analysis.confirmed_lengths import of_one_length
    from scalesearch.analysis.front import pareto_front
    from scalesearch.cli.studies import front_under, read_records
    from scalesearch.records.confirmed import as_confirmed
    from scalesearch.records.store import RecordStore
    from scalesearch.views.confirmed_lengths import left_out_lines

    if trial is not None:
        store = RecordStore(folder)
        record = store.load(trial)
        if record.same_as is not None:
            record = store.load(record.same_as)
        measured = record.measured
        if measured is None:
            message = f"Trial {trial} has no result to export: {record.state}, {record.reason or 'no reason recorded'}."
            raise ConfigError(message)
        if runs is None:
            return (measured,)
        if record.trial not in runs:
            there = ", ".join(str(number) for number in sorted(runs))
            message = f"Trial {trial} was not confirmed; these were: {there}.\n{_how_to_confirm(folder)}"
            raise ConfigError(message)
        return (as_confirmed(measured, runs[record.trial]),)
    records = read_records(folder)
    if runs is not None:
        alike = of_one_length(runs.values(), records, pareto_front(records))
        runs = {run.trial: run for run in alike.runs}
        for line in left_out_lines(alike.left_out):
            echo(line)
        trained = (record.measured for record in records if record.trial in runs)
        records = tuple(as_confirmed(record, runs[record.trial]) for record in trained if record)
        if not records:
            there = ", ".join(str(number) for number in sorted(runs))
            message = (
                f"{folder}: expected records of the confirmed trials ({there}), found none that has a result.\n"
                f"Restore those files in {folder / 'records'}, or confirm again. {_how_to_confirm(folder)}"
            )
            raise ConfigError(message)
    members = front_under(records, max_latency_ms=max_latency_ms)
    return members if front else (choose(pareto_front(records), Wish(max_latency_ms=max_latency_ms)).record,)


def _how_to_confirm(folder: Path) -> str:
    return f"Run `scalesearch confirm {command_word(folder)}`."
