"""The pieces of the engine, each held to what its docstring says."""

import gc
import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from subspace_match.algorithms import geometry as engine
from subspace_match.algorithms.geometry import (
    Geometry, Pair, from_gram, products, refined, residual_interval, threads_for,
)
from subspace_match.algorithms.maximum import match_levels, maximum_match
from subspace_match.algorithms.minimal import minimal_matches, minimum_matches
from subspace_match.algorithms.simple import decompose, pair_matches, simple_matches
from subspace_match.theory.match import TOLERANCE, Match, centred_rows, is_match, relative_distance, unit_rows


def vectors(n, d, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=(n, d)))


@pytest.mark.parametrize("convert", [lambda z: z, lambda z: z.numpy(), lambda z: z.clone().requires_grad_()],
                         ids=["torch", "numpy", "gradient"])
def test_activations_come_as_arrays_and_as_tensors(convert):
    x, y = vectors(2, 5), vectors(3, 5, 1)
    geometry = Geometry.from_vectors(convert(x), convert(y))
    assert torch.allclose(geometry.gram, torch.cat([x, y]) @ torch.cat([x, y]).T) and geometry.n_samples == 5


@pytest.mark.parametrize("work", [
    engine.accumulate_gram, engine.accumulate_factor, lambda blocks: maximum_match(*blocks, eps=0.5),
    lambda blocks: match_levels(*blocks), lambda blocks: minimal_matches(*blocks, eps=0.5),
    lambda blocks: minimum_matches(*blocks), lambda blocks: simple_matches(*blocks, eps=0.5),
    lambda blocks: decompose(*blocks, eps=0.5), lambda blocks: pair_matches(*blocks, eps=0.5)])
