"""A trained network becomes an ONNX file that is proven to answer as the network does."""

import contextlib
import gc
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from scalesearch.deployment.onnx_file import annotate, checking_session, onnx_model, write_onnx
from scalesearch.errors import StageFailed
from scalesearch.values.network import Network
from scalesearch.values.onnx_model import OnnxModel

__all__ = ["INPUT_NAME", "OPSET", "OUTPUT_NAME", "annotate", "onnx_model", "to_onnx"]

INPUT_NAME = "image"
OUTPUT_NAME = "logits"
# What torch's exporter writes itself: another one goes through a version converter, or is silently left at 18.
OPSET = 18
# Typical differences are a millionth of the spread. The second term allows for float32 rounding at the logits' size.
_TOLERANCE_OF_SPREAD = 1e-3
_TOLERANCE_OF_SIZE = 1e-5
# Below this share of the logits' size every image gets nearly one answer, and any comparison would agree.
_LEAST_SPREAD = 1e-4
_CHATTY_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")


def to_onnx(network: Network, *, to: Path, check_images: NDArray[np.float32], opset: int = OPSET) -> OnnxModel:
    """The network as a single ONNX file: input `image` (batch, C, H, W), output `logits` (batch, classes), float32.

    The batch is dynamic. Exporting an equal network again gives equal bytes, and no path of this machine is inside.

    Args:
        network: In eval mode, on any device.
        to: Where to write; an older file there is replaced in one step.
        check_images: At least two real images (N, C, H, W), normalised as in training: torch and ONNX Runtime must
            agree on them to a thousandth of the logits' spread over the images.
        opset: Version of the ONNX operator set.

    Raises:
        StageFailed: Training mode, different answers, answers that do not spread, or an operator without export.
    """
    module = network.module
    if any(layer.training for layer in module.modules()):
        raise StageFailed(stage="export", reason=f"{network.spec.name} is in training mode: call module.eval() first")
    weight = next(module.parameters())
    images = torch.from_numpy(np.ascontiguousarray(check_images)).to(weight.device, weight.dtype)
    with torch.no_grad():
        expected = module(images).float().cpu().numpy()
    _ensure_spread(expected)
    proto = _exported(module, images, opset)
    _tidy(proto)
    _name_global_pools(proto.graph)
    _ensure_parity(proto, check_images, expected)
    return write_onnx(proto, to)


def _exported(module: torch.nn.Module, images: torch.Tensor, opset: int) -> onnx.ModelProto:
    # Half of the time is tracing with fake tensors (twice: capture and decomposition), a quarter reading the operator
    # library, which torch does anew each time. A fixed batch would save a third, the deprecated exporter nine tenths.
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
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except Exception as error:  # the exporter passes on whatever a network's forward raises under tracing
            reason = f"torch.onnx cannot export the network: {' '.join(str(error).split())[:300]}"
            raise StageFailed(stage="export", reason=reason) from error
    assert program is not None  # dynamo=True always returns a program
    proto: onnx.ModelProto = program.model_proto
    versions = {entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")}
    if versions != {opset}:
        raise StageFailed(stage="export", reason=f"opset {opset} was asked for, torch wrote {sorted(versions)}")
    return proto


def _tidy(proto: onnx.ModelProto) -> None:
    """Drops what differs between two exports of one network, or tells about the machine it was made on.

    The exporter writes stack traces with file paths into every node and numbers the nodes by a counter of the process.
    """
    graph = proto.graph
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.ClearField("metadata_props")
    graph.ClearField("doc_string")
    proto.ClearField("metadata_props")


def _name_global_pools(graph: onnx.GraphProto) -> None:
    """Writes a mean over both sides of a feature map as what it is, GlobalAveragePool.

    Torch exports it as ReduceMean, for which ONNX Runtime has no int8 kernel: a small EfficientNet in int8 took 0.75 ms
    with it and 0.61 ms without.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*graph.input, *graph.value_info)}
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            continue
        axes = {int(axis) % 4 for axis in onnx.numpy_helper.to_array(constants[node.input[1]]).ravel()}
        keeps = all(attribute.i for attribute in node.attribute if attribute.name == "keepdims")
        if axes == {2, 3} and keeps and ranks.get(node.input[0]) == 4:
            node.op_type = "GlobalAveragePool"
            node.name = node.name.replace("ReduceMean", node.op_type)
            del node.input[1:], node.attribute[:]
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _ensure_spread(logits: NDArray[np.float32]) -> None:
    size = float(np.abs(logits).max()) if len(logits) > 1 else 0.0
    if not np.isfinite(size):
        raise StageFailed(stage="export", reason="the network's answers to the check images are not finite")
    if _spread(logits) <= _LEAST_SPREAD * size:
        reason = (
            f"the network answers nearly the same to all {len(logits)} check images (spread {_spread(logits):.2g} at "
            f"logits up to {size:.2g}), so that nothing could be compared: it has not learnt, or the images are equal"
        )
        raise StageFailed(stage="export", reason=reason)


def _ensure_parity(proto: onnx.ModelProto, images: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """All images at once and the first alone, since the batch must really be dynamic."""
    try:
        session = checking_session(proto)
        answers = [session.run([OUTPUT_NAME], {INPUT_NAME: images[:count]})[0] for count in (len(images), 1)]
    except Exception as error:  # the bindings' errors share no base class
        reason = f"ONNX Runtime does not run the exported file: {' '.join(str(error).split())[:300]}"
        raise StageFailed(stage="export", reason=reason) from error
    tolerance = _TOLERANCE_OF_SPREAD * _spread(expected) + _TOLERANCE_OF_SIZE * float(np.abs(expected).max())
    for answer in answers:
        difference = float(np.abs(answer - expected[: len(answer)]).max())
        if not difference <= tolerance:  # written so that NaN fails
            reason = f"ONNX Runtime answers otherwise than torch: by {difference:.3g}, allowed are {tolerance:.3g}"
            raise StageFailed(stage="export", reason=reason)


def _spread(logits: NDArray[np.float32]) -> float:
    """Standard deviation over the images, averaged over the classes."""
    return float(logits.std(axis=0).mean())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's warnings and log lines, and holds the garbage collector, which costs it a tenth."""
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
