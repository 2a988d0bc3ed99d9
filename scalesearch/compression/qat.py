"""Quantization-aware training: a trained, folded network learns to live with 8 bits before it is exported."""

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from scalesearch.compression.calibration import Ranges, observe
from scalesearch.compression.cpu_qdq import SEVEN_BITS
from scalesearch.compression.qdq import FORMATS, NumberFormat, output_of
from scalesearch.errors import StageFailed
from scalesearch.values.candidate import CALIBRATED, Quantization
from scalesearch.values.network import Network
from scalesearch.values.target import QuantizationProfile

_STAGE: Final = "qat"
_WEIGHT_RATE: Final = 1e-3
_SCALE_RATE: Final = 1e-2
_DISTILLATION: Final = 1.0
_OBSERVED_BATCH: Final = 32
_WEIGHTED: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_PASSING: Final = (nn.Identity, nn.Dropout)
_ADDS: Final = frozenset({operator.add, operator.iadd, torch.add})


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """The network after its fine-tuning, float and of ordinary structure, and the ranges that it has learnt."""

    network: Network
    ranges: Mapping[str, tuple[float, float]]
    """For `quantize(input_ranges=...)`: (low, high) of activations by the keys of `qdq.given_ranges`."""
    final_loss: float
    """Mean of the last tenth of the steps."""


