"""How the networks of other libraries pad and normalise, as far as a file of their weights can tell."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import NetworkSpec, Padding


class Convention(NamedTuple):
    """What a network was trained with and its state dict does not hold: padding of strides, epsilon of the norms."""

    padding: Padding
    norm_eps: float

    def __str__(self) -> str:
        padding = "TensorFlow's SAME" if self.padding == "same" else self.padding
        return f"{padding} padding and norms of eps {self.norm_eps:g}"


TENSORFLOWS: Final = Convention("same", 1e-3)
TORCHS: Final = Convention("symmetric", 1e-5)

_OF_LIBRARY: Final[Mapping[str, Convention]] = MappingProxyType(
    {"torchvision": TORCHS, "efficientnet_pytorch": TENSORFLOWS, "efficientnet_lite_pytorch": TENSORFLOWS}
)
"""Convention of all networks of a library, by its name in `FOREIGN`. timm has both, under the same layer names."""

_TIMM: Final = "timm"
_OF_TIMMS_FILES: Final = (
    (re.compile(r"tf_efficientnet_(b0|lite0)"), TENSORFLOWS),
    (re.compile(r"(?<!tf_)efficientnet_(b0|lite0)[._]ra(?![0-9a-z])"), TORCHS),
)
"""By the names that timm gives to its files and to their folders: `tf_` stands for weights made by TensorFlow."""


def require_convention(library: str, path: Path, spec: NetworkSpec, *, origin: str) -> bool:
    """Check that weights were trained with the padding and the epsilon of the network that they are meant for.

    Args:
        library: The library whose layer names the file has, as in `FOREIGN`.
        path: The file; its name and those of its folders may tell which network of timm it is.
        spec: The network that the weights are meant for.
        origin: Name of the file in messages.

    Returns:
        Whether anything tells it; if not, the weights are taken as trained with the network's own.

    Raises:
        ConfigError: They were trained with others.
    """
    told, own = _told(library, path), Convention(spec.padding, spec.norm_eps)
    if told is None:
        return library != _TIMM or not spec.name.startswith("efficientnet")
    if told != own:
        message = (
            f"{origin}: expected weights trained with {own}, as {spec.name} has them here; these were trained with "
            f"{told}, and would be wrong by many points.\nGive other weights, or --network mine:spec, a function that "
            f"returns replace(base_spec({spec.name!r}), padding={told.padding!r}, norm_eps={told.norm_eps:g})."
        )
        raise ConfigError(message)
    return True


def _told(library: str, path: Path) -> Convention | None:
    """Return the convention by the library, or by the nearest name in the path that timm uses; None if none tells."""
    if library != _TIMM:
        return _OF_LIBRARY.get(library)
    names = (path.name, *(folder.name for folder in path.absolute().parents))
    found = (convention for name in names for pattern, convention in _OF_TIMMS_FILES if pattern.search(name))
    return next(found, None)
