"""Show what a run would do, without running it: settings, sample candidates, collapsing choices, predicted cost."""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.cli.collapsing import collapses
from scalesearch.cli.data_lines import data_line, drawn_sheet
from scalesearch.cli.samples import Samples, planned, print_samples, sample_notes, sampled, sizes_bytes
from scalesearch.cli.space_lines import axis_text, flattened
from scalesearch.cli.time_span import span
from scalesearch.errors import ConfigError, MissingBackendError, StageFailed
from scalesearch.values.candidate import Candidate, Scaling
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import UNLIMITED_BUDGET, RunSettings
from scalesearch.values.space import SearchSpace

if TYPE_CHECKING:
    from scalesearch.chain.planner import Planner
    from scalesearch.data import Dataset
    from scalesearch.study.continuing import Begun
    from scalesearch.study.time_words import PredictedTime
    from scalesearch.values.plan import Plan
    from scalesearch.values.session import Session
    from scalesearch.values.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What a run would begin with: the space for its target, the base network and the target."""

    space: SearchSpace
    base: NetworkSpec
    target: "Target"
    settings: RunSettings
    """The settings, with what is decided of sampler, lengths and the fit of the images."""
    decided: tuple[str, ...]
    """What a run would say on who proposes candidates, and how long they are trained."""
    begun: "Begun | None" = None
    """The study that would be continued; None for a new one."""

    @property
    def stored(self) -> "Session | None":
        """The session of the study that would be continued; None for a new one."""
        return self.begun.session if self.begun else None


def preview_run(settings: RunSettings, space: SearchSpace, *, study: Path | None = None) -> None:
    """Print resolved settings, five sampled candidates with MACs, and the predicted time of the budget.

    Args:
        settings: Settings of the run.
        space: Its space.
        study: Where the run would lie; a study there is continued. None: a new study.

    Raises:
        ConfigError: The run would be refused.
    """
    from scalesearch.cli.screen import wide_console

    console = wide_console()
    ground = _checked(space, settings, study)
    _require_fit(ground)
    space, settings = ground.space, replace(settings, data=ground.settings.data)
    if ground.begun:
        settings = ground.settings
        for line in _continued(ground.begun, settings):
            console.print(line, highlight=False, markup=False)
    for key, value in flattened(asdict(settings)):
        console.print(f"{key} = {value!r}", highlight=False, markup=False)
    for named in space.axes:
        console.print(f"{named.name} = {axis_text(named)}", highlight=False, markup=False)
    limits = {key: value for key, value in asdict(space.limits).items() if value is not None}
    console.print(f"limits = {limits or 'none'}", highlight=False)
    planner = _planner(settings, ground, None)
    samples = sampled(space, planner, seed=settings.seed)
    print_samples(samples)
    notes = _notes(settings, ground)
    for line in (*notes, *sample_notes(samples)):
        console.print(line, highlight=False, markup=False)
    console.print(predicted(settings, ground, planner, samples), highlight=False, markup=False)


def check_space(settings: RunSettings, space: SearchSpace, *, with_data: bool, to: Path | None = None) -> None:
    """Print what the space asks for, which choices collapse, and the predicted cost; raise on anything wrong.

    Args:
        settings: Settings of a run.
        space: Its space.
        with_data: Whether the data are loaded and a sheet of them is drawn.
        to: Where the sheet goes; None: into the working folder, by the name of the data.
    """
    from scalesearch.cli.screen import wide_console
    from scalesearch.data import load_dataset
    from scalesearch.study.fitted_space import largest_input
    from scalesearch.study.sided_classes import with_sides_told
    from scalesearch.tasks.registry import sources_of

    console = wide_console()
    ground = _checked(space, settings)
    if not with_data:
        _require_fit(ground)
    settings = replace(settings, data=ground.settings.data)
    space, base, target = ground.space, ground.base, ground.target
    console.print(
        f"space {space.name}: network {space.network}, {len(space.axes)} axes, target {target.name}", markup=False
    )
    for named in space.axes:
        console.print(f"  {named.name} = {axis_text(named)}", highlight=False, markup=False)
    for line in collapses(space, base, target):
        console.print(line, highlight=False, markup=False)
    data = None
    if with_data:
        storage = largest_input(space, base)
        data = load_dataset(settings.data, sources_of(settings.task), storage_px=storage, channels=base.image_channels)
        _require_fit(ground, data)
        data = with_sides_told(data, space)
    planner = _planner(settings, ground, data)
    samples = sampled(space, planner, seed=settings.seed)
    for line in limit_lines(space, [plan.cost.macs for plan in samples.plans], sizes_bytes(samples.plans)):
        console.print(line, highlight=False, markup=False)
    notes = _notes(settings, ground)
    for line in (*notes, *sample_notes(samples)):
        console.print(line, highlight=False, markup=False)
    if data is not None:
        console.print(data_line(data, settings.task), highlight=False, markup=False)
        console.print(drawn_sheet(data, settings, ground.base, ground.space, to), highlight=False, markup=False)
    console.print(predicted(settings, ground, planner, samples, data), highlight=False, markup=False)
    console.print("The space is sound.")


def _continued(begun: "Begun", settings: RunSettings) -> Iterable[str]:
    """Yield lines on the study that would be continued."""
    from scalesearch.cli.run_lines import trainings
    from scalesearch.records.run_file import continues_with

    folder = begun.session.folder
    yield f"continues the study {folder} after {trainings(begun.charged)} full trainings (--fresh starts anew)"
    if not continues_with(settings.data, folder):
        source = begun.session.settings.data.source
        yield f"note: it was begun with the data {source}; a run compares the images, and refuses others"


def _checked(space: SearchSpace, settings: RunSettings, study: Path | None = None) -> _Ground:
    """Return what a run with these settings begins with, after the checks that a run makes at its start.

    Whether a user's own module fits is checked by `_require_fit`, once the classes are known.

    Args:
        space: The space that is asked for.
        settings: The settings that are asked for.
        study: Where the run would lie; a study there is continued. None: a new study.

    Raises:
        ConfigError: A check fails, as it would in a run.
    """
    from scalesearch.config import check_axes
    from scalesearch.config.checks import require_teacher
    from scalesearch.deployment.targets import get_target
    from scalesearch.spaces.axes import largest_value
    from scalesearch.spaces.suggest import for_target
    from scalesearch.study.continuing import begun_study, refuse_other_settings, require_budget, target_here
    from scalesearch.study.fitted_space import (
        fitted_space,
        largest_input,
        require_batch_memory,
        require_sizes,
        with_criterion,
    )
    from scalesearch.study.images import with_fit
    from scalesearch.study.lengths import lengths_notes, made_longer, with_lengths, with_study_lengths
    from scalesearch.study.own_module import as_begun, base_of, require_classification, with_outputs
    from scalesearch.study.sampler import chosen_sampler
    from scalesearch.tasks.registry import require_own_axes, require_postprocessing, task_for

    require_teacher(largest_value(space.axes, "training.distill_weight"), settings.parent)
    chip, task = get_target(settings.target), task_for(settings)
    require_postprocessing(task, settings.latency.objective)
    begun = begun_study(study) if study else None
    stored = begun.session if begun else None
    if stored is None:
        require_own_axes(task, space.axes)
    base = as_begun(base_of(space.network, stored), stored)
    require_classification(base, settings.task)
    asked, space = space, with_study_lengths(space, settings, stored)
    chosen = chosen_sampler(settings, space, base, chip, stored)
    space, lengths = with_lengths(space, settings, chosen.name, stored)
    notes = [*filter(None, (chosen.line,)), *lengths_notes(asked, space, lengths, chosen.name, stored)]
    settings = replace(settings, sampler=chosen.name, lengths=lengths, data=with_fit(settings.data, stored, task))
    if begun and stored:
        chip = target_here(chip, stored, threads=settings.latency.threads)
        if stored is not (longer := made_longer(stored, space, lengths)):
            begun, stored = replace(begun, full_updates=space.lengths[-1]), longer
            require_budget(begun, settings.budget)
        space = fitted_space(space, base, chip, stored.space, parent=settings.parent)
        refuse_other_settings(stored, settings, space, base, chip)
    else:
        space = for_target(with_criterion(space, base, None, parent=settings.parent), chip)
        check_axes(space, base)
        require_sizes(space, base, task)
    require_batch_memory(space, largest_input(space, base))
    if stored is None:
        base = with_outputs(space, base)
    return _Ground(space=space, base=base, target=chip, settings=settings, decided=tuple(notes), begun=begun)


def _require_fit(ground: _Ground, data: "Dataset | None" = None) -> None:
    """Raise ConfigError if the base network is a module that does not fit space, chip and classes, as a run would."""
    from scalesearch.study.own_module import require_fit

    multiple, begun = ground.target.channel_multiple, ground.begun is not None
    require_fit(ground.space, ground.base, _classes(ground, data), channel_multiple=multiple, begun=begun)


def _classes(ground: _Ground, data: "Dataset | None") -> int:
    """Return the number of classes: that of the data, or of the study; where neither is there, that of the network."""
    if data is not None:
        return len(data.class_names)
    return len(ground.stored.data.class_names) if ground.stored else ground.base.num_classes


def _planner(settings: RunSettings, ground: _Ground, data: "Dataset | None") -> "Planner":
    from scalesearch.chain.planner import PlanBasis, Planner

    base, seed, task, classes = ground.base, settings.seed, settings.task, _classes(ground, data)
    return Planner(
        PlanBasis(base=base, space=ground.space, target=ground.target, num_classes=classes, seed=seed, task=task)
    )


def limit_lines(space: SearchSpace, macs: Sequence[int], sizes_bytes: Sequence[int]) -> Iterable[str]:
    """Say what share of sampled candidates the limits on MACs (after pruning) and size would reject before training."""
    limits = space.limits
    if limits.max_macs is not None and macs:
        over = sum(value > limits.max_macs for value in macs)
        yield f"limits.max_macs rejects {over} of {len(macs)} sampled candidates ({min(macs)} to {max(macs)} MACs)."
    if limits.max_size_bytes is not None and sizes_bytes:
        over = sum(value > limits.max_size_bytes for value in sizes_bytes)
        yield f"limits.max_size_bytes rejects at least {over} of {len(sizes_bytes)} sampled candidates (weights alone)."


def predicted(
    settings: RunSettings, ground: _Ground, planner: "Planner", samples: Samples, data: "Dataset | None" = None
) -> str:
    """Return a sentence with the predicted time of the budget, from timed steps of sampled networks and one export."""
    from scalesearch.chain.inheritance import tuning_ahead
    from scalesearch.cli.run_lines import trainings
    from scalesearch.spaces.suggest import cheapest
    from scalesearch.study.pieces import measure_pieces
    from scalesearch.study.predicted_time import USUAL_TRAIN_IMAGES, USUAL_VAL_IMAGES, PlannedRun, predict

    allowed = [plan for plan in samples.plans if not plan.rejected_because]
    if not allowed:
        why = samples.plans[0].rejected_because if samples.plans else samples.refused[0]
        return (
            f"None of {samples.drawn} sampled candidates is within the limits (the first: {why}): nothing would be "
            "trained."
        )
    budget = settings.budget
    if ground.begun and budget < UNLIMITED_BUDGET:
        left = budget - ground.begun.charged
        if left <= 0:
            return f"The budget of {budget} is used up: a run would train nothing more."
        if left < 1 and ground.settings.sampler_name == "growth":  # the others always begin one more
            return (
                f"Of the budget of {budget}, {trainings(ground.begun.charged)} are used: the rest suffices for no "
                "whole training. A run trains what fits in, or nothing more."
            )
        settings = replace(settings, budget=math.ceil(left))
    _say("timing some training steps and an export, to predict how long the run takes (up to half a minute)")
    try:
        first, _ = planned(planner, cheapest(ground.space))
        parent_macs, judge = 0, judging_plan(ground.space, planner)
        tuned = ground.stored is not None and not tuning_ahead(ground.stored)
        if settings.parent and not tuned:  # at the base network's own size
            parent, _ = planned(planner, replace(cheapest(ground.space), scaling=Scaling()))
            parent_macs = parent.dense_cost.macs
        timed = [*allowed, first, *filter(None, (judge,))]
        pieces = measure_pieces(timed, task=settings.task, settings=settings.machine, workers=settings.workers)
    except StageFailed as failure:
        return f"How long it takes cannot be told: {failure.reason}."
    val_images, train_images = USUAL_VAL_IMAGES, USUAL_TRAIN_IMAGES
    if data is not None:
        val_images, train_images = len(data.val), len(data.train)
    elif ground.stored:
        val_images, train_images = ground.stored.data.val_images, ground.stored.data.train_images
    run = PlannedRun(
        settings=replace(settings, sampler=ground.settings.sampler, lengths=ground.settings.lengths),
        space=ground.space,
        backend=ground.target.backend,
        val_images=val_images,
        train_images=train_images,
        parent_macs=parent_macs,
        judge=judge,
    )
    begins = not (first.rejected_because or ground.begun)  # with the cheapest candidate
    found = predict(run, allowed, pieces, first=first if begins else None)
    return _length_of_run(
        replace(settings, budget=budget), found, charged=ground.begun.charged if ground.begun else 0.0
    )


def judging_plan(space: SearchSpace, planner: "Planner") -> "Plan | None":
    """Return the plan of the network that a run trains to decide on mirror images; None where that is decided."""
    from scalesearch.spaces.suggest import cheapest

    if not space.flip_undecided:
        return None
    return planner(Candidate(recipe=cheapest(space.with_flip(flip=False)).recipe))


def _length_of_run(settings: RunSettings, found: "PredictedTime", *, charged: float = 0.0) -> str:
    """Return a sentence on how long the budget takes, or how many candidates the time suffices for.

    Args:
        settings: The settings, with the whole budget.
        found: The predicted time of what is left of it.
        charged: What the study has used of it.
    """
    from scalesearch.cli.run_lines import trainings

    workers, limit = f"{settings.workers} worker(s)", span(settings.max_time_s)
    if settings.budget < UNLIMITED_BUDGET:
        ends = f"; it begins nothing that is expected to end after {limit}" if settings.max_time_s else ""
        used = f", of which {trainings(charged)} are used," if charged else ""
        return f"A budget of {settings.budget}{used} {found.words}; {workers}{ends}."
    low_s, high_s = (found.training_s + other_s for other_s in found.other_s)
    shortest_s, longest_s = (settings.max_time_s - before_s for before_s in reversed(found.before_s))
    fewest, most = (
        max(1, int(settings.workers * left_s / each_s)) if left_s > 0 else 0
        for left_s, each_s in ((shortest_s, high_s), (longest_s, low_s))
    )
    return (
        f"{limit} suffice here for about {fewest} to {most} full trainings, {found.training_s:.0f} s each, with the "
        f"rest of their trials; {workers}."
    )


def _say(text: str) -> None:
    """Print what the program is busy with, if stderr is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text} ...\n")


