"""The engine against exhaustive search, on as many small instances as there is time for: `python tests/fuzz.py -h`.

Batch k of a kind is drawn from the seed (kind, k), and its tally is written when it is done, so that a run may be
stopped at any time and goes on where it stopped. What is compared:

- `maximum_match` with the union of all matches, on every instance,
- `Levels.match` on every fourth (not near the tolerance: levels are certified to a part of themselves), and
  `minimal_matches`, `simple_matches` with `pair_matches`, `decompose` and `minimum_matches` on every sixteenth,
- every match with its definition, by `is_match`.

An answer that differs is an error, unless the user was warned that rounding decides. A match that is none is one even
then; but not of inner products alone, which resolve less.
"""

import argparse
import csv
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from subspace_match.algorithms.geometry import GRAM_TOLERANCE, Geometry
from subspace_match.algorithms.maximum import match_levels, maximum_match
from subspace_match.algorithms.minimal import minimal_matches, minimum_matches
from subspace_match.algorithms.simple import decompose, pair_matches, simple_matches
from subspace_match.theory.match import COARSE_TOLERANCE, TOLERANCE, centred_rows, is_match, unit_rows
from test_algorithms import EPS, KINDS

BATCH = 200  # instances of one size, drawn and searched together


# Instances

def near_tolerance(rng, n_x, n_y, d):
    "Near copies and near sums, with gaps from 1 down to the tolerance."
    def side(z):
        for i in range(1, len(z)):
            if rng.random() < 0.6: z[i] = rng.integers(-1, 2, i) @ z[:i] + 10 ** -rng.uniform(0, 8.5) * z[i]
        return z
    x = side(rng.normal(size=(n_x, d)))
    y = rng.integers(-1, 2, (n_y, n_x)) @ x + rng.choice([0, 1e-8, 1e-7, 1e-3, 1]) * rng.normal(size=(n_y, d))
    return x, side(y)


def affine(rng, n_x, n_y, d):
    "Neurons with means of any size, some constant but for 1e-7 of their length; the constant vector is in both spans."
    def nearly(z):
        return z * rng.choice([1, 0.05, 10 ** -rng.uniform(0, 7)], (len(z), 1)) + rng.choice([0, 1, 3], (len(z), 1))
    x = nearly(rng.normal(size=(n_x, d + 3)))
    y = (rng.normal(size=(n_y, n_x)) * rng.integers(0, 2, (n_y, n_x))) @ x + 0.3 * rng.normal(size=(n_y, d + 3))
    return x, nearly(y)


def inner_products(rng, n_x, n_y, d):
    "Any other kind but affine, of which the engine gets the inner products only."
    return [*KINDS, near_tolerance][rng.integers(len(KINDS) + 1)](rng, n_x, n_y, d)


def affine_products(rng, n_x, n_y, d):
    "Affine ones, of which the engine gets the inner products and the sums only."
    return affine(rng, n_x, n_y, d)


def straddling(rng, n_x, n_y, d):
    "A side with two singular values at the tolerance, one above it and one below, that differ by next to nothing."
    if min(n_y, d) < 3: return near_tolerance(rng, n_x, n_y, d)
    u = np.linalg.qr(np.concatenate([np.ones((n_y, 1)), rng.normal(size=(n_y, 2))], 1))[0]
    v = np.linalg.qr(rng.normal(size=(d, d)))[0][:3]
    gap = 10 ** -rng.uniform(9, 15)
    return rng.integers(-1, 2, (n_x, 3)) @ v, u * [n_y**0.5, TOLERANCE + gap, TOLERANCE - gap] @ v


def single(rng, n_x, n_y, d):
    "Any other kind but affine, rounded to float32."
    return tuple(z.astype(np.float32) for z in inner_products(rng, n_x, n_y, d))


ALL_KINDS = [*KINDS, affine, near_tolerance, inner_products, affine_products, straddling, single]
AFFINE, PRODUCTS = (affine, affine_products), (inner_products, affine_products)


def is_edge(kind, k):
    "Are thresholds in batch k of a kind at the distances themselves, and beside them?"
    return kind in (near_tolerance, straddling) or kind in (inner_products, single) and k % 2 == 1


def tolerance_of(kind):
    return GRAM_TOLERANCE if kind in PRODUCTS else COARSE_TOLERANCE if kind is single else TOLERANCE


def slack_of(kind):
    "Distances within this of eps count as eps."
    return TOLERANCE if kind in PRODUCTS else tolerance_of(kind)


