"""The check of shapes bites, and whatever is an array in a signature has one."""
import ast
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import shapes

import subspace_match
from subspace_match.theory.inputs import Array
from subspace_match.theory.match import relative_distance

PACKAGE = Path(subspace_match.__file__).parent
FLOORS = ("theory", "algorithms")
ARRAYS = {"Array", "SameArray", "Tensor", "ndarray"}


def loaded(module, change=lambda source: source):
    "The names of a module of the package whose source was changed, with shapes checked."
    path = PACKAGE/module
    tree = shapes.Decorate().visit(ast.parse(change(path.read_text(encoding="utf-8"))))
    names = {"__name__": f"mutant_of_{path.stem}", "__package__": f"subspace_match.{path.parent.name}"}
    sys.modules[names["__name__"]] = ast            # dataclasses ask for their module
    exec(compile(ast.fix_missing_locations(tree), path, "exec"), names)
    return names


def test_a_transposed_result_is_noticed():
    old, new = "return (q @ u[:, s > tolerance]).T", "return q @ u[:, s > tolerance]"
    vectors = np.random.default_rng(0).normal(size=(2, 5))
    assert loaded("theory/match.py")["span_basis"](vectors).shape == (2, 5)
    mutant = loaded("theory/match.py", lambda source: source.replace(old, new))
    with pytest.raises(AssertionError, match=r"span_basis: return .*'rank d'"): mutant["span_basis"](vectors)


@pytest.mark.parametrize("x, y, message", [
    ((2, 3), (3, 2), r"f: y is not .*'n_y d'.*\{'x': \(2, 3\), 'y': \(3, 2\)"), ((2,), (2, 2), "f: x is not")])
def test_arguments_that_do_not_fit_each_other_are_noticed(x, y, message):
    @shapes.checked
    def f(x: Annotated[Array, "n_x d"], y: Annotated[Array, "n_y d"] | None = None) -> int: return 0

    assert f(np.ones((2, 3))) == f(np.ones((2, 3)), np.ones((4, 3))) == 0
    with pytest.raises(AssertionError, match=message): f(np.ones(x), np.ones(y))


def test_shapes_inside_other_types_are_noticed():
    @shapes.checked
    def f(*parts: Annotated[Array, "n _"]) -> tuple[list[Annotated[Array, "n"]], float]: return [np.ones(2)], 1.0

    f(np.ones((2, 3)), np.ones((2, 5)))
    with pytest.raises(AssertionError, match="f: parts"): f(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(AssertionError, match="f: return"): f(np.ones((3, 3)))


def test_what_passed_once_is_looked_at_again_where_a_shape_or_a_type_differs():
    @shapes.checked
    def f(x: Annotated[Array, "n d"], y: dict[str, Annotated[Array, "n"]], wrong: float = 0) -> Annotated[Array, "d"]:
        return {0: x[0], 1: x, 2: x[:, 0].tolist()}[wrong]

    x, y = np.ones((2, 3)), {"y": np.ones(2)}
    for _ in range(2): f(x, y)
    for arguments in ((np.ones((3, 3)), y), (x, {"y": np.ones(3)}), (x, y, 1), (x, y, 2)):
        with pytest.raises(AssertionError, match="f: "): f(*arguments)
    with pytest.raises(AssertionError, match="f: return"): f(x, y, wrong=1)


def test_a_function_refuses_in_its_own_words():
    with pytest.raises(ValueError, match="x has d = 3 inputs, y has 4"): relative_distance(np.ones(3), np.ones((2, 4)))


def test_the_package_is_loaded_with_its_shapes_checked():
    relative_distance(np.ones(3), np.ones((2, 3)))
    assert "subspace_match.theory.match.relative_distance" in shapes.CHECKED


def bare(annotation) -> bool:
    "Does the annotation name an array without its shape?"
    if isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") == "Annotated": return False
    return (getattr(annotation, "id", getattr(annotation, "attr", "")) in ARRAYS
            or any(map(bare, ast.iter_child_nodes(annotation))))


@pytest.mark.parametrize("path", sorted(path for floor in FLOORS for path in (PACKAGE/floor).glob("[a-z]*.py")),
                         ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_array_in_a_signature_has_a_shape(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.FunctionDef)]
    arguments = [(node.name, argument) for node in functions
                 for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg)
                 if argument and argument.annotation]
    assert not [f"{name}: {argument.arg}" for name, argument in arguments if bare(argument.annotation)]
    assert not [f"{node.name}: result" for node in functions if node.returns and bare(node.returns)]
