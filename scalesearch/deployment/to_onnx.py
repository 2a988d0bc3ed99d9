"""Turn a trained network into an ONNX file, and check that it gives the same outputs as the network."""

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from scalesearch.deployment.graph_edits import merge_pads, name_global_pools, rename_weights, tidy
from scalesearch.deployment.graph_templates import GraphTemplates, structure_of
from scalesearch.deployment.onnx_file import annotate, checking_session, onnx_model, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.plain_text import one_line
from scalesearch.registered_layers import first_names
from scalesearch.values.network import Network, OnnxModel

__all__ = ["INPUT_NAME", "OPSET", "annotate", "onnx_model", "to_onnx"]

INPUT_NAME = "image"
# The version that torch's exporter writes itself. Another one would go through a version converter, or would silently
# stay at 18.
OPSET = 18
# Typical differences are a millionth of the spread. The second value allows for float32 rounding, which grows with the
# size of the outputs.
_TOLERANCE_OF_SPREAD = 1e-3
_TOLERANCE_OF_SIZE = 1e-5
# If the spread is below this share of the outputs' size, all images give nearly the same output, and any comparison
# would succeed.
_LEAST_SPREAD = 1e-4
_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def to_onnx(
    network: Network,
    *,
    to: Path,
    check_images: NDArray[np.float32],
    output_names: Sequence[str],
    opset: int = OPSET,
    graphs: Path | None = None,
) -> OnnxModel:
    """Write the network as a single ONNX file, and check that ONNX Runtime gives the same outputs as the network.

    The input is `image` (batch, C, H, W) and the outputs have these names, all float32. The batch is dynamic. Exporting
    an equal network again gives equal bytes, and the file contains no path of this machine.

    Args:
        network: The network in eval mode, on any device.
        to: Where to write; an older file there is replaced in one step.
        check_images: At least two real images (N, C, H, W), normalised as in training: torch and ONNX Runtime must
            agree on them to a thousandth of each output's spread over the images.
        output_names: Names of what the module returns, in its order; each output has the images along its first axis.
        opset: Version of the ONNX operator set that torch writes.
        graphs: Folder in which processes that export networks of one structure share what torch traced.

    Raises:
        StageFailed: The network is in training mode, ONNX Runtime gives other outputs, the outputs hardly differ
            between the images, or an operator cannot be exported.
    """
    module = network.module
    if any(layer.training for layer in module.modules()):
        raise StageFailed(stage="export", reason=f"{network.spec.name} is in training mode: call module.eval() first")
    weight = next(module.parameters())
    images = torch.from_numpy(np.ascontiguousarray(check_images)).to(weight.device, weight.dtype)
    with torch.no_grad():
        returned = module(images)
    tensors = returned if isinstance(returned, tuple) else (returned,)
    expected = [tensor.float().cpu().numpy() for tensor in tensors]
    _ensure_spread(expected)
    answers, asked = dict(zip(output_names, expected, strict=True)), f"{tuple(output_names)} {opset}"
    # The code of a user's own module may do anything, so each of its networks is traced by torch anew.
    structure = None if network.spec.origin else structure_of(module, images, asked=asked)
    kept = _TEMPLATES.find(structure, graphs) if structure else None
    proto: onnx.ModelProto | None = None
    if kept:
        with contextlib.suppress(StageFailed):  # then torch exports it below, and a failure there is reported
            proto = _checked(kept, check_images, answers)
    if proto is None:
        traced = _exported(module, images, opset, output_names)
        rename_weights(traced.graph, first_names(module))
        tidy(traced)
        if structure:
            _TEMPLATES.keep(traced, structure, graphs)
        proto = _checked(traced, check_images, answers)
    return write_onnx(proto, to)


_TEMPLATES = GraphTemplates()


def _checked(
    proto: onnx.ModelProto, check_images: NDArray[np.float32], answers: Mapping[str, NDArray[np.float32]]
) -> onnx.ModelProto:
    """Return the graph as it is deployed, after checking that ONNX Runtime gives the expected outputs with it."""
    name_global_pools(proto.graph)
    merge_pads(proto.graph)
    _ensure_parity(proto, check_images, answers)
    return proto


def _exported(
    module: torch.nn.Module, images: torch.Tensor, opset: int, output_names: Sequence[str]
) -> onnx.ModelProto:
    # This takes seconds, so `graph_templates` keeps the graph. Half of the time goes into tracing with fake tensors
    # (twice: capture and decomposition), and a quarter into reading the operator library, which torch does again each
    # time. A fixed batch would save a third of the time, the deprecated exporter nine tenths.
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                (images[:2],),
                dynamo=True,
                external_data=False,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:  # the exporter passes on whatever a network's forward raises under tracing
            reason = f"torch.onnx cannot export the network: {one_line(str(error))}"
            raise StageFailed(stage="export", reason=reason) from error
    assert program is not None  # dynamo=True always returns a program
    proto: onnx.ModelProto = program.model_proto
    versions = {entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")}
    if versions != {opset}:
        raise StageFailed(stage="export", reason=f"opset {opset} was asked for, torch wrote {sorted(versions)}")
    return proto


def _ensure_spread(outputs: Sequence[NDArray[np.float32]]) -> None:
    sizes = [float(np.abs(answers).max()) if len(answers) > 1 else 0.0 for answers in outputs]
    if not np.isfinite(sizes).all():
        raise StageFailed(stage="export", reason="the network's answers to the check images are not finite")
    if all(_spread(answers) <= _LEAST_SPREAD * size for answers, size in zip(outputs, sizes, strict=True)):
        reason = (
            f"the network answers nearly the same to all {len(outputs[0])} check images (spread "
            f"{_spread(outputs[0]):.2g} at answers up to {sizes[0]:.2g}), so that nothing could be compared: it has "
            "not learnt, or the images are equal"
        )
        raise StageFailed(stage="export", reason=reason)


def _ensure_parity(
    proto: onnx.ModelProto, images: NDArray[np.float32], expected: Mapping[str, NDArray[np.float32]]
) -> None:
    """Raise an error if ONNX Runtime's outputs differ from the expected ones.

    All images are run at once and then the first one alone, to check that the batch is really dynamic.
    """
    names = list(expected)
    try:
        session = checking_session(proto)
        answers = [session.run(names, {INPUT_NAME: images[:count]}) for count in (len(images), 1)]
    except Exception as error:  # the bindings' errors share no base class
        reason = f"ONNX Runtime does not run the exported file: {one_line(str(error))}"
        raise StageFailed(stage="export", reason=reason) from error
    for name, found in ((name, each) for outputs in answers for name, each in zip(names, outputs, strict=True)):
        wanted = expected[name]
        tolerance = _TOLERANCE_OF_SPREAD * _spread(wanted) + _TOLERANCE_OF_SIZE * float(np.abs(wanted).max())
        difference = float(np.abs(found - wanted[: len(found)]).max())
        if not difference <= tolerance:  # `not <=`, so that NaN fails
            reason = f"ONNX Runtime answers otherwise than torch: by {difference:.3g}, allowed are {tolerance:.3g}"
            raise StageFailed(stage="export", reason=reason)


def _spread(answers: NDArray[np.float32]) -> float:
    """Return the standard deviation over the images (first axis), averaged over everything else."""
    return float(answers.std(axis=0).mean())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's warnings and log lines, and pause the garbage collector.

    Garbage collection would cost the exporter a tenth of its time.
    """
    levels = {name: logging.getLogger(name).level for name in _CHATTY_LOGGERS}
    collecting = gc.isenabled()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if collecting:
            gc.enable()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
