"""The engine against the definition: hypothesis looks for instances on which it is wrong."""

import pickle
import warnings
from copy import copy
from functools import reduce
from operator import or_

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from torch.profiler import ProfilerActivity, profile

import fuzz
from test_simple import subsets
from subspace_match.theory import reference
from subspace_match.theory.counterexamples import orthogonal_instance
from subspace_match.algorithms import geometry as engine
from subspace_match.algorithms import maximum, minimal
from subspace_match.algorithms.geometry import Geometry, Pair, accumulate_factor, accumulate_gram, margin, refined, svd
from subspace_match.theory.match import TOLERANCE, Match, is_match, relative_distance
from subspace_match.algorithms.maximum import certain, match_levels, maximum_match, peel, surely
from subspace_match.algorithms.minimal import minimal_match, minimal_matches, minimum_matches
from subspace_match.algorithms.simple import all_minimal_matches, pair_matches, sample_simple_matches, simple_matches


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
    assert set(found) == set(reference.literal_maximum_match(x, y, eps).neurons())
    for v, match in found.items():
        assert match == minimal_match(x, y, eps, v, seed=seed)
        assert match == reference.literal_minimal_match(x, y, eps, v, seed=seed)


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


def everyone(geometry):
    return torch.ones(geometry.n_x + geometry.n_y, dtype=torch.bool)


def test_dependent_vectors_are_held_by_their_ways_of_vanishing():
    x, y = correlated(6, 100)
    for again in (x, x + 1e-9):
        geometry = Geometry.from_vectors(np.concatenate([x, again]), y)
        assert [len(span.ways) for span in Pair(geometry, everyone(geometry)).spans] == [6, 0]
    doubled = maximum_match(np.concatenate([x, x]), y, 0.4)
    single = maximum_match(x, y, 0.4)
    assert doubled == Match(np.concatenate([single.x, single.x + 6]), single.y)


def test_exact_matches_are_found_from_the_vectors():
    "The Gram matrix cannot tell a distance of zero from one of 1e-8."
    x, y = correlated(14, 100)
    for shared in (10, 3):
        y[:shared] = np.random.default_rng(0).normal(size=(shared, shared)) @ x[:shared]
        y[shared:] = correlated(14, 100, seed=1)[0][shared:]
        for eps in (0.0, 1e-7):
            found = maximum_match(x, y, eps)
            assert found == reference.literal_maximum_match(x, y, eps) == Match(range(shared), range(shared))


def test_what_is_too_close_to_tell_is_refined_and_not_guessed(monkeypatch):
    "With tables that are said to be good to a tenth, everything is unsure, and nothing changes."
    x, y = correlated(14, 100)
    honest = [maximum_match(x, y, eps) for eps in (0.2, 0.3, 0.35, 0.4)]
    for module in (engine, maximum):
        monkeypatch.setattr(module, "margin", lambda errors, r: margin(errors, r) + 0.1)
        monkeypatch.setattr(module, "knows", lambda errors, r: True)
    assert honest == [maximum_match(x, y, eps) for eps in (0.2, 0.3, 0.35, 0.4)]


def near_copies(n, d, rng, deepest):
    "Two in three are near copies of earlier ones, at gaps from 1 to 10**-deepest."
    z = rng.normal(size=(n, d))
    for i in range(1, n):
        if rng.random() < 2 / 3: z[i] = z[rng.integers(i)] + 10 ** -rng.uniform(0, deepest) * rng.normal(size=d)
    return z


