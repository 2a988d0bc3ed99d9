"""Tells what a run would do without running it: settings, sample candidates, collapsing choices, predicted cost."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from scalesearch.cli.collapsing import collapses
from scalesearch.errors import CandidateRejected, ConfigError, MissingBackendError, StageFailed
from scalesearch.values.candidate import Candidate
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.plan import Plan
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

if TYPE_CHECKING:
    from scalesearch.chain.planner import Planner
    from scalesearch.data import Dataset
    from scalesearch.values.target import Target

_SAMPLES, _SHOWN = 24, 5
_PLANNING_S = 10.0
"""After this many seconds no more samples are planned, once there are some to show. Cutting a large network takes
seconds."""
_LARGEST_CUT_PARAMS = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Randomly drawn candidates, as a run would plan them."""

    plans: tuple[Plan, ...]
    drawn: int
    refused: tuple[str, ...]
    """Why candidates could not be planned. A run records them as failed and goes on."""
    uncut: int
    """Number of plans of networks too large to be cut on paper. Their cost is counted before pruning."""


def preview_run(settings: RunSettings, space: SearchSpace) -> None:
    """Print resolved settings, five sampled candidates with MACs, and the predicted time of the budget."""
    from scalesearch.cli.screen import wide_console

    console = wide_console()
    space, base, target = _checked(settings, space)
    for key, value in _flat(asdict(settings)):
        console.print(f"{key} = {value!r}", highlight=False, markup=False)
    for named in space.axes:
        console.print(f"{named.name} = {axis_text(named)}", highlight=False, markup=False)
    limits = {key: value for key, value in asdict(space.limits).items() if value is not None}
    console.print(f"limits = {limits or 'none'}", highlight=False)
    planner = _planner(settings, space, base, target, None)
    samples = sampled(settings, space, planner)
    _print_samples(samples)
    for line in (*_notes(settings, space, target), *_sample_notes(samples)):
        console.print(line, highlight=False, markup=False)
    console.print(predicted(settings, space, target, planner, samples), highlight=False, markup=False)


def check_space(settings: RunSettings, space: SearchSpace, *, with_data: bool) -> None:
    """Print what the space asks for, which choices collapse, and the predicted cost; raise on anything wrong."""
    from scalesearch.cli.screen import wide_console
    from scalesearch.data import load_dataset
    from scalesearch.study.session import largest_input, square_side

    console = wide_console()
    space, base, target = _checked(settings, space)
    console.print(
        f"space {space.name}: network {space.network}, {len(space.axes)} axes, target {target.name}", markup=False
    )
    for named in space.axes:
        console.print(f"  {named.name} = {axis_text(named)}", highlight=False, markup=False)
    for line in collapses(space, base, target):
        console.print(line, highlight=False, markup=False)
    data = None
    if with_data:
        storage_px = square_side(largest_input(space, base))
        data = load_dataset(settings.data, storage_px=storage_px, channels=base.image_channels)
    planner = _planner(settings, space, base, target, data)
    samples = sampled(settings, space, planner)
    for line in limit_lines(space, [plan.cost.macs for plan in samples.plans], _sizes(samples.plans)):
        console.print(line, highlight=False, markup=False)
    for line in (*_notes(settings, space, target), *_sample_notes(samples)):
        console.print(line, highlight=False, markup=False)
    if data is not None:
        console.print(_data_line(data), highlight=False, markup=False)
    console.print(predicted(settings, space, target, planner, samples, data), highlight=False, markup=False)
    console.print("The space is sound.")


def _checked(settings: RunSettings, space: SearchSpace) -> "tuple[SearchSpace, NetworkSpec, Target]":
    """Return the space for its target, the base network and the target, after the checks at the start of a run.

    Raises:
        ConfigError: As a run would.
    """
    from scalesearch.config import check_stages
    from scalesearch.deployment.targets import get_target
    from scalesearch.networks import find_spec
    from scalesearch.spaces.suggest import for_target
    from scalesearch.study.session import largest_input, require_batch_memory

    target = get_target(settings.target)
    space = for_target(space, target)
    base = find_spec(space.network)
    check_stages(space, len(base.stages))
    require_batch_memory(space, largest_input(space, base))
    return space, base, target


