"""Examples in docstrings run, and every public name has one."""
import ast
import doctest
import importlib
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

import subspace_match

PACKAGE = Path(subspace_match.__file__).parent


def modules() -> dict[str, ast.Module]:
    "Name below the package -> syntax tree, of every module that a notebook exports."
    paths = [path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_")]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
            for path in sorted(paths)}


def has_example(node) -> bool: return ">>>" in (ast.get_docstring(node) or "")


def public(tree) -> list:
    "Functions and classes of `__all__`."
    listed = next((ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)
                   and getattr(node.targets[0], "id", "") == "__all__"), [])
    return [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in listed]


TREES = modules()
WITH_EXAMPLES = [name for name, tree in TREES.items() if any(has_example(node) for node in ast.walk(tree)
                                                             if isinstance(node, (ast.FunctionDef, ast.ClassDef)))]


def examples(name):
    "The examples of a module, found by its source, since `doctest` overlooks functions that are wrapped elsewhere."
    names, parser = vars(importlib.import_module(f"subspace_match.{name}")), doctest.DocTestParser()
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and has_example(node):
            yield parser.get_doctest(ast.get_docstring(node), dict(names), node.name, f"{name}.py", node.lineno)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    runner = doctest.DocTestRunner()
    for example in examples(name):
        assert example.examples and not runner.run(example).failed, f"{name}.{example.name}"
    plt.close("all")


@pytest.mark.parametrize("name", TREES)
def test_every_public_name_has_an_example(name):
    "Public is what stands in `__all__`; what is only there for other modules is exported without (`#| exporti`)."
    assert not [node.name for node in public(TREES[name]) if not has_example(node)]


def test_every_name_of_the_package_has_an_example():
    shown = {node.name for tree in TREES.values() for node in public(tree) if has_example(node)}
    assert not set(subspace_match.__all__) - shown and len(WITH_EXAMPLES) >= 20