def weak(n, d, rng):
    "Sums of earlier vectors, of which some have small weights: to lose one of those is to lose a direction."
    z = rng.normal(size=(n, d))
    for i in range(n // 2, n): z[i] = (rng.normal(size=i) * rng.choice([0, 1, 0.05, 1e-3], i)) @ z[:i]
    return z


@pytest.mark.parametrize("kind", [lambda *a: near_copies(*a, 3), lambda *a: near_copies(*a, 6), weak],
                         ids=["copies", "nearer copies", "weak"])
def test_hard_spectra(kind):
    "The literal algorithms, neuron by neuron, on vectors that nearly or weakly depend on one another."
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = kind(9, 24, rng)
        y = rng.normal(size=(9, 9)) * (rng.random((9, 9)) < 0.4) @ x + 0.3 * kind(9, 24, rng)
        levels = match_levels(x, y)
        for eps in (0.1, 0.3, 0.5, 0.7):
            whole = reference.literal_maximum_match(x, y, eps)
            assert maximum_match(x, y, eps) == levels.match(eps) == whole and is_match(x, y, whole, eps)
        for v, found in list(minimal_matches(x, y, 0.5, seed=seed).items())[::4]:
            assert found == reference.literal_minimal_match(x, y, 0.5, v, seed=seed) and is_match(x, y, found, 0.5)


@pytest.mark.parametrize("n, kind", [(12, lambda *a: near_copies(*a, 5)), (12, weak)], ids=["copies", "weak"])
def test_the_margin_covers_the_error_of_every_distance(n, kind):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        geometry = Geometry.from_vectors(kind(n, 30, rng), kind(n, 30, rng))
        pair = Pair(geometry, everyone(geometry))
        for j in rng.permutation(2 * n)[: 2 * n - 6].reshape(-1, 2):
            out = torch.zeros_like(pair.alive)
            out[j] = True
            pair.delete(out)
            true = geometry.distances(pair.keep())[pair.index]
            for r, square in zip(pair.r[pair.alive].tolist(), (true[pair.alive] ** 2).tolist()):
                assert abs(r - square) <= margin(pair.errors, r) + 1e-14
            least, most = refined(pair, pair.alive)
            assert ((least - 1e-14 <= true) & (true <= most + 1e-14))[pair.alive].all()
            assert (true <= refined(pair, pair.alive, steps=0)[1] + 1e-14)[pair.alive].all()


@pytest.mark.parametrize("n, many, size", [(30, 20, 1.4e-8), (6, 1, 1e-3), (6, 3, 1e-3)])
def test_minimum_matches_are_matches_however_many_neurons_it_takes(n, many, size):
    q = np.eye(n, 2 * n)
    x = q.copy()
    x[0, 1 : 1 + many] = size
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = minimum_matches(x, q)
    assert all(is_match(x, q, match, 0) for match in found.values()) and found == minimal_matches(x, q, 0)
    assert len(told) == (size < 1e-7) and all("rounding may decide" in str(warning.message) for warning in told)


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
    assert torch.allclose(again[1], s) and torch.allclose(again[0] * again[1] @ again[2], z)
    assert torch.allclose(again[2].abs(), v.abs())


def test_dependent_neurons_cost_no_new_fits(monkeypatch):
    fits, fit = [], Pair.fit
    monkeypatch.setattr(Pair, "fit", lambda pair, stable=False: (fits.append(1), fit(pair, stable))[1])
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(20, 300))
    x, y = rng.normal(size=(60, 15)) @ hidden[:15], rng.normal(size=(60, 15)) @ hidden[5:]
    levels = match_levels(x, y)
    assert len(fits) <= 3
    for eps in (0.0, 0.3, 0.6): assert levels.match(eps) == reference.literal_maximum_match(x, y, eps)
    factor = accumulate_factor([np.concatenate([x, y])])
    assert np.allclose(match_levels(Geometry.from_gram(factor @ factor.T, 60)).y, levels.y, atol=1e-6)


@pytest.mark.filterwarnings("ignore:some neurons are nearly")
def test_what_inner_products_alone_leave_unknown_costs_no_new_fits(monkeypatch):
    "Short beside their means: another fit would know no better."
    fits, fit = [], Pair.fit
    monkeypatch.setattr(Pair, "fit", lambda pair, stable=False: (fits.append(1), fit(pair, stable))[1])
    z = np.maximum(np.random.default_rng(0).normal(size=(120, 900)), 0) * 10.0 ** -(np.arange(120)[:, None] % 4) + 30
    match_levels(Geometry.from_gram(z @ z.T, 60, 900, affine=True, sums=z.sum(1)))
    assert len(fits) <= 3


def test_a_copy_of_a_pair_can_lose_neurons_alone():
    x, y = correlated(6, 100)
    pair = Pair(geometry := Geometry.from_vectors(np.concatenate([x, x + x[::-1]]), y), everyone(geometry))
    r, tables = pair.r.clone(), [(span.table.clone(), span.ways.clone()) for span in pair.spans]
    other = copy(pair)
    other.delete(torch.arange(18) % 3 == 0)
    assert pair.alive.all() and torch.equal(pair.r, r) and not torch.equal(other.r, r)
    for span, (table, ways) in zip(pair.spans, tables):
        assert torch.equal(span.table, table) and torch.equal(span.ways, ways) and len(span.left) == 0


def test_levels_do_not_depend_on_the_order_of_neurons():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, y = near_copies(12, 30, rng, 5), near_copies(12, 30, rng, 5)
        y[:8] = rng.normal(size=(8, 12)) @ x + 0.1 * y[:8]
        order = rng.permutation(12)
        assert np.allclose(match_levels(x[order], y).x, match_levels(x, y).x[order], rtol=1e-4, atol=1e-7)


