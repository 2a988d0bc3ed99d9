"""Call a user's own function, given as `package.module:function`, for the network or the spec that it returns."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard

from scalesearch.errors import ConfigError
from scalesearch.networks.validity import check_spec
from scalesearch.registry import nearest
from scalesearch.values.network_spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn


def load_module(reference: str) -> "nn.Module":
    """Return the torch module that the named function returns.

    Raises:
        ConfigError: As `returned_by`, or the function returns something else.
    """
    returned = returned_by(reference)
    if not is_module(returned):
        message = f"network {reference!r}: expected a torch.nn.Module as before, got {type(returned).__name__}"
        raise ConfigError(message)
    return returned


def returned_by(reference: str) -> "nn.Module | object":
    """Return what the named function returns. Modules in the current folder are found as well.

    Raises:
        ConfigError: The text is not of the form `package.module:function`, the module cannot be imported or lacks the
            function, or the function fails.
    """
    module_name, colon, function_name = reference.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module_name.split("."), function_name))):
        message = f"a network of your own is given as package.module:function, not {reference!r}"
        raise ConfigError(message)
    module = _import(module_name, reference)
    if not hasattr(module, function_name):
        message = f"network {reference!r}: module {module_name} has no {function_name!r}{_near(function_name, module)}"
        raise ConfigError(message)
    function = getattr(module, function_name)
    knew_torch = "torch" in sys.modules
    returned = _call(function, reference)
    # If the call itself loaded torch, torch was not seeded: call again, since a module with random weights must be the
    # same in every process.
    return returned if knew_torch or not is_module(returned) else _call(function, reference)


def is_module(returned: object) -> "TypeGuard[nn.Module]":
    """Tell whether a value is a torch module, without loading torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(returned, torch.nn.Module)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Seed torch inside the block if it is loaded, and restore its random state afterwards."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def _from_here() -> Iterator[None]:
    """Let modules in the current folder be found inside the block.

    Console scripts, unlike `python -m`, do not look there. It comes last on the path, so that it hides no library.
    """
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if added:
            with contextlib.suppress(ValueError):  # what ran inside may have removed it
                sys.path.remove(here)


def _import(module_name: str, reference: str) -> ModuleType:
    try:
        with _from_here(), _held(), _seeded():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            message = f"network {reference!r}: no module {error.name!r}, neither installed nor in {Path.cwd()}"
        else:
            message = f"network {reference!r}: module {module_name} itself needs {error.name!r}, which is not installed"
        message += ".\nRun it where it is found (its folder, or an environment that has it installed)."
        raise ConfigError(message) from error
    except BaseException as error:  # whatever a user's module raises on import is for the user to fix
        _let_interrupt_through(error)
        message = f"network {reference!r}: importing {module_name} failed with {_told(error)}"
        raise ConfigError(message) from error


def _call(function: object, reference: str) -> object:
    if not callable(function):
        message = f"network {reference!r}: expected a function that returns a NetworkSpec, found {function!r}"
        raise ConfigError(message)
    try:
        with _from_here(), _held(), _seeded():  # a function may import modules beside its own only now
            returned: object = function()
    except BaseException as error:
        _let_interrupt_through(error)
        message = f"network {reference!r}: calling it without arguments failed with {_told(error)}"
        raise ConfigError(message) from error
    return returned


@contextlib.contextmanager
def _held() -> Iterator[None]:
    """Redirect to stderr what the user's code prints inside the block: stdout may be read by a program (`--json`).

    The file descriptor is redirected as well, for processes that the code starts and for C code. `os._exit` and
    processes that the code leaves running cannot be caught.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout or stderr has no file descriptor
            sys.__stdout__.flush()  # type: ignore[union-attr]  # None is caught as AttributeError
            kept = os.dup(1)
            stack.callback(_restore, kept)
            os.dup2(2, 1)
        yield


def _restore(kept: int) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.__stdout__.flush()  # type: ignore[union-attr]  # written past `redirect_stdout`
    os.dup2(kept, 1)
    os.close(kept)


def _let_interrupt_through(error: BaseException) -> None:
    """Raise the error again if it is Ctrl-C.

    All other exceptions that are no Exception (SystemExit, a user's own class) count as faults of the user's code.
    """
    if type(error) is KeyboardInterrupt:
        raise error


def _told(error: BaseException) -> str:
    try:
        words = str(error)
    except Exception:  # the class of the error may be the user's too, and its __str__ may fail
        words = ""
    return f"{type(error).__name__}{f': {words}' if words else ''}"


def _near(name: str, module: ModuleType) -> str:
    known = [other for other in vars(module) if not other.startswith("_")]
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def load_spec(reference: str) -> NetworkSpec:
    """Return the spec that the named function returns, or one whose `origin` is the function if it returns a module.

    Raises:
        ConfigError: As `returned_by`, or the function returns neither a spec that can be built nor a torch module that
            can be searched.
    """
    returned = returned_by(reference)
    if is_module(returned):
        from scalesearch.networks.own_module import spec_of

        return spec_of(returned, reference)
    if not isinstance(returned, NetworkSpec):
        message = (
            f"network {reference!r}: expected a scalesearch NetworkSpec or a torch.nn.Module, "
            f"got {type(returned).__name__}"
        )
        raise ConfigError(message)
    check_spec(returned)
    return returned
