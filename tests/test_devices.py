"""On a GPU every algorithm finds what it finds on the CPU: the machine's own GPU, or a pretended one."""
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pretended_gpu import PretendedGPU, gpu
from test_algorithms import KINDS, small
from subspace_match import (Geometry, all_minimal_matches, compare, decompose, match_levels, maximum_match,
                            minimal_match, minimal_matches,
                            sample_simple_matches, simple_matches)
from subspace_match.networks.comparison import Comparison
from subspace_match.algorithms.geometry import accumulate_factor, accumulate_gram
from subspace_match.networks.measures import all_measures
from subspace_match.algorithms.minimal import minimum_matches


def test_it_refuses_what_cuda_refuses():
    x = torch.arange(6.0).reshape(2, 3)
    with gpu():
        z = x.to("cuda")
        there = [z, torch.ones(2, device="cuda"), (z + 1).T[0], torch.linalg.qr(z).Q]
        assert {tensor.device for tensor in there} == {torch.device("cuda:0")}
        assert x.device == z.cpu().device == z.to(x).device == torch.device("cpu") and x.to(z).is_cuda
        assert z[torch.tensor([0])].is_cuda
        assert abs(float(z.sum()) - 15) < 1e-4 and torch.equal((z + torch.tensor(1.0)).cpu(), x + 1)
        for mistake in (lambda: z + x, lambda: x @ z.T, lambda: torch.cat([x, z]), lambda: x[z[:, 0] > 0],
                        lambda: z.__setitem__(0, x[0])):
            with pytest.raises(RuntimeError, match="same device"): mistake()
        for mistake in (lambda: z.numpy(), lambda: np.asarray(z)):
            with pytest.raises(TypeError, match="numpy"): mistake()


def test_it_rounds_otherwise():
    x = torch.tensor(correlated(5, 50, 0))
    with PretendedGPU(): there = (x.to("cuda") @ x.to("cuda").T).cpu()
    assert 0 < (there - x @ x.T).abs().max() < 1e-13 * (x @ x.T).max()


def correlated(n, d, seed):
    random = np.random.default_rng(seed)
    noise = random.uniform(0.1, 2, size=(n, 1))*random.normal(size=(n, d))
    return random.normal(size=(n, 5)) @ random.normal(size=(5, d)) + noise


def instance(kind):
    z = correlated(28, 400, 0)
    x, y = z[:14], z[14:]
    if kind == "dependent": x, y = np.concatenate([x, x[:4], 0*x[:1]]), np.concatenate([y, y[:3] + y[3:6]])
    if kind == "nearly dependent": x = np.concatenate([x, x[:6] + 1e-6*y[:6]])
    return torch.tensor(x), torch.tensor(y)


def everything(x, y, device):
    "What every algorithm finds, as text."
    eps, x, y = 0.6, x.to(device), y.to(device)
    yield [maximum_match(x, y, e) for e in (0.0, 0.3, 0.5, eps)]
    yield [np.round(level, 7).tolist() for levels in (match_levels(x, y), match_levels(x, y, dead="exclude"))
           for level in (levels.x, levels.y)]
    affine = Geometry.from_vectors(x, y, affine=True)
    yield [maximum_match(affine, eps=eps), affine.dead_x,
           Geometry.from_vectors(x, y).distances(affine.norms > 0).cpu().round(decimals=7)]
    gram, sums, d = accumulate_gram(torch.cat([x, y]).split(100, 1))
    yield [maximum_match(Geometry.from_gram(gram, len(x), d, affine, sums), eps=eps) for affine in (False, True)]
    factor = accumulate_factor(torch.cat([x, y]).split(100, 1))
    yield [maximum_match(factor[: len(x)], factor[len(x):], eps),
           {name: round(value, 7) for name, value in all_measures(x, y).items()}]
    yield [minimal_match(x, y, eps, ("x", 2), seed=1), sorted(minimal_matches(x, y, eps, seed=1).items())]
    yield [sample_simple_matches(x, y, eps, rounds=2), decompose(x, y, eps),
           all_minimal_matches(x[:4], y[:4], 0.6, ("x", 0)),
           simple_matches(x[:4], y[:4], 0.6)]


