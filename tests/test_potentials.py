"""The published potentials: what describes an atom, and the known answer, where a package registry is reached."""
import pytest
import torch
from torch import nn

from subspace_match.experiments.potentials import (
    FOLDS, compare_potentials, fetch_potentials, kind_of_pair, molecules, read_potential, surroundings,
)
from subspace_match.networks.activations import joint_grams


@pytest.fixture(scope="module")
def wheel():
    try: return fetch_potentials("data")
    except ConnectionError as error: pytest.skip(str(error))


def test_surroundings_do_not_change_with_place_turn_and_order():
    generator = torch.Generator().manual_seed(1)
    elements, at = ["C", "H", "H", "O", "N"], 1.2*torch.randn(5, 3, generator=generator, dtype=torch.float64)
    described = surroundings(elements, at)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    order = [3, 0, 4, 2, 1]
    assert torch.allclose(surroundings(elements, at @ turn - 2), described)
    assert torch.allclose(surroundings([elements[i] for i in order], at[order]), described[order])
    assert not torch.allclose(surroundings(["C", "H", "H", "N", "O"], at), described)


def test_a_molecule_with_all_its_copies_is_one_input():
    "So that they share a fold, and what is held out is other molecules."
    once, batches = molecules("H", copies=1, most=13), molecules("H", copies=3, most=13)
    for (rows, mask), (more, all_of_them) in zip(once, batches, strict=True):
        assert torch.equal(3*mask.sum(1), all_of_them.sum(1)) and (mask.sum(1).diff() >= 0).all()
        for one, some, n in zip(rows, more, mask.sum(1)):
            assert torch.equal(one[:n], some[:n]) and not torch.equal(some[:n], some[n:2*n])
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(384, 6, dtype=torch.float64), nn.CELU()) for _ in range(2)]
    joint, = joint_grams(networks, batches, "CELU", mask=lambda batch: batch[1]).values()
    assert joint.n_inputs == 10 and 10 % FOLDS == 0
    assert (joint.fold_samples % 3 == 0).all() and (joint.fold_samples > 0).sum() > 1


def test_another_file_in_place_of_the_wheel_is_refused(tmp_path):
    (tmp_path/"potentials").mkdir()
    (tmp_path/"potentials"/"torchani-1.2-py3-none-any.whl").write_bytes(b"another")
    with pytest.raises(ValueError, match="not the wheel"): fetch_potentials(tmp_path)


def test_members_agree_on_methane(wheel):
    "All eight were trained on the same energies: they differ by less than 5 kcal/mol, of hundreds."
    elements = ["C", "H", "H", "H", "H"]
    at = 0.629*torch.tensor([[0., 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    rows = surroundings(elements, at)
    def energy(k): return sum(read_potential(wheel, "ani-1x", k, e)(row).item() for e, row in zip(elements, rows))
    energies = [energy(k) for k in range(8)]
    assert max(energies) - min(energies) < 0.008         # hartree


def test_the_layer_that_fine_tuning_kept_matches_exactly(wheel):
    comparison = compare_potentials(wheel, "H", molecules("H", copies=6, most=40), members=(0, 1))
    areas = comparison.area()
    kinds = [kind_of_pair(a, b) for a, b in zip(areas.network_a, areas.network_b)]
    first = areas.assign(kind=kinds)[areas.layer == comparison.layers[0]]
    assert (first[first.kind == "fine-tuned"].area == 1).all() and (first[first.kind != "fine-tuned"].area < 0.9).all()
