"""The acceptance gate: what NVIDIA's compiler makes of a graph, on any x86 Linux machine, GPU or not."""

from pathlib import Path

from scalesearch.deployment.backends.tensorrt.builder import Build, build_plan, known_capabilities
from scalesearch.deployment.backends.tensorrt.library import Library, load
from scalesearch.values.onnx_model import OnnxModel
from scalesearch.values.record import Acceptance
from scalesearch.values.settings import TensorRtSettings


class Gate:
    """TensorRT for RTX as a judge: it parses and builds, and never runs."""

    def __init__(self, compute_capability: str = "", settings: TensorRtSettings | None = None) -> None:
        """Load the library. An empty capability leaves the chips to the library (1.7: newer ones, that have fp8).

        Raises:
            MissingBackendError: The extra `rtx` is not installed.
        """
        self._library = load("tensorrt_rtx")
        self._settings = settings or TensorRtSettings()
        self.capability = nearest_capability(self._library, compute_capability)

    @property
    def name(self) -> str:
        """Compiler, version and chip, for people."""
        chip = f"for sm_{self.capability.replace('.', '')}" if self.capability else "for its default chips"
        return f"{self._library.title} {self._library.version} {chip}"

    def build(self, file: Path, *, batch: int = 1) -> Build:
        """The plan and the list of its layers.

        Raises:
            StageFailed: The compiler refuses the file; the reason names node and remedy.
        """
        batches = (batch, batch, batch)
        return build_plan(self._library, file, self._settings, batches=batches, compute_capability=self.capability)

    def judge(self, model: OnnxModel, *, batch: int = 1) -> Acceptance:
        """What the compiler made of the model.

        Raises:
            StageFailed: It refuses it; the reason names node and remedy.
        """
        build = self.build(model.path, batch=batch)
        return Acceptance(
            compiler=self.name,
            onnx_sha256=model.sha256,
            build_s=build.seconds,
            layers=len(build.layers),
            convolutions=build.convolutions,
        )


def nearest_capability(library: Library, capability: str) -> str:
    """The capability itself where the library can build for it, else the newest older one (of sm_90, sm_89)."""
    if not capability:
        return ""
    known = known_capabilities(library)
    older = [each for each in known if float(each) <= float(capability)]
    return capability if capability in known else older[-1] if older else known[0]
