"""The fast algorithms against exhaustive search, against the literal ones, and against the symmetries of the
definition.
"""

from itertools import chain

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies import eps_values, independent_instances, instances, noisy_instances
from subspace_match.theory import reference
from subspace_match.theory.counterexamples import hyperplane_instance, hyperplane_matches, orthogonal_instance
from subspace_match.algorithms import maximum, simple
from subspace_match.algorithms.geometry import Geometry, Pair
from subspace_match.theory.match import Match, is_match
from subspace_match.algorithms.maximum import match_levels, maximum_match
from subspace_match.algorithms.minimal import closure, extend, minimal_match, minimal_matches, taken_along
from subspace_match.theory.reference import as_single
from subspace_match.algorithms.simple import (
    TooManyMatches, all_minimal_matches, decompose, minimal_sets, pair_matches, sample_simple_matches, simple_matches,
)

fast = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EPS = [0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 0.9]  # 3/5 and 4/5 are distances that small integers meet exactly


# Small instances of every kind, by the thousand

def integers(rng, n_x, n_y, d):
    "Small integers: dependent, and often exactly at a distance of 3/5 or 4/5."
    return rng.integers(-2, 3, (n_x, d)).astype(float), rng.integers(-2, 3, (n_y, d)).astype(float)

def dependent(rng, n_x, n_y, d):
    "The second side mixes the first, whose rows have rank at most two."
    x = rng.integers(-2, 3, (n_x, 2)) @ rng.integers(-2, 3, (2, d))
    return x.astype(float), (rng.integers(-1, 2, (n_y, n_x)) @ x).astype(float)

def duplicated(rng, n_x, n_y, d):
    "Copies and negatives of a few vectors on both sides."
    pool = rng.integers(-2, 3, (2, d)).astype(float)
    draw = lambda n: pool[rng.integers(0, 2, n)] * rng.choice([-1, 1], (n, 1))
    return draw(n_x), draw(n_y)

def zeros(rng, n_x, n_y, d):
    "Some neurons are dead."
    x, y = integers(rng, n_x, n_y, d)
    return x * rng.integers(0, 2, (n_x, 1)), y * rng.integers(0, 2, (n_y, 1))

def scaled(rng, n_x, n_y, d):
    "Lengths from 1e-12 to 1e12."
    x, y = integers(rng, n_x, n_y, d)
    return x * 10.0 ** rng.integers(-12, 13, (n_x, 1)), y * 10.0 ** rng.integers(-12, 13, (n_y, 1))

def boundary(rng, n_x, n_y, d):
    "Rows 3 e_i + 4 e_j and 4 e_i + 3 e_j against unit vectors: relative distances of exactly 3/5 and 4/5."
    def side(n):
        rows = np.zeros((n, d))
        for row in rows: row[rng.permutation(d)[:2]] = [(3, 4), (4, 3), (1, 0), (0, 1)][rng.integers(4)][:min(d, 2)]
        return rows
    return side(n_x), side(n_y)

def noisy(rng, n_x, n_y, d):
    "General position: the second side mixes the first and adds noise."
    x = rng.normal(size=(n_x, d))
    return x, rng.normal(size=(n_y, n_x)) @ x + 0.2 * rng.normal(size=(n_y, d))

def nearly_dependent(rng, n_x, n_y, d):
    "Rows that are 1e-3 to 1e-5 of their length away from each other, or from each other's negative."
    def side(z):
        gaps = 10.0 ** -rng.integers(3, 6, (len(z), 1)) * np.linalg.norm(z[0]) * rng.normal(size=z.shape)
        return np.where(rng.integers(0, 2, (len(z), 1)), z, rng.choice([-1, 1], (len(z), 1)) * z[:1] + gaps)
    return side(integers(rng, n_x, n_y, d)[0]), side(noisy(rng, n_x, n_y, d)[1])

def mixed(rng, n_x, n_y, d):
    "Each row of the second side from another kind."
    x, y = noisy(rng, n_x, n_y, d)
    others = [kind(rng, n_x, n_y, d)[1] for kind in (integers, duplicated, zeros, scaled)]
    return x, np.stack([(y, *others)[rng.integers(5)][i] for i in range(n_y)])