def batch(kind, k, most):
    "Batch k of a kind: x (B, n_x, d), y (B, n_y, d), eps (B,)."
    rng = np.random.default_rng([ALL_KINDS.index(kind), k])
    n_x, n_y, d = (int(n) for n in rng.integers(1, [most + 1, most + 1, 6]))
    x, y = (np.stack(side) for side in zip(*[kind(rng, n_x, n_y, d) for _ in range(BATCH)]))
    eps = rng.choice(EPS, BATCH)
    if is_edge(kind, k):
        tolerance = tolerance_of(kind)
        whole = distances(units(x), units(y), (1 << n_y) - 1, tolerance)
        at = np.take_along_axis(whole, rng.integers(0, n_x, (BATCH, 1)), 1)[:, 0]
        eps = np.where(rng.random(BATCH) < 0.5, at + rng.choice([-2, -1, 0, 1], BATCH) * slack_of(kind), eps)
        eps = eps.clip(0, 0.99)
    return x, y, eps


# Exhaustive search, for many instances at once

def units(z):  # (B, n, d)
    "Every row of length one, in float64."
    return unit_rows(z.reshape(-1, z.shape[2]).astype(float)).reshape(z.shape)


def distances(z, vectors, subset, tolerance):  # (B, n, d), (B, m, d), a bit mask
    "(B, n): the distance of each z from the span of a subset of the vectors, by the rule of `relative_distance`."
    chosen = vectors[:, [j for j in range(vectors.shape[1]) if subset >> j & 1]]
    if chosen.shape[1] == 0: return np.linalg.norm(z, axis=2)
    _, s, v = np.linalg.svd(units(chosen), full_matrices=False)
    basis = np.where(s[:, :, None] > tolerance, v, 0)
    for _ in range(2): z = z - (z @ basis.transpose(0, 2, 1)) @ basis
    return np.linalg.norm(z, axis=2)


def passing(z, vectors, eps, kind):
    "(B, 2^m) bit masks: which z are within eps of the span of each subset of the vectors."
    bits, tolerance = 1 << np.arange(z.shape[1]), tolerance_of(kind)
    limit = np.maximum(eps + slack_of(kind), tolerance)[:, None]      # what inner products do not resolve counts as 0
    return np.stack([(distances(z, vectors, s, tolerance) <= limit) @ bits for s in range(1 << vectors.shape[1])], 1)


def all_matches(x, y, eps, kind):
    "(B, 2^n_y, 2^n_x) bool: is this pair of subsets a match?"
    x, y = units(x), units(y)
    if kind in AFFINE:
        x, y = (centred_rows(z.reshape(-1, z.shape[2]), tolerance_of(kind)).reshape(z.shape) for z in (x, y))
    X, Y = np.arange(1 << x.shape[1]), np.arange(1 << y.shape[1])[:, None]
    ok_x, ok_y = passing(x, y, eps, kind), passing(y, x, eps, kind)
    return (X & ~ok_x[:, :, None] == 0) & (Y & ~ok_y[:, None, :] == 0)


def simple_masks(masks, n):
    "Of the matches of one instance, as bit masks, those that are no union of smaller ones."
    inside = np.zeros(1 << n, np.int64)
    inside[masks] = masks
    for bit in range(n):
        without, with_bit = inside.reshape(-1, 2, 1 << bit).transpose(1, 0, 2)
        with_bit |= without
    smaller = np.zeros_like(masks)
    for bit in 1 << np.arange(n): smaller |= np.where(masks & bit, inside[masks & ~bit], 0)
    return {int(m) for m in masks[masks != smaller]}


# The comparison

def mask_of(match, n_x):
    return sum(1 << int(i) for i in match.x) | sum(1 << int(j) + n_x for j in match.y)


def passes(x, y, match, eps, kind, masks=()):
    "Is it a match by its definition? By inner products: is it one of all matches, which count with their tolerance?"
    return mask_of(match, len(x)) in masks if kind in PRODUCTS else is_match(x, y, match, eps, kind in AFFINE)


def independent(x, y, mask, kind):
    "Are the vectors of a match clearly independent on each side?"
    for z, bits in ((x, mask & (1 << len(x)) - 1), (y, mask >> len(x))):
        rows = units(z[None])[0]
        if kind in AFFINE: rows = unit_rows(centred_rows(rows, tolerance_of(kind)))
        rows = rows[[i for i in range(len(z)) if bits >> i & 1]]
        if np.linalg.matrix_rank(rows, tolerance_of(kind)) < len(rows): return False
    return True


