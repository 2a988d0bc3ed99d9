"""ONNX Runtime's CUDA provider: an NVIDIA GPU without TensorRT, if the package `onnxruntime-gpu` is installed."""

import functools
from typing import Final

import onnxruntime as ort
from onnx import TensorProto, helper

from scalesearch.deployment.backends.base import Backend, BackendStatus, EngineOptions
from scalesearch.deployment.backends.onnxruntime import OnnxRuntimeEngine
from scalesearch.deployment.backends.onnxruntime_session import NATIVE_ERRORS, Providers, open_session
from scalesearch.deployment.devices import gpu_device
from scalesearch.errors import MissingBackendError, StageFailed
from scalesearch.plain_text import one_line
from scalesearch.values.network import OnnxModel
from scalesearch.values.target import Device

_NAME: Final = "CUDAExecutionProvider"
# TF32 is on by default, and with it fp32 is not really fp32. The exhaustive search times every kernel once, at the
# first run.
_OPTIONS: Final = {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}
_PROVIDERS: Final[Providers] = ((_NAME, _OPTIONS), "CPUExecutionProvider")
_LOG_NOTHING, _LOG_WARNINGS = 4, 2  # ONNX Runtime's levels; the second is its default
_INSTALL: Final = "pip uninstall onnxruntime && pip install 'onnxruntime-gpu>=1.30'"


class OnnxRuntimeCudaBackend(Backend):
    """A backend that compiles for the NVIDIA GPU of this machine.

    Runs are timed by the host's clock; inputs and outputs stay on the GPU.
    """

    name: Final = "onnxruntime_cuda"

    def probe(self) -> BackendStatus:
        """Tell whether a session really runs on the GPU here and, if not, what is missing."""
        reason = _why_not()
        return BackendStatus(available=not reason, version=str(ort.__version__), reason=reason)

    def device(self, threads: int) -> Device:
        """Return the GPU's name and its compute capability.

        Raises:
            MissingBackendError: There is no usable provider or GPU.
        """
        self._require()
        return gpu_device(backend=self.name, version=str(ort.__version__), threads=threads)

    def compile(self, model: OnnxModel, options: EngineOptions) -> OnnxRuntimeEngine:
        """Open a session on the GPU, with every graph optimization on.

        Raises:
            MissingBackendError: There is no usable provider or GPU.
            StageFailed: The file is missing or corrupt, or the GPU has too little memory for it.
        """
        self._require()
        session = open_session(model, options, _PROVIDERS)
        if session.get_providers()[0] != _NAME:  # it falls back to the CPU and says so only in its log
            raise StageFailed(stage="compile", reason=f"ONNX Runtime opened {model.path.name} on the CPU")
        return OnnxRuntimeEngine(session, model, options, providers=_PROVIDERS, memory="cuda")

    def _require(self) -> None:
        status = self.probe()
        if not status.available:
            raise MissingBackendError(status.reason)


@functools.cache
def _why_not() -> str:
    """Return the reason why no session runs on a GPU here, or an empty text if one does."""
    if _NAME not in ort.get_available_providers():
        return (
            f"ONNX Runtime {ort.__version__} has no CUDA provider, so it runs nothing on a GPU here.\n"
            f"Install the build that has one in its place: {_INSTALL}"
        )
    import torch  # noqa: F401  (torch's CUDA build loads the CUDA and cuDNN libraries that the provider links to)

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["answer"])], "probe", [image], [answer])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    ort.set_default_logger_severity(_LOG_NOTHING)  # a failure is reported below, in one sentence
    try:
        session = ort.InferenceSession(proto.SerializeToString(), providers=list(_PROVIDERS))
    except NATIVE_ERRORS as error:
        return f"ONNX Runtime's CUDA provider does not start: {one_line(str(error), 200)}"
    finally:
        ort.set_default_logger_severity(_LOG_WARNINGS)
    if session.get_providers()[0] == _NAME:
        return ""
    return (
        "ONNX Runtime's CUDA provider finds no NVIDIA GPU, no driver, or no CUDA and cuDNN libraries of its version.\n"
        f"It needs those that the onnxruntime-gpu {ort.__version__} page names; `--target cpu` measures here."
    )
