"""What a run would do, told without running it: settings, sample candidates, collapsing choices, predicted cost."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from scalesearch.values.candidate import Candidate, Scaling
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import Choice, NamedAxis, SearchSpace

if TYPE_CHECKING:
    from scalesearch.values.target import Target

_GRID_LIMIT = 20_000
_SAMPLES = 24
# Everything of a trained candidate but its training: 12.9 s in a budget of 8 with siblings and twins, one worker on two
# cores; 3.6 s over results/example, which had neither.
_DEPLOY_S, _BARE_DEPLOY_S = 13.0, 4.0


def preview_run(settings: RunSettings, space: SearchSpace) -> None:
    """Prints resolved settings, five sampled candidates with MACs, and the predicted time of the budget."""
    from rich.table import Table

    from scalesearch.cli.study_commands import wide_console
    from scalesearch.deployment.targets import get_target
    from scalesearch.networks import find_spec
    from scalesearch.search.space import for_target, random_candidates

    console = wide_console()
    target = get_target(settings.target)
    space = for_target(space, target)
    base = find_spec(space.network)
    for key, value in _flat(asdict(settings)):
        console.print(f"{key} = {value!r}", highlight=False)
    for named in space.axes:
        console.print(f"{named.name} = {_axis_text(named)}", highlight=False, markup=False)
    limits = {key: value for key, value in asdict(space.limits).items() if value is not None}
    console.print(f"limits = {limits or 'none'}", highlight=False)
    candidates = random_candidates(space, _SAMPLES, settings.seed)
    costs = _costs(candidates, space, base, target)
    table = Table(title="Five sampled candidates", title_justify="left", box=None, header_style="bold")
    for column in ("resolution", "depth", "width", "kernel", "pruned", "precision", "MACs", "parameters"):
        table.add_column(column, justify="right")
    for candidate, (spec, macs, params) in list(zip(candidates, costs, strict=True))[:5]:
        scaling = candidate.scaling
        table.add_row(
            f"{spec.resolution_px} px",
            *(f"x{value:g}" for value in (scaling.depth, scaling.width, scaling.kernel)),
            f"{candidate.pruning.channel_fraction:.0%}",
            candidate.quantization.precision,
            f"{macs / 1e6:.2f} M",
            f"{params / 1e6:.3f} M",
        )
    console.print(table)
    console.print(predicted(settings, space, base, candidates, costs), highlight=False)


def check_space(settings: RunSettings, space: SearchSpace, *, with_data: bool) -> None:
    """Prints what the space asks for, which choices collapse, and the predicted cost; raises on anything wrong."""
    from scalesearch.cli.study_commands import wide_console
    from scalesearch.config import check_stages
    from scalesearch.deployment.targets import get_target
    from scalesearch.networks import find_spec
    from scalesearch.search.space import for_target, random_candidates

    console = wide_console()
    target = get_target(settings.target)
    space = for_target(space, target)
    base = find_spec(space.network)
    check_stages(space, len(base.stages))
    console.print(f"space {space.name}: network {space.network}, {len(space.axes)} axes, target {target.name}")
    for named in space.axes:
        console.print(f"  {named.name} = {_axis_text(named)}", highlight=False, markup=False)
    for line in collapses(space, base, target):
        console.print(line, highlight=False, markup=False)
    candidates = random_candidates(space, _SAMPLES, settings.seed)
    costs = _costs(candidates, space, base, target)
    for line in limit_lines(space, [macs for _, macs, _ in costs], [params for _, _, params in costs]):
        console.print(line, highlight=False)
    if with_data:
        console.print(_data_line(settings, space, base), highlight=False, markup=False)
    console.print(predicted(settings, space, base, candidates, costs), highlight=False)
    console.print("The space is sound.")


def collapses(space: SearchSpace, base: NetworkSpec, target: "Target") -> Iterable[str]:
    """Lines that say how many distinct networks the scaling choices give, and which choices always collapse."""
    axes = [named for named in space.axes if named.name.startswith("scaling.") and isinstance(named.axis, Choice)]
    ranged = [named.name for named in space.axes if named.name.startswith("scaling.") and named not in axes]
    combinations = math.prod(len(_values(named)) for named in axes)
    if combinations > _GRID_LIMIT:
        yield f"{combinations} combinations of scaling choices: too many to compare one by one (limit {_GRID_LIMIT})."
        return
    specs = {
        values: _scaled(space, base, dict(zip((named.name for named in axes), values, strict=True)), target)
        for values in itertools.product(*(_values(named) for named in axes))
    }
    also = f" (ranges left at 1: {', '.join(ranged)})" if ranged else ""
    yield f"{combinations} combinations of scaling choices give {len(set(specs.values()))} distinct networks{also}."
    for index, named in enumerate(axes):
        for one, other in itertools.combinations(_values(named), 2):
            pairs = [
                (spec, specs[(*values[:index], other, *values[index + 1 :])])
                for values, spec in specs.items()
                if values[index] == one
            ]
            same = sum(first == second for first, second in pairs)
            if same:
                share = "always" if same == len(pairs) else f"in {same} of {len(pairs)} combinations"
                yield f"  {named.name} {one:g} and {other:g} give the same network {share}."


def limit_lines(space: SearchSpace, macs: Sequence[int], params: Sequence[int]) -> Iterable[str]:
    """What share of sampled candidates the limits on MACs and size would reject."""
    limits = space.limits
    if limits.max_macs is not None:
        over = sum(value > limits.max_macs for value in macs)
        yield f"limits.max_macs rejects {over} of {len(macs)} sampled candidates ({min(macs)} to {max(macs)} MACs)."
    if limits.max_size_bytes is not None:
        over = sum(value > limits.max_size_bytes for value in params)
        yield f"limits.max_size_bytes rejects at least {over} of {len(params)} sampled candidates, even in int8."


def predicted(
    settings: RunSettings,
    space: SearchSpace,
    base: NetworkSpec,
    candidates: Sequence[Candidate],
    costs: Sequence[tuple[NetworkSpec, int, int]],
) -> str:
    """A sentence with the predicted time of the budget, from timed steps of the cheapest and the dearest sample."""
    per_step = _step_model(settings, candidates, costs)
    allowed = [
        (candidate.recipe, bool(candidate.pruning.channel_fraction), macs)
        for candidate, (_, macs, _) in zip(candidates, costs, strict=True)
        if space.limits.max_macs is None or macs <= space.limits.max_macs
    ]
    if not allowed:
        return f"None of {len(candidates)} sampled candidates is within limits.max_macs: nothing would be trained."
    deploy_s = _DEPLOY_S if settings.siblings or settings.twins else _BARE_DEPLOY_S
    trial_s = [
        per_step(macs) * (recipe.steps + pruned * recipe.retrain_steps) + deploy_s for recipe, pruned, macs in allowed
    ]
    mean_s = sum(trial_s) / len(trial_s)
    total_s = mean_s * settings.budget / settings.workers
    return (
        f"A budget of {settings.budget} takes about {total_s / 60:.0f} min here ({mean_s:.0f} s a candidate, "
        f"{min(trial_s):.0f} to {max(trial_s):.0f}; {settings.workers} worker(s); from timed training steps)."
    )


def _step_model(
    settings: RunSettings, candidates: Sequence[Candidate], costs: Sequence[tuple[NetworkSpec, int, int]]
) -> Callable[[int], float]:
    """Seconds of one training step as a function of MACs: a line through the cheapest and the dearest sample."""
    import torch

    from scalesearch.networks.build import build
    from scalesearch.training.machine import probe_machine
    from scalesearch.training.train import train

    machine = probe_machine(settings.machine, workers=settings.workers)
    order = sorted(range(len(costs)), key=lambda index: costs[index][1])
    points = []
    for index in (order[0], order[-1]):
        spec, macs, _ = costs[index]
        recipe, channels = candidates[index].recipe, spec.image_channels
        mean, std = (0.5,) * channels, (0.25,) * channels
        images = torch.randint(
            0, 256, (recipe.batch_size, channels, spec.resolution_px, spec.resolution_px), dtype=torch.uint8
        )
        labels = torch.randint(0, spec.num_classes, (recipe.batch_size,))
        steps, start = 4, 0.0
        for count in (1, steps):  # the first call pays one-time costs
            start = time.perf_counter()
            train(build(spec), images, labels, recipe, machine, mean=mean, std=std, seed=0, steps=count)
        points.append((macs, (time.perf_counter() - start) / steps))
    (low, low_s), (high, high_s) = points
    slope = max(0.0, (high_s - low_s) / max(1, high - low))
    return lambda macs: low_s + slope * (macs - low)


def _costs(
    candidates: Iterable[Candidate], space: SearchSpace, base: NetworkSpec, target: "Target"
) -> list[tuple[NetworkSpec, int, int]]:
    from scalesearch.measurement.cost import formula_cost
    from scalesearch.networks.build import build

    costs = []
    for candidate in candidates:
        spec = _spec_of(candidate.scaling, space, base, target)
        cost = formula_cost(build(spec))
        costs.append((spec, cost.macs, cost.params))
    return costs


def _data_line(settings: RunSettings, space: SearchSpace, base: NetworkSpec) -> str:
    from scalesearch.session import largest_resolution
    from scalesearch.training.datasets import load_dataset, val_standard_error_points

    dataset = load_dataset(settings.data, storage_px=largest_resolution(space, base), channels=base.image_channels)
    warnings = "".join(f"\n  warning: {warning}" for warning in dataset.warnings)
    return (
        f"data {dataset.name}: {len(dataset.class_names)} classes, {len(dataset.train)} train, {len(dataset.val)} val, "
        f"{len(dataset.calibration)} calibration, {len(dataset.test)} test; "
        f"standard error of a val accuracy {val_standard_error_points(dataset):.1f} points{warnings}"
    )


def _scaled(space: SearchSpace, base: NetworkSpec, chosen: dict[str, float], target: "Target") -> NetworkSpec:
    from scalesearch.search.space import candidate_of

    return _spec_of(candidate_of(chosen).scaling, space, base, target)


def _spec_of(scaling: Scaling, space: SearchSpace, base: NetworkSpec, target: "Target") -> NetworkSpec:
    from scalesearch.networks.scaling import scale

    return scale(
        base,
        scaling,
        resolution_px=space.resolution_px,
        num_classes=base.num_classes,
        channel_multiple=target.channel_multiple,
        resolution_multiple=space.resolution_multiple,
    )


def _values(named: NamedAxis) -> tuple[float, ...]:
    assert isinstance(named.axis, Choice)
    return tuple(float(value) for value in named.axis.values)


def _axis_text(named: NamedAxis) -> str:
    axis = named.axis
    if isinstance(axis, Choice):
        return f"{axis.values[0]!r}" if len(axis.values) == 1 else f"one of {list(axis.values)}"
    step = f" in steps of {axis.step:g}" if axis.step else ""
    return f"{axis.low:g} to {axis.high:g}{step}{' (log)' if axis.log else ''}"


def _flat(document: dict[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value  # as TOML has it