@pytest.mark.parametrize("kind", ["independent", "dependent", "nearly dependent"])
def test_every_algorithm_stays_on_the_gpu(kind):
    x, y = instance(kind)
    expected = [str(found) for found in everything(x, y, "cpu")]
    with gpu(): assert [str(found) for found in everything(x, y, "cuda")] == expected
    assert 2 < len(maximum_match(x, y, 0.6)) < len(x) + len(y)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_small_instances_have_the_same_matches_on_the_gpu(kind):
    "Dependent, duplicated, zero, scaled vectors, and distances that are exactly ε: what rounding could decide."
    for x, y, eps in small(kind, 15):
        expected = maximum_match(x, y, eps), match_levels(x,
                                                          y).match(eps), minimal_matches(x, y,
                                                                                         eps), minimal_matches(x, y,
                                                                                                               eps,
                                                                                                               seed=0)
        with gpu():
            x2, y2 = (torch.tensor(z).to("cuda") for z in (x, y))
            assert expected == (maximum_match(x2, y2, eps), match_levels(x2, y2).match(eps),
                                minimal_matches(x2, y2, eps), minimal_matches(x2, y2, eps, seed=0))


def test_minimum_matches_stay_on_the_gpu():
    x = torch.tensor(correlated(6, 50, 1))
    y = torch.block_diag(torch.ones(2, 2).double() + torch.eye(2), torch.eye(4).double()) @ x
    expected = minimum_matches(x, y)
    with gpu(): assert minimum_matches(x.to("cuda"), y.to("cuda")) == expected
    assert {len(match) for match in expected.values()} == {2, 4}


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(54, 7), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize("options",
                         [{}, {"positions": 100, "draws": 3}, {"affine": True}, {"samples": "inputs", "pairs": "all"},
                          {"device": "cpu"}])
def test_networks_on_a_gpu_are_compared_as_on_the_cpu(options, tmp_path):
    images = torch.randn(70, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, torch.arange(70)), batch_size=16)
    expected = compare([network(0), network(1)], loader, progress=False, **options)
    with gpu():
        there = compare([network(0).to("cuda"), network(1).to("cuda")], loader, progress=False, **options)
        assert {joint.grams.is_cuda for joint in there.grams.values()} == {"device" not in options}
        layer = there.layers[-1]
        assert str(there.simple_matches(layer, eps=0.4,
                                        rounds=2)) == str(expected.simple_matches(layer, eps=0.4, rounds=2))
        there.save(tmp_path/"comparison")
    assert there.similarity([0.2, 0.4, 0.6]).equals(expected.similarity([0.2, 0.4, 0.6]))
    assert Comparison.load(tmp_path/"comparison").similarity(0.4).equals(expected.similarity(0.4))


@pytest.mark.parametrize("options", [{}, {"positions": 100}, {"samples": "inputs"}])
def test_networks_on_a_gpu_without_float64_are_compared_on_the_cpu(options):
    loader = DataLoader(TensorDataset(torch.randn(70, 2, 8, 8, generator=torch.Generator().manual_seed(0)),
                                      torch.arange(70)), batch_size=16)
    expected = compare([network(0), network(1)], loader, progress=False, **options)
    with PretendedGPU("mps"):
        with pytest.raises(TypeError, match="float64"): torch.zeros(2, dtype=torch.float64, device="mps")
        there = compare([network(0).to("mps"), network(1).to("mps")], loader, progress=False, **options)
    assert {str(joint.grams.device) for joint in there.grams.values()} == {"cpu"}
    assert there.similarity([0.2, 0.4, 0.6]).equals(expected.similarity([0.2, 0.4, 0.6]))
