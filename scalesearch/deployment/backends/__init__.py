"""The backends by name; the library of each is loaded only when that backend is asked for."""

from collections.abc import Mapping
from typing import Final

from scalesearch.deployment.backends.base import Backend, BackendStatus, Engine, EngineOptions
from scalesearch.registry import load_member

__all__ = ["BACKENDS", "Backend", "BackendStatus", "Engine", "EngineOptions", "get_backend"]

_HERE: Final = "scalesearch.deployment.backends"
BACKENDS: Mapping[str, str] = {
    "onnxruntime": f"{_HERE}.onnxruntime:OnnxRuntimeBackend",
    "onnxruntime_cuda": f"{_HERE}.onnxruntime_cuda:OnnxRuntimeCudaBackend",
    "openvino": f"{_HERE}.openvino:OpenVinoBackend",
    "tensorrt": f"{_HERE}.tensorrt:tensorrt_backend",
    "tensorrt_rtx": f"{_HERE}.tensorrt:tensorrt_rtx_backend",
}
"""Module and name of the class, or function without arguments, that makes each backend."""


def get_backend(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        ConfigError: There is none of that name; the message names the nearest one and lists all.
    """
    backend: Backend = load_member(name, BACKENDS, missing="no backend is called")()
    return backend