def _planner(
    settings: RunSettings, space: SearchSpace, base: NetworkSpec, target: "Target", data: "Dataset | None"
) -> "Planner":
    from scalesearch.chain.planner import PlanBasis, Planner

    classes = base.num_classes if data is None else len(data.class_names)
    return Planner(PlanBasis(base=base, space=space, target=target, num_classes=classes, seed=settings.seed))


def sampled(settings: RunSettings, space: SearchSpace, planner: "Planner") -> Samples:
    """Return up to 24 candidates as a run would plan them: rounded, cut on paper, and compared with the limits."""
    from scalesearch.chain.planner import limits_before_training  # loads torch, before the clock runs
    from scalesearch.spaces.suggest import random_candidates
    from scalesearch.training.machine import torch_threads
    from scalesearch.values.settings import Machine

    plans, refused, uncut, drawn = list[Plan](), list[str](), 0, 0
    known = dict[object, tuple[Plan, bool]]()
    until = time.monotonic() + _PLANNING_S
    # Cutting consists of many small steps, which threads only slow down.
    with torch_threads(Machine(device="cpu", threads=1, bf16=False, channels_last=True)):
        for candidate in random_candidates(space, _SAMPLES, settings.seed):
            drawn += 1
            try:
                shape = (candidate.scaling, candidate.pruning)
                if shape not in known:
                    known[shape] = _planned(planner, candidate)
                plan, whole = known[shape]
                limits = limits_before_training(space.limits, plan.cost, candidate.quantization.precision)
                plans.append(replace(plan, candidate=candidate, limits=limits))
                uncut += not whole
            except (CandidateRejected, StageFailed) as verdict:
                refused.append(str(verdict).splitlines()[0])
            if time.monotonic() > until and len(plans) >= _SHOWN:
                break
    return Samples(plans=tuple(plans), drawn=drawn, refused=tuple(refused), uncut=uncut)


def _planned(planner: "Planner", candidate: Candidate) -> tuple[Plan, bool]:
    """Return the plan, and whether its cost is the one after pruning."""
    from scalesearch.values.candidate import Pruning

    dense = planner(replace(candidate, pruning=Pruning()))
    if not candidate.pruning.any:
        return dense, True
    if dense.dense_cost.params > _LARGEST_CUT_PARAMS:
        return replace(dense, candidate=candidate, pruning=candidate.pruning), False
    return planner(candidate), True


def _sizes(plans: Iterable[Plan]) -> list[int]:
    from scalesearch.chain.planner import least_size_bytes

    return [least_size_bytes(plan.cost, plan.candidate.quantization.precision) for plan in plans]


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
    settings: RunSettings,
    space: SearchSpace,
    target: "Target",
    planner: "Planner",
    samples: Samples,
    data: "Dataset | None" = None,
) -> str:
    """Return a sentence with the predicted time of the budget, from timed steps of sampled networks and one export."""
    from scalesearch.spaces.suggest import cheapest
    from scalesearch.study.predicted_time import USUAL_VAL_IMAGES, measure_pieces, predict

    allowed = [plan for plan in samples.plans if not plan.rejected_because]
    if not allowed:
        why = samples.plans[0].rejected_because if samples.plans else samples.refused[0]
        return (
            f"None of {samples.drawn} sampled candidates is within the limits (the first: {why}): nothing would be "
            "trained."
        )
    _say("timing some training steps and an export, to predict how long the run takes (up to half a minute)")
    try:
        first, _ = _planned(planner, cheapest(space))
        pieces = measure_pieces(settings, [*allowed, first])
    except StageFailed as failure:
        return f"How long a budget of {settings.budget} takes cannot be told: {failure.reason}."
    val_images = len(data.val) if data is not None else USUAL_VAL_IMAGES
    found = predict(
        settings, space, target.backend, allowed, pieces,
        first=None if first.rejected_because else first, val_images=val_images,
    )  # fmt: skip
    return f"A budget of {settings.budget} {found.words}; {settings.workers} worker(s)."


