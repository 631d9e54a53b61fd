"""Activations and comparisons: what a user's networks may do to them."""
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from subspace_match.activations import joint_grams, list_layers, neuron_matrix, record
from subspace_match.comparison import Comparison, compare
from subspace_match.reference import maximum_match as literal_maximum_match

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


def network(seed, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(9*width, 7), nn.ReLU(inplace=True), nn.Linear(7, 3))


@pytest.fixture(scope="module")
def images():
    return torch.randn(70, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loader(images):
    return DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=16)


@pytest.mark.parametrize("device", DEVICES)
def test_streamed_levels_are_those_of_the_literal_algorithm_on_the_activations(images, loader, device):
    networks = [network(seed).to(device) for seed in range(2)]
    comparison = compare(networks, loader)
    for layer in ("2", "6"):
        x, y = (neuron_matrix(record(model, images, [layer])[layer]).T.double().cpu().numpy() for model in networks)
        for eps in (0.2, 0.4, 0.6, 0.8):
            assert comparison.maximum_match(layer, eps=eps) == literal_maximum_match(x, y, eps)


def test_three_networks_in_one_pass_equal_three_pairs(loader):
    networks = {name: network(seed) for seed, name in enumerate("abc")}
    together = compare(networks, loader).similarity()
    for a, b in ("ab", "ac", "bc"):
        alone = compare({a: networks[a], b: networks[b]}, loader).similarity()
        chosen = together.query("network_a == @a and network_b == @b").reset_index(drop=True)
        np.testing.assert_allclose(alone.similarity, chosen.similarity)


def test_each_batch_is_seen_once_and_nothing_else_is_kept(images):
    def batches():
        for start in range(0, len(images), 10): yield images[start:start + 10]
    grams = joint_grams([network(0), network(1)], batches())
    assert grams["2"].n_samples == 70*36 and grams["6"].n_samples == 70


class Twice(nn.Module):
    "One ReLU module, used twice, as in torchvision's residual blocks."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = nn.Linear(4, 5), nn.Linear(5, 5), nn.ReLU(inplace=True)

    def forward(self, x):
        inner = self.relu(self.a(x))
        return self.relu(self.b(inner) + inner)


def test_a_shared_relu_is_recorded_at_each_call():
    model, x = Twice(), torch.randn(8, 4)
    outputs = record(model, x)
    with torch.no_grad(): inner = model.a(x).relu()
    torch.testing.assert_close(outputs["relu"], inner)
    torch.testing.assert_close(outputs["relu:2"], model(x).detach())
    assert list(list_layers(model, x).layer) == ["a", "relu", "b", "relu:2"]


def test_outputs_survive_inplace_changes(images):
    outputs = record(network(0), images)
    assert (outputs["1"] < 0).any() and (outputs["5"] < 0).any()


@pytest.mark.parametrize("fails", [False, True])
def test_hooks_and_modes_are_restored(images, fails):
    model = network(0).train()
    model[1].eval()
    if fails:
        with pytest.raises(RuntimeError): compare([model, network(1)], [images[:, :1]])
    else: compare([model, network(1)], [images])
    assert model.training and not model[1].training and model[2].training
    assert not any(module._forward_hooks for module in model.modules())


def test_batch_norm_statistics_are_untouched(loader):
    model = network(0).train()
    before = model[1].running_mean.clone()
    compare([model, network(1)], loader)
    assert model[1].running_mean.equal(before)


def test_half_precision_is_added_up_in_float64(images):
    models = [network(seed).bfloat16() for seed in range(2)]
    grams = joint_grams(models, [images.bfloat16()])
    matrix = torch.cat([neuron_matrix(record(model, images.bfloat16(), ["2"])["2"]) for model in models], 1).double()
    torch.testing.assert_close(grams["2"].grams[0], matrix.T @ matrix, rtol=1e-12, atol=1e-12)


def test_infinite_activations_are_named(images):
    bad = network(1)
    bad[5].weight.data[:] = float("inf")
    with pytest.raises(ValueError, match="layer 6 of network 1: its activations are NaN or infinite"): compare([network(0), bad], [images])


