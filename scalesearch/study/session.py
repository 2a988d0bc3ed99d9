"""Prepare a run: collect data set, base network, chip and machine in a Session, which is then stored."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from scalesearch.analysis.baselines import samplers_of_runs
from scalesearch.config.checks import require_teacher
from scalesearch.data import Dataset
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.targets import fit_chip, get_target
from scalesearch.networks.own_module import code_reader, code_sha256
from scalesearch.records.run_file import read_run_file, refuse_changes, write_run_file
from scalesearch.records.store import RecordStore
from scalesearch.spaces.axes import largest_value
from scalesearch.spaces.suggest import usual
from scalesearch.study.continuing import Begun, require_budget
from scalesearch.study.fitted_space import (
    fitted_space,
    largest_input,
    require_batch_memory,
    require_sizes,
    size_notes,
)
from scalesearch.study.flips import with_flip
from scalesearch.study.images import load_images, summary_of, with_fit
from scalesearch.study.lengths import lengths_notes, made_longer, with_lengths, with_study_lengths
from scalesearch.study.own_module import as_begun, base_of, fitted_module_notes, require_classification
from scalesearch.study.parent import ParentRequest, PriorParent, prepare_parent
from scalesearch.study.preparation import Preparation
from scalesearch.study.reference import make_reference, with_reference
from scalesearch.study.sampler import chosen_sampler
from scalesearch.study.sided_classes import mirrors_by_space, with_sides_told
from scalesearch.tasks.registry import checked_sources, require_own_axes, require_postprocessing, task_for
from scalesearch.training.machine import kept_machine, probe_machine
from scalesearch.values.network_spec import InputSize, NetworkSpec
from scalesearch.values.session import Session
from scalesearch.values.settings import AcceptName, Machine, RunSettings
from scalesearch.values.space import SearchSpace
from scalesearch.values.target import Device, Target


def open_session(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path,
    *,
    base: NetworkSpec | None = None,
    storage: InputSize | None = None,
    prior: PriorParent | None = None,
    way_out: str = "",
    say: Callable[[str], None] = lambda _: None,
    preparation: Preparation | None = None,
    searches: bool = False,
) -> Session:
    """Make the session of a new study in `folder`, or compare with the study already there and return its session.

    What the first run found (threads, bf16, the reference engine's calm time) is kept for all later runs, so that a
    resumed study measures in the same unit. Only another number of threads may be asked for.

    Args:
        settings: Settings of the run.
        space: The search space.
        folder: The study's folder.
        base: Replaces the space's base network, when an exported network is trained again.
        storage: Replaces the size of the stored images, so that the exported network is trained on the same images.
        prior: The parent of the study that the exported network comes from, if it had one.
        way_out: What the user may do where the study was run with other settings; by default, what `run` offers.
        say: Is called with one line per step that takes time.
        preparation: Is told how long a training took that decides about the study.
        searches: Whether a sampler will choose the candidates.

    Raises:
        ConfigError: Data, network or target are wrong, or not those of the study in the folder; or its trainings run
            on a GPU that is not here.
        MissingBackendError: The target's backend, or the package of the parent's weights, is not installed.
    """
    require_teacher(largest_value(space.axes, "training.distill_weight"), settings.parent)
    target, device = chip_here(settings.target, threads=settings.latency.threads, accept=settings.accept)
    task, stored = task_for(settings), read_run_file(folder)
    settings = dataclasses.replace(settings, data=with_fit(settings.data, stored, task))
    require_postprocessing(task, settings.latency.objective)
    machine = kept_machine(stored.machine, settings.machine) if stored else None
    if stored is None:  # a study of an earlier version may hold axes that were never read, and goes on
        require_own_axes(task, space.axes)
    base = as_begun(base or base_of(space.network, stored), stored)
    require_classification(base, settings.task)
    asked, space = space, with_study_lengths(space, settings, stored)
    chosen = chosen_sampler(settings, space, base, target, stored)
    sampler = chosen.name
    space, lengths = with_lengths(space, settings, sampler, stored)
    notes = [*lengths_notes(asked, space, lengths, sampler, stored)]
    if stored and stored is not (longer := made_longer(stored, space, lengths)):
        full, records = space.lengths[-1], RecordStore(folder).all()
        require_budget(Begun(session=stored, records=records, full_updates=full), settings.budget)
        stored = longer
    space = fitted_space(space, base, target, stored.space if stored else None, parent=settings.parent)
    for line in size_notes(space, base, settings.data.framing):
        say(line)
    storage = storage or largest_input(space, base)
    require_batch_memory(space, storage)
    if stored is None:
        require_sizes(space, base, task)
    images = load_images(settings.data, stored, checked_sources(task), storage=storage, base=base, say=say)
    multiple, goes_on = target.channel_multiple, stored is not None
    for line in fitted_module_notes(space, base, images.dataset, channel_multiple=multiple, begun=goes_on):
        say(line)
    request = ParentRequest(source=settings.parent, steps=settings.parent_steps, task=task, recipe=usual(space).recipe)
    parent = prepare_parent(request, space, base, images.dataset, folder, stored=stored, prior=prior, say=say)
    for line in parent.words if parent and not (stored and parent is stored.parent) else ():
        say(line)
    dataset = images.dataset.normalised_by(parent.mean, parent.std) if parent else images.dataset
    dataset = with_sides_told(dataset, asked)
    say(_machine_words(machine, stored))
    for line in filter(None, (chosen.line, *notes, "" if stored else mirrors_by_space(asked))):
        say(line)
    session = Session(
        folder=folder,
        settings=dataclasses.replace(settings, data=images.settings, sampler=sampler, lengths=lengths),
        space=space,
        base=base,
        target=target,
        machine=machine or probe_machine(settings.machine, workers=settings.workers),
        device=device,
        data=summary_of(dataset, task.metric),
        storage_px=storage.height_px,
        storage_width_px=0 if storage.is_square else storage.width_px,
        reference_calm_ms=0.0,
        run_folder=images.run_folder,
        samplers=samplers_of_runs(sampler, stored, searches=searches),
        parent=parent,
        code_sha256=code_sha256(base) if base.origin else "",
        code_read_by=code_reader() if base.origin else "",
        sampler_gives_way=chosen.gives_way,
    )
    session = _with_reference(session, stored, dataset, way_out=way_out, say=say)
    with (preparation or Preparation()).training():
        session = with_flip(session, dataset, say=say)
    write_run_file(session)
    return session


def _machine_words(machine: Machine | None, stored: Session | None) -> str:
    """Return a line on where threads and number format of trainings come from; `machine` is that of a begun study."""
    if machine is None or stored is None:
        return "machine: probing threads and number format"
    threads = f", but with machine.threads = {machine.threads}" if machine != stored.machine else ""
    return f"machine: as probed by the first run{threads}"


def _with_reference(
    session: Session, stored: Session | None, dataset: Dataset, *, way_out: str, say: Callable[[str], None]
) -> Session:
    """Return the session with its reference engine: the study's own, or a new one for a new study."""
    if stored:
        session = dataclasses.replace(
            session, reference_calm_ms=stored.reference_calm_ms, reference_sha256=stored.reference_sha256
        )
        refuse_changes(stored, session, way_out=way_out)
        return with_reference(session, dataset, say=say)
    say("reference: building the engine that every latency is compared with")
    return make_reference(session, dataset)


def chip_here(name: str, *, threads: int, accept: AcceptName) -> tuple[Target, Device]:
    """Return the target, fitted to this machine's chip, and the device.

    Args:
        name: Name of the target.
        threads: Threads of the engine that is timed.
        accept: The compiler that must accept every graph.

    Raises:
        MissingBackendError: The target's backend, or the compiler that must accept every graph, is not installed.
    """
    target = get_target(name)
    device = get_backend(target.backend).device(threads)
    target = fit_chip(target)
    if accept == "rtx":
        Gate(target.compute_capability)  # a missing library is reported now, not by every trial
    return target, device
