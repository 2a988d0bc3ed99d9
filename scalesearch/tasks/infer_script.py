"""Make the infer.py of a task: one file, joined from a module and those that it imports, that needs no scalesearch.

Thus code that tasks have in common, above all the reading of images, is written once, and `scalesearch predict` runs
the very code that an export ships.
"""

import ast
import importlib.resources
from collections.abc import Iterator
from typing import Final

_OURS: Final = "scalesearch."
_FIRST: Final = "scalesearch.tasks.infer_parts.versions"
"""The module that imports numpy, onnxruntime and Pillow and says what to install if one is missing, so it must come
before all code that uses them."""
_FOR_THE_LINTER: Final = "  # noqa: F401  (the parts that follow use these)"
_THIRD_PARTY: Final = frozenset({"numpy", "onnxruntime", "PIL"})


def infer_script(package: str) -> bytes:
    """Return the infer.py of the task in this package, which has a module `infer`.

    The modules of scalesearch that it imports, and those that these import, are put before its own definitions; all of
    them define different names. Comments between statements are left out.
    """
    own = f"{package}.infer"
    modules = [_FIRST, *(name for name in _in_order(own) if name != _FIRST)]
    trees = {name: list(_parts(_source(name))) for name in modules}
    parts = [text for node, text in trees[own] if _is_docstring(node) or _is_future(node)][:2]
    parts += _import_lines([node for each in trees.values() for node, _ in each])
    for name, each in trees.items():
        for node, text in each:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) or (_is_entry(node) and name == own):
                parts.append("\n" + text)
            elif isinstance(node, ast.Expr) and not _is_docstring(node):
                parts[-1] += "\n" + text  # the docstring of a constant stays directly below it
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.Try):
                parts.append(text)
    return "\n\n".join(parts).replace(_FOR_THE_LINTER, "").encode() + b"\n"


def _in_order(module: str) -> list[str]:
    """Return the modules of scalesearch that a module needs, each after those that it imports; itself last."""
    found = list[str]()
    for node, _ in _parts(_source(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_OURS):
            found += (name for name in _in_order(node.module or "") if name not in found)
    return [*found, module]


def _source(module: str) -> str:
    package, _, name = module.rpartition(".")
    return importlib.resources.files(package).joinpath(f"{name}.py").read_text("utf-8")


def _import_lines(nodes: list[ast.stmt]) -> list[str]:
    """Return the standard library's imports in these statements, each once; then the imports for types alone."""
    for_types = [inner for node in nodes if isinstance(node, ast.If) and _is_typing(node) for inner in node.body]
    texts = ["\n".join(_merged(nodes))]
    if for_types:
        allowed = _merged(for_types, also=_THIRD_PARTY)
        texts.append("if TYPE_CHECKING:\n" + "\n".join(f"    {line}" for line in allowed))
    return texts


def _merged(nodes: list[ast.stmt], also: frozenset[str] = frozenset()) -> list[str]:
    """Return import lines, one for the names of each module, of the standard library and of the packages in `also`."""
    whole, names = set[str](), dict[str, set[str]]()
    for node in nodes:
        if isinstance(node, ast.Import):
            whole.update(ast.unparse(ast.Import([each])) for each in node.names if each.name not in _THIRD_PARTY)
        elif isinstance(node, ast.ImportFrom) and not _is_future(node):
            module = node.module or ""
            if not module.startswith(_OURS) and (module.split(".")[0] not in _THIRD_PARTY - also):
                names.setdefault(module, set()).update(each.name for each in node.names)
    return [*sorted(whole), *(f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names))]


def _parts(source: str) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement of a module with its text; comments between statements belong to none."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
        first = min([node.lineno, *(each.lineno for each in decorators)])
        assert node.end_lineno is not None
        yield node, "\n".join(lines[first - 1 : node.end_lineno])


def _is_docstring(node: ast.stmt) -> bool:
    """Tell whether the statement is a docstring, with which each of these files begins."""
    return isinstance(node, ast.Expr) and node.lineno == 1


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_entry(node: ast.stmt) -> bool:
    """Tell whether the statement is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and "__main__" in ast.unparse(node.test)


def _is_typing(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
