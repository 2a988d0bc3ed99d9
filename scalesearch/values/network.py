"""A spec together with the torch module built from it. Torch is named in annotations only and never imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalesearch.values.network_spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Spec and module. After pruning, the module's layers are narrower than the spec's formula gives."""

    spec: NetworkSpec
    module: "nn.Module"