def test_loaders_out_of_step_are_an_error(images, loader):
    labels = torch.arange(len(images))
    shuffled = DataLoader(TensorDataset(images.flip(0), labels.flip(0)), batch_size=16)
    with pytest.raises(ValueError, match="out of step in batch 0: the labels differ"): compare([network(0), network(1)], [loader, shuffled])
    shorter = DataLoader(TensorDataset(images[:32], labels[:32]), batch_size=16)
    with pytest.raises(ValueError, match="out of step"): compare([network(0), network(1)], [loader, shorter])
    with pytest.raises(ValueError, match="2 loaders for 3 networks"): compare([network(k) for k in range(3)], [loader, loader])


def test_a_draw_has_the_same_rows_in_all_networks_and_is_repeatable(loader):
    same = compare([network(0), network(0)], loader, layers="2", positions=100, draws=3)
    assert (same.similarity(0.01).similarity == 1).all() and same.pair("2").d == 100
    one, two, other = (joint_grams([network(0), network(1)], loader, "2", positions=100, draws=2, seed=seed)["2"].grams for seed in (0, 0, 1))
    assert one.equal(two) and not one.equal(other) and not one[0].equal(one[1])


def test_drawing_everything_is_using_everything(loader):
    every, drawn = (joint_grams([network(0), network(1)], loader, positions=positions)["2"] for positions in (None, 70*36))
    assert drawn.grams.equal(every.grams) and drawn.n_samples == every.n_samples


def test_rescaled_neurons_change_nothing(images):
    x = record(network(0), images, ["6"])["6"]
    y = record(network(1), images, ["6"])["6"]
    plain, scaled = compare([{"a": x}, {"a": y}]), compare([{"a": x*torch.logspace(-4, 4, 7)}, {"a": y}])
    np.testing.assert_allclose(scaled.similarity().similarity, plain.similarity().similarity)


def test_a_grid_of_two_architectures_holds_every_pair_of_layers(images):
    comparison = compare({"conv": network(0), "twice": nn.Sequential(nn.Flatten(), nn.Linear(128, 4), Twice())}, [images], pairs="all", samples="inputs")
    table = comparison.similarity(0.5)
    assert set(zip(table.layer_a, table.layer_b)) == {(a, b) for a in ("2", "6") for b in ("2.relu", "2.relu:2")}
    direct = compare([{"x": record(network(0), images, ["6"])["6"]}, {"x": record(network(0), images, ["6"])["6"]}])
    assert direct.similarity(0.01).similarity.item() == 1


def test_saved_and_loaded(loader, tmp_path):
    comparison = compare([network(0), network(1)], loader, positions=200, draws=2)
    comparison.save(tmp_path/"c.safetensors")
    again = Comparison.load(tmp_path/"c.safetensors")
    assert again.similarity().equals(comparison.similarity()) and again.neuron_levels().equals(comparison.neuron_levels())
    assert again.geometry("6").gram.equal(comparison.geometry("6").gram)
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


@pytest.mark.parametrize("position", [30, 3000, -1])
def test_every_damaged_byte_is_noticed(loader, tmp_path, position):
    path = tmp_path/"c.safetensors"
    compare([network(0), network(1)], loader).save(path)
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="c.safetensors"): Comparison.load(path)


def test_distributed_sampler_is_refused(images):
    data = TensorDataset(images)
    loader = DataLoader(data, sampler=DistributedSampler(data, num_replicas=2, rank=0))
    with pytest.raises(ValueError, match="DistributedSampler"): compare([network(0), network(1)], loader)


def _collect(rank, store, images, folder):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for positions in (None, 100):
        grams = joint_grams([network(0), network(1)], DataLoader(TensorDataset(images), batch_size=16), positions=positions, draws=2)
        torch.save({name: (joint.grams, joint.sums, joint.n_samples) for name, joint in grams.items()}, f"{folder}/{positions}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
def test_two_processes_together_equal_one(images, tmp_path):
    multiprocessing.spawn(_collect, (tmp_path/"store", images, tmp_path), nprocs=2)
    for positions in (None, 100):
        alone = joint_grams([network(0), network(1)], DataLoader(TensorDataset(images), batch_size=16), positions=positions, draws=2)
        for rank in range(2):
            together = torch.load(tmp_path/f"{positions}-{rank}.pt", weights_only=True)
            for name, joint in alone.items():
                torch.testing.assert_close(together[name][0], joint.grams, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(together[name][1], joint.sums, rtol=1e-9, atol=1e-9)
                assert together[name][2] == joint.n_samples