def test_what_is_no_longer_needed_is_let_go_at_once(work):
    "A cycle of references would hold activations until the garbage collector comes, which may be many blocks later."
    blocks = [vectors(4, 3000), vectors(4, 3000) + vectors(4, 3000, 1)]
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        work(blocks)
        gc.collect()
        held = [each for each in gc.garbage if isinstance(each, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not held


# Threads

@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_gets_one_thread_and_large_work_those_that_are_allowed(two_threads):
    threads = torch.get_num_threads
    with threads_for():
        assert threads() == 1
        with threads_for(engine.WAIT): assert threads() == 2
        with threads_for(engine.WAIT - 1): assert threads() == 1
        assert threads() == 1
    assert threads() == 2
    with threads_for(engine.WAIT): assert threads() == 2
    torch.set_num_threads(1)
    with threads_for(engine.WAIT): assert threads() == 1
    with pytest.raises(KeyError), threads_for(): {}["an error inside"]
    torch.set_num_threads(2)
    with threads_for(engine.WAIT): assert threads() == 2


# Inner products and coordinates

def test_products_of_blocks_are_those_of_all():
    z = vectors(300, 7)
    gram = products(z)
    assert torch.allclose(gram, z @ z.T, rtol=0, atol=1e-13) and torch.equal(gram, gram.T)


def test_products_are_spread_over_the_threads_that_are_allowed_and_are_the_same(two_threads, monkeypatch):
    z, used = vectors(300, 7), []

    class Watched(ThreadPoolExecutor):
        def map(self, work, *items):
            return super().map(lambda item: (used.append(torch.get_num_threads()), work(item))[1], *items)

    monkeypatch.setattr(engine, "ThreadPoolExecutor", Watched)
    gram = products(z)
    assert used == []   # too little to be worth it
    monkeypatch.setattr(engine, "WAIT", 128 * z.numel())
    with torch.inference_mode(): assert torch.equal(products(z), gram)
    assert used == [1, 1, 1] and torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert torch.equal(products(z), gram) and len(used) == 3


@pytest.mark.parametrize("values", ["one", "few", "many"])
@pytest.mark.parametrize("way", ["at once", "column by column"])
def test_sums_over_many_inputs_lose_no_more_than_is_allowed_for(values, way):
    rng, n, d = np.random.default_rng(0), 3, 20_000
    z = torch.as_tensor({"one": np.full((n, d), 0.1), "few": rng.choice([0.1, 0.7, 0.3], (n, d)),
                         "many": rng.random((n, d))}[values])
    z = z.float().double()   # so that products are exact
    exact = torch.tensor([[math.fsum((a * b).tolist()) for b in z] for a in z], dtype=torch.float64)
    gram = products(z) if way == "at once" else engine.accumulate_gram(z.split(1, 1))[0]
    size = exact.diagonal().sqrt()
    error = torch.linalg.matrix_norm((gram - exact) / size[:, None] / size, 2)
    assert error < engine.rounding(n, n * d) / 4   # twice as much is claimed, four times as much allowed for


def test_constants_summed_over_many_inputs_decide_nothing():
    d, t, eps = 10**5, 1e-4, 0.60002
    u, (v, w) = torch.full((d,), d**-0.5).double(), vectors(2, d)
    v, w = (a - a.mean() for a in (v, w))
    w = w - (w @ v) / (v @ v) * v
    v, w = v / torch.linalg.vector_norm(v), w / torch.linalg.vector_norm(w)
    x, y = torch.stack([u, 0.8 * v + 0.6 * w]), torch.stack([u, u + t * v])
    assert maximum_match(x, y, eps) == Match([0, 1], [0, 1], 2, 2)
    assert abs(match_levels(x, y).x[1] - 0.6) < 1e-5


@pytest.mark.parametrize("blocks, sums", [([2047] * 2, [4094]), ([2048] * 2, [2048] * 2),
                                          ([500] * 11, [2500, 2500, 500])])
def test_narrow_blocks_are_joined_and_wide_ones_are_not(blocks, sums, monkeypatch):
    widths = []
    monkeypatch.setattr(engine, "products", lambda z: widths.append(z.shape[1]) or z @ z.T)
    engine.accumulate_gram(vectors(2, width) for width in blocks)
    assert widths == sums


@pytest.mark.parametrize("width", [2, 3000])
@pytest.mark.parametrize("accumulate", [lambda blocks: engine.accumulate_gram(blocks)[0],
                                        lambda blocks: (rows := engine.accumulate_factor(blocks)) @ rows.T])
def test_blocks_may_share_their_memory_and_carry_gradients(accumulate, width):
    z, shared = vectors(4, 3 * width), torch.empty(4, width).double().requires_grad_()

    def blocks():
        for part in z.split(width, 1):
            shared.data.copy_(part)
            yield shared

    gram = accumulate(blocks())
    assert torch.allclose(gram, z @ z.T, rtol=1e-12, atol=1e-12) and not gram.requires_grad


@pytest.mark.parametrize("accumulate", [engine.accumulate_gram, engine.accumulate_factor])
def test_what_is_accumulated_takes_one_thread_and_leaves_the_network_all(two_threads, monkeypatch, accumulate):
    network, ours = [], []
    watched = {name: getattr(torch.Tensor, name) for name in ("sum", "__matmul__")} | {"qr": torch.linalg.qr}
    for name, function in watched.items():
        monkeypatch.setattr(torch.linalg if name == "qr" else torch.Tensor, name,
                            lambda *a, f=function, **kw: (ours.append(torch.get_num_threads()), f(*a, **kw))[1])

    def blocks():
        for seed in range(3):
            network.append(torch.get_num_threads())
            yield vectors(3, 5, seed)

    accumulate(blocks())
    assert network == [2, 2, 2] and set(ours) == {1} and torch.get_num_threads() == 2


@pytest.mark.parametrize("n, d, columns", [(5, 40, 10), (10, 20, 20), (30, 20, 20)])
def test_coordinates_have_the_inner_products_and_no_more_columns_than_needed(n, d, columns):
    x, y = vectors(n, d), vectors(n, d, 1)
    y[0] = 0
    geometry = Geometry.from_vectors(x, y)
    assert not geometry.affine and geometry.dead_y == 1
    nameless = Geometry(geometry.unit_gram, n, geometry.norms, vectors=geometry.vectors)   # d is not said
    accumulated = Geometry.from_gram(geometry.gram, n)
    assert not nameless.affine and geometry.coordinates.shape == (2 * n, columns)
    for known in (geometry, nameless, accumulated):
        assert known.coordinates.shape[1] <= max(2 * n, columns)
        assert torch.allclose(known.coordinates @ known.coordinates.T, geometry.unit_gram, rtol=0, atol=1e-12)
        assert (known.coordinates[n] == 0).all()


def test_roots_of_gram_matrices_leave_out_what_is_rounding_noise():
    z = vectors(6, 3)
    gram = z @ z.T
    root = engine.gram_root(gram)
    assert torch.allclose(root @ root.T, gram, rtol=0, atol=1e-12) and int((root != 0).any(0).sum()) == 3
    assert torch.allclose(engine.gram_root(1e-30 * gram) @ engine.gram_root(1e-30 * gram).T, 1e-30 * gram, atol=1e-42)
    assert torch.equal(engine.gram_root(torch.zeros(2, 2).double()), torch.zeros(2, 2).double())
    assert torch.equal(engine.gram_root(-torch.eye(2).double()), torch.zeros(2, 2).double())


def test_what_is_left_of_a_constant_neuron_is_zero():
    x, y = vectors(3, 50) + 2, vectors(2, 50, 1)
    x[1] = 0.1
    geometry = Geometry.from_vectors(x, y, affine=True)
    z = torch.cat([x, y])
    streamed = from_gram(z @ z.T, 3, 50, affine=True, sums=z.sum(1))
    for known in (geometry, streamed):
        assert (known.unit_gram[1] == 0).all() and (known.unit_gram[:, 1] == 0).all() and not known.dead.any()
    assert torch.allclose(streamed.unit_gram, geometry.unit_gram, rtol=0, atol=1e-9)
    rest = z - z.mean(1, keepdim=True)
    assert torch.allclose(geometry.gram, rest @ rest.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("gap, left", [(0.0, False), (1e-12, False), (1e-6, True)])
def test_what_centring_leaves_of_a_constant_is_nothing(gap, left):
    z = torch.cat([vectors(2, 8), 0.1 + 0.1 * gap * vectors(1, 8, 1)])
    geometry = Geometry.from_vectors(z[:1], z[1:], affine=True)
    assert geometry.unit_gram.diagonal().ne(0).tolist() == [True, True, left]


@pytest.mark.filterwarnings("ignore:some neurons are nearly constant")
@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2, 3.9])
def test_a_neuron_is_constant_up_to_the_tolerance_and_not_above(factor):
    "To the definition, to the engine and to the distance, which all center by one rule."
    one, b = torch.linalg.qr(torch.cat([torch.ones(1, 8).double(), vectors(1, 8)]).T).Q.T
    x, y = b[None], (one + factor * TOLERANCE * b)[None]
    left = centred_rows(unit_rows(y), TOLERANCE).norm().item()
    assert left == pytest.approx(factor * TOLERANCE if factor > 1 else 0, rel=1e-6, abs=0)
    assert Geometry.from_vectors(x, y, affine=True).unit_gram[1, 1].gt(0) == (factor > 1)
    assert relative_distance(x, y, affine=True) == pytest.approx(0 if factor > 1 else 1, abs=1e-6)


@pytest.mark.parametrize("gap, told", [(1e-3, False), (1e-7, True), (3e-8, True), (0.0, False)])
def test_nearly_constant_neurons_are_told_of(gap, told, recwarn):
    "What they add to a span is a direction or rounding noise."
    x, y = vectors(1, 8), 1 + gap * vectors(1, 8, 1)
    maximum_match(Geometry.from_vectors(x, y, affine=True), eps=0.5)
    assert any("nearly constant" in str(warning.message) for warning in recwarn) == told
    recwarn.clear()
    z = torch.cat([x, 1 + 50 * gap * vectors(1, 8, 1)])   # inner products alone resolve less
    from_gram(z @ z.T, 1, 8, affine=True, sums=z.sum(1))
    assert any("nearly constant" in str(warning.message) for warning in recwarn) == told


def test_constant_neurons_alone_are_no_reason_to_worry(recwarn):
    Geometry.from_vectors(np.ones((1, 8)), np.full((2, 8), 3.0), affine=True)
    assert not recwarn.list


def test_small_activations_are_no_underflow():
    assert not from_gram(1e-270 * torch.eye(4).double(), 2).dead.any()


@pytest.mark.parametrize("factor, told", [(0.12, False), (0.13, True), (7.9, True), (8.1, False)])
def test_lengths_near_the_tolerance_may_be_a_direction_or_noise(factor, told, recwarn):
    engine.warn_of_constants(torch.tensor([1.0, 0.0, factor * TOLERANCE]).double(), TOLERANCE)
    assert [str(w.message) for w in recwarn] == told * [
        f"some neurons are nearly constant: they differ from their mean by {factor * TOLERANCE:.0e} of their length; "
        "rounding may decide which of them match"]


@pytest.mark.parametrize("length, gap", [(1e-6, 1.5e-9), (1e-5, 1e-10), (1e-1, 1e-11)])
def test_a_constant_that_others_have_in_common_turns_nobody(length, gap, recwarn):
    "y_1 and y_2 differ by a constant and next to nothing, y_0 from the constant by its length: all of it is centred."
    u, b, p, f = torch.linalg.qr(torch.cat([torch.ones(1, 8).double(), vectors(3, 8)]).T).Q.T
    x, y = torch.stack([b, p]), torch.stack([u.abs() + length * b, p, p + u.abs() + gap * f])
    found = maximum_match(Geometry.from_vectors(x, y, affine=True), eps=0.0)
    assert len(found) == 5 and is_match(x, y, found, 0.0, affine=True) and not recwarn.list


def bad(n, change):
    z = vectors(n, n + 5)
    gram = z @ z.T
    change(gram)
    return gram


def at(i, j, value):
    def change(gram): gram[i, j] = value
    return change


def stretched(i, j, factor):
    "One inner product, with its mirror image, so many times what the lengths allow."
    def change(gram): gram[i, j] = gram[j, i] = factor * (gram[i, i] * gram[j, j]) ** 0.5
    return change


def skewed(i, j, part):
    "One inner product, without its mirror image, off by this part of the lengths."
    def change(gram): gram[i, j] += part * (gram[i, i] * gram[j, j]) ** 0.5
    return change


@pytest.mark.parametrize("gram, n_x, error, problem", [
    (bad(4, at(0, 1, 0.0)).float(), 2, TypeError, "float64"),
    (vectors(4, 3), 2, ValueError, "must be square"),
    (vectors(4, 3)[:, 0], 2, ValueError, "must be square"),
    (bad(4, lambda gram: None), 0, ValueError, "n_x"),
    (bad(4, lambda gram: None), 4, ValueError, "n_x"),
    (bad(4, at(2, 2, -1e-30)), 2, ValueError, "negative"),
    (torch.eye(4).double() * 1e-280, 2, ValueError, "underflow"),
    (bad(4, at(0, 0, np.nan)), 2, ValueError, "NaN"),
    (bad(4, at(3, 3, np.nan)), 2, ValueError, "NaN"),
    (bad(4, at(3, 0, np.inf)), 2, ValueError, "NaN"),
    (bad(300, at(299, 298, np.nan)), 2, ValueError, "NaN"),
    (bad(4, skewed(0, 3, 1e-8)), 2, ValueError, "symmetric"),
    (bad(300, skewed(298, 299, 1e-8)), 2, ValueError, "symmetric"),
    (bad(300, skewed(0, 299, 1e-8)), 2, ValueError, "symmetric"),
    (bad(4, stretched(0, 3, 1 + 1e-8)), 2, ValueError, "lengths"),
    (bad(4, stretched(0, 3, -2)), 2, ValueError, "lengths"),
    (bad(300, stretched(257, 258, 2)), 2, ValueError, "lengths"),
])
def test_what_is_no_gram_matrix_is_refused(gram, n_x, error, problem):
    with pytest.raises(error, match=problem): from_gram(gram, n_x)


@pytest.mark.parametrize("change", [at(0, 0, 0.0), skewed(0, 3, 1e-10), stretched(1, 2, 1 + 1e-10)])
def test_what_rounding_makes_of_a_gram_matrix_is_none_of_its_faults(change):
    gram = bad(4, change)
    if gram[0, 0] == 0: gram[0] = gram[:, 0] = 0
    assert from_gram(gram, 3).n_y == 1


@pytest.mark.parametrize("options, problem", [
    ({"n_samples": 9}, "need sums"), ({"sums": np.zeros(4)}, "need sums"),
    ({"n_samples": 9, "sums": np.zeros(3)}, "4 finite"), ({"n_samples": 9, "sums": np.full(4, np.nan)}, "4 finite"),
    ({"n_samples": 0, "sums": np.zeros(4)}, "at least 1"), ({"n_samples": 9, "sums": np.full(4, 1e3)}, "longer"),
])
def test_sums_that_belong_to_no_affine_match_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem): from_gram(bad(4, lambda gram: None), 2, affine=True, **options)


