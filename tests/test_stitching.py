"""Stitching: exact where it must be, at chance where it must be, and errors that say what is wrong."""
import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from subspace_match import compare
from subspace_match.networks.stitching import RIDGE, affine_map, calibrated, changed, stitch


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sums(z): return z @ z.T, z.sum(1)


class Convolutional(nn.Module):
    "Two convolutions with a way around the second; its classes are of about the same size."
    def __init__(self, seed, channels=8, classes=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.relu = nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(inplace=True)
            self.second, self.last = nn.Conv2d(channels, channels, 3, padding=1), nn.Linear(channels, classes)

        with torch.no_grad():
            scores = self(normal(9, 200, 3, 6, 6).float()*3)
            self.last.weight.div_(scores.std(0)[:, None]), self.last.bias.sub_(scores.mean(0)).div_(scores.std(0))

    def forward(self, x):
        x = self.relu(self.first(x))
        return self.last(self.relu(x + self.second(x)).mean((2, 3)))


def labelled(network, n=240, size=60, seed=0, shape=(3, 6, 6)):
    "Inputs whose labels are a network's own answers."
    x = normal(seed, n, *shape).float()*3
    with torch.no_grad(): return [(part, network(part).argmax(1)) for part in x.split(size)]


def turned(network, seed=1):
    "The same function, the first convolution's channels turned before they are handed on."
    q = torch.linalg.qr(normal(seed, 8, 8))[0].float()
    turn, back = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 1, bias=False)
    turn.weight.data, back.weight.data = q[:, :, None, None], q.T[:, :, None, None]
    relu = copy.deepcopy(network.relu)
    return nn.Sequential(nn.Sequential(copy.deepcopy(network.first), relu, turn), nn.Sequential(back, Rest(network)))


def plain(network):
    "The same network, in the same two parts."
    return nn.Sequential(nn.Sequential(copy.deepcopy(network.first), copy.deepcopy(network.relu), nn.Identity()),
                         nn.Sequential(nn.Identity(), Rest(network)))


class Rest(nn.Module):
    "What comes after the first convolution."
    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)

    def forward(self, x): return self.network.last(self.network.relu(x + self.network.second(x)).mean((2, 3)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16), st.booleans())
