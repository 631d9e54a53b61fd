"""Random instances on which matches are likely, for hypothesis: `x` (n_x, d) and `y` (n_y, d), float64.

Coordinates are small integers times powers of two, so every one is exact, and no relative distance comes close to
an `eps` of `eps_values` without being equal to it: a correct tolerance and exact arithmetic must agree.
"""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

eps_values = st.sampled_from([Fraction(n, 10) for n in (0, 1, 3, 5, 6, 8, 9)])  # 3/5 and 4/5 are met with equality
small_integers = st.integers(-2, 2)


@st.composite
def vectors(draw, d):
    "A vector (d,) of small integers."
    return np.array(draw(st.lists(small_integers, min_size=d, max_size=d)), float)


@st.composite
def neurons(draw, n, d, known=()):
    "n rows (n, d): fresh vectors, zeros, and copies, multiples and mixtures of rows in `known` or drawn before."
    known, rows = list(known), []
    for _ in range(n):
        kind = draw(st.sampled_from(["fresh", "copy", "multiple", "mixture", "zero"])) if known else "fresh"
        one, other = (known[draw(st.integers(0, len(known) - 1))] for _ in range(2)) if known else (None, None)
        if kind == "fresh": z = draw(vectors(d))
        elif kind == "copy": z = one.copy()
        elif kind == "multiple": z = one * draw(st.sampled_from([-3, -1, 2, 2.0**-20, 2.0**20]))
        elif kind == "mixture": z = one * draw(small_integers) + other * draw(small_integers)
        else: z = np.zeros(d)
        rows.append(z)
        known.append(one if kind == "multiple" else z)  # else mixtures of very long and short rows are nearly parallel
    return np.array(rows).reshape(n, d)


def plain(z):
    "A row without its factor of 2²⁰ or 2⁻²⁰."
    size = np.abs(z).max(initial=0)
    return z * (2.0**-20 if size > 2**10 else 2.0**20 if 0 < size < 2**-10 else 1)


@st.composite
def instances(draw, max_n=4, max_d=4, min_n=1):
    "Two sides of `min_n` to `max_n` neurons in 1 to `max_d` dimensions; the second is largely made from the first."
    d = draw(st.integers(1, max_d))
    x = draw(neurons(draw(st.integers(min_n, max_n)), d))
    return x, draw(neurons(draw(st.integers(min_n, max_n)), d, known=map(plain, x)))


@st.composite
def triangular(draw, n):
    "An invertible integer matrix (n, n): below its diagonal of ±1 and 2 about every second entry is zero."
    entries = st.one_of(st.just(0), small_integers)
    diagonal = st.sampled_from([1, -1, 2])
    return np.array([[draw(entries) if j < i else draw(diagonal) * (i == j) for j in range(n)] for i in range(n)],
                    float)


@st.composite
def independent_instances(draw, max_n=4, max_extra=2):
    """Each side linearly independent, the second a sparse mixture of the first, each with some rows of its own (Lemma
    6).
    """
    n, extra = draw(st.integers(1, max_n)), draw(st.integers(0, max_extra))
    basis = draw(triangular(n + extra))
    x = basis[:n]
    y = draw(triangular(n)) @ x
    for i in range(draw(st.integers(0, min(extra, n)))): y[i] = y[i] + basis[n + i]
    return x[draw(st.permutations(range(n)))], y[draw(st.permutations(range(n)))]


@st.composite
def noisy_instances(draw, max_n=6, max_d=8, noises=(1e-3, 0.1, 0.3)):
    "General position: the second side mixes the first and adds Gaussian noise."
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_x, n_y, d = draw(st.integers(1, max_n)), draw(st.integers(1, max_n)), draw(st.integers(1, max_d))
    x = rng.normal(size=(n_x, d))
    mixture = rng.normal(size=(n_y, n_x)) * (rng.random((n_y, n_x)) < 0.5)
    return x, mixture @ x + draw(st.sampled_from(noises)) * rng.normal(size=(n_y, d))


@st.composite
def instances_with_neuron(draw, source=None):
    "(x, y, v) with `v` any neuron of the instance."
    x, y = draw(instances() if source is None else source)
    side = draw(st.sampled_from(["x", "y"]))
    return x, y, (side, draw(st.integers(0, len(x if side == "x" else y) - 1)))
