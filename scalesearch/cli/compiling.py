"""What NVIDIA's compiler reports without a GPU: `check --compile` and `profile`."""

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.screen import Column
from scalesearch.cli.studies import MovedData, StudyArgument, find_study, read_records
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Candidate, Precision, Pruning
from scalesearch.values.record import KernelCount, TrialRecord
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import SearchSpace

if TYPE_CHECKING:
    from rich.table import Table

    from scalesearch.chain.planner import Planner
    from scalesearch.deployment.acceptance import Gate
    from scalesearch.deployment.backends.base import LayerTime
    from scalesearch.values.network import OnnxModel
    from scalesearch.values.network_spec import NetworkSpec
    from scalesearch.values.record import Acceptance
    from scalesearch.values.session import Session
    from scalesearch.values.target import Target

_COMPILED = 6
"""Number of distinct networks of the space that `check --compile` compiles, each in every precision of the target."""
_SAMPLES = 64
_PROFILE_RUNS = 200
_IMAGES = 16
_CLASSES = 10


def register(app: typer.Typer) -> None:
    """Add `profile` to the app."""
    app.command()(profile)


def profile(
    study: StudyArgument = None,
    trial: Annotated[int | None, typer.Option("--trial", help="The trial's number (default: the knee).")] = None,
    top: Annotated[int, typer.Option("--top", help="How many of the slowest layers to print; 0 prints all.")] = 15,
    data: MovedData = None,
) -> int:
    """Show where a trial's time goes, layer by layer, and how NVIDIA's compiler fuses it."""
    from scalesearch.cli.screen import wide_console
    from scalesearch.cli.study_commands import choose_record
    from scalesearch.data.finding import with_data
    from scalesearch.export.trial_files import deployed_file
    from scalesearch.records.run_file import stored_session
    from scalesearch.tasks.registry import sources_of

    folder = find_study(study)
    record = choose_record(read_records(folder), trial)
    session = stored_session(folder)
    session = with_data(session, data, sources_of(session.settings.task))
    console = wide_console()
    with tempfile.TemporaryDirectory() as scratch:
        model = deployed_file(record, session, Path(scratch) / "model.onnx")
        for part in _times(model, session, record.candidate.pruning, top=top):
            console.print(part, highlight=False)
        console.print("Measuring layers slows them down: these times explain the latency, they do not replace it.")
        console.print()
        for part in _fused(record, session, Path(scratch)):
            console.print(part, highlight=False)
    return 0


def compile_space(settings: RunSettings, space: SearchSpace) -> "tuple[str, Table, int]":
    """Compile sampled networks of the space in every precision of the target.

    Returns:
        The compiler's name, a table of the compiled networks, and the number of refused ones.

    Raises:
        MissingBackendError: The extra `rtx` is not installed.
    """
    from scalesearch.chain.planner import PlanBasis, Planner
    from scalesearch.cli.screen import fitted, wide_console
    from scalesearch.deployment.acceptance import Gate
    from scalesearch.deployment.targets import get_target
    from scalesearch.networks import find_spec
    from scalesearch.spaces.suggest import for_target
    from scalesearch.study.own_module import with_outputs

    target = get_target(settings.target)
    space = for_target(space, target)
    gate = Gate(target.compute_capability, settings.tensorrt)
    base = with_outputs(space, find_spec(space.network))
    classes = base.num_classes if base.origin else _CLASSES
    planner = Planner(
        PlanBasis(base=base, space=space, target=target, num_classes=classes, seed=settings.seed, task=settings.task)
    )
    rows, refused = list[tuple[str, ...]](), 0
    with tempfile.TemporaryDirectory() as scratch:
        for candidate, spec in _distinct(space, planner, settings.seed):
            for precision, told in _compiled(candidate, planner, settings, target, gate, Path(scratch)):
                refused += isinstance(told, str)
                cells = (
                    (told, "", "", "")
                    if isinstance(told, str)
                    else ("accepted", f"{told.build_s:.2f}", str(told.layers), _counts(told.convolutions))
                )
                pruned = candidate.pruning.label.removeprefix("channels ") or "-"
                rows.append((spec.name, spec.input_size.label, pruned, precision, *cells))
    table, _ = fitted(wide_console().width, _COMPILE_COLUMNS, rows)
    return f"Compiled by {gate.name}:", table, refused


_COMPILE_COLUMNS = (
    Column(head="network", keep=5, folds=True),
    Column(head="px", keep=7, right=True),
    Column(head="pruned", keep=6, right=True),
    Column(head="precision", keep=8),
    Column(head="verdict", keep=9, folds=True),
    Column(head="build s", keep=2, right=True),
    Column(head="kernels", keep=3, right=True),
    Column(head="convolutions run in", keep=4, folds=True),
)


def _distinct(space: SearchSpace, planner: "Planner", seed: int) -> "list[tuple[Candidate, NetworkSpec]]":
    """Return a few sampled candidates that differ in network or pruning."""
    from scalesearch.spaces.suggest import random_candidates

    found: dict[object, tuple[Candidate, NetworkSpec]] = {}
    for candidate in random_candidates(space, _SAMPLES, seed):
        spec = planner.spec(candidate)
        found.setdefault((spec, candidate.pruning), (candidate, spec))
    return list(found.values())[:_COMPILED]


