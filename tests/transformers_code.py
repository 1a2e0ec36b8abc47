"""Functions of transformers, cut out of their files: importing these takes seconds, and running them torchvision."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path


def path(file: str) -> Path:
    """Return a file of the package."""
    package = importlib.util.find_spec("transformers")
    assert package and package.origin
    return Path(package.origin).parent / file


def cut(file: str, names: tuple[str, ...], given: Mapping[str, object]) -> dict[str, Callable[..., object]]:
    """Return functions and methods of a file of the package, by name: of several of one name the first.

    given: the names that they use. Annotations and decorators are left out
    """
    nodes = [node for node in ast.walk(ast.parse(path(file).read_text())) if isinstance(node, ast.FunctionDef)]
    functions = [next(node for node in nodes if node.name == name) for name in names]
    for function in functions:
        function.returns, function.decorator_list = None, []
        for argument in function.args.args:
            argument.annotation = None
    found = dict(given)
    exec(compile(ast.Module(functions, []), str(path(file)), "exec"), found)
    return {name: found[name] for name in names}  # type: ignore[misc]


def assigned(file: str, owner: str = "") -> dict[str, str]:
    """Return what a file of the package, or a class in it, assigns to names, as it is written there."""
    tree = ast.parse(path(file).read_text())
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    nodes = [node for node in (classes[owner] if owner else tree.body) if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in nodes}