def test_the_map_is_the_fit_of_the_activations(n_a, n_b, seed, repeated):
    z_b = normal(seed, n_b, 50) + normal(seed + 1, n_b, 1)
    if repeated: z_b = torch.cat([z_b, z_b[:1]])
    z_a = normal(seed + 2, n_a, len(z_b)) @ z_b + normal(seed + 3, n_a, 50)
    fitted = affine_map(*sums(torch.cat([z_a, z_b])), n_a, 50, ridge=0 if not repeated else RIDGE)
    design = torch.cat([z_b, torch.ones(1, 50, dtype=torch.float64)])
    direct = z_a @ torch.linalg.pinv(design) @ design
    torch.testing.assert_close(fitted(z_b.T).T, direct, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(fitted.missing, (z_a - direct).var(1, correction=0), atol=1e-3, rtol=1e-3)
    total = z_a.var(1, correction=0).sum()
    assert fitted.explained == pytest.approx(1 - float(fitted.missing.sum()/total), abs=1e-9)


def test_neurons_that_may_not_be_read_are_not_read():
    z = normal(0, 7, 90)
    kept = torch.tensor([True, False, True, False])
    fitted = affine_map(*sums(z), 3, 90, kept)
    assert (fitted.weight[:, ~kept] == 0).all() and (fitted.weight[:, kept] != 0).all()
    alone = affine_map(*sums(torch.cat([z[:3], z[3:][kept]])), 3, 90)
    torch.testing.assert_close(fitted.weight[:, kept], alone.weight)


def test_dead_neurons_carry_nothing():
    fitted = affine_map(*sums(torch.cat([normal(0, 2, 30), torch.zeros(3, 30)])), 2, 30)
    assert (fitted.weight == 0).all() and fitted.explained == pytest.approx(0)


@pytest.mark.parametrize("arguments", [{"d": 1}, {"d": 30, "ridge": -1.0}])
def test_a_map_needs_samples(arguments):
    with pytest.raises(ValueError, match="two samples"): affine_map(*sums(normal(0, 4, 30)), n_a=2, **arguments)


def test_a_layer_stitched_into_itself_or_turned_is_exact_and_other_inputs_are_chance():
    original = Convolutional(0)
    networks = {"a": plain(original), "copy": plain(original), "turned": turned(original)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "0", progress=False)
    share = max(np.bincount(torch.cat([labels for _, labels in inputs])))/240
    for a, b in (("a", "copy"), ("a", "turned"), ("turned", "a")):
        table = comparison.stitch("0", a, b, inputs).set_index("given")
        assert table.accuracy["itself"] == 1 and table.accuracy["b"] > 0.97 and table.explained["b"] > 0.9999
        assert table.accuracy["mean"] <= share and table.accuracy["b on other inputs"] < share + 0.1
        assert table.accuracy["misses of other inputs"] > 0.97            # nothing is missing, so nothing is misplaced


def test_another_network_loses_something():
    networks = {"a": Convolutional(0), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    table = comparison.stitch("relu", "a", "b", inputs).set_index("given")
    assert table.accuracy["mean"] <= table.accuracy["b"] < 1 and 0 < table.explained["b"] < 1
    assert table.neurons["b"] == table.neurons["b, matched neurons"] + table.neurons["b, unmatched neurons"] == 8
    assert table.neurons["b, as many at random"] == table.neurons["b, matched neurons"]


def test_the_second_call_of_a_module_is_replaced_alone():
    network = Convolutional(0)
    x = labelled(network)[0][0]
    with torch.no_grad():
        z = network.relu(network.first(x))
        expected = network.last((z*0 + 1).mean((2, 3)))
        with changed(network, "relu:2", lambda output: output*0 + 1): torch.testing.assert_close(network(x), expected)


def test_the_input_of_a_module_is_replaced():
    network = Convolutional(0)
    x = labelled(network)[0][0]
    with torch.no_grad():
        with changed(network, "last (input)", lambda pooled: pooled*0 + 1): found = network(x)
        torch.testing.assert_close(found, network.last(torch.ones(len(x), 8)))
        torch.testing.assert_close(network(x), network(x)*1)
    with pytest.raises(ValueError, match="no module"):
        with changed(network, "relu (function)", lambda output: output): pass
    networks = {"a": network, "b": Convolutional(5)}
    inputs = labelled(network)
    table = compare(networks, inputs, ["last (input)"], progress=False).stitch("last (input)", "a", "b", inputs)
    assert table.accuracy[0] == 1 and 0 < table.accuracy[1] < 1


def test_untrained_networks_are_a_row_of_their_own():
    networks = {"a": Convolutional(0), "b": Convolutional(0), "c": Convolutional(7)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    with_c = comparison.stitch("relu", "a", "b", inputs, untrained="c").set_index("given")
    alone = comparison.stitch("relu", "a", "c", inputs).set_index("given")
    assert with_c.accuracy["untrained"] == alone.accuracy["b"] and with_c.accuracy["b"] == 1


def test_similarities_are_those_of_the_comparison():
    networks = {"a": Convolutional(0), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    known = comparison.similarity([0.3, 0.5]).set_index(["layer", "eps"]).similarity["relu"]
    for order in (("a", "b"), ("b", "a")):
        table = comparison.stitch("relu", *order, inputs, eps=0.5)
        assert (table["s_0.3"] == known[0.3]).all() and (table["s_0.5"] == known[0.5]).all()
        matched = table.set_index("given").neurons["b, matched neurons"]
        match = comparison.maximum_match("relu", eps=0.5)
        assert matched == len(match.y if order == ("a", "b") else match.x)


def test_calibration_leaves_the_network_alone():
    network = nn.Sequential(nn.BatchNorm1d(3))
    copied = calibrated(network, [normal(0, 50, 3).float()*4 + 2])
    assert (network[0].running_mean == 0).all() and (copied[0].running_mean > 0.5).all() and not copied.training


def test_errors_name_the_thing():
    networks = {"a": Convolutional(0), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    with pytest.raises(KeyError, match="nobody"): comparison.stitch("relu", "a", "nobody", inputs)
    with pytest.raises(KeyError, match="fc9"): comparison.stitch("fc9", "a", "b", inputs)
    with pytest.raises(ValueError, match="two names"): comparison.stitch("relu", "a", "a", inputs)
    with pytest.raises(ValueError, match="b is not in networks"): stitch(comparison, "relu", "a", "b", inputs, {"a": 0})
    with pytest.raises(ValueError, match="labels"): comparison.stitch("relu", "a", "b", [x for x, _ in inputs])
    with pytest.raises(ValueError, match="no batches"): comparison.stitch("relu", "a", "b", [])
    with pytest.raises(ValueError, match="shape"):
        comparison.stitch("relu", "a", "b", [(x, y[:, None]) for x, y in inputs])
    with pytest.raises(KeyError, match="nowhere"):
        with changed(networks["a"], "nowhere", lambda output: output): pass
    averaged = compare(networks, inputs, "relu", samples="inputs", progress=False)
    with pytest.raises(ValueError, match="averages"): averaged.stitch("relu", "a", "b", inputs)


def test_sorted_batches_are_told():
    networks = {"a": Convolutional(0), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    x, y = torch.cat([x for x, _ in inputs]), torch.arange(240)//60
    with pytest.warns(UserWarning, match="sorted by class"):
        comparison.stitch("relu", "a", "b", list(zip(x.split(60), y.split(60))))


def test_a_comparison_read_from_a_file_takes_the_networks(tmp_path):
    networks = {"a": Convolutional(0), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    comparison = compare(networks, inputs, "relu", progress=False)
    comparison.save(tmp_path/"c.safetensors")
    loaded = type(comparison).load(tmp_path/"c.safetensors")
    with pytest.raises(ValueError, match="not in networks"): loaded.stitch("relu", "a", "b", inputs)
    again = loaded.stitch("relu", "a", "b", inputs, networks)
    assert again.equals(comparison.stitch("relu", "a", "b", inputs))


def test_hooks_and_modes_are_restored():
    networks = {"a": Convolutional(0).train(), "b": Convolutional(5)}
    inputs = labelled(networks["a"])
    compare(networks, inputs, "relu", progress=False).stitch("relu", "a", "b", inputs)
    assert networks["a"].training
    assert not any(module._forward_hooks for network in networks.values() for module in network.modules())
