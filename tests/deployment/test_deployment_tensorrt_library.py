"""What is said where a library, a driver or a GPU is missing; made-up packages stand for the libraries."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scalesearch.deployment.backends.base import BackendStatus, EngineOptions
from scalesearch.deployment.backends.tensorrt import TensorRtBackend, library
from scalesearch.deployment.backends.tensorrt.library import Flavour
from scalesearch.deployment.targets import TARGETS, choose_target
from scalesearch.errors import MissingBackendError
from scalesearch.values.network import OnnxModel

_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt_rtx")
_TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_EXTRAS = {"tensorrt": "scalesearch[tensorrt]", "tensorrt_rtx": "scalesearch[rtx]"}
_MODEL = OnnxModel(path=Path("model.onnx"), sha256="0" * 64, size_bytes=1, input_shape=(1, 3, 8, 8))

# The least that `load` and `probe` ask of the real module; `Builder` raises as the real one does without a driver.
_PACKAGE = """
__version__ = "{version}"

class ILogger:
    class Severity:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

class Builder:
    def __init__(self, logger):
        logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        if {driver} == 0:
            raise TypeError("pybind11::init(): factory function returned nullptr")
"""


class _Machine:
    """Packages that this process can import, and what torch finds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def install(self, flavour: Flavour, *, version: str = "11.4.0.106", driver: bool = True) -> None:
        self.write(flavour, _PACKAGE.format(version=version, driver=int(driver)))

    def write(self, flavour: Flavour, source: str) -> None:
        (self._folder / f"{flavour}.py").write_text(source)
        self._monkeypatch.syspath_prepend(self._folder)

    def without(self, flavour: Flavour) -> None:
        self._monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == flavour else object())

    def gpu(self, *, cuda: str | None, available: bool) -> None:
        self._monkeypatch.setattr(torch.version, "cuda", cuda)
        self._monkeypatch.setattr(torch.cuda, "is_available", lambda: available)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Machine]:
    """Fresh caches of its own: the process's real library keeps its first logger for good, and so must our cache."""
    monkeypatch.setattr(library, "_loggers", {})
    for name in ("load", "probe"):
        fresh = functools.cache(getattr(library, name).__wrapped__)
        monkeypatch.setattr(library, name, fresh)
        monkeypatch.setattr(f"scalesearch.deployment.backends.tensorrt.{name}", fresh)
    kept = {flavour: sys.modules.pop(flavour, None) for flavour in _FLAVOURS}
    yield _Machine(tmp_path, monkeypatch)
    for flavour, module in kept.items():
        sys.modules.pop(flavour, None)
        if module is not None:
            sys.modules[flavour] = module


def _load_message(flavour: Flavour) -> str:
    with pytest.raises(MissingBackendError) as failure:
        library.load(flavour)
    said = str(failure.value)
    assert failure.value.exit_code == 3
    _ensure_three_lines(said)
    status = library.probe(flavour)
    assert (status.available, status.version) == (False, "")
    assert status.reason.split() == said.split()
    return said


def _ensure_three_lines(text: str) -> None:
    assert 1 <= len(text.splitlines()) <= 3
    assert all(0 < len(line) <= 300 for line in text.splitlines())


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_a_missing_library_names_the_extra_that_brings_it(machine: _Machine, flavour: Flavour) -> None:
    machine.without(flavour)
    said = _load_message(flavour)
    assert said.startswith(f"{_TITLES[flavour]} is not installed")
    assert f"pip install '{_EXTRAS[flavour]}'" in said
    assert not library.is_installed(flavour)


def test_without_tensorrt_there_are_two_ways_on(machine: _Machine) -> None:
    machine.without("tensorrt")
    said = _load_message("tensorrt")
    assert "--target cpu" in said
    assert "--accept rtx" in said
    assert "NVIDIA's index" in said


@pytest.mark.parametrize("flavour", _FLAVOURS)
@pytest.mark.parametrize("kind", ["ImportError", "OSError"])
def test_libraries_that_do_not_load_are_told_in_their_own_words(machine: _Machine, flavour: Flavour, kind: str) -> None:
    words = "libnvinfer.so.11: cannot open shared object file:\\n    No such file or directory"
    machine.write(flavour, f'raise {kind}("{words}" + " ..." * 500)')
    said = _load_message(flavour)
    assert "native libraries cannot be loaded: libnvinfer.so.11: cannot open shared object file: No such file" in said
    assert f"'{_EXTRAS[flavour]}'" in said


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0.26", "10.11.0"])
def test_a_tensorrt_of_before_strong_typing_is_refused(machine: _Machine, version: str) -> None:
    machine.install("tensorrt", version=version)
    said = _load_message("tensorrt")
    assert said.startswith(f"TensorRT {version} is too old")
    assert "from 10.12 on" in said
    assert f"pip install --upgrade '{_EXTRAS['tensorrt']}'" in said


