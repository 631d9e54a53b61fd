"The measures against direct computations and published values, and what they must refuse."

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.optimize import linprog

from measures_oracle import pair
from subspace_match import match_levels
from subspace_match.algorithms.geometry import Geometry, accumulate_gram
from subspace_match.networks.measures import (
    DISTANCES, MEASURES, OF_BLOCKS, all_measures, canonical_correlations, correlations, gulp, hard_matching,
    held_out_regression, kernel_cka, knn_overlap, linear_cka, linear_regression, mean_cca, other_measures,
    procrustes_similarity, pwcca, rsa, sample_measures, shape_angle, soft_matching, svcca,
)

ORACLE = json.loads((Path(__file__).parent/"measures_oracle.json").read_text())


def both_ways(measure): return lambda x, y: (measure(x, y) + measure(y, x))/2


def of_kernels(measure): return lambda x, y: measure(x.T@x, y.T@y)


PUBLISHED = {
    "cka": linear_cka, "svcca_0.9": lambda x, y: svcca(x, y, 0.9), "mean_cca": mean_cca,
    "pwcca_of_equal_sizes": both_ways(pwcca), "procrustes": procrustes_similarity, "shape_angle": shape_angle,
    "regression": both_ways(linear_regression), "gulp": gulp,
    "hard_matching": hard_matching, "soft_matching": soft_matching,
    "partial_soft_matching": lambda x, y: soft_matching(x, y, 0.5),
    "cka_debiased_of_kernels": of_kernels(lambda k, l: kernel_cka(k, l, debiased=True)), "rsa": of_kernels(rsa),
    "knn": of_kernels(knn_overlap),
}


@pytest.mark.parametrize("seed", ORACLE["seeds"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name, seed):
    assert set(PUBLISHED) == set(ORACLE["values"][seed])
    layers = pair(seed, 10, 10) if name == "pwcca_of_equal_sizes" else pair(seed)
    assert PUBLISHED[name](*layers) == pytest.approx(ORACLE["values"][seed][name], rel=2e-6)


@pytest.mark.parametrize("seed, cka, cca, both", [   # repsim 0.1.5: cka("linear", "gretton"), cca("pillai"), pwcca
    (0, 0.5384108676668458, 0.5147770692841410, 0.6469858505255110),
    (1, 0.4931586902693517, 0.5138690649693551, 0.6516637826587863),
    (2, 0.6114526710392113, 0.5123570470373578, 0.6333558441153542),
    (3, 0.5633559153890376, 0.5803369871986445, 0.7479628104470597),
])
def test_against_another_library(seed, cka, cca, both):
    "Its CCA summary 'pillai' is the mean correlation, and its PWCCA the mean over both directions."
    values = all_measures(*pair(seed))
    assert [values[name] for name in ("cka", "mean_cca", "pwcca")] == pytest.approx([cka, cca, both], abs=1e-9)


@st.composite
def layers(draw, least_d=3):
    "Two layers (n_x, d), (n_y, d) that share some directions; d may be below, near or above the number of neurons."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_x, n_y, shared, d = (draw(st.integers(*limits)) for limits in ((1, 8), (1, 8), (1, 4), (least_d, 40)))
    hidden, normal = rng.normal(size=(shared, d)), lambda n, k: rng.normal(size=(n, k))
    return tuple(normal(n, shared)@hidden + normal(n, d) + normal(n, 1) for n in (n_x, n_y))


def centred(z): return z - z.mean(1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(layers())
def test_against_the_definitions(two):
    x, y = two
    x_bar, y_bar = map(centred, two)
    kernels = [z.T@z for z in (x_bar, y_bar)]
    cka = np.sum(kernels[0]*kernels[1])/np.linalg.norm(kernels[0])/np.linalg.norm(kernels[1])
    assert linear_cka(x, y) == pytest.approx(cka, abs=1e-9)
    size = max(len(x), len(y))
    a, b = (np.pad(z, ((0, size - len(z)), (0, 0)))/np.linalg.norm(z) for z in (x_bar, y_bar))
    assert procrustes_similarity(x, y) == pytest.approx(orthogonal_procrustes(b.T, a.T)[1], abs=1e-9)
    if min(map(np.linalg.matrix_rank, (x_bar, y_bar))) == min(len(x), len(y)):
        angles = np.sort(subspace_angles(x_bar.T, y_bar.T))
        np.testing.assert_allclose(canonical_correlations(x, y), np.cos(angles), atol=1e-6)
    fitted = np.linalg.lstsq(y_bar.T, x_bar.T, rcond=None)[0].T@y_bar
    assert linear_regression(x, y) == pytest.approx(1 - np.sum((x_bar - fitted)**2)/np.sum(x_bar**2), abs=1e-7)
    np.testing.assert_allclose(correlations(x, y), np.corrcoef(x, y)[:len(x), len(x):], atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(layers(), st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_transport_is_a_linear_program(two, mass):
    score = correlations(*two).numpy()
    n, m = score.shape
    rows = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    found = linprog(-score.ravel(), A_ub=rows, b_ub=np.repeat([1/n, 1/m], [n, m]), A_eq=np.ones((1, n*m)), b_eq=[mass])
    assert soft_matching(*two, mass) == pytest.approx(-found.fun/mass, abs=1e-6)
    if n == m: assert soft_matching(*two) == pytest.approx(hard_matching(*two), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(layers(least_d=20), st.integers(1, 9))
def test_streamed_in_range_and_symmetric(two, parts):
    "With d > n_x + n_y: below, several canonical correlations are 1, and the weights of PWCCA are not determined."
    x, y = two
    values, swapped = all_measures(x, y), all_measures(y, x)
    gram, sums, d = accumulate_gram(np.array_split(np.vstack(two), min(parts, x.shape[1]), axis=1))
    streamed = all_measures(Geometry.from_gram(gram, len(x), d), sums=sums)
    assert set(values) == set(MEASURES)
    for name, value in values.items():
        assert value == pytest.approx(swapped[name], abs=1e-6)
        assert value == pytest.approx(streamed[name], abs=1e-5)
        if name not in {*DISTANCES, "cka_debiased"} and "matching" not in name: assert -1e-9 <= value <= 1 + 1e-6


def test_area_is_that_of_the_living_neurons_or_of_the_levels_given():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 50))
    more = np.vstack([x, 0*x[:2]])
    living, levels = all_measures(more, y), match_levels(more, y)
    assert living == pytest.approx(all_measures(x, y), abs=1e-9)
    assert all_measures(more, y, levels=levels)["area"] == pytest.approx(levels.area) != living["area"]


def test_held_out_regression():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 40)), rng.normal(size=(5, 40))
    z = np.vstack([x + y[:3], y])
    parts = np.split(z, [10, 25], axis=1)
    folds = np.stack([p@p.T for p in parts]), np.stack([p.sum(1) for p in parts]), np.array([p.shape[1] for p in parts])
    left = total = 0
    for k, part in enumerate(parts):
        train = np.hstack([p for i, p in enumerate(parts) if i != k])
        map_ = np.linalg.lstsq(np.vstack([train[3:], np.ones(train.shape[1])]).T, train[:3].T, rcond=None)[0].T
        left += np.sum((part[:3] - map_@np.vstack([part[3:], np.ones(part.shape[1])]))**2)
        total += np.sum((part[:3] - train[:3].mean(1, keepdims=True))**2)
    assert held_out_regression(*folds, 3) == pytest.approx(1 - left/total, rel=1e-9)
    geometry, sums = Geometry.from_gram(torch.tensor(folds[0].sum(0)), 3, 40), folds[1].sum(0)
    back = held_out_regression(np.flip(folds[0], (1, 2)).copy(), np.flip(folds[1], 1).copy(), folds[2], 5)
    both = all_measures(geometry, sums=sums, folds=folds)["regression_held_out"]
    assert both == pytest.approx((1 - left/total + back)/2, rel=1e-9)
    with pytest.raises(ValueError, match="two folds"): held_out_regression(*(part[:1] for part in folds), 3)


def test_debiased_cka_of_unrelated_layers_is_zero_on_average():
    rng = np.random.default_rng(0)
    values = np.array([linear_cka(*rng.normal(size=(2, 20, 30)), debiased=True) for _ in range(300)])
    assert abs(values.mean()) < 4*values.std()/300**0.5 < 0.02
    assert linear_cka(*rng.normal(size=(2, 20, 30))) > 0.2


def test_svcca_drops_weak_directions():
    rng = np.random.default_rng(0)
    strong, weak_x, weak_y = (rng.normal(size=(n, 500)) for n in (3, 5, 5))
    x, y = (np.vstack([10*strong, 0.01*weak]) for weak in (weak_x, weak_y))
    assert svcca(x, y) > 0.999 and mean_cca(x, y) < 0.6 and len(canonical_correlations(x, y, 0.99)) == 3


def test_pwcca_weighs_by_the_first_side():
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(1, 2000)), rng.normal(size=(1, 2000))
    x, y = np.vstack([100*shared, own]), np.vstack([shared, rng.normal(size=(1, 2000))])
    assert pwcca(x, y) > 0.97 and mean_cca(x, y) < 0.6
    assert pwcca(y, x) < 0.6


