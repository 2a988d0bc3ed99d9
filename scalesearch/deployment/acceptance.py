"""The acceptance gate: how NVIDIA's compiler builds a graph, or why not, on any x86 Linux machine, without a GPU."""

from pathlib import Path

from scalesearch.deployment.backends.tensorrt.builder import Build, build_plan, known_capabilities
from scalesearch.deployment.backends.tensorrt.library import Library, load
from scalesearch.values.network import OnnxModel
from scalesearch.values.record import Acceptance
from scalesearch.values.settings import TensorRtSettings


class Gate:
    """Compiles graphs with TensorRT for RTX, to find out whether it accepts them; a graph is built but never run."""

    def __init__(self, compute_capability: str = "", settings: TensorRtSettings | None = None) -> None:
        """Load the library.

        An empty capability leaves the choice of chips to the library (version 1.7 chooses newer ones, which have fp8).

        Raises:
            MissingBackendError: The extra `rtx` is not installed.
        """
        self._library = load("tensorrt_rtx")
        self._settings = settings or TensorRtSettings()
        self.capability = nearest_capability(self._library, compute_capability)

    @property
    def name(self) -> str:
        """Compiler, version and chip, in a form for people to read."""
        chip = f"for sm_{self.capability.replace('.', '')}" if self.capability else "for its default chips"
        return f"{self._library.title} {self._library.version} {chip}"

    def build(self, file: Path, *, batch: int = 1) -> Build:
        """Build the plan of the file, and list its layers.

        Raises:
            StageFailed: The compiler refuses the file; the reason names the node and what to do.
        """
        batches = (batch, batch, batch)
        return build_plan(self._library, file, self._settings, batches=batches, compute_capability=self.capability)

    def judge(self, model: OnnxModel, *, batch: int = 1) -> Acceptance:
        """Compile the model and return what the compiler reports about the result.

        Raises:
            StageFailed: The compiler refuses the model; the reason names the node and what to do.
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
    """Return the capability itself if the library can build for it, else the newest older one (sm_89 for sm_90).

    If there is no older one, the oldest that the library knows is returned; an empty capability stays empty.
    """
    if not capability:
        return ""
    known = known_capabilities(library)
    older = [each for each in known if float(each) <= float(capability)]
    return capability if capability in known else older[-1] if older else known[0]
