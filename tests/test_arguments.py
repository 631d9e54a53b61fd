"""What the algorithms say of their arguments, and what becomes of dead neurons."""

import warnings

import numpy as np
import pytest
from matplotlib import pyplot as plt

from subspace_match.algorithms import maximum
from subspace_match.algorithms.geometry import Geometry
from subspace_match.algorithms.maximum import match_levels, maximum_match
from subspace_match.algorithms.minimal import minimal_match, minimal_matches, minimum_matches
from subspace_match.algorithms.simple import simple_matches
from subspace_match.theory.match import Match


def told(function, *args, **options):
    "The result, and the words of its warnings."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return function(*args, **options), " ".join(str(warning.message) for warning in said)


@pytest.mark.parametrize("n_x, n_y, d, mistaken", [
    (32, 32, 32, True), (40, 33, 9, True), (31, 40, 9, False), (40, 31, 9, False), (40, 40, 41, False), (3, 3, 2, 0),
])
def test_many_neurons_and_no_more_inputs_are_taken_for_a_mistake(n_x, n_y, d, mistaken):
    rng = np.random.default_rng(0)
    said = told(maximum_match, rng.normal(size=(n_x, d)), rng.normal(size=(n_y, d)), 0.1)[1]
    assert (f"{n_x} and {n_y} neurons (rows) and only {d} inputs" in said) == mistaken


def test_a_geometry_comes_alone():
    geometry = Geometry.from_vectors(np.eye(2), np.eye(2))
    for function in (maximum_match, minimal_matches, simple_matches, match_levels):
        eps = {} if function is match_levels else {"eps": 0.1}
        with pytest.raises(TypeError, match="leave y out"): function(geometry, np.eye(2), **eps)
        with pytest.raises(TypeError, match="y is missing"): function(np.eye(2), **eps)


def test_what_to_look_inside_is_a_match_of_these_neurons():
    for within, error in (([0], TypeError), (Match([2], []), IndexError), (Match([], [3]), IndexError)):
        with pytest.raises(error): maximum_match(np.eye(2, 4), np.eye(3, 4), 0.1, within=within)
    assert maximum_match(np.eye(2, 4), np.eye(3, 4), 0.1, within=Match([1], [1, 2])) == Match([1], [1])


def test_dead_neurons_are_read_as_they_are_asked_for():
    x, y = np.array([[1.0, 0], [0, 0]]), np.array([[0.0, 0], [1, 1e-3]])
    assert maximum_match(x, y, 0.1) == Match([0, 1], [0, 1])
    assert maximum_match(x, y, 0.1, dead="exclude") == Match([0], [1])
    shown = {dead: [np.round(side, 2).tolist() for side in (levels.x, levels.y)]
             for dead in ("include", "exclude") for levels in [match_levels(x, y, dead)]}
    assert shown == {"include": [[0, 0], [0, 0]], "exclude": [[0, 1], [1, 0]]}
    left = match_levels(x, y, "leave out")
    assert np.isnan(left.x).tolist() == [False, True] and np.isnan(left.y).tolist() == [True, False]
    assert left.counted.tolist() == [left.x[0], left.y[1]] and left.similarity(0.1) == 1 and left.area > 0.99
    assert left.match(0.1) == Match([0], [1]) and match_levels(x, y, "exclude").similarity(0.1) == 0.5
    nobody = match_levels(0 * x, 0 * y, "leave out")
    assert np.isnan(nobody.area) and np.isnan(nobody.similarity(0.5)) and len(nobody.match(0.5)) == 0
    for function in (lambda dead: maximum_match(x, y, 0.1, dead=dead), lambda dead: match_levels(x, y, dead)):
        with pytest.raises(ValueError, match="exclude"): function("drop")