def test_levels_take_less_than_three_gram_matrices_beside_the_one_given():
    w = torch.tensor(np.random.default_rng(0).normal(size=(800, 100))) / 10
    gram = w @ w.T + 0.25 * torch.eye(800, dtype=torch.float64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        match_levels(Geometry.from_gram(gram, 400))
    events = [(e.start_ns(), e.nbytes()) for e in told.profiler.kineto_results.events() if e.name() == "[memory]"]
    taken = np.cumsum([size for _, size in sorted(events)])
    assert gram.nbytes < taken.max() < 3 * gram.nbytes


def test_where_rounding_decides_the_user_is_told():
    "A gap at the tolerance itself: whether it is a direction is a matter of rounding."
    x = np.eye(3)[:2] + 0.0
    y = np.array([[1.0, 0, 0], [1, 3e-8, 0], [0, 0, 1]])
    x[1] = [0, 0.8, 0.6]
    eps = float(match_levels(x, y).x[1])
    with pytest.warns(UserWarning, match="rounding"):
        found = maximum_match(x, y, eps - 2.0**-26)
    assert is_match(x, y, found, eps - 2.0**-26)


@pytest.mark.parametrize("seed, ulps", [(4773, 0), (268, 1), (3069, -1)])
def test_where_a_distance_meets_the_threshold_to_the_last_bits_the_user_is_told(seed, ulps):
    "Another order of summation answers differently."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, rng.integers(2, 5)))
    y = x + 10 ** -rng.uniform(0, 4) * rng.normal(size=x.shape)
    eps = float(relative_distance(x, y)[0] - TOLERANCE)
    if ulps: eps = float(np.nextafter(eps, ulps * np.inf))
    with pytest.warns(UserWarning, match="within rounding errors"): maximum_match(x, y, eps)


@pytest.mark.parametrize("s, more", [(1e-3, 0), (1e-5, 1e-12), (1e-7, 1e-10)])
def test_affine_matches_of_nearly_constant_neurons_pass(s, more):
    "y differs from the constant vector by s times w, and rounding moves w by one over s."
    one, w, rest = np.linalg.qr(np.c_[np.ones(8), np.random.default_rng(1).normal(size=(8, 2))])[0].T
    x, y, eps = (3**0.5 * w + rest)[None] / 2, (one + s * w)[None], 0.5 - TOLERANCE + more
    for k in range(20):
        order = np.random.default_rng(k).permutation(8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = maximum_match(Geometry.from_vectors(x[:, order], y[:, order], affine=True), eps=eps)
        assert is_match(x[:, order], y[:, order], found, eps, affine=True)


@pytest.mark.parametrize("gap, more", [(2e-5, 5e-8), (2e-5, 2e-7), (1e-4, 1e-8)])
def test_what_inner_products_alone_do_not_resolve_the_user_is_told(gap, more):
    "y[1] adds its direction by a gap whose square is all that they know of it."
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))[0][:3]
    z = np.array([[1, 0, 0], [0, 3**0.5 / 2, 0.5], [1, 0, 0], [1, gap, 0]]) @ turn
    for k in range(20):
        part = z[:, np.random.default_rng(k).permutation(8)]
        with pytest.warns(UserWarning, match="rounding"):
            maximum_match(Geometry.from_gram(part @ part.T, 2), eps=0.5 - 2.0**-20 + more)


# What a table does not see by itself

T = TOLERANCE
_Q = np.linalg.qr(np.c_[np.ones(8), np.random.default_rng(0).normal(size=(8, 5))])[0].T
ONE, P, U, W = abs(_Q[0]), *_Q[1:4]
ABOVE = np.stack([P, 0.9 * P + 0.2 * U + (1 - 0.85) ** 0.5 * W])     # the second: at .387 from P and U, at .436 from P

def unit(*rows): return np.stack([row / np.linalg.norm(row) for row in rows])

def told_of(call, words="rounding may decide"):
    "What a call returns, and whether it warned in these words."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = call()
    return found, any(words in str(warning.message) for warning in said)


@pytest.mark.parametrize("s, gap", [(1e-3, 1e-5), (1e-5, 1e-3), (1e-2, 1e-6), (1, 1)])
def test_affine_neurons_that_a_spare_one_had_kept_apart_match_by_what_they_differ_in(s, gap):
    "Once U is gone, the two others differ by s times the gap: next to nothing beside the constant, not without it."
    y = unit(ONE + s * P, ONE + s * (P + gap * U), U)
    for eps in (0.3, 0.4, 0.45):
        found = maximum_match(Geometry.from_vectors(ABOVE, y, affine=True), eps=eps)
        every = [Match(X, Y) for X in subsets(2) for Y in subsets(3)]
        assert found == reduce(or_, [m for m in every if is_match(ABOVE, y, m, eps, affine=True)])