def _compiled(
    candidate: Candidate, planner: "Planner", settings: RunSettings, target: "Target", gate: "Gate", scratch: Path
) -> "Iterator[tuple[Precision, Acceptance | str]]":
    """Yield for every precision of the target whether an untrained network was accepted, or why not.

    The network is pruned as the planner does it to compute a cost, without images or trained weights, even if the
    candidate's pruning criterion reads them.
    """
    import numpy as np

    from scalesearch.compression.fold import fold_batchnorm
    from scalesearch.compression.quantize import Calibration, quantize
    from scalesearch.deployment.to_onnx import to_onnx
    from scalesearch.networks.build import settle_norms
    from scalesearch.tasks.registry import task_for

    try:
        network = planner.cut(candidate)
        shape = (_IMAGES, network.spec.image_channels, *network.spec.input_size.sides)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        folded = fold_batchnorm(settle_norms(network, images))
        names = task_for(settings).output_names
        float_model = to_onnx(folded, to=scratch / "float.onnx", check_images=images, output_names=names)
    except StageFailed as failure:  # a run records it as this trial's failure and goes on
        yield candidate.quantization.precision, failure.reason
        return
    known = Calibration(images=images, divergence=task_for(settings).divergence)
    for precision in target.precisions:
        asked = dataclasses.replace(candidate.quantization, precision=precision)
        to = scratch / "model.onnx"
        try:
            model = quantize(float_model, asked, calibration=known, profile="tensorrt", to=to)
            yield precision, gate.judge(model, batch=settings.latency.batch)
        except StageFailed as failure:
            yield precision, failure.reason


def _times(model: "OnnxModel", session: "Session", pruning: Pruning, *, top: int) -> "Iterator[Table | str]":
    from scalesearch.chain.timer import Timer
    from scalesearch.cli.screen import fitted, wide_console
    from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
    from scalesearch.views.words import device_text, milliseconds, milliseconds_number

    timer = Timer(session)
    with timer.compile(model, pruning) as engine, DeviceLock(MEASURED_DEVICE).quiet():
        layers = engine.profile(_PROFILE_RUNS)
    total_ms = sum(layer.mean_ms for layer in layers)
    device = device_text(timer.backend.device(session.settings.latency.threads))
    yield f"{len(layers)} layers, {milliseconds(total_ms)} together, on {device}"
    columns = (
        Column(head="layer", keep=5, folds=True), Column(head="kernel", keep=1, folds=True),
        Column(head="precision", keep=2), Column(head="ms", keep=4, right=True),
        Column(head="share", keep=3, right=True),
    )  # fmt: skip
    rows = []
    slowest = sorted(layers, key=_mean_ms, reverse=True)
    for layer in slowest[: top or None]:
        share = f"{100 * layer.mean_ms / total_ms:.1f} %"
        rows.append((layer.name, layer.kind, layer.precision, milliseconds_number(layer.mean_ms), share))
    yield fitted(wide_console().width, columns, rows)[0]


def _mean_ms(layer: "LayerTime") -> float:
    return layer.mean_ms


def _fused(record: TrialRecord, session: "Session", scratch: Path) -> "Iterator[Table | str]":
    """Yield the fused layers of the trial's graph in TensorRT's style, from the compiler that needs no GPU."""
    from scalesearch.cli.screen import fitted, wide_console
    from scalesearch.deployment.acceptance import Gate
    from scalesearch.errors import MissingBackendError
    from scalesearch.export.trial_files import deployed_file

    try:
        gate = Gate(session.target.compute_capability, session.settings.tensorrt)
    except MissingBackendError:
        yield "How NVIDIA's compiler would fuse it: pip install 'scalesearch[rtx]' and ask again (no GPU needed)."
        return
    styled = dataclasses.replace(session.target, quantization_profile="tensorrt")
    twin = dataclasses.replace(session, target=styled)
    model = deployed_file(record, twin, scratch / "tensorrt.onnx", kept=False)
    build = gate.build(model.path, batch=session.settings.latency.batch)
    yield f"{len(build.layers)} kernels as fused by {gate.name} (compiled, not timed)"
    columns = (
        Column(head="kernel", keep=5, right=True), Column(head="kind", keep=3, folds=True),
        Column(head="multiplies in", keep=2, folds=True), Column(head="writes", keep=1, folds=True),
        Column(head="holds these nodes of the file", keep=4, folds=True),
    )  # fmt: skip
    rows = []
    for number, layer in enumerate(build.layers):
        nodes = [source for source in layer.sources if not source.endswith("Linear")]
        rows.append((str(number), layer.kind, layer.precision, layer.output_precision, " ".join(nodes)))
    yield fitted(wide_console().width, columns, rows)[0]
    yield f"convolutions and linear layers run in: {_counts(build.convolutions)}"


def _counts(convolutions: Sequence[KernelCount]) -> str:
    return ", ".join(f"{entry.kernels} {entry.precision}" for entry in convolutions) or "none told"