KINDS = [integers, dependent, duplicated, zeros, scaled, boundary, noisy, mixed, nearly_dependent]


def small(kind, count, most=4):
    "`count` seeded instances (x, y, eps) of one kind, at most `most` neurons a side."
    for seed in range(count):
        rng = np.random.default_rng([KINDS.index(kind), seed])
        n_x, n_y, d = (int(n) for n in rng.integers(1, [most + 1, most + 1, 6]))
        yield *kind(rng, n_x, n_y, d), float(rng.choice(EPS))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_maximum_match_is_the_union_of_all_matches(kind):
    for x, y, eps in small(kind, 250):
        union = reference.match_of_mask(np.bitwise_or.reduce(reference.match_masks(x, y, eps)), len(x), len(y))
        assert maximum_match(x, y, eps=eps) == union, (x, y, eps)
        assert match_levels(x, y).match(eps) == union, (x, y, eps)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_maximum_match_within_a_part(kind):
    for i, (x, y, eps) in enumerate(small(kind, 40)):
        rng = np.random.default_rng(i)
        part = Match(np.flatnonzero(rng.integers(0, 2, len(x))), np.flatnonzero(rng.integers(0, 2, len(y))))
        expected = reference.literal_maximum_match(x, y, eps, part)
        assert maximum_match(x, y, eps=eps, within=part) == expected, (x, y, eps, part)


def reachable(takes):
    "From everyone, by any number of steps, one at a time."
    found = takes.clone()
    for k in range(len(takes)): found |= found[:, k : k + 1] & found[k]
    return found


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_the_relation_of_needs_is_closed_and_stays_closed(n):
    rng = np.random.default_rng(n)
    for density in (0, 0.05, 0.1, 0.3):
        for _ in range(10):
            takes, further = (torch.tensor(rng.random((n, n)) < density) | torch.eye(n, dtype=torch.bool)
                              for _ in range(2))
            known = closure(takes)
            assert known.equal(reachable(takes))
            assert extend(known, further).equal(reachable(known | further)) and extend(known, known).equal(known)


def test_whoever_fails_without_a_neuron_is_taken_along():
    "Without anyone else gone: by distances from spans without it."
    taken = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(6, 20))
        y = rng.normal(size=(6, 6)) * (rng.random((6, 6)) < 0.5) @ x + 0.3 * rng.normal(size=(6, 20))
        x[5] = x[:2].sum(0)                                          # someone whom others make up for
        geometry, eps = Geometry.from_vectors(x, y), 0.6
        whole = maximum_match(x, y, eps)
        keep = torch.as_tensor(np.isin(np.arange(12), [*whole.x, *(6 + whole.y)]))
        pair = Pair(geometry, keep)
        takes = taken_along(pair, eps, torch.arange(len(pair.index)))
        for k, u in enumerate(pair.index.tolist()):
            without = keep.clone()
            without[u] = False
            fails = (geometry.distances(without)[pair.index] > eps) & (pair.index != u)
            assert takes[k].equal(fails | (pair.index == u))
            taken += int(fails.sum())
    assert taken > 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_minimal_and_simple_matches_are_those_of_exhaustive_search(kind):
    for x, y, eps in small(kind, 30, most=3):
        everything = maximum_match(x, y, eps=eps)
        one = minimal_matches(x, y, eps=eps, seed=0)
        assert set(one) == set(everything.neurons())
        for v in Match(range(len(x)), range(len(y))).neurons():
            minimal = reference.exhaustive_minimal_matches(x, y, eps, v)
            assert all_minimal_matches(x, y, eps, v) == minimal, (x, y, eps, v)
            found = minimal_match(x, y, eps=eps, v=v)
            assert (found is None and not minimal) or found in minimal, (x, y, eps, v)
            assert v not in one or one[v] in minimal, (x, y, eps, v)
        simple = reference.exhaustive_simple_matches(x, y, eps)
        assert simple_matches(x, y, eps) == simple, (x, y, eps)
        assert pair_matches(x, y, eps) == [m for m in simple if len(m.x) == len(m.y) == 1], (x, y, eps)
        assert set(sample_simple_matches(x, y, eps, rounds=2)) <= set(simple), (x, y, eps)