def test_a_mean_hardly_longer_than_its_vector_is_refused():
    gram = bad(4, lambda gram: None)
    sums = 3 * gram.diagonal().sqrt()       # of nine inputs that are all the same
    assert from_gram(gram, 2, 9, affine=True, sums=sums).unit_gram.diagonal().eq(0).all()
    with pytest.raises(ValueError, match="longer"): from_gram(gram, 2, 9, affine=True, sums=(1 + 1e-8) * sums)


def test_one_input_and_a_mean_as_long_as_its_vector_are_allowed():
    assert from_gram(torch.ones(2, 2).double(), 1, 1, affine=True, sums=np.array([1, 1 + 1e-10])).unit_gram.eq(0).all()


# What rounding may have done

def test_what_the_inner_products_of_vectors_lack_is_less_than_the_noise():
    for n, d in ((2, 5), (20, 40), (20, 2000)):
        z = vectors(2 * n, d).float().double()   # of which products are exact
        exact = torch.tensor([[math.fsum(a * b) for b in z.numpy()] for a in z.numpy()], dtype=torch.float64)
        size, geometry = exact.diagonal().sqrt(), Geometry.from_vectors(z[:n], z[n:])
        error = torch.linalg.matrix_norm(geometry.unit_gram - exact / size[:, None] / size, 2)
        assert error < geometry.gram_noise(2 * n) < 1e-12
        # as derived: two roundings of each entry, and the sums over inputs, as far as they are known
        exactly = {"rel": 1e-9, "abs": 0}
        known, unknown = (from_gram(geometry.gram, n, known) for known in (d, None))
        assert geometry.gram_noise(6) == pytest.approx((12 + (6 * d) ** 0.5) * 2.0**-52, **exactly)
        every = torch.arange(2 * n)
        assert known.gram_noise(6) == geometry.gram_noise(6) and geometry.root_noise(every, geometry.coordinates) == 0
        assert unknown.gram_noise(6) == pytest.approx((12 + 6e6**0.5) * 2.0**-52, **exactly)
        root = known.rows(every).numpy()
        lack = known.root_noise(every, torch.as_tensor(root)) - known.gram_noise(2 * n)
        assert lack == pytest.approx(np.linalg.norm(root @ root.T - known.unit_gram.numpy()), rel=1e-6) and lack < 1e-12


def nearly_dependent(gap, seed=0):
    "Five vectors in eight dimensions, the last of which leaves the span of the others by `gap`."
    z = vectors(5, 8, seed)
    z[4] = z[:2].sum(0) + gap * z[4]
    return z / torch.linalg.vector_norm(z, dim=1, keepdim=True)


def test_intervals_hold_distances_however_they_are_rounded():
    for seed in range(20):
        for gap in (1.0, 1e-3, 1e-6):
            others, z = nearly_dependent(gap, seed), vectors(3, 8, 100 + seed)
            z /= torch.linalg.vector_norm(z, dim=1, keepdim=True)
            least, most = residual_interval(z, others, TOLERANCE)
            assert (most - least).max() < 1e-12 / gap
            for k in range(20):
                turn, order = torch.linalg.qr(vectors(8, 8, seed + k))[0], np.random.default_rng(k).permutation(5)
                distance = engine.residual_norms(z @ turn, others[order] @ turn, TOLERANCE)
                assert ((least <= distance) & (distance <= most)).all()


@pytest.mark.parametrize("kind", ["vectors", "affine", "gram"])
@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-4])
def test_intervals_hold_distances_in_any_order_of_inputs(kind, gap):
    "Neurons that are nearly dependent, affine ones that are nearly constant, and inner products alone."
    def geometry_of(x, y):
        z = torch.cat([x, y])
        if kind == "gram": return from_gram(z @ z.T, len(x), z.shape[1])
        return Geometry.from_vectors(x, y, affine=kind == "affine")
    everyone, moved = torch.ones(6, dtype=torch.bool), 0.0
    for seed in range(10):
        x, y = vectors(3, 9, seed), vectors(3, 9, 50 + seed)
        y[2] = 1 + gap * y[2] if kind == "affine" else y[0] + gap * y[2]
        least, most = geometry_of(x, y).interval(everyone)
        for k in range(20):
            order = np.random.default_rng(k).permutation(9)
            distance = geometry_of(x[:, order], y[:, order]).distances(everyone)
            assert ((least <= distance) & (distance <= most)).all()
            moved = max(moved, float((distance - (least + most) / 2).abs().max()))
        assert (most - least).max() < 1e-11 / gap ** (1 if kind != "gram" else 2)
    assert moved > 0