def test_levels_are_read_at_one_eps_or_at_many():
    levels = maximum.Levels(np.array([0.0, 0.3, 1.0]), np.array([0.3, 0.6]), 1e-3)
    assert levels.similarity(0.2995) == 0.6 and levels.similarity(0.2985) == 0.2 and levels.similarity(0.9999) == 0.8
    assert isinstance(levels.similarity(0.1), float) and levels.area == pytest.approx(1 - 2.2 / 5)
    assert levels.similarity([[0.0, 0.3], [0.6, 0.9]]).tolist() == [[0.2, 0.6], [0.8, 0.8]]
    assert levels.match(0.2995) == Match([0, 1], [0]) and levels.match(0.9999) == Match([0, 1], [0, 1])
    for eps in (-0.1, 1.0, [0.5, 1.0]):
        with pytest.raises(ValueError): levels.similarity(eps)
    with pytest.raises(ValueError): levels.match(1.0)
    same = maximum.Levels(levels.x.copy(), levels.y.copy(), 1e-3)
    assert levels == same and levels != 0 and levels != maximum.Levels(levels.x, levels.y, 1e-4)
    assert levels != maximum.Levels(levels.x, levels.y[::-1], 1e-3)
    assert levels != maximum.Levels(levels.x[::-1], levels.y, 1e-3)


def test_the_curve_is_drawn_from_zero_to_one():
    levels = maximum.Levels(np.array([0.0, 0.3, 1.0]), np.array([0.3, 0.6]), 1e-3)
    ax = levels.plot(color="C3")
    edges, share = ax.lines[0].get_data()
    assert edges[0] == 0 and 0.999 < edges[-1] < 1 and edges[1:-1].tolist() == [0.0, 0.3, 0.3, 0.6]
    assert share.tolist() == levels.similarity(edges).tolist() and ax.lines[0].get_drawstyle() == "steps-post"
    assert ax.lines[0].get_color() == "C3" and ax.get_xlabel() == "ε" and levels.plot(ax) is ax
    assert levels._repr_png_().startswith(b"\x89PNG")
    plt.close("all")


def test_eps_that_is_finer_than_the_inner_products_is_told():
    x = np.eye(3)
    of_vectors, of_gram = Geometry.from_vectors(x[:1], x[1:]), Geometry.from_gram(np.eye(3), 1)
    for geometry, eps, finer in ((of_gram, 0.0, True), (of_gram, 1e-5, False), (of_vectors, 0.0, False)):
        assert ("finer than a Gram matrix" in told(maximum_match, geometry, eps=eps)[1]) == finer


def test_eps_that_is_finer_than_float32_is_told():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 30))
    x[1] = x[0] + 1e-3 * x[1]
    y = rng.normal(size=(4, 4)) @ x
    for function in (maximum_match, minimal_matches):
        assert "float32 rounding" in told(function, x.astype("f4"), y.astype("f4"), 1e-5)[1]
        assert "float32 rounding" not in told(function, x.astype("f4"), y.astype("f4"), 0.01)[1]
        assert "float32 rounding" not in told(function, x, y, 1e-5)[1]
        assert "float32 rounding" not in told(function, Geometry.from_gram((z := np.r_[x, y]) @ z.T, 4), eps=1e-5)[1]


def test_levels_that_are_finer_than_float32_are_told():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 4, 30))
    y = rng.normal(size=(4, 4)) @ x
    for second, finer in ((x[0] + 1e-3 * x[1], True), (z[0], False)):
        x[1] = second
        assert ("float32 rounding" in told(match_levels, x.astype("f4"), y.astype("f4"))[1]) == finer
        assert "float32 rounding" not in told(match_levels, x, y)[1]
    assert "float32 rounding" not in told(match_levels, x.astype("f4"), z.astype("f4"))[1]   # no level is that low


def test_minimal_matches_of_dead_and_of_matchless_neurons():
    x, y = np.array([[1.0, 0, 0], [0, 0, 0]]), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    assert minimal_match(x, y, 0.1, ("x", 1)) == Match([1], []) and minimal_match(x, y, 0.1, ("y", 0)) == Match([], [0])
    assert minimal_match(x, y, 0.1, ("y", 1)) == Match([0], [1]) and minimal_match(x, y, 0.1, ("y", 2)) is None
    assert list(minimal_matches(x, y, 0.1)) == [("x", 0), ("x", 1), ("y", 0), ("y", 1)]
    with pytest.raises(ValueError, match="zero vector"): minimum_matches(x, y)