@pytest.mark.parametrize("x, y, told", [
    ((U,), (ONE + 1.2 * T * U,), True), ((U,), (ONE + 20 * T * U,), False),     # nearly constant itself
    ((U,), (ONE + 0.9 * T * P, ONE + 1e-6 * U), True),     # beside one that counts as constant
    ((U,), (ONE + 1e-12 * P, ONE + 1e-3 * U), False), ((U,), [ONE + 0.9 * T * U] * 4, True),
    ((U,), (ONE, ONE + 1e-3 * U), False),
])
def test_neurons_that_are_nearly_constant_are_told_of(x, y, told):
    assert told_of(lambda: pair_matches(Geometry.from_vectors(unit(*x), unit(*y), affine=True), eps=0.3))[1] == told


@pytest.mark.parametrize("s, copies", [(5, 30), (1.2, 4), (2, 4)])
def test_neurons_that_leave_together_leave_what_the_definition_leaves(s, copies):
    "Copies of U share what the direction is for; without them it is s tolerances away from P."
    y = np.stack([P, *unit(P + s * T * 2**0.5 * U), *[U] * copies])
    found, told = told_of(lambda: maximum_match(ABOVE, y, 0.4))
    assert told and found == reference.literal_maximum_match(ABOVE, y, 0.4) and len(found) == 4


def test_levels_drop_a_direction_that_is_noise_once_others_are_gone():
    "The last two make up for each other by one part in three million."
    y = unit(P, P + 0.05 * T * 2**0.5 * U, _Q[4] + 1e-3 * U, _Q[4] - 1e-3 * U)
    for seed in range(3):
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
        levels = match_levels(ABOVE @ turn, y @ turn)
        assert levels.x[1] == pytest.approx(0.19**0.5, abs=1e-3)
        assert is_match(ABOVE @ turn, y @ turn, levels.match(0.4), 0.4)


def test_what_the_root_of_a_large_gram_matrix_blurs_is_left_out():
    "296 neurons that are nearly alike, and four whose match is asked for."
    rng, n, d = np.random.default_rng(0), 150, 310
    a, b, c = np.linalg.qr(rng.normal(size=(d, 3)))[0].T
    alike = [*unit(*(a + 0.01 * rng.normal(size=d) / d**0.5 for _ in range(2 * n - 4)))]
    x = np.stack([a, 0.9 * b + 0.19**0.5 * c, *alike[:n - 2]])
    y = np.stack([a, *unit(a + 4e-5 * b), *alike[n - 2:]])
    z, four, at = np.concatenate([x, y]), Match([0, 1], [0, 1]), float(relative_distance(x[1], y[:2]))
    for eps, inside in ((at - 1e-5, False), (at + 0.01, True)):
        geometry = Geometry.from_gram(z @ z.T, n, d)
        found, told = told_of(lambda: maximum_match(geometry, eps=eps, within=four), "within rounding errors")
        assert (1 in found.x) == inside and told != inside


def test_what_the_sums_of_inner_products_lose_is_told():
    "10^5 inputs in blocks of 32: of a gap of 1e-5 its square is known to a part in a thousand."
    for seed in range(8):
        a, b, c = np.linalg.qr(np.random.default_rng(seed).normal(size=(100_000, 3)))[0].T
        x, y = np.stack([a, 0.9 * b + 0.19**0.5 * c]), np.stack([a, *unit(a + 1.2e-5 * b)])
        gram, _, d = accumulate_gram(torch.tensor(np.concatenate([x, y])).split(32, 1))
        at = float(relative_distance(x[1], y))
        for eps in (at - 1e-5, at + 1e-5):
            found, told = told_of(lambda: maximum_match(Geometry.from_gram(gram, 2), eps=eps), "rounding")
            assert told or (1 in found.x) == (eps > at)
        assert match_levels(Geometry.from_gram(gram, 2, d)).x[1] == pytest.approx(at, abs=1e-3)


def test_a_direction_that_is_dropped_far_away_warns_of_nothing(recwarn):
    "No distance is near eps."
    for seed in range(30):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.normal(size=(10, 10)))[0]
        y = q[:5] + 0.0
        y[1] = y[0] + 1e-9 * rng.normal(size=10)
        x = y[[0, 2, 3, 4]] * np.cos(0.1) + np.sin(0.1) * q[5:9]
        x[3] = np.cos(0.4) * y[4] + np.sin(0.4) * q[8]
        maximum_match(x, y, 0.3)
    assert not any("within rounding errors" in str(warning.message) for warning in recwarn)


