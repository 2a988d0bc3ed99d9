"""Every name that our code reads off NVIDIA's Python modules is there, in each version that can be had without a GPU.

TensorRT's bindings are one wheel without the libraries, which come from NVIDIA's index only. They import all the same
if libraries of the same names define the dozen functions that they link to: nothing of them is called here.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from native_api import Use, describe, uses

import scalesearch.deployment.backends.tensorrt as ours
from scalesearch.deployment.backends.tensorrt.library import as_module, is_installed, load

_FOLDER = Path(ours.__file__).parent
_LEAST = 55
"""Names that were found when this was written; far fewer would mean that they are not found any more."""
_CLASSES = {
    "Builder", "BuilderFlag", "EngineInspector", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "ILogger",
    "INetworkDefinition", "IOptimizationProfile", "IProfiler", "ITensor", "ITimingCache", "OnnxParser", "ParserError",
    "Runtime",
}  # fmt: skip
_RTX_ONLY = {
    ("", "ComputeCapability"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
"""Read where the flavour is TensorRT for RTX, which builds for chips that are not here."""
_SECONDS = 300

_needs_rtx = pytest.mark.skipif(not is_installed("tensorrt_rtx"), reason="the extra `rtx` is not installed")
Api = dict[str, dict[str, str]]


@functools.cache
def _rtx_api() -> Api:
    return describe(as_module(load("tensorrt_rtx")))


def _ours(api: Api) -> dict[tuple[str, str], Use]:
    found = uses(_FOLDER, api)
    assert len(found) >= _LEAST
    assert {owner for owner, _ in found} >= _CLASSES
    return found


@_needs_rtx
def test_tensorrt_for_rtx_has_every_name() -> None:
    found = _ours(_rtx_api())
    missing = [use for (owner, name), use in found.items() if name not in _rtx_api().get(owner, {})]
    assert not missing
    print(f"{len(found)} names checked against TensorRT for RTX {load('tensorrt_rtx').version}")


@_needs_rtx
def test_a_name_that_is_not_there_is_seen(tmp_path: Path) -> None:
    """Else nothing here means anything: removed flags, misspelt methods, callbacks that nobody calls."""
    (tmp_path / "wrong.py").write_text(
        "def build(library, logger, plan):\n"
        "    trt = library.trt\n"
        "    builder = trt.Builder(logger)\n"
        "    config = builder.create_builder_config()\n"
        "    config.set_flag(trt.BuilderFlag.FP16)\n"
        "    config.max_workspace_size = 1\n"
        "    self.engine = trt.Runtime(logger).deserialize_cuda_engine(plan)\n"
        "    for index in range(self.engine.num_bindings):\n"
        "        self.engine.create_execution_context().execute_v2([])\n"
        "    class Profiler(trt.IProfiler):\n"
        "        def report_layer(self): ...\n"
    )
    api = _rtx_api()
    missing = {(owner, name) for owner, name in uses(tmp_path, api) if name not in api.get(owner, {})}
    assert missing == {
        ("BuilderFlag", "FP16"),
        ("IBuilderConfig", "max_workspace_size"),
        ("ICudaEngine", "num_bindings"),
        ("IProfiler", "report_layer"),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wheel:
    """A wheel of TensorRT's bindings: the newest that the bound allows."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package}{self.version}"


_WHEELS = (
    _Wheel(package="tensorrt-cu13-bindings", version="<12"),
    _Wheel(package="tensorrt-cu13-bindings", version="<11"),  # the newest of 10
    _Wheel(package="tensorrt-cu12-bindings", version="==10.12.0.36"),  # the oldest that we take
)


@pytest.mark.slow
@pytest.mark.parametrize("wheel", _WHEELS, ids=str)
def test_the_bindings_of_tensorrt_have_every_name(wheel: _Wheel, tmp_path: Path) -> None:
    package = _downloaded(wheel, tmp_path)
    if shutil.which("cc") is None or shutil.which("nm") is None or shutil.which("readelf") is None:
        _ensure_named_in_the_binary(package)
        return
    version, api = _described_over_stubs(package)
    found = _ours(api)
    missing = {(owner, name): use for (owner, name), use in found.items() if name not in api.get(owner, {})}
    assert missing.keys() <= _RTX_ONLY, missing
    print(f"{len(found) - len(missing)} names checked against TensorRT {version}, {sorted(missing)} left out")


def _downloaded(wheel: _Wheel, folder: Path) -> Path:
    """The unpacked package folder that holds `tensorrt.so`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    archives = list(folder.glob("*.whl"))
    if not archives:
        pytest.skip(f"{wheel} cannot be downloaded here: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(archives[0]) as archive:
        archive.extractall(folder / "wheel")
    (binary,) = (folder / "wheel").glob("*/tensorrt.so")
    return binary.parent


def _described_over_stubs(package: Path) -> tuple[str, Api]:
    """Version and API of the bindings, imported by another process over libraries that hold names and nothing else."""
    binary = package / "tensorrt.so"
    stubs = package.parent / "stubs"
    stubs.mkdir()
    source = stubs / "stubs.c"
    source.write_text("".join(f"void {name}(void) {{}}\n" for name in _undefined(binary)))
    for library in _needed(binary):
        if library.startswith("libnv"):
            command = ["cc", "-shared", "-fPIC", "-fno-builtin", f"-Wl,-soname,{library}", "-o", str(stubs / library)]
            subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=_SECONDS)
    environment = {"LD_LIBRARY_PATH": str(stubs), "PYTHONPATH": str(package.parent), "PATH": os.environ["PATH"]}
    script = Path(__file__).parent / "native_api.py"
    command = [sys.executable, str(script), package.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["version"], told["api"]


def _undefined(binary: Path) -> list[str]:
    """Functions that no system library has: those come with a version (`memcpy@GLIBC_2.14`)."""
    lines = _output("nm", "-D", "--undefined-only", str(binary)).splitlines()
    names = [line.split()[-1] for line in lines if line.split()[-2] == "U"]
    system = {"dlopen", "dlsym", "dlclose", "dlerror"}
    return [name for name in names if "@" not in name and not name.startswith(("Py", "_Py")) and name not in system]


def _needed(binary: Path) -> list[str]:
    lines = _output("readelf", "-d", "-W", str(binary)).splitlines()
    return [line.rpartition("[")[2].rstrip("]") for line in lines if "(NEEDED)" in line]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout


def _ensure_named_in_the_binary(package: Path) -> None:
    """Without a C compiler: every name is a text that ends in NUL, maybe as the end of another one (linkers merge)."""
    content = (package / "tensorrt.so").read_bytes()
    found = _ours(_rtx_api()) if is_installed("tensorrt_rtx") else {}
    assert found, "neither a C compiler nor the extra `rtx` is here to tell the names"
    own = {name for _, name in _RTX_ONLY} | {"__version__"}
    missing = [name for _, name in found if name not in own and name.encode() + b"\0" not in content]
    assert not missing
    print(f"{len(found)} names looked up in {package.name}")


@pytest.mark.slow
@_needs_rtx
def test_without_a_compiler_the_binary_itself_is_searched(tmp_path: Path) -> None:
    package = _downloaded(_WHEELS[0], tmp_path)
    _ensure_named_in_the_binary(package)
    assert b"create_netwurk\0" not in (package / "tensorrt.so").read_bytes()
