"""Comparisons: what a user asks of them."""
import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from examples import Twice, network
from subspace_match.networks.comparison import Comparison, compare
from subspace_match.networks.figures import plot_depth, plot_eps, plot_heatmap
from subspace_match.networks.layers import record


def test_three_networks_in_one_pass_equal_three_pairs(loader):
    networks = {name: network(seed) for seed, name in enumerate("abc")}
    together = compare(networks, loader).similarity()
    for a, b in ("ab", "ac", "bc"):
        alone = compare({a: networks[a], b: networks[b]}, loader).similarity()
        chosen = together.query("network_a == @a and network_b == @b").reset_index(drop=True)
        np.testing.assert_allclose(alone.similarity, chosen.similarity)


def test_rescaled_neurons_change_nothing(images):
    x = record(network(0), images, ["6"])["6"]
    y = record(network(1), images, ["6"])["6"]
    plain, scaled = compare([{"a": x}, {"a": y}]), compare([{"a": x*torch.logspace(-4, 4, 7)}, {"a": y}])
    np.testing.assert_allclose(scaled.similarity().similarity, plain.similarity().similarity)


def test_a_grid_of_two_architectures_holds_every_pair_of_layers(images):
    comparison = compare({"conv": network(0), "twice": nn.Sequential(nn.Flatten(), nn.Linear(128, 4), Twice())},
                         [images], pairs="all", samples="inputs")
    table = comparison.similarity(0.5)
    assert set(zip(table.layer_a, table.layer_b)) == {(a, b) for a in ("2", "6") for b in ("2.relu", "2.relu:2")}
    direct = compare([{"x": record(network(0), images, ["6"])["6"]}, {"x": record(network(0), images, ["6"])["6"]}])
    assert direct.similarity(0.01).similarity.item() == 1


def test_saved_and_loaded(loader, tmp_path):
    comparison = compare([network(0), network(1)], loader, positions=200, draws=2)
    comparison.save(tmp_path/"c.safetensors")
    again = Comparison.load(tmp_path/"c.safetensors")
    assert again.similarity().equals(comparison.similarity())
    assert again.neuron_levels().equals(comparison.neuron_levels())
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


def test_layers_that_never_fire():
    comparison = compare([{"a": np.zeros((50, 4))}, {"a": np.random.default_rng(0).normal(size=(50, 3))}])
    include, exclude = (comparison.similarity(0.3, dead=dead).iloc[0] for dead in ("include", "exclude"))
    assert (include.dead_x, include.similarity, exclude.similarity) == (4, 4/7, 0)


def test_any_pairing_of_layers_can_be_said(images):
    networks = {"a": network(0), "b": network(0), "c": network(1)}
    crossed = compare(networks, [images], {"a": ["6", "2"], "b": ["2", "6"], "c": "relu"}, samples="inputs")
    assert [(pair.network_a, pair.network_b, pair.layer_a, pair.layer_b, pair.depth)
            for pair in crossed.pairs.values()] == [
        ("a", "b", "6", "2", 1), ("a", "c", "6", "2", 1), ("b", "c", "2", "2", 1), ("a", "b", "2", "6", 2),
        ("a", "c", "2", "6", 2), ("b", "c", "6", "6", 2)]
    straight = compare(networks, [images], samples="inputs", pairs="all")
    for layer, a, b in crossed.pairs:
        np.testing.assert_allclose(crossed.levels(layer, a, b).x, straight.levels(layer, a, b).x)
    same = compare(networks, [images], {"a": ["6", "2"], "b": ["6", "2"], "c": ["6", "2"]})
    assert same.layers == ["6", "2"] and (same.between("a", "b").similarity(0.01).similarity == 1).all()
    assert compare(networks, [images], {"a": "relu", "b": ["relu"], "c": [nn.ReLU]}).layers == ["2", "6"]


def test_a_part_of_a_comparison(loader, tmp_path):
    comparison = compare({name: network(seed) for seed, name in enumerate("abc")}, loader)
    part = comparison.between(np.int64(2), "b")
    assert part.networks == ("b", "c") and "2 networks (b, c)" in repr(part)
    part.save(tmp_path/"part.safetensors")
    for each in (part, Comparison.load(tmp_path/"part.safetensors")):
        np.testing.assert_array_equal(each.levels("6", 0, np.int64(1)).x, comparison.levels("6", "b", "c").x)
        assert each.geometry("6").gram.equal(comparison.geometry("6", 1, 2).gram)
        assert each.geometry("6", "b", "c").n_y == 7
    for call in (lambda: comparison.between("a", "typo"), lambda: comparison.pair("6", 0, 5),
                 lambda: comparison.levels("7"), lambda: comparison.pair("6", 2, 0)):
        with pytest.raises(KeyError, match="networks, in this order: a, b, c"): call()
    for chosen in ((), ("a",), ("a", 0)):
        with pytest.raises(ValueError, match="at least two networks"): comparison.between(*chosen)
    with pytest.raises(ValueError, match="is a folder"): Comparison.load(tmp_path)


def test_no_eps_and_names_that_differ(images):
    matplotlib.use("Agg")
    rng = np.random.default_rng(0)
    comparison = compare([{f"{name}{k}": rng.normal(size=(60, 3)) for k in range(3)} for name in "abc"])
    assert list(comparison.similarity([]).columns) == list(compare([network(0), network(1)],
                                                                   [images]).similarity(0.5).columns)
    with pytest.raises(ValueError, match="no ε"): comparison.plot([])
    for draw in (plot_depth, plot_eps, plot_heatmap):
        with pytest.raises(ValueError, match="no similarities"): draw(comparison.similarity([]))
    table = comparison.similarity([0.5, 0.8])
    for draw in (plot_depth, plot_heatmap):
        assert [text.get_text() for text in draw(table).get_xticklabels()] == [f"a{k} | b{k} | c{k}" for k in range(3)]
    assert len(plot_eps(table).get_legend().get_texts()) == 3


def test_html_shows_every_number_and_no_markup_of_a_name(loader):
    comparison = compare({"<b>": network(0), "other": network(1)}, loader)
    html = comparison._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html and "70</td>" in html and html.count("<td style") == 2*5
    few = compare([network(0), network(1)], [next(iter(loader))[0][:10]], "6")._repr_html_()
    assert "10 (few)" in few and "(few)" not in html
    grid = compare([network(0), network(1), network(2)], loader, pairs="all", samples="inputs")
    assert grid._repr_html_().count("<table>") == 3 and grid._repr_html_().count("<td style") == 3*4


def test_plots_take_one_eps_and_one_grid(loader):
    matplotlib.use("Agg")
    grid = compare([network(0), network(1), network(2)], loader, pairs="all", samples="inputs")
    with pytest.raises(ValueError, match="between"): grid.plot()
    assert grid.between(0, 2).plot(0.3).get_title() == "ε = 0.3"
    assert len(compare([network(0), network(1)], loader).plot(0.3).get_legend().get_texts()) == 1
