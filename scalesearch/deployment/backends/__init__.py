"""The backends by name; the library of each is loaded only when that backend is asked for."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from scalesearch.deployment.backends.base import Backend, BackendStatus, Engine, EngineOptions
from scalesearch.errors import ConfigError

__all__ = ["BACKENDS", "Backend", "BackendStatus", "Engine", "EngineOptions", "get_backend"]


def _onnxruntime() -> Backend:
    from scalesearch.deployment.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend()


def _onnxruntime_cuda() -> Backend:
    from scalesearch.deployment.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend

    return OnnxRuntimeCudaBackend()


def _openvino() -> Backend:
    from scalesearch.deployment.backends.openvino import OpenVinoBackend

    return OpenVinoBackend()


def _tensorrt() -> Backend:
    from scalesearch.deployment.backends.tensorrt import TensorRtBackend

    return TensorRtBackend("tensorrt")


def _tensorrt_rtx() -> Backend:
    from scalesearch.deployment.backends.tensorrt import TensorRtBackend

    return TensorRtBackend("tensorrt_rtx")


BACKENDS: Mapping[str, Callable[[], Backend]] = {
    "onnxruntime": _onnxruntime,
    "onnxruntime_cuda": _onnxruntime_cuda,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
    "tensorrt_rtx": _tensorrt_rtx,
}


def get_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    if name in BACKENDS:
        return BACKENDS[name]()
    near = get_close_matches(name, BACKENDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    message = f"no backend is called {name!r}.{hint} There are: {', '.join(sorted(BACKENDS))}"
    raise ConfigError(message)
