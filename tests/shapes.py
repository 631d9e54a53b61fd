"""Shapes, checked while the tests run: what a function takes and returns has the shapes that its annotations name.

`Annotated[Array, "n d"]` tells readers and type checkers, and costs users nothing. Here every function of the package
is wrapped where it is defined: jaxtyping holds the shapes against each other, beartype looks into the tuples, lists and
unions around them. It is done after the call, because a function that refuses its arguments says so in its own words,
and once for the same shapes and types: tests call small functions by the hundred thousand.
"""
import ast
import functools
import importlib.machinery
import inspect
import sys
import typing
from pathlib import Path

import numpy as np
from beartype import BeartypeConf
from beartype.door import is_bearable
from jaxtyping import Shaped, jaxtyped

CHECKED = set()   # names of the functions whose shapes were looked at


def is_shape(hint) -> bool: return hasattr(hint, "__metadata__") and isinstance(hint.__metadata__[0], str)


def has_shape(hint) -> bool: return is_shape(hint) or any(map(has_shape, typing.get_args(hint)))


def for_jaxtyping(hint):
    "The hint with jaxtyping's words for its shapes."
    if is_shape(hint): return Shaped[hint.__origin__, hint.__metadata__[0]]
    if not has_shape(hint): return hint
    parts, origin = tuple(map(for_jaxtyping, typing.get_args(hint))), typing.get_origin(hint)
    return typing.Union[parts] if origin in UNIONS else origin[parts]


UNIONS = {typing.Union, type(int | str)}
NUMBERS = BeartypeConf(is_pep484_tower=True)   # an int is a float, as for type checkers


def description(value):
    "What an error says of a value: its shape, where it has one."
    if hasattr(value, "shape"): return tuple(value.shape)
    return [description(part) for part in value] if isinstance(value, (tuple, list)) else type(value).__name__


def outline(value):
    "All that a check depends on: the types in a value, and its shapes."
    if isinstance(shape := getattr(value, "shape", None), tuple): return type(value), shape
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return type(value), tuple(map(outline, parts))


def checked(function):
    "The function; after each call the shapes of its arguments and of its result are held against its annotations."
    if not any(map(has_shape, function.__annotations__.values())): return function
    signature, passed = inspect.signature(function), set()

    @functools.cache
    def hints():
        found = typing.get_type_hints(function, include_extras=True)
        return {name: for_jaxtyping(hint) for name, hint in found.items() if has_shape(hint)}

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        seen = outline((args, kwargs, result)), *kwargs
        if seen in passed: return result
        values = {**signature.bind(*args, **kwargs).arguments, "return": result}
        known = {name: hint for name, hint in hints().items() if name in values}
        with jaxtyped("context"):
            for name, hint in known.items():
                variadic = name != "return" and signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                for value in values[name] if variadic else [values[name]]:
                    if isinstance(value, np.generic): value = np.asarray(value)
                    if not is_bearable(value, hint, conf=NUMBERS):
                        shapes = {name: description(values[name]) for name in known}
                        raise AssertionError(f"{function.__qualname__}: {name} is not {hint}; shapes: {shapes}")
        passed.add(seen)
        CHECKED.add(f"{function.__module__}.{function.__qualname__}")
        return result

    return wrapped


class Decorate(ast.NodeTransformer):
    "Puts `checked` next to every function."

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.decorator_list.append(ast.parse("__import__('shapes').checked", mode="eval").body)
        return ast.copy_location(node, node)


class Loader(importlib.machinery.SourceFileLoader):
    "Loads a module with its functions checked; without a cache, which would hold the module as it is."

    def get_code(self, name):
        tree = Decorate().visit(ast.parse(self.get_data(self.path), self.path))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class Finder(importlib.machinery.PathFinder):
    "Finds the modules of the package."

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] != "subspace_match": return None
        spec = super().find_spec(name, path, target)
        if spec and spec.origin and Path(spec.origin).suffix == ".py":
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install(): sys.meta_path.insert(0, Finder)
