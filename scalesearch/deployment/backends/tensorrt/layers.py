"""The layers of a compiled engine, read from the compiler's own list: which nodes were fused, and each precision."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scalesearch.values.record import KernelCount

_HEAD = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), ")
_PART = re.compile(r"(Inputs|Constants|Outputs): \[(.*?)\](?=, (?:Constants|Outputs|TacticName|ParameterType)|$)")
_TENSOR = re.compile(r"Dimensions: \[([\d,]*)\].*?Datatype: ([\w]+)")
_SOURCE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_GENERATED = "kgen"
_TACTIC = re.compile(r"TacticName: ([^,]+)")

PRECISION_NAMES = {"Float": "fp32", "FP32": "fp32", "Half": "fp16", "FP16": "fp16", "BFloat16": "bf16", "BF16": "bf16",
                   "Int8": "int8", "INT8": "int8", "FP8": "fp8", "Int32": "int32", "INT32": "int32"}  # fmt: skip
"""The usual precision name for each of the compiler's names of data types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One compiled kernel."""

    name: str
    kind: str
    """The compiler's name: `correlation` is a convolution, `gemm` a matrix product, `kgen` a generated kernel."""
    precision: str
    """Precision that the kernel multiplies in: the narrowest type among its inputs and weights."""
    output_precision: str
    sources: tuple[str, ...]
    """Names of the ONNX file's nodes that were fused into this kernel."""
    tactic: str = ""


def parse_layers(messages: Iterable[str]) -> tuple[Layer, ...]:
    """Read the layers from the builder's messages.

    They are in the VERBOSE message that begins with `Layers:` (profiling verbosity DETAILED).
    """
    return tuple(
        layer for text in messages for line in text.splitlines() if (layer := _parsed(line.strip())) is not None
    )


def count_precisions(layers: Iterable[Layer], nodes: Iterable[str]) -> tuple[KernelCount, ...]:
    """Count how many of these ONNX nodes (convolutions, linear layers) run in each precision, most frequent first.

    A node's name can be on several kernels: on the one that multiplies, and on generated ones that cast or scale for
    it. The one that multiplies is counted.
    """
    holders: dict[str, list[Layer]] = {}
    for layer in layers:
        for source in layer.sources:
            holders.setdefault(source, []).append(layer)
    found = Counter(_multiplier(holders[node]).precision for node in nodes if node in holders)
    return tuple(KernelCount(precision=precision, kernels=count) for precision, count in found.most_common())


def _multiplier(layers: list[Layer]) -> Layer:
    return next((layer for layer in layers if layer.kind != _GENERATED), layers[0])


def inspected(text: str) -> dict[str, tuple[str, str]]:
    """Return kind and precision of every layer by its name, from the engine inspector's JSON.

    The precision is the narrowest among the types of inputs and weights ("Format/Datatype": "... FP16 ...").
    """
    found: dict[str, tuple[str, str]] = {}
    for layer in json.loads(text).get("Layers", []):
        if isinstance(layer, str):  # engines built without detailed verbosity list only names
            found[layer] = ("", "")
            continue
        texts = [str(part.get("Format/Datatype", part.get("Datatype", ""))) for part in layer.get("Inputs", [])]
        texts += [str(layer[name].get("Type", "")) for name in ("Weights",) if isinstance(layer.get(name), dict)]
        kinds = [word for text in texts for word in re.findall(r"\w+", text) if word in PRECISION_NAMES]
        found[layer["Name"]] = (str(layer.get("LayerType", "")), _narrowest(kinds))
    return found


def _parsed(line: str) -> Layer | None:
    head = _HEAD.match(line)
    if head is None:
        return None
    parts = {name: _TENSOR.findall(text) for name, text in _PART.findall(line)}
    # Weights have several dimensions larger than 1. Scales and biases, which stay in a wide type, have only one.
    weights = [
        kind
        for shape, kind in parts.get("Constants", [])
        if sum(side not in ("", "1") for side in shape.split(",")) > 1
    ]
    read = [kind for _, kind in parts.get("Inputs", [])] + weights
    tactic = _TACTIC.search(line)
    return Layer(
        name=head["name"],
        kind=head["kind"],
        precision=_narrowest(read),
        output_precision=_narrowest([kind for _, kind in parts.get("Outputs", [])]),
        sources=tuple(_SOURCE.findall(line)),
        tactic=tactic[1] if tactic else "",
    )


_BY_WIDTH = ("fp8", "int8", "fp16", "bf16", "fp32", "int32")


def _narrowest(kinds: Iterable[str]) -> str:
    named = [PRECISION_NAMES.get(kind, kind.lower()) for kind in kinds]
    return min(named, key=lambda name: _BY_WIDTH.index(name) if name in _BY_WIDTH else len(_BY_WIDTH), default="")
