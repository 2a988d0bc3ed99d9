"""TensorRT and TensorRT for RTX: one Python API under two names.

The libraries are loaded only when they are needed, and asked what they can do here.
"""

import functools
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal

from scalesearch.deployment.backends.base import BackendStatus
from scalesearch.errors import MissingBackendError
from scalesearch.plain_text import one_line

Flavour = Literal["tensorrt", "tensorrt_rtx"]

TITLES: Mapping[Flavour, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_EXTRAS: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}
_OLDEST: Final = (10, 12)
"""Oldest version of TensorRT itself: from this one on, strongly typed networks accept every graph that we write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A loaded library with its logger.

    The library keeps the first logger that it gets for the life of the process, so there is only this one.
    """

    flavour: Flavour
    trt: Any
    """The Python module. It is untyped, since neither wheel has stubs that a type checker can follow."""
    messages: "Messages"

    @property
    def title(self) -> str:
        """The library's name, in a form for people to read."""
        return TITLES[self.flavour]

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self.trt.__version__)


@dataclass(slots=True)
class Messages:
    """The messages of the library's native code since the last `take`, by severity, in order."""

    errors: list[str]
    warnings: list[str]
    details: list[str]

    def take(self) -> "Messages":
        """Return all messages so far and remove them here."""
        taken = Messages(self.errors, self.warnings, self.details)
        self.errors, self.warnings, self.details = [], [], []
        return taken


def is_installed(flavour: Flavour) -> bool:
    """Tell whether the package is installed, without loading it."""
    return importlib.util.find_spec(flavour) is not None


@functools.cache
def load(flavour: Flavour) -> Library:
    """Load the library and make its logger.

    Raises:
        MissingBackendError: It is not installed, its native part cannot be loaded, or it is too old.
    """
    title = TITLES[flavour]
    if not is_installed(flavour):
        raise MissingBackendError(_not_installed(flavour))
    try:
        trt = importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        message = (
            f"{title} is installed, but its native libraries cannot be loaded: {one_line(str(error), 200)}.\n"
            f"Reinstall them with: pip install --force-reinstall 'scalesearch[{_EXTRAS[flavour]}]'"
        )
        raise MissingBackendError(message) from error
    version = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
    if flavour == "tensorrt" and version < _OLDEST:
        message = (
            f"{title} {trt.__version__} is too old: scalesearch builds strongly typed networks only, from "
            f"{'.'.join(map(str, _OLDEST))} on.\nUpdate with: pip install --upgrade 'scalesearch[tensorrt]'"
        )
        raise MissingBackendError(message)
    messages = Messages([], [], [])
    _loggers[flavour] = _make_logger(trt, messages)
    return Library(flavour=flavour, trt=trt, messages=messages)


def logger_of(library: Library) -> Any:
    """Return the logger that the library's calls need."""
    return _loggers[library.flavour]


_loggers: dict[Flavour, Any] = {}
"""Loggers, kept for the life of the process: the native code uses them without a reference that Python could see."""


def _make_logger(trt: Any, messages: Messages) -> Any:
    severity = trt.ILogger.Severity

    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of an untyped module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level: Any, text: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                messages.errors.append(text)
            elif level == severity.WARNING:
                messages.warnings.append(text)
            elif text.startswith("Layers:"):  # the compiled layers; the other VERBOSE messages take megabytes
                messages.details.append(text)

    return Logger()


@functools.cache
def probe(flavour: Flavour) -> BackendStatus:
    """Tell whether engines can be built and *run* here; never raises.

    It tries to import the library, then to make a builder, and then looks for a GPU that torch sees.
    """
    title = TITLES[flavour]
    try:
        library = load(flavour)
    except MissingBackendError as error:
        return BackendStatus(available=False, version="", reason=str(error))
    version = library.version
    try:
        library.trt.Builder(logger_of(library))
    except TypeError:  # the bindings raise this if the native factory returned nothing
        library.messages.take()
        reason = f"{title} finds no usable NVIDIA driver.\nInstall it, then look again with `scalesearch doctor`."
        return BackendStatus(available=False, version=version, reason=reason)
    if why := _no_gpu():
        reason = f"{title} runs on NVIDIA GPUs: {why}."
        if flavour == "tensorrt_rtx":
            reason += "\nIt compiles without one: `scalesearch check --compile`, `scalesearch run --accept rtx`."
        return BackendStatus(available=False, version=version, reason=reason)
    return BackendStatus(available=True, version=version)


def _no_gpu() -> str:
    """Return the reason why torch sees no GPU, or an empty text if it sees one.

    Torch is asked because the engines use its buffers, streams and events.
    """
    import torch

    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "" if torch.cuda.is_available() else "torch finds none here (no GPU, or no driver)"


def _not_installed(flavour: Flavour) -> str:
    lines = [
        f"{TITLES[flavour]} is not installed, so there is nothing here to build or run its engines with.",
        f"Install it with: pip install 'scalesearch[{_EXTRAS[flavour]}]'",
    ]
    if flavour == "tensorrt":
        lines[1] += " (its libraries come from NVIDIA's index; Linux, NVIDIA GPU)"
        lines.append("Without a GPU: --target cpu measures here, --accept rtx compiles every trial for NVIDIA chips.")
    return "\n".join(lines)


def as_module(library: Library) -> ModuleType:
    """Return the module itself, for tests that compare our names with its names."""
    module: ModuleType = library.trt
    return module
