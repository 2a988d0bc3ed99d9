"""Simulate the rounding of a Q/DQ file in a torch network: at the same places, with the same numbers.

Gradients pass straight through the rounding, so the network can be trained with it.
"""

import operator
from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from scalesearch.compression.calibration import observe
from scalesearch.compression.qdq import output_of
from scalesearch.compression.rounding import ActivationRounding, RoundedLayer, format_of, numbers_of
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import Quantization
from scalesearch.values.target import QuantizationProfile

STAGE: Final = "qat"
_OBSERVED_BATCH: Final = 32
_WEIGHTED: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_PASSING: Final = (nn.Identity, nn.Dropout)
_ADDS: Final = frozenset({operator.add, operator.iadd, torch.add})


class Simulation:
    """The network's graph with rounding in it; its layers are the module's own, so training it trains the module.

    Inputs and weights of convolutions and linear layers and one side of residual sums are rounded, as `insert_qdq` does
    it. ONNX Runtime's CPU style also rounds what is between them; this is left out here. Until `calibrate` or
    `set_ranges` is called, activations pass through as they are.
    """

    def __init__(
        self,
        module: nn.Module,
        quantization: Quantization,
        profile: QuantizationProfile,
        *,
        skip: Set[str] = frozenset(),
    ) -> None:
        """Take a module in eval mode, its BatchNorms folded.

        Args:
            module: The network.
            quantization: The kind of rounding.
            profile: The target's style of quantization.
            skip: Names of the weights (`stem.0.weight`) of layers that stay in float.

        Raises:
            StageFailed: The module cannot be traced, runs a layer twice, or does not give it one input.
        """
        self._numbers = numbers_of(quantization, profile)
        per_channel = quantization.weights == "per_channel"
        self._graph = _traced(module)
        self._modules: dict[str, Any] = {
            str(node.target): operator.attrgetter(str(node.target))(module)
            for node in self._graph.nodes
            if node.op in ("call_module", "get_attr")
        }
        self._pairs: dict[fx.Node, tuple[fx.Node, ActivationRounding]] = {}
        self._names: dict[fx.Node, str] = {}
        self._keys: dict[str, ActivationRounding] = {}
        layers = [node for node in self._graph.nodes if self._is(node, _WEIGHTED)]
        for node in layers:
            _place_input(node)
        self._name(layers)
        inputs = {self._names[node]: self._source(node.all_input_nodes[0]) for node in layers}
        layers = [node for node in layers if self._names[node] not in skip]
        for node in layers:
            self._round_layer(node, per_channel=per_channel)
        for node in list(self._graph.nodes):
            if node.op == "call_function" and node.target in _ADDS:
                if node.target is operator.iadd:  # it would change a rounded tensor that others read
                    node.target = operator.add
                self._round_residual(node, set(layers))
        # What a layer in float reads may be rounded for a sum, and its range has no other name then.
        for weight, source in inputs.items():
            if source in self._pairs:
                self._keys.setdefault(weight, self._pairs[source][1])
        self.module = fx.GraphModule(self._modules, self._graph)

    @property
    def scales(self) -> list[nn.Parameter]:
        """The learnt logarithms of the activations' scales."""
        return [rounding.log_scale for _, rounding in self._pairs.values()]

    def calibrate(self, images: Tensor, quantization: Quantization) -> None:
        """Set the range of every activation, by the quantization's method, on normalised images (N, C, H, W)."""
        roundings = {node.name: rounding for node, (_, rounding) in self._pairs.items()}
        if not roundings:  # every layer stays in float
            return

        def batches() -> Iterator[dict[str, NDArray[np.float32]]]:
            for part in torch.split(images, _OBSERVED_BATCH):
                with torch.inference_mode():
                    self.module(part)
                yield {name: rounding.taken().cpu().numpy() for name, rounding in roundings.items()}

        counts = dict.fromkeys(roundings, 0)
        for batch in batches():
            counts = {name: counts[name] + values.size for name, values in batch.items()}
        ranges = observe(
            batches,
            counts,
            method=quantization.calibration,
            clip_percentile=quantization.clip_percentile,
            symmetric=not self._numbers.unsigned,
            number=format_of(quantization),
        )
        for name, rounding in roundings.items():
            rounding.set_range(*ranges[name])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Return (low, high) of each activation by the keys of `qdq.given_ranges`."""
        return {key: rounding.range() for key, rounding in self._keys.items()}

    def set_ranges(self, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Set all ranges to what `ranges` returned, for this network or an earlier one."""
        for key, rounding in self._keys.items():
            rounding.set_range(*ranges[key])

    def _name(self, layers: list[fx.Node]) -> None:
        """Note the names of the layers' weights, and refuse a layer that runs twice."""
        for node in layers:
            weight = f"{node.target}.weight"
            if weight in self._names.values():
                raise StageFailed(STAGE, f"{node.target} runs twice, so that its input has no one range")
            self._names[node] = weight

    def _round_layer(self, node: fx.Node, *, per_channel: bool) -> None:
        layer = str(node.target)
        self._keys[self._names[node]] = self._round_argument(node, 0)
        name = f"rounded_{node.name}"
        self._modules[name] = RoundedLayer(self._modules[layer], self._numbers.weights, per_channel=per_channel)
        node.target = name

    def _round_residual(self, node: fx.Node, layers: set[fx.Node]) -> None:
        """Round one side of a sum, the same one that `qdq.insert_qdq` chooses."""
        sides = [self._source(side) for side in node.args[:2] if isinstance(side, fx.Node)]
        if len(sides) < 2:
            return
        light = [place for place, side in enumerate(sides) if side not in layers]
        if len(light) == 2:
            return
        place = light[0] if light else 0 if sides[0] in self._pairs else 1
        rounding = self._round_argument(node, place)
        if sides[place] in self._names:
            self._keys[output_of(self._names[sides[place]])] = rounding

    def _round_argument(self, node: fx.Node, place: int) -> ActivationRounding:
        """Round the node's argument, and return its rounding: one for each activation, however many layers read it."""
        argument = node.args[place]
        assert isinstance(argument, fx.Node)
        source = self._source(argument)
        if source not in self._pairs:
            name, rounding = f"rounding_{len(self._pairs)}", ActivationRounding(self._numbers)
            self._modules[name] = rounding
            with self._graph.inserting_after(source):
                self._pairs[source] = (self._graph.call_module(name, (source,)), rounding)
        pair, rounding = self._pairs[source]
        node.update_arg(place, pair)
        return rounding

    def _is(self, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return node.op == "call_module" and isinstance(self._modules[str(node.target)], kinds)

    def _source(self, node: fx.Node) -> fx.Node:
        """Return the node whose value this is, skipping layers that the exported file does not have."""
        while self._is(node, _PASSING):
            (node,) = node.all_input_nodes
        return node


def _place_input(node: fx.Node) -> None:
    """Give a layer its one input by place if the module's code gives it by name (`conv(input=images)`), in place.

    Raises:
        StageFailed: The layer gets another number of inputs.
    """
    given = (*node.args, *node.kwargs.values())
    if len(given) != 1 or not isinstance(given[0], fx.Node):
        told = ", ".join((*map(str, node.args), *(f"{name}={value}" for name, value in node.kwargs.items())))
        raise StageFailed(STAGE, f"{node.target} is called with ({told}), expected one input that the network computes")
    node.args, node.kwargs = given, {}


def layer_weights(module: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return the weights of the module's convolutions and linear layers by the keys of `Simulation.ranges`."""
    layers = module.named_modules(remove_duplicate=False)
    return {
        f"{name}.weight": layer.weight.detach().cpu().numpy() for name, layer in layers if isinstance(layer, _WEIGHTED)
    }


def _traced(module: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        raise StageFailed(STAGE, f"the network cannot be traced by torch.fx: {error}") from error
