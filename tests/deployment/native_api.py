"""Which names of a native Python module exist, and which of them our code uses; for the test that compares the two.

Run as a script it prints the description of the module that its arguments name.
"""

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ANSWER = re.compile(r"\) -> (?:\w+(?:\.|::))*(\w+)")


def describe(module: Any) -> dict[str, dict[str, str]]:
    """Every class by its dotted name, with its attributes; the module's own names are under "".

    An attribute's value is what it gives: `class X`, or the bare name of the class that pybind11's docstring says a
    method or property answers with ("" where it says nothing).
    """
    described: dict[str, dict[str, str]] = {}
    _describe(module, "", described)
    return described


def _describe(owner: Any, dotted: str, described: dict[str, dict[str, str]]) -> None:
    described[dotted] = {}
    for name in dir(owner):
        if name.startswith("__") and name != "__version__":
            continue
        value = getattr(owner, name)
        if isinstance(value, type):
            inner = f"{dotted}.{name}" if dotted else name
            described[dotted][name] = f"class {inner}"
            if inner.count(".") < 2:
                _describe(value, inner, described)
        else:
            answer = _ANSWER.search(getattr(value, "__doc__", None) or _getter_text(owner, name))
            described[dotted][name] = answer[1] if answer else ""


def _getter_text(owner: Any, name: str) -> str:
    value = vars(owner).get(name)
    return (value.fget.__doc__ or "") if isinstance(value, property) and value.fget else ""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Use:
    """One name of the module that our code reads."""

    owner: str
    """A class by its dotted name; "" for the module itself."""
    name: str
    where: str
    """File and line of one place that reads it."""


def uses(folder: Path, described: Mapping[str, Mapping[str, str]]) -> dict[tuple[str, str], Use]:
    """Every (owner, name) that the Python files of a folder read off the module.

    What a variable holds follows from what it is assigned, in any file: `builder = trt.Builder(...)` is a `Builder`,
    `network = builder.create_network(...)` what that method's docstring says. So a new call is found without being
    listed anywhere.
    """
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))}
    resolver = _Resolver(described)
    while resolver.learn(trees.values()):  # until nothing new is known
        pass
    found: dict[tuple[str, str], Use] = {}
    for path, tree in trees.items():
        for owner, name, line in resolver.read(tree):
            found.setdefault((owner, name), Use(owner=owner, name=name, where=f"{path.name}:{line}"))
    return found


class _Resolver:
    """Values are texts: "" the module, `class X`, `an X`, `many an X`."""

    def __init__(self, described: Mapping[str, Mapping[str, str]]) -> None:
        self._described = described
        self._variables: dict[str, str] = {}

    def learn(self, trees: "Iterator[ast.Module] | Any") -> bool:
        before = dict(self._variables)
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.Assign):
                    for target in node.targets:
                        self._assign(target, node.value)
                elif isinstance(node, ast.AnnAssign) and node.value is not None:
                    self._assign(node.target, node.value)
        return self._variables != before

    def read(self, tree: ast.Module) -> Iterator[tuple[str, str, int]]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = self._class_of(self._value(node.value))
                if owner is not None and node.attr != "__init__":
                    yield owner, node.attr, node.lineno
            elif isinstance(node, ast.ClassDef):  # what the library calls back
                for base in node.bases:
                    owner = self._class_of(self._value(base))
                    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
                    for method in methods if owner else ():
                        if not method.name.startswith("__"):
                            yield owner or "", method.name, method.lineno

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for part, given in zip(target.elts, value.elts, strict=True):
                self._assign(part, given)
            return
        held = self._value(value)
        name = _variable(target)
        if name and held is not None:
            self._variables[name] = held

    def _value(self, node: ast.expr) -> str | None:
        if _variable(node) in self._variables:
            return self._variables[_variable(node)]
        match node:
            case ast.Name(id="trt") | ast.Attribute(attr="trt"):
                return ""
            case ast.Attribute(value=inner, attr=name):
                owner = self._class_of(self._value(inner))
                return None if owner is None else self._attribute(owner, name)
            case ast.Call(func=function):
                called = self._value(function)
                if called and called.startswith("class "):
                    return f"an {called.removeprefix('class ')}"
                return called
            case ast.IfExp(body=first, orelse=second):
                return self._value(first) or self._value(second)
            case ast.BoolOp(values=values):
                return next((held for held in map(self._value, values) if held), None)
            case ast.ListComp(elt=element):
                held = self._value(element)
                return f"many {held}" if held else None
            case ast.Subscript(value=inner):
                held = self._value(inner)
                return held.removeprefix("many ") if held and held.startswith("many ") else None
        return None

    def _attribute(self, owner: str, name: str) -> str | None:
        gives = self._described.get(owner, {}).get(name, "")
        if gives.startswith("class "):
            return gives
        # A class whose Python name the docstring does not know is there under its C++ one: nvonnxparser::IParserError.
        known = next((each for each in (gives, gives.removeprefix("I")) if each and each in self._described), None)
        return f"an {known}" if known else None

    def _class_of(self, held: str | None) -> str | None:
        if held is None or held.startswith("many "):
            return None
        return held.removeprefix("class ").removeprefix("an ")


def _variable(node: ast.expr) -> str:
    """The name of a variable or of an attribute of `self`, equal in all files; else ""."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return f"self.{node.attr}"
    return ""


if __name__ == "__main__":
    loaded = importlib.import_module(sys.argv[1])
    print(json.dumps({"version": str(loaded.__version__), "api": describe(loaded)}))