@pytest.mark.parametrize(
    ("flavour", "version"), [("tensorrt", "10.12.0"), ("tensorrt", "11.0.0.5"), ("tensorrt_rtx", "1.7.1.116")]
)
def test_newer_ones_are_loaded_once(machine: _Machine, flavour: Flavour, version: str) -> None:
    machine.install(flavour, version=version)
    loaded = library.load(flavour)
    assert loaded is library.load(flavour)
    assert (loaded.title, loaded.version) == (_TITLES[flavour], version)
    assert library.is_installed(flavour)


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_without_a_driver_the_probe_says_so_and_forgets_the_native_words(machine: _Machine, flavour: Flavour) -> None:
    machine.install(flavour, driver=False)
    status = library.probe(flavour)
    assert not status.available
    assert status.version == "11.4.0.106"
    assert status.reason.startswith(f"{_TITLES[flavour]} finds no usable NVIDIA driver")
    assert "scalesearch doctor" in status.reason
    _ensure_three_lines(status.reason)
    assert library.load(flavour).messages.take().errors == []


@pytest.mark.parametrize(
    ("cuda", "why"), [(None, "this torch is built without CUDA"), ("13.0", "torch finds none here")], ids=str
)
@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_without_a_gpu_the_probe_says_why(machine: _Machine, flavour: Flavour, cuda: str | None, why: str) -> None:
    machine.install(flavour)
    machine.gpu(cuda=cuda, available=False)
    status = library.probe(flavour)
    assert not status.available
    assert status.reason.startswith(f"{_TITLES[flavour]} runs on NVIDIA GPUs: {why}")
    assert ("compiles without one" in status.reason) == (flavour == "tensorrt_rtx")
    _ensure_three_lines(status.reason)


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_with_library_driver_and_gpu_it_is_available(machine: _Machine, flavour: Flavour) -> None:
    machine.install(flavour)
    machine.gpu(cuda="13.0", available=True)
    assert library.probe(flavour) == BackendStatus(available=True, version="11.4.0.106")


@pytest.mark.parametrize("flavour", _FLAVOURS)
def test_a_backend_that_is_not_usable_ends_with_the_reason_and_exit_code_3(
    machine: _Machine, flavour: Flavour, tmp_path: Path
) -> None:
    machine.without(flavour)
    backend = TensorRtBackend(flavour, folder=tmp_path / "engines")
    reason = backend.probe().reason
    for use in (lambda: backend.device(1), lambda: backend.compile(_MODEL, EngineOptions())):
        with pytest.raises(MissingBackendError) as failure:
            use()
        assert str(failure.value) == reason
        assert failure.value.exit_code == 3
    assert not (tmp_path / "engines").exists()


def test_the_automatic_target_is_then_the_cpu_and_says_why_in_one_line(machine: _Machine) -> None:
    machine.without("tensorrt")
    target, why = choose_target()
    assert target is TARGETS["cpu"]
    assert "TensorRT is not installed" in why
    assert len(why.splitlines()) == 1


def test_messages_are_kept_by_severity_until_they_are_taken(machine: _Machine) -> None:
    machine.install("tensorrt")
    loaded = library.load("tensorrt")
    logger, severity = library.logger_of(loaded), loaded.trt.ILogger.Severity
    for level, text in (
        (severity.INTERNAL_ERROR, "broken"),
        (severity.WARNING, "careful"),
        (severity.ERROR, "wrong"),
        (severity.INFO, "by the way"),
        (severity.VERBOSE, "Layers:\nName: a"),
        (severity.VERBOSE, "megabytes"),
    ):
        logger.log(level, text)
    taken = loaded.messages.take()
    assert (taken.errors, taken.warnings, taken.details) == (["broken", "wrong"], ["careful"], ["Layers:\nName: a"])
    again = loaded.messages.take()
    assert (again.errors, again.warnings, again.details) == ([], [], [])


def test_the_two_libraries_do_not_share_a_logger(machine: _Machine) -> None:
    for flavour in _FLAVOURS:
        machine.install(flavour)
    first, second = (library.load(flavour) for flavour in _FLAVOURS)
    library.logger_of(first).log(first.trt.ILogger.Severity.ERROR, "of the first")
    assert second.messages.take().errors == []
    assert first.messages.take().errors == ["of the first"]
