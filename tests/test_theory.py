"""The theory as properties: Definition 1, section 3 and Algorithms 1 to 3 on instances that hypothesis looks for."""

import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import eps_values, independent_instances, instances, instances_with_neuron, noisy_instances

from subspace_match.theory import counterexamples
from subspace_match.theory import reference
from subspace_match.theory.inputs import check_activations
from subspace_match.theory.match import Match, is_match, relative_distance
from subspace_match.theory.reference import union

few = settings(max_examples=60, deadline=None)
index_sets = st.sets(st.integers(0, 5))
index_pairs = st.builds(Match, index_sets, index_sets)


@few
@given(index_pairs, index_pairs)
def test_match_is_a_set_of_neurons(a, b):
    set_a, set_b = set(a.neurons()), set(b.neurons())
    assert set((a | b).neurons()) == set_a | set_b and set((a & b).neurons()) == set_a & set_b
    assert set((a - b).neurons()) == set_a - set_b and len(a) == len(set_a) and bool(a) == bool(set_a)
    assert (a <= b) == (set_a <= set_b) and (a < b) == (set_a < set_b) and (a == b) == (set_a == set_b)
    assert (a > b) == (set_a > set_b) and (a != b or hash(a) == hash(b))
    assert all((v in a) == (v in set_a) for v in set_b)


@few
@given(noisy_instances())
def test_relative_distance_agrees_with_least_squares(xy):
    x, y = xy
    rest = x.T - y.T @ np.linalg.lstsq(y.T, x.T, rcond=None)[0]
    expected = np.linalg.norm(rest, axis=0) / np.linalg.norm(x, axis=1)
    assert np.allclose(relative_distance(x, y), expected, atol=1e-7)
    assert np.allclose(relative_distance(torch.tensor(x), torch.tensor(y)).numpy(), expected, atol=1e-7)


@few
@given(noisy_instances(), st.floats(-200, 200), st.floats(-200, 200))
def test_relative_distance_ignores_scale(xy, exponent_x, exponent_y):
    x, y = xy
    assert np.allclose(relative_distance(x * 10**exponent_x, y * 10**exponent_y), relative_distance(x, y), atol=1e-7)


@few
@given(instances(), eps_values)
def test_tolerance_and_exact_arithmetic_agree_with_definition_1(xy, eps):
    x, y = xy
    exact = reference.all_matches(x, y, eps, exact=True)
    candidates = (reference.match_of_mask(k, len(x), len(y)) for k in range(1 << len(x) + len(y)))
    assert set(exact) == set(reference.all_matches(x, y, eps)) == {m for m in candidates if is_match(x, y, m, eps)}


@few
@given(instances(), eps_values)
def test_matches_are_closed_under_union(xy, eps):
    masks = reference.match_masks(*xy, eps, exact=True)
    assert np.isin(masks[:, None] | masks, masks).all()


@few
@given(instances(), eps_values)
def test_every_match_is_a_union_of_simple_ones(xy, eps):
    simple = reference.exhaustive_simple_matches(*xy, eps, exact=True)
    for m in reference.all_matches(*xy, eps, exact=True):
        assert union(s for s in simple if s <= m) == m
        assert (m in simple) == (bool(m) and union(s for s in simple if s < m) != m)


@few
@given(instances(max_n=3), eps_values)
def test_simple_matches_are_the_minimal_ones(xy, eps):
    matches = reference.all_matches(*xy, eps, exact=True)
    minimal = set()
    for v in matches[-1].neurons():
        with_v = [m for m in matches if v in m]
        by_definition = {m for m in with_v if not any(k < m for k in with_v)}
        assert set(reference.exhaustive_minimal_matches(*xy, eps, v, exact=True)) == by_definition
        minimal |= by_definition
    assert minimal == set(reference.exhaustive_simple_matches(*xy, eps, exact=True))


@few
@given(independent_instances())
def test_independent_exact_matches_are_closed_under_intersection(xy):
    masks = reference.match_masks(*xy, 0, exact=True)
    assert np.isin(masks[:, None] & masks, masks).all()
    simple = reference.exhaustive_simple_matches(*xy, 0, exact=True)
    assert len(simple) <= len(reference.literal_maximum_match(*xy, 0))
    assert all(len(m.x) == len(m.y) for m in simple)


@few
@given(instances(), eps_values, st.integers(0, 255))
def test_algorithm_1_finds_the_maximum_match(xy, eps, part):
    x, y = xy
    matches = reference.all_matches(x, y, eps, exact=True)
    assert reference.literal_maximum_match(x, y, eps) == matches[-1] == union(matches)
    within = reference.match_of_mask(part, len(x), len(y))
    assert reference.literal_maximum_match(x, y, eps, within=within) == union(m for m in matches if m <= within)


@few
@given(instances_with_neuron(), eps_values, st.none() | st.integers(0, 9))
def test_algorithm_2_finds_a_minimal_match(xyv, eps, seed):
    x, y, v = xyv
    expected = reference.exhaustive_minimal_matches(x, y, eps, v, exact=True)
    found = reference.literal_minimal_match(x, y, eps, v, seed=seed)
    assert found in expected if expected else found is None


@few
@given(instances_with_neuron(instances(max_n=3)), eps_values)
def test_algorithm_3_finds_all_minimal_matches(xyv, eps):
    x, y, v = xyv
    expected = reference.exhaustive_minimal_matches(x, y, eps, v, exact=True)
    assume(len(expected) <= 3)
    found = reference.literal_all_minimal_matches(x, y, eps, v)
    assert set(found) == set(expected) and len(found) == len(expected)