def _say(text: str) -> None:
    """Print what takes time at the moment, for people who watch; print nothing in a pipe."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{text} ...\n")


def _notes(settings: RunSettings, space: SearchSpace, target: "Target") -> Iterable[str]:
    """Yield what is not wrong with the space, but should be known before it runs."""
    from scalesearch.deployment.backends import get_backend
    from scalesearch.spaces.suggest import ends_short, without_effect

    for line in (*ends_short(space), *without_effect(space)):
        yield f"note: {line}"
    if not space.input_size.is_square:
        yield f"note: a run cannot start yet: images are read as squares, and the space asks for {space.input_size}."
    try:
        get_backend(target.backend).device(settings.latency.threads)
        if settings.accept == "rtx":
            from scalesearch.deployment.acceptance import Gate

            Gate(target.compute_capability)
    except (MissingBackendError, ConfigError) as error:
        yield f"note: a run cannot start on this machine: {str(error).splitlines()[0]}"


def _sample_notes(samples: Samples) -> Iterable[str]:
    if samples.drawn < _SAMPLES:
        yield (
            f"note: {samples.drawn} of {_SAMPLES} candidates were drawn: planning such large networks takes over "
            f"{_PLANNING_S:g} s."
        )
    if samples.uncut:
        yield f"note: {samples.uncut} of them are too large to be cut on paper; their costs are those before pruning."
    if samples.refused:
        yield f"note: {len(samples.refused)} of {samples.drawn} cannot be planned: {samples.refused[0]}"


def _print_samples(samples: Samples) -> None:
    from scalesearch.cli.screen import Column, print_table, wide_console
    from scalesearch.views.words import count

    columns = (
        Column(head="resolution", keep=2, right=True),
        Column(head="depth x width x kernel", keep=4, right=True),
        Column(head="pruned", keep=3, right=True),
        Column(head="precision", keep=5),
        Column(head="MACs", keep=9, right=True),
        Column(head="parameters", keep=1, right=True),
    )
    rows = []
    for plan in samples.plans[:_SHOWN]:
        scaling, pruning = plan.candidate.scaling, plan.candidate.pruning
        shape = f"x{scaling.depth:.4g} x{scaling.width:.4g} x{scaling.kernel:.4g}{'*' if scaling.stages else ''}"
        rows.append(
            (
                str(plan.spec.input_size),
                shape,
                pruning.label.removeprefix("channels ") or "-",
                plan.candidate.quantization.precision,
                count(plan.cost.macs),
                count(plan.cost.params),
            )
        )
    console = wide_console()
    console.print("Five sampled candidates, as they would be deployed:" if len(rows) == _SHOWN else "Sampled:")
    print_table(console, columns, rows)


def _data_line(data: "Dataset") -> str:
    from scalesearch.data import val_standard_error_points

    notes = "".join(f"\n  {note}" for note in data.notes)
    warnings = "".join(f"\n  warning: {warning}" for warning in data.warnings)
    return (
        f"data {data.name}: {len(data.class_names)} classes, {len(data.train)} train, {len(data.val)} val, "
        f"{len(data.calibration)} calibration, {len(data.test)} test; "
        f"standard error of a val accuracy {val_standard_error_points(data):.1f} points{notes}{warnings}"
    )


def axis_text(named: NamedAxis) -> str:
    """Return the axis in words; of long lists only the first values."""
    axis = named.axis
    if isinstance(axis, Choice):
        if len(axis.values) > _SHOWN_VALUES:
            shown = ", ".join(map(repr, axis.values[:_SHOWN_VALUES]))
            return f"one of {len(axis.values)}: {shown}, ..."
        return f"{axis.values[0]!r}" if len(axis.values) == 1 else f"one of {list(axis.values)}"
    step = f" in steps of {axis.step:g}" if axis.step else ""
    return f"{axis.low:g} to {axis.last:g}{step}{' (log)' if axis.log else ''}"


_SHOWN_VALUES = 20


def _flat(document: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value  # as TOML has it
