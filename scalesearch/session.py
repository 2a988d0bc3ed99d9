"""Makes a run ready: data set, base network, chip and machine become one Session, probed once and then kept."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from scalesearch.chain.evaluate import engine_options
from scalesearch.chain.shrink import MEASURED_DEVICE
from scalesearch.child_process import ChildLost, run_apart
from scalesearch.config import check_stages
from scalesearch.deployment.acceptance import Gate
from scalesearch.deployment.backends import get_backend
from scalesearch.deployment.export import to_onnx
from scalesearch.deployment.targets import fit_chip, get_target
from scalesearch.errors import StageFailed
from scalesearch.measurement.device_lock import DeviceLock
from scalesearch.measurement.latency import calm_time
from scalesearch.networks import find_spec
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale
from scalesearch.records.run_file import read_run_file, refuse_changes, write_run_file
from scalesearch.search.space import for_target
from scalesearch.training.datasets import Dataset, load_dataset, to_input, val_standard_error
from scalesearch.training.machine import probe_machine
from scalesearch.values.candidate import Scaling
from scalesearch.values.network_spec import NetworkSpec
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.session import DataSummary, Session, reference_path
from scalesearch.values.settings import RunSettings
from scalesearch.values.space import Choice, SearchSpace

_REFERENCE_IMAGES = 8


def open_session(
    settings: RunSettings,
    space: SearchSpace,
    folder: Path,
    *,
    base: NetworkSpec | None = None,
    storage_px: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Session:
    """The session of a new study in `folder`, or that of the study already there, after comparing the two.

    What the first run probed (threads, bf16, the reference engine's calm time) is kept for every later one, so that
    a resumed study measures with the same ruler. `base` and `storage_px` replace what the space says of them, where an
    exported network is trained again on the very same images. `say` hears one line per step that takes time.

    Raises:
        ConfigError: bad data, network or target; or the study there was made from other ones (with the difference).
        MissingBackendError: the target's backend is not installed.
    """
    target = get_target(settings.target)
    backend = get_backend(target.backend)
    device = backend.device(settings.latency.threads)
    target = fit_chip(target)
    if settings.accept == "rtx":
        Gate(target.compute_capability)  # a missing library is said now, not by every trial
    space = for_target(space, target)
    base = base or find_spec(space.network)
    check_stages(space, len(base.stages))
    storage_px = storage_px or largest_resolution(space, base)
    say(f"data: loading {settings.data.source}")
    dataset = load_dataset(settings.data, storage_px=storage_px)
    stored = read_run_file(folder)
    say("machine: probing threads and number format" if stored is None else "machine: as probed by the first run")
    machine = stored.machine if stored else probe_machine(settings.machine, workers=settings.workers)
    session = Session(
        folder=folder,
        settings=settings,
        space=space,
        base=base,
        target=target,
        machine=machine,
        device=device,
        data=_summary(dataset),
        storage_px=storage_px,
        reference_calm_ms=stored.reference_calm_ms if stored else 0.0,
    )
    if stored:
        refuse_changes(stored, session)
        session = dataclasses.replace(session, reference_calm_ms=stored.reference_calm_ms)
    else:
        say("reference: building the engine that every latency is compared with")
        session = dataclasses.replace(session, reference_calm_ms=_make_reference(session, dataset))
    write_run_file(session)
    return session


def largest_resolution(space: SearchSpace, base: NetworkSpec) -> int:
    """Side in pixels of the largest image that the space can ask for, or that multiplier 1 (the reference) needs."""
    axis = next((named.axis for named in space.axes if named.name == "scaling.resolution"), Choice(values=(1.0,)))
    largest = max(float(value) for value in axis.values) if isinstance(axis, Choice) else axis.high
    return scale_base(space, base, Scaling(resolution=max(largest, 1.0))).resolution_px


def scale_base(space: SearchSpace, base: NetworkSpec, scaling: Scaling, num_classes: int = 10) -> NetworkSpec:
    """The base network of `space` at these multipliers."""
    return scale(
        base,
        scaling,
        resolution_px=space.resolution_px,
        num_classes=num_classes,
        resolution_multiple=space.resolution_multiple,
    )


def _make_reference(session: Session, dataset: Dataset) -> float:
    """Writes the reference network (the base at multiplier 1, untrained, fp32) and gives its calm latency in ms."""
    spec = scale_base(session.space, session.base, Scaling(), len(session.data.class_names))
    data = dataset.at(spec.resolution_px)
    images = to_input(data.calibration.images[:_REFERENCE_IMAGES], mean=data.mean, std=data.std)
    network = build(spec)
    network.module.eval()
    model = to_onnx(network, to=reference_path(session.folder), check_images=images)
    if session.target.backend == "onnxruntime":
        return _calm_time(model, session)
    # Native compilers may crash: then a child dies, and the run ends with words.
    log, limit_s = session.folder / "logs" / "reference.log", session.settings.stage_limits.other_s
    try:
        return run_apart(_calm_time, model, session, log=log, limit_s=limit_s)
    except ChildLost as lost:
        reason = f"{session.target.backend} died or hung on the reference network: {lost}"
        raise StageFailed(stage="reference", reason=reason) from lost


def _calm_time(model: OnnxModel, session: Session) -> float:
    engine = get_backend(session.target.backend).compile(model, engine_options(session.settings))
    with engine, DeviceLock(MEASURED_DEVICE).quiet():
        return calm_time(engine, settings=session.settings.latency)


def _summary(dataset: Dataset) -> DataSummary:
    return DataSummary(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        mean=dataset.mean,
        std=dataset.std,
        train_images=len(dataset.train),
        val_images=len(dataset.val),
        calibration_images=len(dataset.calibration),
        test_images=len(dataset.test),
        val_standard_error=val_standard_error(dataset),
        warnings=dataset.warnings,
    )
