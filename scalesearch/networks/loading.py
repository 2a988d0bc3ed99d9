"""A user's own base network, given as `package.module:function`."""

import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType

from scalesearch.errors import ConfigError
from scalesearch.networks.validity import check_spec
from scalesearch.values.network_spec import NetworkSpec


def load_spec(reference: str) -> NetworkSpec:
    """The spec that the named function returns; modules in the current folder are found as well.

    Raises:
        ConfigError: The text is no `package.module:function`, nothing like it can be imported, or what it gives is no
            spec that can be built.
    """
    module_name, colon, function_name = reference.partition(":")
    if not (colon and all(part.isidentifier() for part in (*module_name.split("."), function_name))):
        message = f"a network of your own is given as package.module:function, not {reference!r}"
        raise ConfigError(message)
    module = _import(module_name, reference)
    if not hasattr(module, function_name):
        message = f"network {reference!r}: module {module_name} has no {function_name!r}{_near(function_name, module)}"
        raise ConfigError(message)
    return _call(getattr(module, function_name), reference)


def _import(module_name: str, reference: str) -> ModuleType:
    # Console scripts, unlike `python -m`, do not look in the current folder. Last in line: it must not hide a library.
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            message = f"network {reference!r}: no module {error.name!r}, neither installed nor in {here}"
        else:
            message = f"network {reference!r}: module {module_name} itself needs {error.name!r}, which is not installed"
        raise ConfigError(message) from error
    except Exception as error:  # whatever a user's module does on import is the user's to mend
        message = f"network {reference!r}: importing {module_name} failed with {type(error).__name__}: {error}"
        raise ConfigError(message) from error
    finally:
        if added:
            sys.path.remove(here)


def _call(function: object, reference: str) -> NetworkSpec:
    if not callable(function):
        message = f"network {reference!r}: expected a function that returns a NetworkSpec, found {function!r}"
        raise ConfigError(message)
    try:
        spec = function()
    except Exception as error:
        message = f"network {reference!r}: calling it without arguments failed with {type(error).__name__}: {error}"
        raise ConfigError(message) from error
    if not isinstance(spec, NetworkSpec):
        message = f"network {reference!r}: expected a scalesearch NetworkSpec, got {type(spec).__name__}"
        raise ConfigError(message)
    check_spec(spec)
    return spec


def _near(name: str, module: ModuleType) -> str:
    known = [other for other in vars(module) if not other.startswith("_")]
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
