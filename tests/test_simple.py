"""Affine matches against exhaustive search; the search for minimal sets: complete, bounded in work and in memory."""
import tracemalloc
import warnings
from itertools import combinations

import numpy as np
import pytest

from subspace_match.algorithms.geometry import Geometry
from subspace_match.algorithms.maximum import maximum_match
from subspace_match.algorithms import simple
from subspace_match.algorithms.simple import TooManyMatches, minimal_sets, pair_matches, simple_matches
from subspace_match.theory.match import TOLERANCE, Match, is_match, relative_distance, running_example


# Affine matches: the definition, with the constant vector in both spans

def subsets(n):
    return [s for size in range(n + 1) for s in combinations(range(n), size)]


def passes(z, others, eps):
    "Is each row of z within eps, relative to its length, of the span of the rows of `others` and the constant vector?"
    span = np.vstack([*others, np.ones(z.shape[1])]).T
    rest = z.T - span @ np.linalg.lstsq(span, z.T, rcond=1e-10)[0]
    return bool((np.linalg.norm(rest, axis=0) <= (eps + 1e-9) * np.linalg.norm(z, axis=1)).all())


def affine_matches(x, y, eps):
    "Every affine match, by definition."
    return [(X, Y) for X in subsets(len(x)) for Y in subsets(len(y))
            if passes(x[list(X)], y[list(Y)], eps) and passes(y[list(Y)], x[list(X)], eps)]


def simple_ones(matches):
    "The non-empty matches that are not the union of smaller ones (Definition 4)."
    sets = [frozenset([*(("x", i) for i in X), *(("y", j) for j in Y)]) for X, Y in matches]
    return {s for s in sets if s != frozenset().union(*(other for other in sets if other < s)) and s}


def affine_instance(seed):
    "Neurons with means of any size, some nearly constant, the second side mixing the first."
    rng = np.random.default_rng(seed)
    n_x, n_y, d = rng.integers(1, 4), rng.integers(1, 4), 12
    x = rng.normal(size=(n_x, d)) * rng.choice([0.05, 1.0], (n_x, 1)) + rng.choice([0.0, 1.0, 3.0], (n_x, 1))
    y = (rng.normal(size=(n_y, n_x)) * rng.integers(0, 2, (n_y, n_x))) @ x + 0.3 * rng.normal(size=(n_y, d))
    return x, y + rng.choice([0.0, 1.0, 3.0], (n_y, 1)), float(rng.choice([0.1, 0.3, 0.5, 0.7]))


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_affine_matches_are_those_of_exhaustive_search(first):
    pairs = threes = 0
    for seed in range(first, first + 100):
        x, y, eps = affine_instance(seed)
        geometry, matches = Geometry.from_vectors(x, y, affine=True), affine_matches(x, y, eps)
        largest = maximum_match(geometry, eps=eps)
        assert set(largest.neurons()) == {("x", i) for X, _ in matches
                                          for i in X} | {("y", j) for _, Y in matches for j in Y}
        simple = simple_ones(matches)
        assert {frozenset(m.neurons()) for m in simple_matches(geometry, eps=eps)} == simple, seed
        expected = {s for s in simple if sorted(side for side, _ in s) == ["x", "y"]}
        assert {frozenset(m.neurons()) for m in pair_matches(geometry, eps=eps)} == expected, seed
        pairs, threes = pairs + len(expected), threes + sum(len(s) == 3 for s in simple)
    assert pairs > 20


def test_an_affine_pair_must_pass_on_both_sides():
    "Only one distance is within eps: x's centred part is small beside its mean, y has no mean at all."
    rng = np.random.default_rng(0)
    ones, u, w = np.linalg.qr(np.c_[np.ones(40), rng.normal(size=(40, 2))])[0].T
    x, y = (0.4*u + 0.9*ones)[None], ((u + w)/2**0.5)[None]
    assert passes(x, y, 0.3) and not passes(y, x, 0.3)
    assert pair_matches(Geometry.from_vectors(x, y, affine=True), eps=0.3) == []


# Pairs whose distance is the limit, to the last bit

@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("d", [3, 40, 1000])
def test_a_pair_is_found_only_if_it_passes_to_the_last_bit(affine, d):
    "Whatever is found passes; what passes and is left out comes with a warning, which is rare elsewhere."
    rng, passed = np.random.default_rng(d), 0
    for _ in range(60):
        x, y = rng.normal(size=(2, 1, d)) + rng.choice([0.0, 1.0, 3.0], (2, 1, 1)) * affine
        distances = [float(relative_distance(own, other, affine)) for own, other in ((x[0], y), (y[0], x))]
        thresholds = [np.nextafter(t - TOLERANCE, to) for t in distances for to in (0, t - TOLERANCE, 1)]
        for eps in filter(lambda eps: 0 <= eps < 1, thresholds):
            passes = max(distances) <= eps + TOLERANCE
            assert passes == is_match(x, y, Match([0], [0]), eps, affine)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found = pair_matches(Geometry.from_vectors(x, y, affine=affine), eps=eps)
            assert passes or not found
            told = any("within rounding errors" in str(w.message) for w in said)
            assert told or bool(found) == passes
            passed += passes
        for shift in (-1e-9, 1e-9):
            eps = max(distances) - TOLERANCE + shift
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = pair_matches(Geometry.from_vectors(x, y, affine=affine), eps=eps)
            assert bool(found) == (shift > 0)
    assert passed > 40