def test_the_interval_is_wide_where_a_direction_is_at_the_tolerance():
    "To one part in 10^8, which is what rounding moves the singular value by."
    low, high, z = 1e-9, 1e-7, torch.eye(3)[2:].double()
    at = lambda gap: torch.tensor([[1.0, 0, 0], [1, 0, gap]], dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(engine.directions(at(middle))[1][1]) <= TOLERANCE else (low, middle)
    least, most = residual_interval(z, at(low), TOLERANCE)
    assert least < 1e-6 and most > 0.99
    for gap, distance in ((low / 1.001, 1), (low * 1.001, 0)):
        least, most = residual_interval(z, at(gap), TOLERANCE)
        assert abs(least - distance) < 1e-6 and abs(most - distance) < 1e-6


@pytest.mark.parametrize("length", [1.0, 0.1])
def test_inner_products_alone_move_singular_values(length):
    "By what they are off by, over the tolerance and the length of the shortest vector."
    z, tolerance, noise = torch.eye(3)[2:].double(), 1e-6, 1e-17
    for by, least_at, most_at in ((-2, 1, 1), (-0.5, 0, 1), (0.5, 0, 1), (2, 0, 0)):
        gap = 2**0.5 * (tolerance + by * noise / tolerance / length)
        rows = length * torch.tensor([[1.0, 0, 0], [1, 0, gap]], dtype=torch.float64)
        least, most = residual_interval(z, rows, tolerance, noise)
        assert abs(least - least_at) < 0.05 and abs(most - most_at) < 0.05


def test_nothing_is_in_the_span_of_no_vectors():
    z = vectors(2, 4)
    z /= torch.linalg.vector_norm(z, dim=1, keepdim=True)
    least, most = residual_interval(z, z[:0], TOLERANCE)
    assert (least < 1).all() and (most > 1).all() and (most - least < 1e-13).all()    # a row is rounded itself
    least, most = residual_interval(z, z[:0], TOLERANCE, gram_noise=0.01)   # of a squared length
    assert (least - 0.99**0.5).abs().max() < 1e-12 and (most - 1.01**0.5).abs().max() < 1e-12


def test_a_part_may_reach_out_of_the_whole_by_one_over_a_small_share():
    """y[2] is a thousandth of the combination that vanishes but for 5e-9 of the third direction. Without y[2], the
    others span that direction to 5e-6: x[1] passes among two, fails among three, and the user is told.
    """
    y = np.array([[1.0, 0, 0], [1, 1e-3, 5e-9], [0, 1, 0]])
    x = np.array([[1.0, 0, 0], [0, 1, 5e-6]])
    assert is_match(x, y, Match([0, 1], [0, 1]), 2e-6) and not is_match(x, y, Match([0, 1], [0, 1, 2]), 2e-6)
    with pytest.warns(UserWarning, match="within rounding errors"): maximum_match(x, y, 2e-6)


# Tables, while neurons leave

def table_of(z, own, others):
    "S and C of the definition: the pseudo-inverse of the inner products, and the coefficients of the others."
    size = torch.linalg.vector_norm(z[own], dim=1, keepdim=True)
    inverse = torch.linalg.pinv(z[own] / size, rtol=1e-6)
    return inverse.T @ inverse, inverse.T @ z[others].T


@pytest.mark.parametrize("spare", [0, 1, 3])
def test_tables_are_those_of_a_new_fit_while_neurons_leave(spare):
    rng = np.random.default_rng(spare)
    x, y = vectors(8, 30), vectors(8, 30, 1)
    for k in range(spare): x[7 - k] = torch.as_tensor(rng.normal(size=4)) @ x[:4]
    geometry = Geometry.from_vectors(x, y)
    pair, z = Pair(geometry, torch.ones(16, dtype=torch.bool)), geometry.coordinates
    for step, gone in enumerate([[0, 9], [5], [12, 13], [1], [2, 8]]):
        out = torch.zeros_like(pair.alive)
        out[torch.searchsorted(pair.index, torch.tensor(gone))] = True
        pair.delete(out)
        if step == 2: pair.settle()
        assert pair.errors.wear >= 1 and pair.pending() == sum(len(span.left) for span in pair.spans)
        left = pair.index[pair.alive]
        own = left[left < 8], left[left >= 8]
        for span, mine, others in zip(pair.spans, own, reversed(own)):
            j = torch.searchsorted(pair.index, mine) - span.own.start
            inverse, coefficients = table_of(z, mine, others)
            table = engine.rows_of(span, j)
            assert torch.allclose(table[:, torch.searchsorted(pair.index, mine)], inverse, atol=1e-8)
            assert torch.allclose(table[:, torch.searchsorted(pair.index, others)], coefficients, atol=1e-8)
            assert torch.allclose(span.now[j], inverse.diagonal(), atol=1e-8) and (span.peak[j] >= span.now[j]).all()
            gone = torch.ones_like(span.now).index_fill_(0, j, 0) > 0
            assert (span.now[gone].abs() < 1e-20).all() and not span.peak[gone].any()
            ways = engine.ways_of(span, j)
            rank = torch.linalg.matrix_rank(z[mine], rtol=1e-6)
            assert torch.linalg.matrix_rank(ways, atol=1e-8) == len(mine) - rank
            assert torch.allclose(ways @ z[mine], torch.zeros(1).double(), atol=1e-8)
            true = engine.residual_norms(z[others], z[mine], TOLERANCE) ** 2
            assert torch.allclose(pair.r[torch.searchsorted(pair.index, others)], true, atol=1e-10)


@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-4])
def test_a_fit_says_how_small_its_singular_values_are_and_how_far_it_may_be_off(gap):
    z = torch.cat([nearly_dependent(gap), vectors(3, 8, 1) / 3])
    own, j = slice(0, 5), torch.tensor([0, 1, 3, 4])
    smallest = float(torch.linalg.svdvals(z[j])[-1])
    true = engine.residual_norms(z, z[j], TOLERANCE) ** 2
    gram = engine.fit_gram(z @ z.T, own, j, 16 * 2.0**-52)
    rows = engine.fit_rows(z, own, j, TOLERANCE)
    assert smallest / 4 < gram.least < smallest * (1 + 1e-6) and rows.least == pytest.approx(smallest, rel=1e-6)
    assert ((gram.residual - true)[5:].abs() <= gram.squared).all() and gram.squared < 1e-12 / gap**2
    assert gram.distance == gram.step == rows.squared == rows.step == 0
    assert ((rows.residual**0.5 - true**0.5)[5:].abs() <= rows.distance).all() and rows.distance < 1e-12 / gap


