"""The reference engine that every latency of a study is relative to. It is made once and never silently replaced."""

import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scalesearch.chain.timer import Timer
from scalesearch.data import Dataset, to_input
from scalesearch.deployment.to_onnx import to_onnx
from scalesearch.errors import ConfigError, StageFailed
from scalesearch.execution.child_process import ChildLost, run_apart
from scalesearch.files import replace_file
from scalesearch.measurement.calm_time import calm_time
from scalesearch.measurement.cores import wandering
from scalesearch.measurement.device_lock import MEASURED_DEVICE, DeviceLock
from scalesearch.networks.build import build
from scalesearch.networks.scaling import scale_base
from scalesearch.records.stored_files import file_sha256, kept_reference
from scalesearch.tasks.registry import task_for
from scalesearch.values.candidate import Scaling
from scalesearch.values.network import OnnxModel
from scalesearch.values.session import Session, reference_path

_IMAGES = 8


def make_reference(session: Session, dataset: Dataset) -> Session:
    """Write the reference engine's file of a new study; return the session with its hash and its calm latency."""
    model = _build(session, dataset, reference_path(session.folder))
    return replace(session, reference_sha256=model.sha256, reference_calm_ms=_calm_time_of(model, session))


def with_reference(session: Session, dataset: Dataset, *, say: Callable[[str], None] = lambda _: None) -> Session:
    """Return the session of a continued study with its reference engine: the file exists and its hash is known.

    A lost file is built again.

    Raises:
        ConfigError: The file has changed; or it was lost, and building it again gives a different file.
    """
    path = kept_reference(session)
    if path is None:
        say("reference: its file is missing, building it again")
        path = rebuild_reference(session, dataset, to=reference_path(session.folder))
    return replace(session, reference_sha256=session.reference_sha256 or file_sha256(path))


def rebuild_reference(session: Session, dataset: Dataset, *, to: Path) -> Path:
    """Write the lost file of a study's reference engine to `to`.

    The network is untrained, so building it again gives the same file.

    Raises:
        ConfigError: The new file differs from the lost one, for example because torch has another version.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model = _build(session, dataset, Path(scratch) / to.name)
        if session.reference_sha256 and model.sha256 != session.reference_sha256:
            message = (
                f"{reference_path(session.folder)} is missing, and torch {importlib.metadata.version('torch')} builds "
                f"another one: SHA-256 {model.sha256[:12]}..., and {session.reference_sha256[:12]}... was expected.\n"
                "Put the file back (a copy of the study holds it), or use the package versions that run.toml names."
            )
            raise ConfigError(message)
        replace_file(to, model.path.read_bytes())
    return to


def _build(session: Session, dataset: Dataset, to: Path) -> OnnxModel:
    """Write the reference network (the base at multiplier 1, untrained, fp32) to an ONNX file.

    Equal sessions give equal files.
    """
    spec = scale_base(session.space, session.base, Scaling(), len(session.data.class_names))
    data = dataset.at(spec.input_size)
    images = to_input(data.calibration.images[:_IMAGES], mean=data.mean, std=data.std)
    task = task_for(session.settings)
    network = build(spec, task.make_module)
    network.module.eval()
    return to_onnx(network, to=to, check_images=images, output_names=task.output_names)


def _calm_time_of(model: OnnxModel, session: Session) -> float:
    """Return the calm latency in milliseconds."""
    if session.target.backend == "onnxruntime":
        return _calm_time(model, session)
    # Native compilers may crash. Then only a child process dies, and the run ends with an explanation.
    log, limit_s = session.folder / "logs" / "reference.log", session.settings.stage_limits.other_s
    try:
        return run_apart(_calm_time, model, session, log=log, limit_s=limit_s)
    except ChildLost as lost:
        reason = f"{session.target.backend} died or hung on the reference network: {lost}"
        raise StageFailed(stage="reference", reason=reason) from lost


def _calm_time(model: OnnxModel, session: Session) -> float:
    latency = session.settings.latency
    engine = Timer(session).compile(model)
    with engine, DeviceLock(MEASURED_DEVICE).quiet(), wandering(latency.threads) as move:
        return calm_time(engine, settings=latency, move=move)