def quantization_aware(
    network: Network,
    quantization: Quantization,
    *,
    profile: QuantizationProfile,
    batches: Callable[[], tuple[Tensor, Tensor]],
    calibration: Tensor,
    seed: int,
    breathe: Callable[[], None] = lambda: None,
) -> QatResult:
    """The network after `qat_steps` updates with rounding simulated where `quantize` will put Q/DQ nodes.

    Inputs and weights of convolutions and linear layers, and one side of residual sums, are rounded on the way forward
    and pass the gradient straight through (Bengio et al., arXiv 1308.3432; Jacob et al., arXiv 1712.05877, section 3).
    Weights get their scale anew each step, as `insert_qdq` does. The scales of activations start from calibration and
    are learnt: gradient of Esser et al., "Learned Step Size Quantization", ICLR 2020, equation 3, on the logarithm of
    the scale as in Jain et al., arXiv 1903.08066, section 4. The loss is cross-entropy plus the divergence from the
    float network's answers. Dropout is off.

    Args:
        network: Trained, its BatchNorms folded, in eval mode; it stays as it is.
        quantization: int8 or fp8, `qat_steps`, scales of the weights, and how activations are calibrated at first.
        profile: The target's: ONNX Runtime's CPU kernels have uint8 activations and weights of 7 bits.
        batches: Gives the next training batch: normalised float images (B, C, H, W) and labels (B,), on the device
            that is to train.
        calibration: Images (N, C, H, W) like those of the batches, on the same device, not augmented.
        seed: Of layers that draw random numbers; the batches have their own.
        breathe: Called once before every step.

    Raises:
        StageFailed: A precision without calibration, no step to take, a network that cannot be traced or that runs a
            layer twice, or training that diverged.
    """
    if quantization.precision not in CALIBRATED or quantization.qat_steps < 1:
        reason = f"needs int8 or fp8 and at least 1 step, got {quantization.precision}, {quantization.qat_steps} steps"
        raise StageFailed(_STAGE, reason)
    module = _laid_out(network.module, calibration.device)
    numbers = _numbers(quantization, profile)
    simulated = _Simulation(module, numbers, per_channel=quantization.weights == "per_channel")
    simulated.module.to(calibration.device)
    simulated.calibrate(calibration[: quantization.calibration_images], quantization)
    teacher = _laid_out(network.module, calibration.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        final_loss = _fit(simulated, teacher, batches, quantization.qat_steps, breathe)
    trained = module.cpu().to(memory_format=torch.contiguous_format)
    for name, tensor in trained.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise StageFailed(_STAGE, f"{name} is not finite after {quantization.qat_steps} steps")
    return QatResult(network=replace(network, module=trained), ranges=simulated.ranges(), final_loss=final_loss)


def _laid_out(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy where and how it computes: channels last is the faster layout on CPUs too."""
    copied = copy.deepcopy(module).eval()
    return copied.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


# ---- numbers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Numbers:
    """What a style rounds to."""

    weights: NumberFormat
    activations: NumberFormat
    unsigned: bool
    """Activations are uint8 with a zero point."""


def _numbers(quantization: Quantization, profile: QuantizationProfile) -> _Numbers:
    unsigned = profile == "onnxruntime_cpu" and quantization.precision == "int8"
    number = FORMATS["fp8" if quantization.precision == "fp8" else "int8"]
    return _Numbers(weights=SEVEN_BITS if unsigned else number, activations=number, unsigned=unsigned)


class _Rounding(torch.autograd.Function):
    """round(clip(x / scale)) * scale; straight-through in x, and Esser's equation 3 in the scale."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, low: float, high: float, rounded: Callable[[Tensor], Tensor]
    ) -> Tensor:
        scaled = x / scale
        codes = rounded(scaled.clamp(low, high))
        ctx.save_for_backward(scaled, codes)
        ctx.low, ctx.high = low, high
        return codes * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, codes = ctx.saved_tensors
        inside = (scaled >= ctx.low) & (scaled <= ctx.high)
        of_x = gradient * inside
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = (gradient * codes).sum() - (of_x * scaled).sum()
        return of_x, of_scale, None, None, None


def _to_fp8(values: Tensor) -> Tensor:
    return values.to(torch.float8_e4m3fn).to(values.dtype)


def _rounded(number: NumberFormat) -> Callable[[Tensor], Tensor]:
    return torch.round if number.dtype == np.int8 else _to_fp8


class _ActivationRounding(nn.Module):
    """Rounds with a learnt scale and a zero point fixed at calibration; passes values through until then."""

    def __init__(self, numbers: _Numbers) -> None:
        super().__init__()
        self._number, self._unsigned = numbers.activations, numbers.unsigned
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.zero_point = 0.0
        self.calibrated = False
        self._seen: Tensor | None = None

    def set_range(self, low: float, high: float) -> None:
        if self._unsigned:
            low, high = min(low, 0.0), max(high, 0.0)
            scale = max(high - low, 1e-9) / 255
            self.zero_point = float(np.rint(-low / scale))
        else:
            scale = float(self._number.scale(max(-low, high)))
        with torch.no_grad():
            self.log_scale.fill_(math.log(scale))
        self.calibrated = True

    def range(self) -> tuple[float, float]:
        scale = math.exp(self.log_scale.item())
        low, high = self._bounds()
        return low * scale, high * scale

    def forward(self, values: Tensor) -> Tensor:
        if not self.calibrated:
            self._seen = values
            return values
        rounded: Tensor = _Rounding.apply(values, self.log_scale.exp(), *self._bounds(), _rounded(self._number))
        return rounded

    def taken(self) -> Tensor:
        """What was passed through last, which is then forgotten."""
        assert self._seen is not None
        seen, self._seen = self._seen, None
        return seen

    def _bounds(self) -> tuple[float, float]:
        """Least and greatest code, counted from the zero point."""
        if self._unsigned:
            return -self.zero_point, 255 - self.zero_point
        return -self._number.largest, self._number.largest


class _RoundedLayer(nn.Module):
    """A convolution or linear layer whose weight is rounded on the way."""

    def __init__(self, layer: nn.Module, number: NumberFormat, *, per_channel: bool) -> None:
        super().__init__()
        self.layer = layer
        self._number = number
        self._per_channel = per_channel

    def forward(self, values: Tensor) -> Tensor:
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        largest = self._number.largest
        reach = weight.detach().abs()
        reach = reach.amax(dim=tuple(range(1, weight.ndim)), keepdim=True) if self._per_channel else reach.amax()
        scale = (reach / largest).clamp_min(float(self._number.scale(0.0)))
        rounded = _Rounding.apply(weight, scale, -largest, largest, _rounded(self._number))
        out: Tensor = torch.func.functional_call(self.layer, {"weight": rounded}, (values,))
        return out


# ---- where rounding stands in the network -----------------------------------------------------------------------


class _Simulation:
    """The network's graph with rounding in it; its layers are the module's own, so training it trains the module."""

    def __init__(self, module: nn.Module, numbers: _Numbers, *, per_channel: bool) -> None:
        self._numbers = numbers
        self._graph = _traced(module)
        self._modules: dict[str, Any] = {
            str(node.target): operator.attrgetter(str(node.target))(module)
            for node in self._graph.nodes
            if node.op in ("call_module", "get_attr")
        }
        self._pairs: dict[fx.Node, tuple[fx.Node, _ActivationRounding]] = {}
        self._names: dict[fx.Node, str] = {}
        self._keys: dict[str, _ActivationRounding] = {}
        layers = [node for node in self._graph.nodes if self._is(node, _WEIGHTED)]
        for node in layers:
            self._round_layer(node, per_channel=per_channel)
        for node in list(self._graph.nodes):
            if node.op == "call_function" and node.target in _ADDS:
                self._round_residual(node, set(layers))
        self.module = fx.GraphModule(self._modules, self._graph)

    @property
    def scales(self) -> list[nn.Parameter]:
        """The learnt logarithms of the activations' scales."""
        return [rounding.log_scale for _, rounding in self._pairs.values()]

    def calibrate(self, images: Tensor, quantization: Quantization) -> None:
        """Sets every activation's first range."""
        roundings = {node.name: rounding for node, (_, rounding) in self._pairs.items()}

        def batches() -> Iterator[dict[str, NDArray[np.float32]]]:
            for part in torch.split(images, _OBSERVED_BATCH):
                with torch.inference_mode():
                    self.module(part)
                yield {name: rounding.taken().cpu().numpy() for name, rounding in roundings.items()}

        counts = dict.fromkeys(roundings, 0)
        for batch in batches():
            counts = {name: counts[name] + values.size for name, values in batch.items()}
        ranges: Ranges = observe(
            batches,
            counts,
            method=quantization.calibration,
            clip_percentile=quantization.clip_percentile,
            symmetric=not self._numbers.unsigned,
            number="fp8" if quantization.precision == "fp8" else "int8",
        )
        for name, rounding in roundings.items():
            rounding.set_range(*ranges[name])

    def ranges(self) -> dict[str, tuple[float, float]]:
        """By the keys of `qdq.given_ranges`."""
        return {key: rounding.range() for key, rounding in self._keys.items()}

    def _round_layer(self, node: fx.Node, *, per_channel: bool) -> None:
        layer = str(node.target)
        weight = f"{layer}.weight"
        self._names[node] = weight
        if weight in self._keys:
            raise StageFailed(_STAGE, f"{layer} runs twice, so that its input has no one range")
        self._keys[weight] = self._round_argument(node, 0)
        name = f"rounded_{node.name}"
        self._modules[name] = _RoundedLayer(self._modules[layer], self._numbers.weights, per_channel=per_channel)
        node.target = name

    def _round_residual(self, node: fx.Node, layers: set[fx.Node]) -> None:
        """One side of a sum, as `qdq.insert_qdq` chooses it."""
        sides = [self._source(side) for side in node.args[:2] if isinstance(side, fx.Node)]
        if len(sides) < 2:
            return
        light = [place for place, side in enumerate(sides) if side not in layers]
        if len(light) == 2:
            return
        place = light[0] if light else 0 if sides[0] in self._pairs else 1
        rounding = self._round_argument(node, place)
        if sides[place] in layers:
            self._keys[output_of(self._names[sides[place]])] = rounding

    def _round_argument(self, node: fx.Node, place: int) -> _ActivationRounding:
        """Every activation is rounded once, however many layers read it."""
        argument = node.args[place]
        assert isinstance(argument, fx.Node)
        source = self._source(argument)
        if source not in self._pairs:
            name, rounding = f"rounding_{len(self._pairs)}", _ActivationRounding(self._numbers)
            self._modules[name] = rounding
            with self._graph.inserting_after(source):
                self._pairs[source] = (self._graph.call_module(name, (source,)), rounding)
        pair, rounding = self._pairs[source]
        node.update_arg(place, pair)
        return rounding

    def _is(self, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> bool:
        return node.op == "call_module" and isinstance(self._modules[str(node.target)], kinds)

    def _source(self, node: fx.Node) -> fx.Node:
        """What the node's value comes from, past layers that the exported file does not have."""
        while self._is(node, _PASSING):
            (node,) = node.all_input_nodes
        return node


def _traced(module: nn.Module) -> fx.Graph:
    try:
        return fx.Tracer().trace(module)
    except Exception as error:  # tracing runs the network's own forward, which may raise anything
        raise StageFailed(_STAGE, f"the network cannot be traced by torch.fx: {error}") from error


# ---- training ---------------------------------------------------------------------------------------------------


def _fit(
    simulated: _Simulation,
    teacher: nn.Module,
    batches: Callable[[], tuple[Tensor, Tensor]],
    steps: int,
    breathe: Callable[[], None],
) -> float:
    """Trains in place; gives the mean loss of the last tenth of the steps."""
    scales = simulated.scales
    known = {id(scale) for scale in scales}
    weights = [weight for weight in simulated.module.parameters() if id(weight) not in known]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "lr": _WEIGHT_RATE}, {"params": scales, "lr": _SCALE_RATE}], weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate_factor(step, steps))
    losses = []
    for _ in range(steps):
        breathe()
        images, labels = batches()
        with torch.no_grad():
            answers = log_softmax(teacher(images), dim=1)
        logits = log_softmax(simulated.module(images), dim=1)
        loss = cross_entropy(logits, labels)
        loss = loss + _DISTILLATION * kl_div(logits, answers, reduction="batchmean", log_target=True)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise StageFailed(_STAGE, f"loss not finite at step {len(losses)} of {steps}")
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _rate_factor(step: int, steps: int) -> float:
    """Linear over the first tenth, then a cosine to 0."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
