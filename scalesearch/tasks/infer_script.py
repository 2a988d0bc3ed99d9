"""Makes the infer.py of a task that reads images as classification does: one file without imports of ours.

The task's own `infer.py` imports what it uses from `classification/infer.py`. In the script, the source of that file
stands in place of the import, without what only classification needs. So the reading of images is written once.
"""

import ast
import importlib.resources
from collections.abc import Iterator
from typing import Final

_HOME: Final = "scalesearch.tasks.classification"
_OWN_OF_CLASSIFICATION: Final = frozenset({"Labeller", "NotFiniteError", "softmax", "main"})
"""Classes and functions of `classification/infer.py` that other tasks replace by their own."""


def infer_script(package: str) -> bytes:
    """Return the infer.py of the task in this package, which has a module `infer` with that import.

    The names that it defines must be its own: what both files define would be there twice.
    """
    own, shared = (importlib.resources.files(name).joinpath("infer.py").read_text("utf-8") for name in (package, _HOME))
    head, body = _own_parts(own)
    return "\n\n".join((head, *_shared_parts(shared), *body)).replace("\n\n\n\n", "\n\n\n").encode() + b"\n"


def _shared_parts(source: str) -> Iterator[str]:
    """Yield the parts of `classification/infer.py` that other tasks use: its imports and constants, then the rest."""
    for node, text in _parts(source):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name not in _OWN_OF_CLASSIFICATION:
                yield "\n" + text
        elif not (_is_docstring_of_module(node, source) or _is_future(node) or _is_entry(node)):
            yield text


def _own_parts(source: str) -> tuple[str, list[str]]:
    """Return the docstring with the future import of a task's own module, and the parts behind its imports."""
    head, body = list[str](), list[str]()
    for node, text in _parts(source):
        if _is_docstring_of_module(node, source) or _is_future(node):
            head.append(text)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef) or _is_entry(node):
            body.append("\n" + text)
        elif not (isinstance(node, ast.Import | ast.ImportFrom) or _is_typing(node)):
            body.append(text)
    return "\n\n".join(head), body


def _parts(source: str) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each statement of a module with its text; comments between statements belong to none."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        decorators = node.decorator_list if isinstance(node, ast.ClassDef | ast.FunctionDef) else []
        first = min([node.lineno, *(each.lineno for each in decorators)])
        assert node.end_lineno is not None
        yield node, "\n".join(lines[first - 1 : node.end_lineno])


def _is_docstring_of_module(node: ast.stmt, source: str) -> bool:
    return isinstance(node, ast.Expr) and node.lineno == ast.parse(source).body[0].lineno


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_entry(node: ast.stmt) -> bool:
    """Tell whether it is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and "__main__" in ast.unparse(node.test)


def _is_typing(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