def beside_the_constant(length, z):
    "The vector of length one whose part beside the constant vector is z, made so long; z sums to zero."
    return length * z / np.linalg.norm(z) + (1 - length**2) ** 0.5 / len(z) ** 0.5


@pytest.mark.parametrize("eps, found, told", [(0.4, 1, False), (0.5 - TOLERANCE, 0, True), (0.6, 0, False)])
def test_no_pair_whose_lengths_may_be_within_the_threshold(eps, found, told):
    "Affine vectors so short match alone, so no pair of them is simple; near the threshold nobody can tell."
    z = np.random.default_rng(0).normal(size=400)
    x = beside_the_constant(0.5, z - z.mean())[None]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert len(pair_matches(Geometry.from_vectors(x, x, affine=True), eps=eps)) == found
    assert bool(warned) == told


@pytest.mark.parametrize("off, found, told", [(-2, 1, False), (-0.5, 0, True), (0.5, 0, True), (2, 0, False)])
def test_rounding_turns_a_short_vector_more_than_a_long_one(off, found, told):
    "By the ratio of their lengths, here 10^4: so far from their distance, eps still cannot tell."
    z, other = np.random.default_rng(0).normal(size=(2, 400))
    z = (z - z.mean()) / np.linalg.norm(z - z.mean())
    other -= other.mean() + z * (z @ other)
    y = 0.8 * z + 0.6 * other / np.linalg.norm(other)
    geometry = Geometry.from_vectors(beside_the_constant(1e-4, z)[None], y[None], affine=True)
    short, long = geometry.coordinates.numpy()
    distance = np.linalg.norm(long - short * (short @ long) / (short @ short))
    eps = distance - TOLERANCE - off * geometry.gram_noise(2) * 1e4
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert len(pair_matches(geometry, eps=eps)) == found
    assert bool(warned) == told


# The search for minimal sets

def among(sets):
    return lambda removed: next((s for s in sets if s.isdisjoint(removed)), None)


def test_long_chains_of_disjoint_sets_are_found():
    "A thousand disjoint sets, as where a neuron has a thousand partners: no recursion that ends at Python's limit."
    sets = [frozenset({i}) for i in range(1500)]
    found, finished = minimal_sets(among(sets), limit=5000)
    assert finished and set(found) == set(sets)


def test_the_limit_counts_every_removal_and_bounds_memory():
    rng, looked = np.random.default_rng(0), 0
    sets = [frozenset(rng.choice(60, 6, replace=False).tolist()) for _ in range(400)]
    def counted(removed):
        nonlocal looked
        looked += 1
        return among(sets)(removed)
    tracemalloc.start()
    found, finished = minimal_sets(counted, limit=3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not finished and looked <= 3000 and len(found) > 50
    assert peak < 1e6                               # the sets found and one path, nothing else


def test_what_was_found_before_the_limit_comes_with_the_error():
    x = y = np.eye(6) + 0.4
    with pytest.raises(TooManyMatches) as stopped: simple_matches(x, y, 0.7, limit=8)
    assert stopped.value.found and all(isinstance(match, Match) for match in stopped.value.found)


def test_what_is_remembered_for_other_neurons_is_bounded(monkeypatch):
    "So many minimal matches in all, the newest of each neuron; none of a neuron whose turn is over."
    monkeypatch.setattr(simple, "REMEMBERED", 12)
    x, y, eps = running_example()
    remainders = simple._Remainders(Geometry.from_vectors(x, y), eps, lambda v, rest: {})
    assert len(remainders.maximum) == 6
    for k in range(5): remainders.remember(("x", 0), frozenset({k}))
    assert list(remainders.known["x", 0]) == [{3}, {4}]
    assert remainders.minimal_matches(("x", 0), limit=10) == [Match([0, 3]), Match([0], [0])]
    remainders.remember(("x", 0), frozenset({1}))
    assert ("x", 0) not in remainders.known


def test_a_neuron_that_another_rounding_leaves_out_has_no_minimal_match():
    x, y, eps = running_example()
    remainders = simple._Remainders(Geometry.from_vectors(x, y), eps, lambda v, rest: {v: None})
    assert remainders.minimal_matches(("x", 0), limit=10) == []
