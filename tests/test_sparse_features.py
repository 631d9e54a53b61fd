"""Features of sparse autoencoders: found alone, in a group, or not at all, where they were planted."""
import numpy as np
import pytest
import torch

from subspace_match import Match, is_match
from subspace_match.experiments.sparse_features import (SparseAutoencoder, explained, features_of, fit_autoencoder,
                                                          reproduced, sparse_features)
from subspace_match.networks.data import load_data


def sparse(seed, n, inputs=400, positions=1, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(n, inputs, positions, generator=generator, dtype=torch.float64)
    return values*(torch.rand(n, inputs, positions, generator=generator) < share)


def mixed(seed, features):
    "Other axes of the same space."
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(len(features), len(features), generator=generator, dtype=torch.float64))[0]
    return torch.einsum("ij,jkl->ikl", q, features)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("alone, group, lost", [(1, 3, 0), (4, 3, 2), (2, 5, 3)])
def test_what_was_planted_is_found(seed, alone, group, lost):
    hidden = sparse(seed, alone + group, inputs=600)
    x = torch.cat([hidden, sparse(seed + 1, lost, inputs=600)])
    y = torch.cat([2*hidden[:alone], mixed(seed, hidden[alone:]), sparse(seed + 2, lost, inputs=600)])
    table = reproduced(x, y, [0.1])
    assert table.kind.tolist() == 2*(["alone"]*alone + ["in a group"]*group + ["not at all"]*lost)
    grouped = table[table.kind == "in a group"]
    assert (grouped.size_x <= group).all() and (grouped.size_y <= group).all() and (grouped.held_out < 1e-4).all()
    assert (table.chance > 0.3).all()


def test_groups_are_matches():
    hidden = sparse(0, 3)
    table = reproduced(hidden, mixed(0, hidden), [0.2])
    assert set(table.size_x) == set(table.size_y) == {3}
    half = slice(0, None, 2)
    x, y = (features[:, half].flatten(1) for features in (hidden, mixed(0, hidden)))
    assert is_match(x, y, Match(range(3), range(3)), 0.2)


def test_other_inputs_give_nothing():
    hidden = sparse(0, 6)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    assert (reproduced(hidden, hidden[:, order], [0.3]).kind == "not at all").all()
    assert (reproduced(hidden, hidden, [0.3]).kind == "alone").all()


def test_a_group_that_holds_on_one_half_only_is_told():
    hidden = sparse(0, 4)
    y = mixed(0, hidden)
    y[:, 1::2] = mixed(1, hidden)[:, 1::2]                  # other axes on the half where groups are checked
    table = reproduced(hidden, y, [0.2])
    assert (table.kind == "in a group").all() and table.held_out.median() > 0.5


def test_silent_features_are_left_out_and_the_rest_keep_their_numbers():
    hidden = sparse(0, 5)
    hidden[2, 1::2] = 0
    table = reproduced(hidden, hidden, [0.3])
    assert table[table.side == "x"].feature.tolist() == [0, 1, 3, 4]


def test_positions_are_samples():
    features = sparse(0, 4, inputs=100, positions=5)
    flat = features.permute(0, 2, 1).flatten(1)[:, :, None]
    few = reproduced(features, mixed(0, features), [0.2])
    assert few.kind.tolist() == reproduced(flat, mixed(0, flat), [0.2]).kind.tolist()


def test_the_two_sides_see_the_same_inputs():
    with pytest.raises(ValueError, match="inputs and positions"): reproduced(sparse(0, 3), sparse(0, 3, inputs=50))


def test_a_code_has_no_more_features_than_allowed():
    model = SparseAutoencoder(6, 20, active=3)
    codes = model.encode(torch.randn(200, 6, generator=torch.Generator().manual_seed(0)))
    assert (codes >= 0).all() and (codes != 0).sum(1).max() == 3
    assert features_of(model, torch.randn(7, 4, 6)).shape == (20, 7, 4)
    assert features_of(None, torch.randn(7, 4, 6)).shape == (6, 7, 4)


def test_seed_and_scale():
    z = sparse(3, 5, inputs=500).flatten(1).T.float()
    first, again, other = (fit_autoencoder(z, 10, 2, seed, steps=50) for seed in (0, 0, 1))
    assert torch.equal(first.dictionary, again.dictionary) and not torch.equal(first.dictionary, other.dictionary)
    large = fit_autoencoder(1000*z, 10, 2, 0, steps=50)
    torch.testing.assert_close(large.encode(1000*z), first.encode(z), atol=1e-3, rtol=1e-3)
    assert explained(first, z) == pytest.approx(explained(large, 1000*z), abs=1e-3)


@pytest.mark.parametrize("active", [0, 21])
def test_errors(active):
    with pytest.raises(ValueError, match="cannot be active"): SparseAutoencoder(6, 20, active)
    with pytest.raises(ValueError, match="zero"): fit_autoencoder(torch.zeros(10, 4), 8, 2)


def test_stored_activations_are_refused(tmp_path):
    for name in "ab": np.save(tmp_path/f"{name}.npy", np.ones((5, 3)))
    with pytest.raises(ValueError, match="stored activations can't be run on images"):
        sparse_features([tmp_path/"a.npy", tmp_path/"b.npy"], load_data("digits", root=tmp_path), tmp_path/"out.csv",
                        ["fc"], features=4, active=2)