def test_what_is_dropped_moves_distances_by_its_share_of_the_least_that_is_kept():
    z = shortened(torch.tensor([[1, 0, 0], [1, 1e-3, 0], [1, 0, 1e-11]]).double(), [1] * 3)
    s = torch.linalg.svdvals(z)
    fit = engine.fit_rows(z, slice(0, 3), torch.arange(3), TOLERANCE)
    assert fit.distance == pytest.approx(float(s[2] / s[1]), rel=1e-3) and s[1] < 1e-3
    first_and_last = engine.fit_rows(z, slice(0, 3), torch.tensor([0, 2]), TOLERANCE)
    assert first_and_last.distance == pytest.approx(0.5e-11, rel=1e-3, abs=0)    # 2**-.5 * 1e-11 over 2**.5


@pytest.mark.filterwarnings("ignore:some neurons are nearly dependent")
@pytest.mark.parametrize("gap, cut", [(1e6, 0), (2.5, 0), (1.5, TOLERANCE), (0.0, TOLERANCE)])
def test_coefficients_may_be_cut_where_singular_values_are_near_the_tolerance(gap, cut):
    x = shortened(torch.tensor([[1, 0, 0], [1, 2**0.5 * gap * TOLERANCE, 0]]).double(), [1] * 2)
    assert Pair(Geometry.from_vectors(x, torch.eye(3)[2:].double()), torch.ones(3, dtype=torch.bool)).errors.cut == cut


@pytest.mark.filterwarnings("ignore:some neurons are nearly dependent")
@pytest.mark.parametrize("length", [1.0, 0.3])
def test_tables_are_fitted_again_where_small_singular_values_have_fallen_by_half(length):
    "Five copies each of two neurons that hardly differ: with two copies each, squared singular values are 2/5 of it."
    basis = torch.linalg.qr(torch.cat([torch.ones(1, 12).double(), vectors(3, 12)]).T)[0].T
    one, a, b, y = basis * torch.sign(basis[0, 0])
    x = shortened(torch.cat([a[None].repeat(5, 1), (a + 2**0.5 * 3e-8 * b)[None].repeat(5, 1)]), [length] * 10)
    x = x + (1 - length**2) ** 0.5 * one
    def after(n):
        pair = Pair(Geometry.from_vectors(x, y[None], affine=True), torch.ones(11, dtype=torch.bool))
        out = torch.zeros(11, dtype=torch.bool)
        out[:n] = out[5 : 5 + n] = True
        pair.delete(out)
        return pair.fresh
    assert not after(1) and after(3)


def test_inner_products_suffice_until_the_vectors_are_asked_for():
    pair = Pair(Geometry.from_vectors(vectors(4, 20), vectors(4, 20, 1)), torch.ones(8, dtype=torch.bool))
    assert not pair.from_vectors and not pair.stable
    pair.fit()
    assert not pair.from_vectors
    for stable in (True, False):            # and from then on
        pair.fit(stable)
        assert pair.from_vectors and pair.stable


def test_a_fit_of_what_is_dependent_is_left_to_the_vectors():
    z = vectors(3, 8)
    z[2] = z[0]
    by_products = engine.fit_gram(z @ z.T, slice(0, 3), torch.arange(3), 1e-15)
    assert by_products is None or by_products.squared > engine.MOST_ERROR
    fit = engine.fit_rows(z, slice(0, 3), torch.arange(3), TOLERANCE)
    assert fit.least == 0 and len(fit.span.ways) == 1 and fit.step < 1e-12
    nothing = engine.fit_rows(z, slice(0, 3), torch.arange(0), TOLERANCE)
    assert nothing.least == 1 and torch.allclose(nothing.residual, (z**2).sum(1))


def test_a_cautious_pair_knows_nothing_by_its_tables():
    geometry = Geometry.from_vectors(vectors(3, 9), vectors(3, 9, 1))
    everyone = torch.ones(6, dtype=torch.bool)
    known, cautious = (Pair(geometry, everyone, cautious=cautious).errors for cautious in (False, True))
    assert engine.margin(known, 0.5) < 1e-12 and engine.knows(known, 0.5) and not engine.knows(known, 0.0)
    assert engine.margin(cautious, 0.5) == np.inf and not engine.knows(cautious, 0.5)
    assert 0.25 <= engine.fails_above(known, 0.5) < 0.25 + 1e-12
    known = known._replace(wear=2.0, squared=1e-6, distance=1e-3, step=0.1)
    assert engine.margin(known, 0.25) == pytest.approx(2e-6 + 2 * 2e-3 * 0.5 + 4e-6)
    assert engine.margin(known, -1e-9) == pytest.approx(2e-6 + 4e-6)
    assert engine.fails_above(known, 0.5) == pytest.approx(0.7**2 + engine.margin(known, 0.25))


def shortened(z, lengths):
    return z / torch.linalg.vector_norm(z, dim=1, keepdim=True) * torch.as_tensor(lengths, dtype=z.dtype)[:, None]


def test_tables_are_of_vectors_of_length_one_whatever_their_lengths():
    z = shortened(vectors(7, 12), [1, 0.5, 1e-2, 0.9, 0.1, 1, 0.3])
    own, j = slice(0, 5), torch.arange(5)
    inverse, coefficients = table_of(z, range(5), range(5, 7))
    for fit in (engine.fit_gram(z @ z.T, own, j, 1e-15), engine.fit_rows(z, own, j, TOLERANCE)):
        assert torch.allclose(fit.span.table, torch.cat([inverse, coefficients], 1), atol=1e-9)
        true = engine.residual_norms(z[5:], z[:5], TOLERANCE) ** 2
        assert torch.allclose(fit.residual[5:], true, rtol=0, atol=1e-12)


def noise_of_norm(n, norm, rng):
    "A symmetric matrix."
    e = torch.as_tensor(rng.normal(size=(n, n)))
    return (e + e.T) * norm / torch.linalg.matrix_norm(e + e.T, 2)


def near_each_other(rng, gap):
    "Six vectors and near copies of three of them, of several lengths, and four vectors beside."
    z = torch.as_tensor(rng.normal(size=(13, 14)))
    z[6:9] = z[:3] + gap * z[6:9]
    return shortened(z, [1, 0.2, 1, 0.5, 1, 1, 0.3, 1, 0.9, 1, 1, 1, 1])


@pytest.mark.parametrize("gap", [0.3, 1e-2])
def test_what_noise_does_to_squared_distances_stays_within_what_a_fit_says_of_it(gap):
    "And within as much times the wear after deletions."
    rng, noise, most = np.random.default_rng(0), 1e-11, 0.0
    for _ in range(40):
        z, own = near_each_other(rng, gap), slice(0, 9)
        gram = z @ z.T
        fits = [engine.fit_gram(g, own, torch.arange(9), noise) for g in (gram, gram + noise_of_norm(13, noise, rng))]
        spans, r, wear = [fit.span for fit in fits], [fit.residual[9:] for fit in fits], 1.0
        most = max(most, float((r[0] - r[1]).abs().max()) / fits[0].squared)
        for j in rng.permutation(9)[:7].tolist():
            done = [engine.delete(span, torch.tensor([j]), TOLERANCE) for span in spans]
            spans, r = [d.span for d in done], [old + d.growth[9:] for old, d in zip(r, done)]
            wear = max(wear, done[0].wear)
            assert float((r[0] - r[1]).abs().max()) <= wear * fits[0].squared
    assert 0.03 < most <= 1