def test_where_part_of_a_match_spans_what_all_of_it_does_not_the_user_is_told():
    """y[1] differs from y[0] by a direction that is dropped. It turns the direction that y[2] adds, by 1.7e-4; so x[1]
    passes among y[0] and y[2], and fails among all three.
    """
    x, y = np.eye(3)[:2], np.array([[1.0, 0, 0], [1, 0, 1e-10], [1, 3e-7, 0]])
    assert is_match(x, y, Match([0, 1], [0, 2]), 1e-4) and not is_match(x, y, Match([0, 1], [0, 1, 2]), 1e-4)
    with pytest.warns(UserWarning, match="within rounding errors"):
        assert maximum_match(x, y, 1e-4) == Match([0], [0, 1, 2])


# Certainty: what comes out passes `is_match`, whatever the tables were worth

def test_what_is_left_is_judged_again_by_eps_itself():
    "Tables that say less than the truth let a neuron stay that is farther away; what is left is not believed."
    def pair():
        x, y = torch.tensor([[1.0, 0]]).double(), torch.tensor([[(1 - 0.505**2) ** 0.5, 0.505]]).double()
        return Pair(Geometry.from_vectors(x, y), torch.ones(2, dtype=torch.bool))
    assert [certain(pair(), eps) for eps in (0.5, 0.505 - 1e-7, 0.505 + 1e-7, 0.51)] == [False, False, True, True]
    lying = pair()
    lying.r *= 0.9
    assert peel(lying, 0.5).alive.all()
    assert not surely(lying, 0.5).alive.any() and surely(pair(), 0.51).alive.all()


NOT_PLAIN = [kind for kind in fuzz.ALL_KINDS if kind not in fuzz.KINDS]   # judged in other ways

@pytest.mark.parametrize("kind", fuzz.ALL_KINDS, ids=lambda kind: kind.__name__)
def test_a_small_run_of_the_fuzzer(kind, monkeypatch):
    "On batches that the stored run does not reach."
    monkeypatch.setattr(fuzz, "BATCH", 25)
    assert [fuzz.run(kind, 10**6 + k, 3)["errors"] for k in range(2)] == [0, 0]

def test_the_fuzzer_notices_wrong_answers(monkeypatch):
    "Affine ones too: who loses a neuron is wrong, and who gets one that does not pass has no match."
    monkeypatch.setattr(fuzz, "BATCH", 25)
    largest = fuzz.maximum_match
    monkeypatch.setattr(fuzz, "maximum_match", lambda *a, **b: largest(*a, **b) - Match([0], []))
    assert all(fuzz.run(kind, 0, 3)["errors"] for kind in NOT_PLAIN)
    monkeypatch.setattr(fuzz, "maximum_match", lambda geometry, eps: Match(range(geometry.n_x), range(geometry.n_y)))
    assert all(fuzz.run(kind, 1, 3)["not_a_match"] for kind in NOT_PLAIN)


@pytest.mark.parametrize("function, wrong", [
    ("pair_matches", lambda g, eps: [Match([0], [0])]), ("decompose", lambda g, eps, seed: []),
    ("minimum_matches", lambda g: {}), ("simple_matches", lambda g, eps: []),
    ("minimal_matches", lambda g, eps, seed: {("x", 0): Match(range(g.n_x), range(g.n_y))})])
def test_the_fuzzer_notices_wrong_answers_of_each_function(function, wrong, monkeypatch):
    monkeypatch.setattr(fuzz, "BATCH", 25)
    monkeypatch.setattr(fuzz, function, wrong)
    assert sum(fuzz.run(fuzz.KINDS[0], k, 3)["errors"] for k in range(4))


def test_there_is_no_minimum_match_where_nothing_matches():
    assert minimum_matches(np.eye(2, 4), np.eye(2, 4)[:, ::-1].copy()) == {}



def adversarial(seed, n=5, d=9):
    "Near copies and near sums at gaps from 1e-8 to 1e-6, and eps at a distance that occurs, or a tolerance beside it."
    rng = np.random.default_rng(seed)
    def side(z):
        for i in range(1, n):
            if rng.random() < 0.7: z[i] = rng.integers(-1, 2, i) @ z[:i] + 10 ** -rng.uniform(6, 8) * z[i]
        return z
    x = side(rng.normal(size=(n, d)))
    y = side(rng.normal(size=(n, n)) @ x + rng.choice([0, 1e-7, 0.1, 1]) * rng.normal(size=(n, d)))
    at = relative_distance(x, y)[rng.integers(n)]
    return x, y, float(np.clip(at + rng.choice([-1.0, -0.5, 0.0, 1.0]) * TOLERANCE, 0, 0.99))


