"""Base networks as data, their scaling, and the modules built from them. Importing this package does not load torch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from scalesearch.networks.efficientnet import efficientnet_b0, efficientnet_lite0, efficientnet_small
from scalesearch.networks.loading import load_spec
from scalesearch.networks.mobilenet_v2 import mobilenet_small, mobilenet_v2
from scalesearch.networks.resnet import resnet18, resnet50, resnet_scene, resnet_small
from scalesearch.networks.scaling import scale
from scalesearch.registry import look_up
from scalesearch.values.network_spec import NetworkSpec

BASES: Mapping[str, Callable[[], NetworkSpec]] = MappingProxyType(
    {
        "resnet_small": resnet_small,
        "resnet_scene": resnet_scene,
        "mobilenet_small": mobilenet_small,
        "efficientnet_small": efficientnet_small,
        "resnet18": resnet18,
        "resnet50": resnet50,
        "mobilenet_v2": mobilenet_v2,
        "efficientnet_b0": efficientnet_b0,
        "efficientnet_lite0": efficientnet_lite0,
    }
)
"""Every base network that comes with scalesearch, by name. A new one needs a function, a line here and a space file."""


def base_spec(name: str) -> NetworkSpec:
    """Return the spec of the base network of that name, at multiplier 1.

    Raises:
        ConfigError: There is no such network; the message suggests the nearest name.
    """
    own = ("package.module:function for a network of your own",)
    return look_up(name, BASES, missing="no base network is called", more_names=own)()


def find_spec(network: str) -> NetworkSpec:
    """Return the spec of a base network by its name or, if the text holds a colon, of a user's own function.

    Raises:
        ConfigError: There is no such network, or it cannot be built.
    """
    return load_spec(network) if ":" in network else base_spec(network)


__all__ = ["BASES", "base_spec", "find_spec", "load_spec", "scale"]
