"""Put an export's infer.py together: the reading of images, which all tasks share, and what a task makes of answers."""

import ast
from collections.abc import Collection
from importlib.resources import files
from typing import Final

_READING: Final = "scalesearch.tasks.classification.infer"
"""Reads images and checks versions. It is the whole script of classification, and complete in itself."""


def joined_script(package: str, *, without: Collection[str]) -> bytes:
    """Return the text of a script that needs onnxruntime, numpy and Pillow only.

    It is the script of classification without what only labels need, then `infer.py` of the package without its import
    of that script. Both are cut between statements, so every line of the result is a line that is tested.

    Args:
        package: The task's package, which has an `infer.py`.
        without: Names of functions and classes of classification's script that are left out.
    """
    reading = (files("scalesearch.tasks.classification") / "infer.py").read_text()
    own = (files(package) / "infer.py").read_text()
    parts = ast.parse(own).body
    first, rest = parts[0], parts[1:]
    assert isinstance(first, ast.Expr)  # its docstring
    kept = [part for part in rest if not _is_shared(part)]
    imports = [part for part in kept if isinstance(part, ast.Import | ast.ImportFrom)]
    head = [part for part in ast.parse(reading).body[1:] if not _named(part, without) and not _runs_main(part)]
    code = [part for part in kept if part not in imports]
    lines = _text(own, first), "", _text(reading, head[0]), "", *(_text(own, part) for part in imports)
    body = (*(_text(reading, part) for part in head[1:]), *(_text(own, part) for part in code))
    return ("\n".join(lines) + "\n\n" + "\n\n".join(body) + "\n").encode()


def _is_shared(part: ast.stmt) -> bool:
    """Tell whether it is the import of the shared script, or of the future, which stands at the beginning already."""
    return isinstance(part, ast.ImportFrom) and part.module in (_READING, "__future__")


def _named(part: ast.stmt, names: Collection[str]) -> bool:
    return isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name in names


def _runs_main(part: ast.stmt) -> bool:
    """Tell whether it is `if __name__ == "__main__":`, which only the task's own script has then."""
    return isinstance(part, ast.If) and "__main__" in ast.unparse(part.test)


def _text(source: str, part: ast.stmt) -> str:
    """Return the lines of a statement, with its decorators and the comments behind it on its lines."""
    decorators = getattr(part, "decorator_list", [])
    first = min([part.lineno, *(each.lineno for each in decorators)])
    return "\n".join(source.splitlines()[first - 1 : part.end_lineno])