@pytest.mark.filterwarnings("ignore")
def test_every_answer_is_a_match_where_singular_values_are_tiny():
    for seed in [*range(24), 405]:
        x, y, eps = adversarial(seed)
        found = [maximum_match(x, y, eps), *minimal_matches(x, y, eps).values()]
        if seed in (0, 405): found += simple_matches(x, y, eps)
        for match in found: assert is_match(x, y, match, eps), seed


@pytest.mark.filterwarnings("ignore")
def test_every_answer_is_a_match_even_when_the_tables_are_wrong(monkeypatch):
    "Distances that are half of what they should be, and said to be exact."
    fit = Pair.fit
    def flattering(pair, stable=False):
        fit(pair, stable)
        pair.r = pair.r / 4
    monkeypatch.setattr(Pair, "fit", flattering)
    smaller = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(8, 20))
        y = rng.normal(size=(8, 8)) * (rng.random((8, 8)) < 0.4) @ x + 0.5 * rng.normal(size=(8, 20))
        for eps in (0.2, 0.4, 0.6):
            whole = maximum_match(x, y, eps)
            assert whole == reference.literal_maximum_match(x, y, eps)
            for v, match in minimal_matches(x, y, eps).items(): assert v in match and is_match(x, y, match, eps)
            for match in all_minimal_matches(x, y, eps, ("y", seed % 8)): assert is_match(x, y, match, eps)
            smaller += len(whole) < 16
    assert smaller > 10


def test_a_telling_neuron_asked_for_out_of_turn_changes_no_match(monkeypatch):
    layers = [correlated(20, 60, seed) for seed in range(2)]
    before = [minimal_matches(x, y, 0.65) for x, y in layers]
    monkeypatch.setattr(minimal, "SETTLED", 2)
    asked, telling = [], minimal.telling
    monkeypatch.setattr(minimal, "telling", lambda node: asked.append(telling(node)) or asked[-1])
    assert [minimal_matches(x, y, 0.65) for x, y in layers] == before and min(map(len, before)) > 20
    assert all(which is None or int(which.sum()) == 1 for which in asked)
    assert any(which is not None for which in asked) and any(which is None for which in asked)


def test_minimal_matches_that_are_not_certain_are_found_again_without_relying_on_tables(monkeypatch):
    x, y = correlated(6, 24)
    before, began, beginning = minimal_matches(x, y, 0.65), [], minimal.beginning
    monkeypatch.setattr(minimal, "certain", lambda *args: False)
    monkeypatch.setattr(minimal, "beginning", lambda pair, *args: began.append(pair.cautious) or beginning(pair, *args))
    assert minimal_matches(x, y, 0.65) == before and len(before) > 0
    assert began[0] is False and began[1:] == [True] * len({*before.values()})


@pytest.mark.parametrize("wanted", [True, False, None])
def test_progress_is_shown_to_those_who_ask(wanted, capsys):
    x, y = correlated(6, 24)
    found = minimal_matches(x, y, 0.65, **({} if wanted is None else {"progress": wanted}))
    shown = capsys.readouterr().err
    assert (f"{len(found)}/{len(found)}" in shown) if wanted else shown == ""


@pytest.mark.parametrize("module, name, values", [
    ("minimal", "FIRST", (1, 50)), ("minimal", "MORE", (1, 8)), ("minimal", "LESS", (2, 50)),
    ("minimal", "SETTLED", (1, 10**6)), ("maximum", "MANY", (1, 10**6)),
    ("geometry", "WAITING", (1, 10**6)), ("geometry", "WAIT", (0, 2**60)), ("geometry", "WIDTH", (1, 10**6)),
    ("geometry", "UNCLEAR", (1, 80)), ("geometry", "MOST_MARGIN", (1e-12, 1e-2)),
    ("geometry", "MOST_ERROR", (1e-9, 1.0)), ("geometry", "MANY_INPUTS", (10**4, 10**8)),
])
def test_no_answer_depends_on_a_constant(monkeypatch, module, name, values):
    "They decide what is computed when, and by which route."
    x, y = correlated(20, 60)
    by_products = name == "MANY_INPUTS"     # how much rounding is allowed for: too much for a near copy
    if not by_products: x[19] = x[0] + 1e-5 * x[1]
    z = np.concatenate([x, y])
    def found():
        geometry = Geometry.from_gram(z @ z.T, 20) if by_products else Geometry.from_vectors(x, y)
        matches = maximum_match(geometry, eps=0.65), minimal_matches(geometry, eps=0.65, seed=0)
        return matches, match_levels(geometry).x
    matches, levels = found()
    assert len(set(matches[1].values())) > 10
    for value in values:
        monkeypatch.setattr(f"subspace_match.algorithms.{module}.{name}", value)
        assert found()[0] == matches
        assert np.allclose(found()[1], levels, rtol=5e-3 if name == "MOST_MARGIN" else 1e-4)