@fast
@given(instances(), eps_values)
def test_exact_arithmetic_agrees(instance, eps):
    "The oracle over the rational numbers, without any tolerance."
    x, y = instance
    union = reference.match_of_mask(np.bitwise_or.reduce(reference.match_masks(x, y, eps, exact=True)), len(x), len(y))
    assert maximum_match(x, y, eps=float(eps)) == union == match_levels(x, y).match(float(eps))


@fast
@given(independent_instances())
def test_exact_matches_of_independent_neurons(instance):
    "Theorem 8: one minimum match for each neuron."
    x, y = instance
    minimum = minimal_matches(x, y, eps=0.0)
    assert set(minimum.values()) == set(reference.exhaustive_simple_matches(x, y, 0)) == set(simple_matches(x, y, 0.0))


# Medium instances, against the literal algorithms

def medium(seed, n=14, d=40):
    "Overlapping mixtures with noise of different strength."
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(size=(n, d)))
    noise = 10.0 ** rng.uniform(-2, 0.5, (n, 1))
    return x, (rng.normal(size=(n, n)) * (rng.random((n, n)) < 0.25)) @ x + noise * rng.normal(size=(n, d))


def falling(seed, n=14, d=40):
    "Singular values that fall from one to a millionth without a gap: layers before their ReLU are like that."
    rng = np.random.default_rng(seed)
    directions, lengths = np.linalg.qr(rng.normal(size=(d, 2*n)))[0].T, np.logspace(0, -6, n)[:, None]
    angles = rng.uniform(0, 0.5, (n, 1))
    turned = np.cos(angles)*directions[:n] + np.sin(angles)*directions[n:]
    return rng.normal(size=(n, n)) @ (lengths*directions[:n]), rng.normal(size=(n, n)) @ (lengths*turned)


@pytest.mark.parametrize("kind", [medium, falling])
@pytest.mark.parametrize("seed", range(6))
def test_maximum_match_is_algorithm_1(kind, seed):
    x, y = kind(seed, n=30, d=80)
    levels = match_levels(x, y)
    for eps in np.linspace(0.02, 0.97, 12):
        literal = reference.literal_maximum_match(x, y, eps)
        assert maximum_match(x, y, eps=eps) == levels.match(eps) == literal
        assert levels.similarity(eps) == literal.similarity


@pytest.mark.parametrize("kind", [medium, falling])
@pytest.mark.parametrize("seed", range(6))
def test_minimal_matches_are_minimal(kind, seed):
    "By Definition 9 itself: a match with `v` in it, and without any other neuron `v` goes too."
    (x, y), eps = kind(seed), 0.45
    found = minimal_matches(x, y, eps=eps, seed=seed)
    assert set(found) == set(reference.literal_maximum_match(x, y, eps).neurons())
    for v, match in list(found.items())[::3] + [(v, minimal_match(x, y, eps=eps, v=v, seed=1))
                                                for v in list(found)[::5]]:
        assert v in match and is_match(x, y, match, eps)
        smaller = [reference.literal_maximum_match(x, y, eps, match - as_single(u)) for u in match.neurons() if u != v]
        assert all(v not in m for m in smaller)


