"""The ONNX files of a trial, deployed and in float, as kept or made again, and the histograms of its layers."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.records.stored_files import kept_model
from scalesearch.values.candidate import Quantization
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import TrialRecord
from scalesearch.values.session import Session, model_path

if TYPE_CHECKING:
    import onnx

    from scalesearch.chain.evaluate import TrialEvaluator
    from scalesearch.values.histogram import LayerHistogram


def deployed_file(
    record: TrialRecord, session: Session, to: Path, *, kept: bool = True, evaluator: "TrialEvaluator | None" = None
) -> OnnxModel:
    """Write a copy of the trial's ONNX file to `to`: the kept file, or one that is made again (always, unless `kept`).

    Files are kept for front members. Any other file is made from the trial's kept weights, or, if those are missing,
    too, by training the network again, with `evaluator` if one is given.

    Raises:
        ConfigError: The kept file is not the one that was measured; or it must be made again, and the data are missing.
    """
    from scalesearch.deployment.onnx_file import onnx_model

    file = kept_model(session.folder, record) if kept else None
    if file:
        shutil.copyfile(file, to)
        return onnx_model(to)
    return built_file(record, session, to, quantization=record.candidate.quantization, evaluator=evaluator)


def built_file(
    record: TrialRecord,
    session: Session,
    to: Path,
    *,
    quantization: Quantization,
    evaluator: "TrialEvaluator | None" = None,
) -> OnnxModel:
    """Build the trial's network from its kept weights, or train it again, and write it to `to` in that precision.

    The weights are the trial's own, whatever the precision: those of a trial with quantization-aware updates are the
    ones before these updates, if `quantization` has none.

    Raises:
        ConfigError: The data are missing.
    """
    from scalesearch.chain.evaluate import TrialEvaluator
    from scalesearch.chain.planner import Planner

    plan = Planner(session)(record.candidate)  # of the whole candidate: how long it trains in float depends on it
    plan = dataclasses.replace(plan, candidate=dataclasses.replace(plan.candidate, quantization=quantization))
    if evaluator is None:
        # The compiler's check changes nothing in the file, and its library may be missing where the file is made again.
        evaluator = TrialEvaluator(_unchecked(session), measures=False)
    return evaluator.rebuild(plan, to=to)


def _unchecked(session: Session) -> Session:
    """Return the session without the compiler's check of each trial's graph."""
    return dataclasses.replace(session, settings=dataclasses.replace(session.settings, accept="off"))


def restore_model(record: TrialRecord, session: Session, evaluator: "TrialEvaluator") -> None:
    """Make the trial's ONNX file again from its kept weights, if the study has lost it.

    Raises:
        ConfigError: Another file is there.
        StageFailed: The file that is made now is not the one that was measured.
    """
    from scalesearch.errors import StageFailed
    from scalesearch.files import replace_file

    if kept_model(session.folder, record):
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = deployed_file(record, session, Path(scratch) / "model.onnx", kept=False, evaluator=evaluator)
        if record.onnx_sha256 and made.sha256 != record.onnx_sha256:
            raise StageFailed(stage="export", reason="its model is lost, and making it again gave another file")
        replace_file(model_path(session.folder, record.trial), made.path.read_bytes())


def float_network(
    record: TrialRecord, session: Session, *, evaluator: "TrialEvaluator | None" = None
) -> "onnx.ModelProto":
    """Return the trial's network before quantization and the updates for it, in fp32, from kept weights or retrained.

    Raises:
        ScalesearchError: The data or the study's files are missing.
    """
    from scalesearch.deployment.onnx_file import read_onnx

    asked = record.candidate.quantization
    floating = dataclasses.replace(asked, precision="fp32", keep_float=0, bias_correction=False, qat_steps=0)
    # The float network is the same wherever it is deployed: neither the chip nor the compiler check is needed to make
    # it.
    target = dataclasses.replace(session.target, backend="onnxruntime")
    here = dataclasses.replace(_unchecked(session), target=target)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "float.onnx"
        return read_onnx(built_file(record, here, path, quantization=floating, evaluator=evaluator).path)


def trial_histograms(
    record: TrialRecord, session: Session, *, evaluator: "TrialEvaluator | None" = None
) -> "tuple[LayerHistogram, ...]":
    """Return the histograms of a trial's network before quantization, one per layer, on the study's calibration images.

    The network is built from its kept weights, or, if those are missing, trained again.
    """
    from scalesearch.compression.histogram import layer_histograms
    from scalesearch.data import to_input
    from scalesearch.data.finding import load_study_data
    from scalesearch.tasks.registry import sources_of

    asked = record.candidate.quantization
    data = evaluator.dataset if evaluator else load_study_data(session, sources_of(session.settings.task))
    from scalesearch.chain.planner import Planner

    shown = data.at(Planner(session).spec(record.candidate).input_size).calibration.images[: asked.calibration_images]
    images = to_input(shown, mean=session.data.mean, std=session.data.std)
    proto = float_network(record, session, evaluator=evaluator)
    return layer_histograms(proto, images, asked, symmetric=session.target.quantization_profile != "onnxruntime_cpu")
