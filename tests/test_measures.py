"The measures of `subspace_match.networks.measures` against direct computations from activations, and what they must refuse."

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes, subspace_angles

from subspace_match.algorithms.geometry import Geometry, accumulate_gram
from subspace_match.networks.measures import (
    MEASURES, canonical_correlations, linear_cka, linear_regression, mean_cca, other_measures, procrustes_similarity, pwcca, svcca,
)


@st.composite
def layers(draw, least_d=3):
    "Two layers (n_x, d), (n_y, d) that share some directions; d may be below, near or above the number of neurons."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_x, n_y, shared, d = (draw(st.integers(*limits)) for limits in ((1, 8), (1, 8), (1, 4), (least_d, 40)))
    hidden = rng.normal(size=(shared, d))
    return tuple(rng.normal(size=(n, shared))@hidden + rng.normal(size=(n, d)) + rng.normal(size=(n, 1)) for n in (n_x, n_y))


def centred(z): return z - z.mean(1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(layers())
def test_against_the_definitions(pair):
    x, y = pair
    x_bar, y_bar = map(centred, pair)
    kernels = [z.T@z for z in (x_bar, y_bar)]
    assert linear_cka(x, y) == pytest.approx(np.sum(kernels[0]*kernels[1])/np.linalg.norm(kernels[0])/np.linalg.norm(kernels[1]), abs=1e-9)
    size = max(len(x), len(y))
    a, b = (np.pad(z, ((0, size - len(z)), (0, 0)))/np.linalg.norm(z) for z in (x_bar, y_bar))
    assert procrustes_similarity(x, y) == pytest.approx(orthogonal_procrustes(b.T, a.T)[1], abs=1e-9)
    angles = np.sort(subspace_angles(x_bar.T, y_bar.T)) if min(map(np.linalg.matrix_rank, (x_bar, y_bar))) == min(len(x), len(y)) else None
    if angles is not None: np.testing.assert_allclose(canonical_correlations(x, y), np.cos(angles), atol=1e-6)
    fitted = np.linalg.lstsq(y_bar.T, x_bar.T, rcond=None)[0].T@y_bar
    assert linear_regression(x, y) == pytest.approx(1 - np.sum((x_bar - fitted)**2)/np.sum(x_bar**2), abs=1e-7)


@pytest.mark.parametrize("seed, cka, cca, pwcca", [   # computed by repsim 0.1.5: cka("linear", "gretton"), cca("pillai"), pwcca
    (0, 0.5384108676668458, 0.5147770692841410, 0.6469858505255110),
    (1, 0.4931586902693517, 0.5138690649693551, 0.6516637826587863),
    (2, 0.6114526710392113, 0.5123570470373578, 0.6333558441153542),
    (3, 0.5633559153890376, 0.5803369871986445, 0.7479628104470597),
])
def test_against_another_library(seed, cka, cca, pwcca):
    "Its CCA summary 'pillai' is the mean correlation, and its PWCCA the mean over both directions."
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(4, 200))
    x, y = (rng.normal(size=(n, 4))@hidden + rng.normal(size=(n, 200)) + rng.normal(size=(n, 1)) for n in (10, 7))
    values = other_measures(x, y)
    assert [values[name] for name in ("CKA", "mean CCA", "PWCCA")] == pytest.approx([cka, cca, pwcca], abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(layers(least_d=20), st.integers(1, 9))
def test_streamed_in_range_and_symmetric(pair, parts):
    "With d > n_x + n_y: below, several canonical correlations are 1, and the weights of PWCCA are not determined."
    x, y = pair
    values, swapped = other_measures(x, y), other_measures(y, x)
    gram, sums, d = accumulate_gram(np.array_split(np.vstack(pair), min(parts, x.shape[1]), axis=1))
    streamed = other_measures(Geometry.from_gram(gram, len(x), d, affine=True, sums=sums))
    for name, value in values.items():
        assert -1e-9 <= value <= 1 + 1e-6
        assert value == pytest.approx(swapped[name], abs=1e-6)
        assert value == pytest.approx(streamed[name], abs=1e-5)


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
    expected = other_measures(x, y)
    for scale in (1e-150, 1e150):
        for name, value in other_measures(scale*x, y/scale).items(): assert value == pytest.approx(expected[name], rel=1e-9)


def test_dead_and_repeated_neurons_change_no_canonical_correlation():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 50)), rng.normal(size=(3, 50))
    more = np.vstack([x, x[:2] + 1, np.zeros((2, 50)), np.full((1, 50), 7.0)])
    np.testing.assert_allclose(canonical_correlations(more, y), canonical_correlations(x, y), atol=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_refusals(name):
    x = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="affine=True"): MEASURES[name](Geometry.from_vectors(x, x))
    with pytest.raises(ValueError, match="every neuron of x is constant"): other_measures(torch.ones_like(x), x)
    with pytest.raises(ValueError, match="NaN"): other_measures(x*float("nan"), x)
