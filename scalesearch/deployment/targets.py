"""The chips that can be searched for, as data: adding one is one entry here."""

from collections.abc import Mapping
from difflib import get_close_matches

from scalesearch.errors import ConfigError
from scalesearch.values.target import Target

_TARGETS = (
    Target(
        name="cpu",
        backend="onnxruntime",
        precisions=("fp32", "fp16", "int8"),
        # 8 floats fill an AVX2 register; wider ones (AVX-512, NCHWc blocks of 16) take multiples of 8 as well.
        channel_multiple=8,
        quantization_profile="onnxruntime_cpu",
        summary="this machine's CPU through ONNX Runtime",
    ),
)

TARGETS: Mapping[str, Target] = {target.name: target for target in _TARGETS}

AUTO = "auto"
"""Stands for the target that fits this machine best; only the CPU has a backend so far."""


def get_target(name: str) -> Target:
    """The target of that name; `auto` gives `cpu`.

    Raises:
        ConfigError: There is none; the text names the nearest and lists all.
    """
    if name == AUTO:
        return TARGETS["cpu"]
    if name in TARGETS:
        return TARGETS[name]
    names = (*sorted(TARGETS), AUTO)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    message = f"target: no chip is called {name!r}.{hint} There are: {', '.join(names)}"
    raise ConfigError(message)