def test_any_magnitude():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 50)), rng.normal(size=(3, 50))
    expected = all_measures(x, y)
    for scale in (1e-150, 1e150):
        assert all_measures(scale*x, y/scale) == pytest.approx(expected, rel=1e-9)


def test_dead_and_repeated_neurons_change_no_canonical_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 50)), rng.normal(size=(3, 50))
    more = np.vstack([x, x[:2] + 1, np.zeros((2, 50)), np.full((1, 50), 7.0)])
    np.testing.assert_allclose(canonical_correlations(more, y), canonical_correlations(x, y), atol=1e-9)
    assert hard_matching(np.vstack([x, np.full((1, 50), 7.0)]), x) == pytest.approx(1)


@pytest.mark.parametrize("name", OF_BLOCKS)
def test_refusals(name):
    x = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="pass sums="): OF_BLOCKS[name](Geometry.from_gram(x@x.T, 1, 20))
    with pytest.raises(ValueError, match="every neuron of x is constant"): all_measures(torch.ones_like(x), x)
    with pytest.raises(ValueError, match="NaN"): all_measures(x*float("nan"), x)


def test_kernels_are_refused_by_name():
    z = np.random.default_rng(0).normal(size=(5, 12))
    k = z.T@z
    for bad, text in ((k[:5], "square"), (k[:11, :11], "12 and 11"), (k*np.nan, "NaN")):
        with pytest.raises(ValueError, match=text): sample_measures(k, bad)
    with pytest.raises(ValueError, match="k must"): sample_measures(k[:9, :9], k[:9, :9])
    with pytest.raises(ValueError, match="at least 4"): rsa(k[:3, :3], k[:3, :3])


def test_the_old_call_warns():
    x, y = pair(0)
    with pytest.warns(DeprecationWarning, match="all_measures"): old = other_measures(x, y)
    assert old["CKA"] == linear_cka(x, y) and old["mean CCA"] == mean_cca(x, y)