def test_simple_matches_do_not_depend_on_what_is_remembered(monkeypatch):
    x, y = orthogonal_instance(4, 2)
    before = simple_matches(x, y, 0.5)
    monkeypatch.setattr("subspace_match.algorithms.simple.REMEMBERED", 1)
    assert len(before) == 6 and simple_matches(x, y, 0.5) == before


@pytest.mark.parametrize("nodes", [None, 1, 100])
def test_neurons_that_several_share_get_the_same_matches(nodes, monkeypatch):
    "And no trial is made twice."
    trials, tried = [], minimal.tried
    monkeypatch.setattr(minimal, "tried", lambda *args: trials.append(1) or tried(*args))
    if nodes: monkeypatch.setattr(minimal, "NODES", nodes)
    x, y = correlated(20, 60)
    alone, once = minimal_matches(x, y, 0.65), len(trials)
    with parallel_config(backend="threading", n_jobs=2): together = minimal_matches(x, y, 0.65)
    assert len(set(alone.values())) > 10 and together == alone and len(trials) == 2 * once
    gram, _, d = accumulate_gram([np.concatenate([x, y])])
    with parallel_config(backend="threading", n_jobs=2):
        assert minimal_matches(Geometry.from_gram(gram, 20, d), eps=0.65) == alone


def test_what_is_shared_makes_up_the_same_geometry():
    for affine in (False, True):
        geometry = Geometry.from_vectors(*correlated(20, 60), affine=affine)
        again = Geometry(*(torch.as_tensor(z) if isinstance(z, np.ndarray) else z for z in minimal.pack(geometry)))
        assert vars(again).keys() == vars(geometry).keys()
        for name, value in vars(geometry).items():
            other = getattr(again, name)
            assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value, name


def test_tables_and_vectors_do_not_travel_with_each_task(monkeypatch):
    "Beside what all share, a task is a few kilobytes."
    sizes, some = [], minimal.for_some
    monkeypatch.setattr(minimal, "for_some", lambda packed, *task: sizes.append(len(pickle.dumps(task))) or
                        some(packed, *task))
    monkeypatch.setattr(minimal, "effective_n_jobs", lambda n: 2)
    x, y = correlated(20, 3000)
    with parallel_config(backend="sequential"): minimal_matches(x, y, 0.8)
    assert len(sizes) > 1 and max(sizes) < 10_000 < x[0].nbytes


def test_processes_find_the_same_matches():
    x, y = correlated(20, 60)
    assert minimal_matches(x, y, 0.65, n_jobs=2) == minimal_matches(x, y, 0.65)


@pytest.mark.parametrize("match", [lambda *z, **how: minimal_matches(*z, 0.65, **how),
                                   lambda *z, **how: sample_simple_matches(*z, 0.65, rounds=3, **how)],
                         ids=["minimal", "sampled"])