def _notes(settings: RunSettings, ground: _Ground) -> Iterable[str]:
    """Yield notes on the space: things that are no errors, but that the user should know before a run."""
    from scalesearch.data import find_source
    from scalesearch.deployment.backends import get_backend
    from scalesearch.spaces.suggest import ends_short, without_effect
    from scalesearch.study.fitted_space import largest_input, size_notes
    from scalesearch.study.parent import look_ahead, requested_parent
    from scalesearch.study.sided_classes import mirrors_by_space
    from scalesearch.tasks.registry import sources_of

    space, base, target = ground.space, ground.base, ground.target
    yield from ground.decided
    yield from size_notes(space, base, settings.data.framing)
    if space.flip_undecided:
        yield (
            f"flips: {base.name} is trained once before the search, to see whether images may be mirrored, unless the "
            "names of two classes differ by left and right alone"
        )
    if not ground.begun and (line := mirrors_by_space(space)):
        yield line
    if ground.begun and settings.parent:
        yield f"parent: {settings.parent}, as the study keeps it"
    elif outlook := look_ahead(requested_parent(settings), base):
        yield outlook.words
        yield from outlook.untold.splitlines()
    for line in (*ends_short(space), *without_effect(space)):
        yield f"note: {line}"
    try:
        source = find_source(settings.data.source, sources_of(settings.task))
        source.check(settings.data, largest_input(space, base))
    except ConfigError as error:
        yield f"note: a run cannot start on these data: {str(error).splitlines()[0]}"
    try:
        get_backend(target.backend).device(settings.latency.threads)
        if settings.accept == "rtx":
            from scalesearch.deployment.acceptance import Gate

            Gate(target.compute_capability)
    except (MissingBackendError, ConfigError) as error:
        yield f"note: a run cannot start on this machine: {str(error).splitlines()[0]}"