@pytest.mark.parametrize("seed", range(4))
def test_minimal_matches_are_those_of_algorithm_2(seed):
    """Trial by trial the same decisions, so the same match, on rectified mixtures whose matches are large and hang
    together.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(9, 120))
    x, y = (np.maximum(rng.normal(size=(n, 9)) @ hidden + 0.3 * rng.normal(size=(n, 120)), 0) for n in (16, 13))
    levels = match_levels(x, y)
    eps = float(np.quantile(np.concatenate([levels.x, levels.y]), 0.75)) + 1e-3
    found = minimal_matches(x, y, eps=eps, seed=seed)
    assert len(found) > 20 and len(set(found.values())) > 1
    for v in list(found)[::6]: assert found[v] == reference.literal_minimal_match(x, y, eps, v, seed=seed)


@pytest.mark.parametrize("seed", range(6))
def test_what_float32_rounds_off_is_no_direction(seed):
    "Forty neurons of rank twelve a side: rounded to float32 they are dependent no more, but for a tolerance."
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(12, 200))
    x, y = (rng.normal(size=(40, 12)) @ (hidden + 0.3 * rng.normal(size=hidden.shape)) for _ in range(2))
    exact, levels = match_levels(x, y), match_levels(x.astype(np.float32), y.astype(np.float32))
    assert np.allclose(levels.x, exact.x, atol=1e-5) and np.allclose(levels.y, exact.y, atol=1e-5)
    x, y, order = x.astype(np.float32), y.astype(np.float32), rng.permutation(40)
    assert np.allclose(match_levels(x[order], y).x, levels.x[order], atol=1e-6)
    for eps in np.quantile(exact.x, [0.1, 0.5, 0.9]) + 1e-3:
        found = maximum_match(x, y, eps)
        assert found == reference.literal_maximum_match(x, y, eps) and is_match(x, y, found, eps)


# Instances that the paper builds

def test_lemma_17_has_its_triangles_and_the_rest():
    x, y = hyperplane_instance(4)
    found = simple_matches(x, y, 0.0)
    assert set(hyperplane_matches(4)) <= set(found)
    assert len(hyperplane_matches(4)) == 4 and len(found) == 4 + 225


@pytest.mark.parametrize("m, count", [(1, 4), (2, 6), (3, 4), (4, 1)])
def test_lemma_18_has_its_binomial_number(m, count):
    x, y = orthogonal_instance(4, m)
    found = simple_matches(x, y, 0.5)
    assert len(found) == count and all(len(s.x) == m and np.array_equal(s.x, s.y) for s in found)


# Symmetries of the definition

def permuted(x, y, rng):
    p, q = rng.permutation(len(x)), rng.permutation(len(y))
    return x[p], y[q], lambda m: Match(p[m.x], q[m.y])

def rescaled(x, y, rng):
    factors = [rng.choice([-1e9, -3.0, -0.5, 2.0, 1e-9], (len(z), 1)) for z in (x, y)]
    return x * factors[0], y * factors[1], lambda m: m

def rotated(x, y, rng):
    q = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]
    return x @ q, y @ q, lambda m: m

def shuffled_samples(x, y, rng):
    p = rng.permutation(x.shape[1])
    return x[:, p], y[:, p], lambda m: m

def swapped(x, y, rng):
    return y, x, lambda m: Match(m.y, m.x)

def in_float32(x, y, rng):
    return x.astype(np.float32), y.astype(np.float32), lambda m: m

def in_torch(x, y, rng):
    return torch.from_numpy(x), torch.from_numpy(y), lambda m: m

SYMMETRIES = [permuted, rescaled, rotated, shuffled_samples, swapped, in_float32, in_torch]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@fast
@given(instance=instances(max_n=3), eps=eps_values, seed=st.integers(0, 2**32 - 1))
def test_symmetries(symmetry, instance, eps, seed):
    "The matches of the transformed instance, transformed back, are those of the instance."
    (x, y), eps = instance, float(eps)
    x2, y2, back = symmetry(x, y, np.random.default_rng(seed))
    assert back(maximum_match(x2, y2, eps=eps)) == maximum_match(x, y, eps=eps)
    assert {back(m) for m in simple_matches(x2, y2, eps)} == set(simple_matches(x, y, eps))


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@fast
@given(instance=noisy_instances(), seed=st.integers(0, 2**32 - 1))
def test_symmetries_of_levels(symmetry, instance, seed):
    x, y = (z.astype(np.float32).astype(float) for z in instance)
    x2, y2, back = symmetry(x, y, np.random.default_rng(seed))
    before, after = match_levels(x, y), match_levels(x2, y2)
    order = back(Match(range(len(x2)), range(len(y2))))
    assert (len(order.x), len(order.y)) == (len(x), len(y))
    for eps in np.linspace(0.005, 0.995, 12): assert back(after.match(eps)) == before.match(eps)


@fast
@given(noisy_instances())
def test_matches_grow_with_eps(instance):
    matches = [maximum_match(*instance, eps=eps) for eps in np.linspace(0, 0.99, 8)]
    assert all(a <= b for a, b in zip(matches, matches[1:]))


@fast
@given(instances(), eps_values)
def test_simple_matches_build_the_maximum_match(instance, eps):
    "Lemma 2 and Theorem 5: unions of simple matches are matches, and all of them make the maximum match."
    (x, y), eps, whole = instance, float(eps), Match()
    for match in simple_matches(x, y, eps):
        whole |= match
        assert is_match(x, y, whole, eps)
    assert whole == maximum_match(x, y, eps=eps)


@fast
@given(instances(), eps_values, st.integers(0, 99))
def test_decompositions_are_irredundant(instance, eps, seed):
    (x, y), eps = instance, float(eps)
    parts = decompose(x, y, eps, seed=seed)
    unions = [_union(p for p in parts if p != left_out) for left_out in [None, *parts]]
    assert unions[0] == maximum_match(x, y, eps=eps) and all(u != unions[0] for u in unions[1:])
    assert set(parts) <= set(simple_matches(x, y, eps))


def _union(matches):
    whole = Match()
    for match in matches: whole |= match
    return whole


@fast
@given(instances(), eps_values)
def test_a_network_matches_itself(instance, eps):
    x, _ = instance
    everything = Match(range(len(x)), range(len(x)))
    assert maximum_match(x, x, eps=float(eps)) == everything == match_levels(x, x).match(0.0)


@fast
@given(instances(), eps_values)
def test_the_gram_matrix_is_enough(instance, eps):
    (x, y), eps = instance, float(eps)
    z = torch.from_numpy(np.concatenate([x, y]))
    geometry = Geometry.from_gram(z @ z.T, len(x), z.shape[1])
    assert maximum_match(geometry, eps=eps) == maximum_match(x, y, eps=eps)
    assert simple_matches(geometry, eps=eps) == simple_matches(x, y, eps)


def test_rounds_that_processes_share_give_the_same_estimate():
    x, y = medium(0, n=8, d=30)
    alone = sample_simple_matches(x, y, 0.4, rounds=2, seed=3)
    assert alone and sample_simple_matches(x, y, 0.4, rounds=2, seed=3, n_jobs=2) == alone


@pytest.mark.parametrize("n_jobs", [2, 20])
def test_neurons_that_jobs_share_give_the_same_simple_matches(n_jobs, monkeypatch):
    parts, in_part = [], simple._in_part
    def noted(geometry, eps, neurons, limit): return parts.append(neurons) or in_part(geometry, eps, neurons, limit)
    monkeypatch.setattr(simple, "_in_part", noted)
    with joblib.parallel_config("threading"):
        for x, y, eps in small(boundary, 8):
            assert simple_matches(x, y, eps, n_jobs=n_jobs) == simple_matches(x, y, eps)
            everyone = list(maximum_match(x, y, eps))
            assert sorted(chain(*parts)) == everyone and len(parts) == min(n_jobs, len(everyone))
            parts.clear()
        x, y = orthogonal_instance(4, 2)
        with pytest.raises(TooManyMatches) as stopped: simple_matches(x, y, 0.5, limit=4, n_jobs=n_jobs)
    assert 0 < len(stopped.value.found) and set(stopped.value.found) <= set(simple_matches(x, y, 0.5))


def test_neurons_that_processes_share_give_the_same_decomposition(monkeypatch):
    x, y = medium(0, n=8, d=30)
    inner, jobs = simple.minimal_matches, []
    monkeypatch.setattr(simple, "minimal_matches", lambda *a, **o: jobs.append(o["n_jobs"]) or inner(*a, **o))
    alone = decompose(x, y, 0.4, seed=3)
    assert len(alone) > 1 and decompose(x, y, 0.4, seed=3, n_jobs=2) == alone and jobs == [None, 2]


def test_pairs_are_the_simple_matches_of_two():
    for kind in (zeros, scaled, boundary, nearly_dependent):
        for x, y, eps in small(kind, 60):
            pairs = [Match([i], [j]) for i in range(len(x)) for j in range(len(y))]
            alone = [is_match(x, y, m, eps) and x[m.x].any() and y[m.y].any() for m in pairs]  # dead: needs nobody
            assert pair_matches(x, y, eps) == [m for m, simple in zip(pairs, alone) if simple], (kind, x, y, eps)


def test_a_sample_has_rounds_and_a_seed():
    x, y = orthogonal_instance(4, 2)
    for rounds in (0, -1):
        with pytest.raises(ValueError, match="rounds"): sample_simple_matches(x, y, 0.5, rounds=rounds)
    one = [sample_simple_matches(x, y, 0.5, rounds=1, seed=seed) for seed in range(8)]
    assert one[0] == sample_simple_matches(x, y, 0.5, rounds=1) and len(set(map(str, one))) > 1
    more = sample_simple_matches(x, y, 0.5)
    assert set(one[0]) < set(more) <= set(simple_matches(x, y, 0.5))



# What goes wrong is said

def test_the_limit_says_what_was_found():
    x, y = orthogonal_instance(4, 2)
    with pytest.raises(TooManyMatches, match="sample_simple_matches") as stopped: simple_matches(x, y, 0.5, limit=4)
    assert 0 < len(stopped.value.found) < 6
    assert set(stopped.value.found) <= set(simple_matches(x, y, 0.5))


def test_minimal_sets_of_an_explicit_family():
    sets = [frozenset(s) for s in ({0, 1}, {1, 2}, {0, 2, 3})]
    found, finished = minimal_sets(lambda removed: next((s for s in sets if s.isdisjoint(removed)), None), 100)
    assert finished and sorted(map(sorted, found)) == sorted(map(sorted, sets))


@pytest.mark.parametrize("function", [maximum_match, minimal_matches, simple_matches, sample_simple_matches, decompose])
@pytest.mark.parametrize("x, y, eps, error", [
    (np.eye(2), np.eye(3), 0.1, ValueError),
    (np.full((2, 2), np.nan), np.eye(2), 0.1, ValueError),
    (np.eye(2), np.eye(2), 1.0, ValueError),
    (np.eye(2), np.eye(2), None, TypeError),
    (np.eye(2, dtype=int), np.eye(2), 0.1, TypeError),
    (np.eye(2), None, 0.1, TypeError),
], ids=["other d", "NaN", "eps 1", "no eps", "integers", "no y"])
def test_bad_input_is_refused(function, x, y, eps, error):
    with pytest.raises(error): function(x, y, eps=eps)


@pytest.mark.parametrize("v, error", [(("x", 2), IndexError), (("z", 0), TypeError), (None, TypeError), (0, TypeError)])
def test_bad_neurons_are_refused(v, error):
    for function in (minimal_match, all_minimal_matches):
        with pytest.raises(error): function(np.eye(2), np.eye(2), eps=0.1, v=v)


def test_decompose_refuses_what_is_no_match():
    with pytest.raises(ValueError, match="not a match"): decompose(np.eye(2), np.eye(2), 0.1, match=Match([0], [1]))


def test_what_only_rounding_keeps_from_level_1_has_level_1():
    "Orthogonal neurons: in no match, whatever ε, though their distances come out a rounding error below 1."
    rng = np.random.default_rng(0)
    z = np.linalg.qr(rng.normal(size=(40, 40)))[0][:20] * rng.uniform(0.1, 9, (20, 1))
    geometry, distances = Geometry.from_vectors(z[:8], z[8:]), torch.zeros(20, dtype=torch.float64)
    maximum.peel_levels(Pair(geometry, torch.ones(20, dtype=torch.bool)), distances)
    assert 0 < (1 - distances).max() < 1e-12
    levels = match_levels(geometry)
    assert (levels.x == 1).all() and (levels.y == 1).all()