@few
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.02, 0.05]))
def test_theorem_14(seed, eps):
    x, y = counterexamples.blocks_instance(seed)
    assume(counterexamples.satisfies_theorem_14(x, y, eps))
    masks = reference.match_masks(x, y, eps)
    assert np.isin(masks[:, None] & masks, masks).all()


@pytest.mark.parametrize("eps", [0.2, 0.3 - 1e-6, 0.3, 0.3 + 1e-6, 0.295, 0.5])
def test_an_instance_is_stable_up_to_the_next_distance_above_eps(eps):
    "Distances of 0.3, from each other's span, and of 1, from that of nobody."
    x, y = np.array([[1.0, 0]]), np.array([[0.91**0.5, 0.3]])
    assert math.isclose(counterexamples.stability_limit(x, y, eps), (0.3 if eps < 0.3 else 1) / eps)


@pytest.mark.parametrize("n, a, b", [(4, 2, 3), (5, 2, 3), (4, 2, 4), (5, 3, 4)])
def test_lemma_17_with_other_random_numbers(n, a, b):
    x, y = counterexamples.hyperplane_instance(n, a, b, seed=7)
    guaranteed = counterexamples.hyperplane_matches(n, a, b)
    assert len(set(guaranteed)) == math.comb(n, b)
    for m in guaranteed: assert len(reference.all_matches(x[m.x], y[m.y], 0)) == 2


@few
@given(st.sampled_from([(2, 1), (2, 2), (4, 1), (4, 2), (4, 3), (4, 4)]), st.floats(0.001, 0.97))
def test_lemma_18_for_every_eps(size, eps):
    n, m = size
    simple = reference.exhaustive_simple_matches(*counterexamples.orthogonal_instance(n, m, eps), eps)
    assert len(simple) == math.comb(n, m) and all(np.array_equal(s.x, s.y) and len(s.x) == m for s in simple)


@pytest.mark.parametrize("bad, error, words", [
    (np.array([[np.inf]]), ValueError, "x holds NaN or infinite"), (np.zeros((0, 1)), ValueError, "x is empty"),
    (np.zeros(3), ValueError, "x must be 2-D"), (np.zeros((1, 2)), ValueError, "x has d = 2"),
    (np.zeros((1, 1), int), TypeError, "x has dtype int64"), (np.zeros((1, 1), np.float16), TypeError, "x is float16"),
    (torch.zeros(1, 1, dtype=torch.bfloat16), TypeError, "x is bfloat16"),
    (torch.zeros(1, 1), TypeError, "both be NumPy"),
])
def test_unusable_activations_are_named(bad, error, words):
    with pytest.raises(error, match=words): check_activations(bad, np.ones((1, 1)))


def test_large_searches_are_refused():
    with pytest.raises(ValueError, match=r"2\^22"): reference.all_matches(np.eye(11), np.eye(11), Fraction(0))
    with pytest.raises(ValueError, match="at most 14"): counterexamples.independence_angle(np.eye(15))


NBS = Path(__file__).resolve().parent.parent / "nbs"
KINDS = "Definition|Lemma|Theorem|Claim|Proposition|Remark|Algorithm|Corollary"


def notebook_cells(path): return {cell["id"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def test_the_table_of_statements_is_complete_and_every_link_leads_somewhere():
    table = [cell for cell in notebook_cells(NBS / "theory/05_statements.ipynb").values() if cell.get("outputs")][-1]
    rows = re.findall(r"<tr>(<td>.*?)</tr>", "".join(table["outputs"][0]["data"]["text/html"]), re.DOTALL)
    listed = {}
    for row in rows:
        (path, cell, label), *checks = re.findall(r'<a href="([^"#]+)#cell-id=([^"]+)">(.*?)</a>', row)
        source = "".join(notebook_cells(NBS / "theory" / path)[cell]["source"])
        assert f"**{label}.**" in source
        listed[label] = path
        assert checks, f"{label} has no check"
        for path, cell, kind in checks:
            source = "".join(notebook_cells(NBS / "theory" / path)[cell]["source"])
            assert f"# {label.partition(' (')[0]} · {kind}" in source.splitlines() and "assert" in source
    stated = {label for path in (*NBS.glob("theory/*.ipynb"), *NBS.glob("algorithms/*.ipynb"))
              for cell in notebook_cells(path).values() if cell["cell_type"] == "markdown"
              for label in re.findall(rf"^\*\*((?:{KINDS})\b.*?)\.\*\*", "".join(cell["source"]), re.M)}
    assert stated == set(listed) and len(listed) == len(rows) > 40


@pytest.mark.parametrize("x, y", [
    (np.array([[1, 0, 0]], np.float32), np.array([[1, 1e-7, 0]], np.float32)),
    (np.eye(2, 3), np.array([[1.0, 0, 0], [1, 2e-8, 0]])),
    (np.eye(2, 3), np.array([[1.0, 0, 0], [1, 2e-11, 0]]))])
def test_exhaustive_search_has_the_rule_of_is_match(x, y):
    pairs = [Match(i, j) for i in reference_subsets(len(x)) for j in reference_subsets(len(y))]
    assert set(reference.all_matches(x, y, 0)) == {match for match in pairs if is_match(x, y, match, 0)}


def reference_subsets(n): return [[i for i in range(n) if mask >> i & 1] for mask in range(2**n)]
