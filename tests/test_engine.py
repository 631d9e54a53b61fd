"""The engine against the definition: hypothesis looks for instances on which it is wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace_match.theory import reference
from subspace_match.algorithms.geometry import Downdate, Geometry, accumulate_factor, accumulate_gram, svd
from subspace_match.theory.match import Match
from subspace_match.algorithms.maximum import match_levels, maximum_match
from subspace_match.algorithms.minimal import minimal_match, minimal_matches, minimum_matches


@st.composite
def instances(draw, most=5):
    "Small integer vectors: dependence, duplicates, zeros and thresholds that are hit exactly are all frequent."
    d = draw(st.integers(1, 5))
    rows = st.lists(st.lists(st.integers(-1, 1), min_size=d, max_size=d), min_size=1, max_size=most)
    eps = draw(st.sampled_from([0.0, 0.3, 0.5, 0.5**0.5, 0.75**0.5, 0.9]))
    return np.array(draw(rows), float), np.array(draw(rows), float), eps


@settings(max_examples=100, deadline=None)
@given(instances(), st.integers(-12, 12))
def test_maximum_match_is_the_union_of_all_matches(instance, exponent):
    x, y, eps = instance
    best = reference.all_matches(x, y, eps)[-1]
    assert maximum_match(x * 10.0**exponent, -y, eps) == best
    assert match_levels(x, y).match(eps) == best


@settings(max_examples=30, deadline=None)
@given(instances(4), st.none() | st.integers(0, 5))
def test_minimal_matches_are_those_of_the_literal_algorithm(instance, seed):
    x, y, eps = instance
    found = minimal_matches(x, y, eps, seed=seed)
    assert set(found) == set(reference.maximum_match(x, y, eps).neurons())
    for v, match in found.items():
        assert match == minimal_match(x, y, eps, v, seed=seed) == reference.minimal_match(x, y, eps, v, seed=seed)


@settings(max_examples=50, deadline=None)
@given(instances())
def test_every_match_is_an_affine_match(instance):
    x, y, eps = instance
    assert maximum_match(x, y, eps) <= maximum_match(Geometry.from_vectors(x, y, affine=True), eps=eps)


def correlated(n, d, seed=0):
    rng = np.random.default_rng(seed)
    z = np.maximum(rng.normal(size=(2 * n, 12)) @ rng.normal(size=(12, d)) + 0.2 * rng.normal(size=(2 * n, d)), 0)
    return z[:n], z[n:]


def test_streaming_gives_the_same_geometry():
    x, y = correlated(20, 300)
    z, whole = np.concatenate([x, y]), match_levels(x, y)
    blocks = np.array_split(z, 7, axis=1)
    gram, sums, d = accumulate_gram(blocks)
    assert d == 300 and np.allclose(match_levels(Geometry.from_gram(gram, 20)).x, whole.x, atol=1e-6)
    factor = accumulate_factor(blocks)
    assert np.allclose(match_levels(factor[:20], factor[20:]).y, whole.y, atol=1e-9)
    affine = match_levels(Geometry.from_gram(gram, 20, d, affine=True, sums=sums))
    assert np.allclose(affine.x, match_levels(Geometry.from_vectors(x, y, affine=True)).x, atol=1e-6)


def test_dependent_vectors_are_represented_by_a_basis():
    x, y = correlated(6, 100)
    everyone = torch.ones(18, dtype=torch.bool)
    for again in (x, x + 1e-9):
        state = Downdate(Geometry.from_vectors(np.concatenate([x, again]), y), everyone)
        assert int(state.basis[:12].sum()) == 6 and bool(state.basis[12:].all())
    doubled = maximum_match(np.concatenate([x, x]), y, 0.4)
    single = maximum_match(x, y, 0.4)
    assert doubled == Match(np.concatenate([single.x, single.x + 6]), single.y)


def test_many_unsure_neurons_are_fitted_again_and_few_are_measured(monkeypatch):
    "Exact matches: the Gram matrix cannot tell a distance of zero from one of 1e-8."
    asked, stabilise, distances = [], Downdate.stabilise, Downdate.distances
    monkeypatch.setattr(Downdate, "stabilise", lambda state: (asked.append("fit"), stabilise(state))[1])
    monkeypatch.setattr(Downdate, "distances", lambda state, of: (asked.append("distances"), distances(state, of))[1])
    x, y = correlated(14, 100)
    for shared, way in ((10, "fit"), (3, "distances")):
        y[:shared] = np.random.default_rng(0).normal(size=(shared, shared)) @ x[:shared]
        y[shared:] = correlated(14, 100, seed=1)[0][shared:]
        for eps in (0.0, 1e-7):
            found = maximum_match(x, y, eps)
            assert found == reference.maximum_match(x, y, eps) == Match(range(shared), range(shared))
        assert asked[0] == way
        asked.clear()


def test_minimum_matches_refuse_dependent_vectors():
    x = np.eye(3)
    assert set(map(len, minimum_matches(x, x).values())) == {2}
    with pytest.raises(ValueError, match="dependent"): minimum_matches(x, np.concatenate([x, x[:1]]))


def test_small_eps_on_a_gram_matrix_warns():
    with pytest.warns(UserWarning, match="finer than a Gram matrix"):
        assert len(maximum_match(Geometry.from_gram(torch.eye(4).double(), 2), eps=0.0)) == 0


def test_a_singular_value_decomposition_that_does_not_converge_is_done_again(monkeypatch):
    z = torch.as_tensor(correlated(6, 40)[0])
    u, s, v = svd(z)
    def never(*args, **options): raise torch.linalg.LinAlgError("the algorithm failed to converge")
    monkeypatch.setattr(torch.linalg, "svd", never)
    again = svd(z)
    assert torch.allclose(again[1], s) and torch.allclose(again[0] * again[1] @ again[2], z) and torch.allclose(again[2].abs(), v.abs())


def test_dependent_neurons_take_the_places_of_deleted_ones(monkeypatch):
    "Without that, almost every deletion from the basis would ask for a new fit."
    fits, refresh = [], Downdate.refresh
    monkeypatch.setattr(Downdate, "refresh", lambda state: (fits.append(1), refresh(state))[1])
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(20, 300))
    x, y = rng.normal(size=(60, 15)) @ hidden[:15], rng.normal(size=(60, 15)) @ hidden[5:]
    levels = match_levels(x, y)
    assert len(fits) <= 20
    for eps in (0.0, 0.3, 0.6): assert levels.match(eps) == reference.maximum_match(x, y, eps)
    factor = accumulate_factor([np.concatenate([x, y])])
    assert np.allclose(match_levels(Geometry.from_gram(factor @ factor.T, 60)).y, levels.y, atol=1e-6)
    assert len(fits) <= 40


def test_a_fork_shares_its_table_only_until_it_is_exchanged():
    x, y = correlated(6, 100)
    state = Downdate(Geometry.from_vectors(np.concatenate([x, x + x[::-1]]), y), torch.ones(18, dtype=torch.bool))
    before, other = [part.clone() for part in (state.table, state.basis, state.size, state.errors)], state.fork()
    other.delete(torch.arange(18) == int(state.basis.nonzero()[0]))
    assert bool((other.basis != state.basis).any())
    assert all(torch.equal(*pair) for pair in zip(before, (state.table, state.basis, state.size, state.errors)))