def test_wear_is_how_far_entries_have_fallen_since_their_peak():
    "Once its near copy is gone, a neuron's entry falls by the square of the gap; whoever divides by it then, pays."
    z = near_each_other(np.random.default_rng(0), 1e-2)
    diagonal = lambda left: dict(zip(left, table_of(z, left, [9])[0].diagonal().tolist()))
    span, peak = engine.fit_gram(z @ z.T, slice(0, 9), torch.arange(9), 1e-15).span, diagonal(range(9))
    for gone, left in ((6, [0, 1, 2, 3, 4, 5, 7, 8]), (0, [1, 2, 3, 4, 5, 7, 8]), (3, [1, 2, 4, 5, 7, 8])):
        pivot, now = peak[gone] / span.now[gone], diagonal(left)
        done = engine.delete(span, torch.tensor([gone]), TOLERANCE)
        assert done.wear == pytest.approx(max(float(pivot), max(peak[k] / now[k] for k in left)), rel=1e-6)
        assert (gone != 0 or pivot > 1e3) and done.growth[:9].eq(0).all()
        span = done.span


@pytest.mark.parametrize("share, told", [(100, False), (4, True), (0.25, True), (0.01, False)])
def test_where_it_is_unclear_what_is_noise_the_user_is_told(share, told, recwarn):
    "Two vectors whose smaller singular value is so many times the tolerance."
    z = torch.tensor([[1.0, 0], [1, 2**0.5 * share * TOLERANCE]], dtype=torch.float64)
    fit = engine.fit_rows(z, slice(0, 2), torch.arange(2), TOLERANCE)
    assert any("nearly dependent" in str(warning.message) for warning in recwarn) == told
    assert len(fit.span.ways) == (share < 1)


def test_a_step_is_what_is_dropped_over_what_is_kept_without_one_vector():
    "Of two vectors either may go: each has its share in the direction that is dropped."
    z = torch.tensor([[1.0, 0], [1, 2e-9]], dtype=torch.float64)
    u, s, _ = engine.svd(z)
    assert engine.step_of(u, s, 1, TOLERANCE) == pytest.approx(float(s[1] / s[0]) / 0.5**0.5, rel=1e-6)
    assert engine.step_of(u, s, 0, TOLERANCE) == engine.step_of(u, s, 2, TOLERANCE) == 0


def test_errors_of_a_fit_grow_with_what_centring_took_away():
    "A vector of length l has its own error over l; singular values are those of vectors scaled to length one."
    one = torch.full((1, 12), 12**-0.5, dtype=torch.float64)
    z = torch.cat([shortened(vectors(3, 12), [1, 1, 1]), shortened(vectors(1, 12, 1), [1])])
    rest = z - z.mean(1, keepdim=True)
    mean = torch.tensor([0.0, 0.6, 0.99, 0]).double()[:, None]
    z = (1 - mean**2).sqrt() * shortened(rest, [1] * 4) + mean * one        # lengths 1, .8 and .14 after centring
    rest, own, j, noise = z - z.mean(1, keepdim=True), slice(0, 3), torch.arange(3), 1e-9
    size, inverse = torch.linalg.vector_norm(rest[:3], dim=1), table_of(rest, range(3), [3])[0].diagonal()
    gram, rows = engine.fit_gram(rest @ rest.T, own, j, noise), engine.fit_rows(rest, own, j, TOLERANCE, noise)
    reach = 1 + float((inverse / size**2).sum())
    assert gram.squared == pytest.approx(noise * reach, rel=1e-6) == rows.root and reach > 50
    assert engine.fit_rows(rest, own, j, TOLERANCE).root == 0
    for d, roundings in ((0, 4), (84, 10)):      # of four neurons, and of d inputs that were summed up
        distance = engine.fit_rows(rest, own, j, TOLERANCE, d=d).distance
        assert distance == pytest.approx(roundings * 2.0**-52 * (1 + (reach - 1) ** 0.5), rel=1e-6, abs=0)
    smallest = float(torch.linalg.svdvals(rest[:3] / size[:, None])[-1])
    assert smallest / 3 < gram.least <= rows.least == pytest.approx(smallest)


@pytest.mark.parametrize("stable", [True, False])
def test_coefficients_are_rounded_relative_to_what_centring_leaves(stable):
    "Of vectors scaled to length one after centring; before it they are a thousand times as long."
    z = 1 + 1e-3 * vectors(4, 50)
    pair = Pair(Geometry.from_vectors(z[:2], z[2:], affine=True), torch.ones(4, dtype=torch.bool))
    if stable: pair.fit(stable=True)
    c = torch.tensor([[1.0, 2], [3, 4]]).double()
    found = engine.remainders(pair, torch.arange(2), torch.arange(2, 4))(c)
    size = pair.geometry.unit_gram.diagonal()[:2, None].sqrt()
    own, lengths = pair.geometry.coordinates[:2] / size, torch.linalg.vector_norm(c / size, dim=0)
    rest = pair.geometry.coordinates[2:] - c.T @ own
    assert torch.allclose(found.slope, own @ rest.T, rtol=1e-6) and torch.allclose(found.squared, (rest**2).sum(1))
    assert torch.allclose(found.rounding, engine.rounding(4, 50) * (1 + lengths), atol=0)
    assert torch.allclose(found.error, (not stable) * pair.geometry.gram_noise(4) * (1 + lengths**2), atol=0)


def test_errors_grow_with_what_deletions_leave_of_singular_values():
    "A chain, each neuron a tenth of the one before and something new: one after the other is made up for by the rest."
    k, z = 6, [np.eye(20)[0]]
    for i in range(k): z.append((np.eye(20)[i + 1] + 0.1 * z[-1]) / 1.01**0.5)
    turn = np.linalg.qr(np.random.default_rng(8).normal(size=(20, 20)))[0]
    x = np.array([0.8 * z[0] + 0.6 * np.eye(20)[k + 2], z[0]]) @ turn
    y = np.array([*z, *np.eye(20)[1 : k + 1]]) @ turn
    geometry = Geometry.from_vectors(x, y)
    pair = Pair(geometry, torch.ones(len(x) + len(y), dtype=torch.bool))
    assert pair.errors.wear == 1
    for i in range(k):
        pair.delete(torch.zeros_like(pair.alive).index_fill_(0, torch.tensor([2 + i]), True))
        stable = geometry.distances(pair.keep())[pair.index] ** 2
        error = float((pair.r - stable)[pair.alive].abs().max())
        assert error <= engine.margin(pair.errors, 1.0) and pair.errors.wear > 10 ** (2 * i + 1)
    assert error > 1e-11