def test_what_other_processes_warn_of_is_said_here_and_once(match):
    x, y = (np.concatenate([z, z[:1] + 1e-8 * w]) for z, w in zip(correlated(20, 60), np.random.default_rng(0).normal(
        size=(2, 1, 60))))
    told = []
    for n_jobs in (1, 2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            match(x, y, n_jobs=n_jobs)
        told.append([str(warning.message) for warning in caught])
        assert len(told[-1]) == len(set(told[-1]))
    assert set(told[0]) == set(told[1]) != set()


@pytest.mark.filterwarnings("ignore:some ")
@pytest.mark.parametrize("gap", [1e-10, 1e-13, 7.5e-15])
def test_what_is_returned_is_a_match_where_rounding_turns_what_is_kept(gap):
    "Two singular values, one above the tolerance and one below, that differ by next to nothing."
    found = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        u = np.linalg.qr(np.c_[np.ones(3), rng.normal(size=(3, 2))])[0]
        v = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
        x, y = v[:2], u * [3**0.5, TOLERANCE + gap, TOLERANCE - gap] @ v
        for eps in (0.0, 1e-6, 1e-3, 0.1):
            matches = [maximum_match(x, y, eps), *minimal_matches(x, y, eps).values(), *simple_matches(x, y, eps)]
            assert all(is_match(x, y, match, eps) for match in matches)
            found += len(matches)
    assert found > 100


@pytest.mark.parametrize("eps", [0.5, 0.01, 2e-6])
def test_inner_products_alone_know_large_distances_as_well_as_vectors_do(eps):
    for more, matches in ((5e-7, False), (4 * TOLERANCE, False), (TOLERANCE / 2, True)):
        sine = eps + more
        z = np.array([[1.0, 0, 0], [(1 - sine**2) ** 0.5, sine, 0]])
        inner = Geometry.from_gram(z @ z.T, 1, n_samples=3)
        for geometry in (inner, Geometry.from_vectors(z[:1], z[1:])):
            assert (len(maximum_match(geometry, eps=eps)) > 0) == matches
            assert (len(match_levels(geometry).match(eps)) > 0) == matches
            assert (len(simple_matches(geometry, eps=eps)) > 0) == matches
    with pytest.warns(UserWarning, match="finer than a Gram matrix resolves"):
        assert len(maximum_match(inner, eps=0.0)) == 0
    z[1] = [1, 5e-7, 0]
    with pytest.warns(UserWarning, match="finer than a Gram matrix resolves"):
        assert len(maximum_match(Geometry.from_gram(z @ z.T, 1, n_samples=3), eps=0.0)) == 2


def test_levels_come_from_the_vectors_where_inner_products_are_not_precise_enough():
    "Near copies: of levels by inner products alone, half of the digits would be noise."
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(6, 30))
        x[3:] = x[:3] + 3e-6 * rng.normal(size=(3, 30))
        y = rng.normal(size=(6, 6)) @ x + 3e-4 * rng.normal(size=(6, 30))
        levels, lowest, left = match_levels(x, y), 1.0, Match(range(6), range(6))
        while len(left):
            r = np.concatenate([relative_distance(x[left.x], y[left.y]), relative_distance(y[left.y], x[left.x])])
            worst, lowest = list(left.neurons())[r.argmax()], min(lowest, r.max())
            assert (levels.x if worst[0] == "x" else levels.y)[worst[1]] == pytest.approx(lowest, rel=1e-8)
            left = left - Match(*([worst[1]] if worst[0] == side else [] for side in "xy"))


@pytest.mark.parametrize("more, far, told", [(1e-10, 0.7, True), (1e-11, 0.7, False), (1e-11, 0.01, True),
                                             (0, 0.01, False)])
def test_levels_tell_where_spans_turn_as_neurons_leave(more, far, told, recwarn):
    "y[2] is dropped beside y[0], and turns what y[1] adds to it; an exact copy turns nothing."
    e = np.eye(4)
    levels = match_levels(e[:1] + far * e[3:], np.array([e[0], e[0] + 3e-7 * e[1], e[0] + more * e[2]]))
    assert levels.x[0] == pytest.approx(far / (1 + far**2) ** 0.5, rel=1e-3)
    assert any("spans turn" in str(warning.message) for warning in recwarn) == told


@pytest.mark.parametrize("mean, told", [(0, False), (3, False), (3000, True)])
def test_float32_costs_affine_matches_more_the_larger_the_mean(mean, told):
    "What is left of it without the mean is rounded as coarsely as with it: here to 2e-4 at a mean of 3000."
    z = (np.random.default_rng(0).normal(size=(4, 200)) + mean).astype(np.float32)
    one, other = z[:2], z[2:]
    for found in (lambda g: maximum_match(g, eps=5e-5), match_levels):
        geometry = Geometry.from_vectors(one, np.concatenate([one, other]), affine=True)
        assert told_of(lambda: found(geometry), "float32 rounding moves")[1] == told
    geometry = Geometry.from_vectors(one, other, affine=True)
    expected = 2.0**-24 * (1 / geometry.unit_gram.diagonal()[:2]).sum() ** 0.5
    error = maximum.float32_error(Pair(geometry, torch.ones(4, dtype=torch.bool)))
    assert error == pytest.approx(float(expected), rel=0.05)


def test_levels_within_the_tolerance_of_zero_are_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 20))
    y = rng.normal(size=(5, 5)) @ x + 1e-10 * rng.normal(size=(5, 20))
    levels = match_levels(x, y)
    assert not levels.x.any() and not levels.y.any()