def differences(x, y, eps, masks, kind, k, i):
    "The names of the functions whose answers on one instance differ from exhaustive search."
    n_x, n, z = len(x), len(x) + len(y), np.concatenate([x, y])
    if kind in PRODUCTS: geometry = Geometry.from_gram(z @ z.T, n_x, x.shape[1], kind in AFFINE, z.sum(1))
    else: geometry = Geometry.from_vectors(x, y, affine=kind in AFFINE)
    largest, found = int(np.bitwise_or.reduce(masks)), maximum_match(geometry, eps=eps)
    if not passes(x, y, found, eps, kind, masks): yield "not a match"
    if mask_of(found, n_x) != largest: yield "maximum_match"
    if i % 4 == 0 and not is_edge(kind, k):
        if mask_of(match_levels(geometry).match(eps), n_x) != largest: yield "levels"
    if i % 16 == 1:
        minimal = minimal_matches(geometry, eps=eps, seed=i)
        if not all(passes(x, y, match, eps, kind, masks) for match in set(minimal.values())): yield "not a match"
        for v, match in minimal.items():
            mask, bit = mask_of(match, n_x), 1 << v[1] + n_x * (v[0] == "y")
            inside = masks[(masks & ~mask == 0) & (masks & bit != 0)]
            if list(inside) != [mask]: yield "minimal_matches"
    if i % 16 == 2:
        simple, expected = simple_matches(geometry, eps=eps), simple_masks(masks, n)
        pairs = pair_matches(geometry, eps=eps)
        if not all(passes(x, y, match, eps, kind, masks) for match in (*simple, *pairs)): yield "not a match"
        if {mask_of(match, n_x) for match in simple} != expected: yield "simple_matches"
        two = {mask for mask in expected if (mask & (1 << n_x) - 1).bit_count() == 1 == (mask >> n_x).bit_count()}
        if {mask_of(match, n_x) for match in pairs} != two: yield "pair_matches"
    if i % 16 == 3:
        parts = decompose(geometry, eps=eps, seed=i)
        if not all(passes(x, y, match, eps, kind, masks) for match in parts): yield "not a match"
        found = np.array([mask_of(match, n_x) for match in parts], int)
        if not {*found.tolist()} <= simple_masks(masks, n) or np.bitwise_or.reduce(found) != largest:
            yield "decompose"
    if i % 16 == 4:
        exact = np.flatnonzero(all_matches(x[None], y[None], np.zeros(1), kind)[0])
        try: found = minimum_matches(geometry)
        except ValueError:
            if independent(x, y, int(np.bitwise_or.reduce(exact)), kind): yield "minimum_matches"
            return
        if not all(passes(x, y, match, 0.0, kind, exact) for match in set(found.values())): yield "not a match"
        bits = {v: 1 << v[1] + n_x * (v[0] == "y") for v in found}
        least = {v: int(np.bitwise_and.reduce(exact[exact & bit != 0], initial=-1)) for v, bit in bits.items()}
        if sum(bits.values()) != np.bitwise_or.reduce(exact) or any(
                mask_of(match, n_x) != least[v] for v, match in found.items()): yield "minimum_matches"


def run(kind, k, most):
    "The tally of one batch."
    x, y, eps = batch(kind, k, most)
    tables = all_matches(x, y, eps, kind)
    tally = {"kind": kind.__name__, "batch": k, "n_x": x.shape[1], "n_y": y.shape[1], "d": x.shape[2],
             "instances": len(x), "warned": 0, "differ_where_warned": 0, "errors": 0, "not_a_match": 0}
    for i, (a, b, e, table) in enumerate(zip(x, y, eps.tolist(), tables)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            wrong = list(differences(a, b, e, np.flatnonzero(table), kind, k, i))
        warned = any("rounding" in str(w.message) for w in told)
        tally["warned"] += warned
        tally["not_a_match"] += "not a match" in wrong
        tally["differ_where_warned"] += bool(wrong) and warned
        if wrong and (not warned or "not a match" in wrong and kind not in PRODUCTS):
            tally["errors"] += 1
            print(f"{kind.__name__} batch {k} instance {i}: {', '.join(sorted(set(wrong)))}", flush=True)
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--instances", type=int, default=22_000, help="how many in all, spread over the kinds")
    parser.add_argument("--most", type=int, default=3, help="most neurons a side")
    parser.add_argument("--out", default="results/fuzz/tally.csv", help="the tally; goes on from it")
    options = parser.parse_args()
    path = Path(options.out)
    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {(row["kind"], int(row["batch"])) for row in csv.DictReader(path.open())} if path.exists() else set()
    todo = [(kind, k) for k in range(-(-options.instances // (BATCH * len(ALL_KINDS)))) for kind in ALL_KINDS]
    errors = 0
    for kind, k in todo:
        if (kind.__name__, k) in done: continue
        tally, new = run(kind, k, options.most), not path.exists()
        with path.open("a", newline="") as out:
            writer = csv.DictWriter(out, tally, lineterminator="\n")
            if new: writer.writeheader()
            writer.writerow(tally)
        errors += tally["errors"]
    print(f"{len(todo) * BATCH} instances, {errors} new errors")
    return errors > 0


if __name__ == "__main__": sys.exit(main())