def test_wear_of_what_others_make_up_for_and_of_what_they_do_not():
    """z[0], z[1] and their sum, of which two leave: one combination is spare, the other needed. The third lies near
    the needed one, so its entry is large, and small once that is gone.
    """
    z = vectors(6, 9)
    z = shortened(torch.cat([z[:2], z[:1] + z[1:2], z[:1] + 0.5 * z[1:2] + 1e-2 * z[2:3], z[3:]]), [1] * 7)
    span, j = engine.fit_rows(z, slice(0, 6), torch.arange(6), TOLERANCE).span, torch.tensor([0, 1])
    way = span.ways[:, j]
    share = float(torch.linalg.vector_norm(way))
    needed = torch.tensor([[-way[0, 1], way[0, 0]]]) / share                  # the combination that no way contains
    whole = torch.linalg.pinv(z[:6] @ z[:6].T, rtol=1e-10, hermitian=True)
    left = torch.linalg.pinv(z[2:6] @ z[2:6].T, rtol=1e-10, hermitian=True).diagonal()
    spared = engine.delete_spare(span, j, TOLERANCE)
    assert spared.share == pytest.approx(share) and torch.allclose(spared.needed.abs(), needed.abs())
    table = engine.rows_of(spared.span, slice(None))[:, :6]
    pivot = float(needed @ table[j][:, j] @ needed.T)
    done = engine.delete(span, j, TOLERANCE)
    peak = torch.maximum(whole.diagonal(), table.diagonal())
    worn = [1 / share, float(needed**2 @ peak[j]) / pivot, float((peak[2:] / left).max())]
    assert done.wear == pytest.approx(max(worn), rel=1e-4) and max(worn[1:]) > 100
    near = torch.tensor([[1.0, 0], [0, 1], [1, 1e-3]]).double()
    small = engine.fit_rows(shortened(near, [1] * 3), slice(0, 3), torch.arange(3), TOLERANCE).span
    alone = engine.delete(small, torch.tensor([1]), TOLERANCE)
    assert alone.wear >= 1 / float(small.ways[0, 1].abs()) > 1e3
    assert engine.delete(span._replace(table=-span.table), j, TOLERANCE) is None  # nothing to divide by


def test_a_deletion_is_worth_what_its_smallest_divisor_is():
    "Of shares: a copy makes up for one neuron in full, a small part of another one for the other; of pivots likewise."
    e = torch.eye(3).double()
    z = shortened(torch.stack([e[0], e[1], e[0] + 1e-3 * e[1], e[2], e[2]]), [1] * 5)
    span, j = engine.fit_rows(z, slice(0, 5), torch.arange(5), TOLERANCE).span, torch.tensor([1, 3])
    shares = torch.linalg.svdvals(span.ways[:, j])
    assert engine.delete_spare(span, j, TOLERANCE).share == pytest.approx(float(shares[1])) and shares[1] < 2e-3
    z = shortened(torch.stack([e[0], e[0] + 1e-2 * e[1], e[0] + 3**0.5 * e[2]]), [1] * 3)
    span = engine.fit_gram(z @ z.T, slice(0, 3), torch.arange(3), 1e-15).span
    peak = span.peak[1]
    span = engine.delete(span, torch.tensor([0]), TOLERANCE).span
    assert span.now[1] == pytest.approx(4 / 3, rel=1e-3)     # the third lies at 60 degrees
    assert engine.delete(span, torch.tensor([1]), TOLERANCE).wear == pytest.approx(float(peak / span.now[1]))
    z = shortened(torch.stack([e[0], e[0] + 1e-2 * e[1], 2 * e[2] + e[0], e[2] + e[0]]), [1] * 4)
    span = engine.fit_rows(z, slice(0, 4), torch.arange(4), TOLERANCE).span
    assert len(span.ways) == 1
    span, j = engine.delete(span, torch.tensor([1]), TOLERANCE).span, torch.tensor([0, 2])
    left, needed, _ = engine.delete_spare(span, j, TOLERANCE)
    pivot = needed @ engine.rows_of(left, j)[:, j] @ needed.T
    worn = float(needed**2 @ left.peak[j] / pivot)
    assert engine.delete(span, j, TOLERANCE).wear == pytest.approx(worn) and worn > 100


def test_what_was_used_up_stays_orthonormal_where_shares_are_small():
    "a and b have c in common; once a is gone, b is made up for by a small share of what tells d from its near copy."
    e, turn = torch.eye(12).double(), torch.as_tensor(np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0])
    a, b, d = e[:4], e[4:8], e[8:]
    z = shortened(torch.cat([a, b, a + b, d, d + 1e-5 * a]) @ turn, [1] * 20)
    span = engine.fit_rows(z, slice(0, 20), torch.arange(20), TOLERANCE).span
    for k in range(8): span = engine.delete(span, torch.tensor([k]), TOLERANCE).span
    assert torch.allclose(span.used.T @ span.used, torch.eye(8).double(), rtol=0, atol=1e-14)


def test_many_rows_and_columns_are_chosen_a_block_at_a_time():
    matrix, (rows, columns) = vectors(300, 40), (torch.randperm(300), torch.arange(0, 40, 3))
    assert torch.equal(engine.submatrix(matrix, rows, columns), matrix[rows][:, columns])


def test_copies_have_entries_below_one():
    "So what an entry falls to may be less than one, and the wear is more than its peak."
    z = shortened(torch.cat([vectors(1, 6), vectors(1, 6), vectors(1, 6) + 1e-2 * vectors(1, 6, 1), vectors(1, 6, 2)]),
                  [1] * 4)
    span = engine.fit_rows(z, slice(0, 3), torch.arange(3), TOLERANCE).span
    done = engine.delete(span, torch.tensor([2]), TOLERANCE)
    assert done.span.now[:2].tolist() == pytest.approx([0.25, 0.25])
    assert done.wear == pytest.approx(float(span.now[0]) / 0.25, rel=1e-6)


def test_shares_near_the_tolerance_are_left_to_a_fit():
    "Whether the copies make up for each other is clear; whether y[1] makes up for them is a matter of its distance."
    for copies in (1, 9):
        for share, clear in ((10, True), (0.9, False), (0.2 / copies**0.5, False), (0.1 / copies**0.5, True)):
            gap = share * TOLERANCE * 2**0.5
            e = torch.eye(3).double()
            z = shortened(torch.cat([e[:1], e[:1] + gap * copies**0.5 * e[1:2], e[1:2].repeat(copies, 1)]),
                          [1] * (2 + copies))
            span = engine.fit_rows(z, slice(0, len(z)), torch.arange(len(z)), 1e-13).span
            assert (engine.delete_spare(span, torch.arange(2, len(z)), TOLERANCE) is not None) == clear


def test_sums_over_many_inputs_are_rounded_too():
    "Intervals of a factor hold what the vectors themselves say, which are a thousand times longer than the factor."
    moved = 0.0
    for seed in range(6):
        x, y = vectors(1, 300_000, seed), vectors(1, 300_000, 10 + seed)
        x, y = x / x.norm(), y / y.norm()
        y = 0.9 * x + 0.19**0.5 * y
        least, most = Geometry.from_vectors(x, y).interval(torch.ones(2, dtype=torch.bool))
        exact = math.sqrt(1 - math.fsum((x * y)[0].tolist()) ** 2 / math.fsum((x * x)[0].tolist())
                          / math.fsum((y * y)[0].tolist()))
        assert least[0] <= exact <= most[0] and most[0] - least[0] < 1e-12
        moved = max(moved, abs(exact - float(least[0] + most[0]) / 2))
    assert moved > 0


def test_errors_grow_with_what_deletions_say_and_with_the_trace():
    known = engine.Errors(0.0, 0.0, 0.0, 0.0, 0.0, [0.25, 3.0], [8.0, 9.0], cautious=False, wear=2.0)
    assert engine.worn(known, 1.0, [0.25, 3.0]).wear == 2 and engine.worn(known, 5.0, [0.25, 3.0]).wear == 5
    assert engine.worn(known, 1.0, [0.75, 3.0]).wear == 3 and engine.worn(known, 1.0, [0.25, 9.0]).wear == 3
    for name in ("squared", "distance"):
        imprecise = known._replace(**{name: 1e-3 * engine.MOST_ERROR})
        assert engine.worn(imprecise, 999.0, [0.25, 3.0]).wear == 999
        assert engine.worn(imprecise, 1001.0, [0.25, 3.0]) is None
    assert engine.worn(known, 1.0, [8.1, 3.0]) is None is engine.worn(known, 1.0, [0.25, 9.1])


def test_a_pair_settles_once_half_of_it_is_gone_or_many_rows_wait(monkeypatch):
    pair = Pair(Geometry.from_vectors(vectors(10, 40), vectors(10, 40, 1)), torch.ones(20, dtype=torch.bool))
    def gone(*which):
        pair.delete(torch.zeros_like(pair.alive).index_fill_(0, torch.tensor(which), True))
        pair.tidy()
        return len(pair.index), pair.pending()
    assert gone(0, 1) == (20, 2)
    assert gone(2, 3, 4, 5, 6, 7, 8, 9, 10, 11) == (8, 0)
    monkeypatch.setattr(engine, "WAITING", 1)
    assert gone(0) == (8, 1) and gone(1) == (6, 0)


def test_refined_distances_are_exact_though_the_table_is_a_hundredth_off():
    rng, x = np.random.default_rng(0), vectors(6, 30)
    y = torch.as_tensor(rng.normal(size=(7, 6))) @ x + vectors(7, 30, 1)
    pair = Pair(Geometry.from_vectors(x, y), torch.ones(13, dtype=torch.bool))
    pair.delete(torch.zeros_like(pair.alive).index_fill_(0, torch.tensor([1, 9]), True))
    for span in pair.spans: span.table.mul_(torch.as_tensor(1 + 1e-2 * rng.uniform(-1, 1, span.table.shape)))
    true = pair.geometry.distances(pair.keep())
    off = [(float((true - end.least).max()), float((end.most - true).max())) for end in
           (refined(pair, pair.alive, *steps) for steps in ([], [0], [1], [2]))]
    assert off[0] == off[2] and off[1][0] > 0.1 and off[1][1] > 1e-5 > 1e-7 > off[2][1] > 1e-10 > off[3][1]
    least, most = refined(pair, pair.alive)
    assert (least <= true + 2e-9).all() and (true <= most + 1e-14).all() and off[2][0] < 1e-7


@pytest.mark.parametrize("ask", [False, True], ids=["inner products", "vectors"])
def test_rounding_of_a_remainder_grows_with_its_coefficients(ask):
    geometry = Geometry.from_vectors(vectors(3, 30), vectors(2, 30, 1))
    pair = Pair(geometry, torch.ones(5, dtype=torch.bool))
    pair.fit(stable=ask)
    c = torch.tensor([[3.0], [0.0], [4.0]]).double()
    e = engine.remainders(pair, torch.arange(3), torch.tensor([4]))(c)
    rest = geometry.vectors[4] - c[:, 0] @ geometry.vectors[:3]
    assert torch.allclose(e.squared, rest @ rest) and torch.allclose(e.slope[:, 0], geometry.vectors[:3] @ rest)
    assert e.rounding.item() == pytest.approx(engine.rounding(5, 30) * (1 + 5), rel=1e-12, abs=0)
    assert e.error.item() == pytest.approx(0 if ask else geometry.gram_noise(5) * (1 + 25), rel=1e-12, abs=0)


def test_warnings_go_to_whoever_asked_once_and_in_the_name_of_the_line_that_asked():
    def work(*messages):
        for message in messages: engine.tell(message)
        if "fails" in messages: raise ValueError("told all the same")

    @engine.warns_once
    def asked(*messages):
        work(*messages, *messages)
        return list(engine.told([engine.reported(work, "elsewhere"), (None, ["elsewhere"])]))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert engine.reported(work, "b", "a", "b") == (None, ["b", "a"])
        assert asked("here") == [None, None]
        with pytest.raises(ValueError, match="told all the same"): asked("fails")
        with pytest.raises(ValueError): engine.reported(work, "fails")
        work("alone", "alone")
    assert [str(warning.message) for warning in said] == ["here", "elsewhere", "fails", "alone", "alone"]
    assert {warning.filename for warning in said} == {__file__}


def test_rows_of_some_neurons_are_a_root_for_these_alone(monkeypatch):
    "Of the Gram matrix of many, only that of the few who are left is taken a root of."
    z = shortened(torch.cat([vectors(5, 9), torch.zeros(1, 9), vectors(4, 9, 1)]), [1] * 5 + [0] + [1] * 4).nan_to_num()
    known, index = Geometry.from_gram(z @ z.T, 5, n_samples=9), torch.tensor([1, 2, 5, 7])
    rows = known.rows(index)
    assert torch.allclose(rows @ rows.T, known.unit_gram[index][:, index], atol=1e-14) and not rows[2].any()
    assert torch.equal(Geometry.from_vectors(z[:5], z[5:]).rows(index).norm(dim=1) > 0, rows.norm(dim=1) > 0)
    assert 0 < known.root_noise(index, rows) - known.gram_noise(4) < 1e-14
    sizes, root = [], engine.gram_root
    monkeypatch.setattr(engine, "gram_root", lambda gram: sizes.append(len(gram)) or root(gram))
    keep = torch.zeros(10, dtype=torch.bool).index_fill_(0, index, True)
    distances, ends = known.distances(keep), known.interval(keep)
    assert (ends.least <= distances + 1e-12).all() and (distances <= ends.most).all() and not distances[~keep].any()
    assert torch.allclose(distances, Geometry.from_vectors(z[:5], z[5:]).distances(keep), atol=1e-7)
    Pair(known, keep.index_fill(0, torch.tensor([5]), False)).fit(stable=True)
    assert sizes == [4, 4, 3]
