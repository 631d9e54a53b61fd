"""Comparisons: what a user asks of them."""
import re
import warnings
from pathlib import Path

import joblib
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from examples import Twice, network
from subspace_match.networks import comparison as comparison_module
from subspace_match.networks.activations import _bytes
from subspace_match.networks.changes import diff
from subspace_match.networks.comparison import EPS, Comparison, _alone, compare
from subspace_match.networks.figures import plot_depth, plot_eps, plot_heatmap
from subspace_match.networks.layer_pairs import geometries_in_turn
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
                         [images], layer_pairs="all", samples="inputs")
    table = comparison.similarity(0.5)
    assert set(zip(table.layer_a, table.layer_b)) == {(a, b) for a in ("2", "6") for b in ("2.relu", "2.relu:2")}
    direct = compare([{"x": record(network(0), images, ["6"])["6"]}, {"x": record(network(0), images, ["6"])["6"]}])
    assert direct.similarity(0.01).similarity.item() == 1


def test_saved_and_loaded(loader, tmp_path):
    comparison = compare([network(0), network(1)], loader, drawn=200, draws=2)
    comparison.save(tmp_path/"c.safetensors")
    again = Comparison.load(tmp_path/"c.safetensors")
    assert again.similarity().equals(comparison.similarity())
    assert again.neuron_levels().equals(comparison.neuron_levels())
    assert again.geometry("6").gram.equal(comparison.geometry("6").gram)
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_the_same_content_is_the_same_bytes(loader, tmp_path):
    comparison = compare([network(0), network(1)], loader, inputs_kept=20)
    for name in "ab": comparison.save(tmp_path/name)
    again = Comparison.load(tmp_path/"a")
    again.save(tmp_path/"c")
    assert (tmp_path/"a").read_bytes() == (tmp_path/"b").read_bytes() == (tmp_path/"c").read_bytes()
    pd.testing.assert_frame_equal(again.area(), comparison.area())
    pd.testing.assert_frame_equal(again.measures(), comparison.measures())
    pd.testing.assert_frame_equal(again.residuals("6"), comparison.residuals("6"))


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
    readings = {dead: comparison.similarity(0.3, dead=dead).iloc[0] for dead in ("include", "exclude", "leave out")}
    assert readings["include"].dead_x == 4
    assert {dead: row.similarity for dead, row in readings.items()} == {"include": 4/7, "exclude": 0, "leave out": 0}
    silent = compare([{"a": np.zeros((50, 4))}, {"a": np.zeros((50, 3))}])
    assert silent.area().area.isna().all() and silent.area("include").area.item() == 1 and "nan" in repr(silent).lower()


def test_any_pairing_of_layers_can_be_said(images):
    networks = {"a": network(0), "b": network(0), "c": network(1)}
    crossed = compare(networks, [images], {"a": ["6", "2"], "b": ["2", "6"], "c": "relu"}, samples="inputs")
    assert [(pair.network_a, pair.network_b, pair.layer_a, pair.layer_b, pair.depth)
            for pair in crossed.layer_pairs.values()] == [
        ("a", "b", "6", "2", 1), ("a", "c", "6", "2", 1), ("b", "c", "2", "2", 1), ("a", "b", "2", "6", 2),
        ("a", "c", "2", "6", 2), ("b", "c", "6", "6", 2)]
    straight = compare(networks, [images], samples="inputs", layer_pairs="all")
    for layer, a, b in crossed.layer_pairs:
        np.testing.assert_allclose(crossed.levels(layer, a, b).x, straight.levels(layer, a, b).x)
    same = compare(networks, [images], {"a": ["6", "2"], "b": ["6", "2"], "c": ["6", "2"]})
    assert same.layers == ["6", "2"] and (same.only("a", "b").similarity(0.01).similarity == 1).all()
    assert compare(networks, [images], {"a": "relu", "b": ["relu"], "c": [nn.ReLU]}).layers == ["2", "6"]


def test_a_part_of_a_comparison(loader, tmp_path):
    comparison = compare({name: network(seed) for seed, name in enumerate("abc")}, loader)
    part = comparison.only(np.int64(2), "b")
    assert part.networks == ("b", "c") and "2 networks (b, c)" in repr(part)
    part.save(tmp_path/"part.safetensors")
    for each in (part, Comparison.load(tmp_path/"part.safetensors")):
        np.testing.assert_array_equal(each.levels("6", 0, np.int64(1)).x, comparison.levels("6", "b", "c").x)
        assert each.geometry("6").gram.equal(comparison.geometry("6", 1, 2).gram)
        assert each.geometry("6", "b", "c").n_y == 7
    for call in (lambda: comparison.only("a", "typo"), lambda: comparison.layer_pair("6", 0, 5),
                 lambda: comparison.levels("7"),
                 lambda: comparison.layer_pair("6", 2, 2)):
        with pytest.raises(KeyError, match="networks, in this order: a, b, c"): call()
    for chosen in ((), ("a",), ("a", 0)):
        with pytest.raises(ValueError, match="at least two networks"): comparison.only(*chosen)
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


def test_many_layers_leave_room_for_their_curves():
    matplotlib.use("Agg")
    table = pd.DataFrame([{"layer": f"stage4.block{k}.relu1", "depth": k, "eps": eps, "similarity": eps}
                          for k in range(40) for eps in (0.1, 0.9)])
    ax = plot_eps(table)
    ax.figure.canvas.draw()
    assert ax.get_window_extent().height > 0.6*ax.figure.bbox.height and len(ax.get_legend().get_texts()) == 40


def test_html_shows_every_number_and_no_markup_of_a_name(loader):
    comparison = compare({"<b>": network(0), "other": network(1)}, loader)
    html = comparison._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;" in html and "70</td>" in html
    assert html.count("<td style") == 2*(1 + len(EPS))
    few = compare([network(0), network(1)], [next(iter(loader))[0][:10]], "6")._repr_html_()
    assert "few inputs" in few and "few inputs" not in html
    grid = compare([network(0), network(1), network(2)], loader, layer_pairs="all", samples="inputs")
    assert grid._repr_html_().count("<table>") == 3 and grid._repr_html_().count("<td style") == 3*4


def test_plots_take_one_eps_and_one_grid(loader):
    matplotlib.use("Agg")
    grid = compare([network(0), network(1), network(2)], loader, layer_pairs="all", samples="inputs")
    with pytest.raises(ValueError, match="only"): grid.plot()
    drawn = grid.only(0, 2)
    image, areas = drawn.plot().images[0].get_array(), drawn.area()
    assert image[0,
                 -1] == areas[(areas.depth == areas.depth.max()) & (areas.depth_b.fillna(areas.depth) == 1)].area.item()
    at = drawn.plot(0.3)
    assert sorted(at.images[0].get_array().ravel()) == sorted(drawn.similarity(0.3, "leave out").similarity)
    assert [ax.get_ylabel() for ax in at.figure.axes[1:]] == ["similarity, ε = 0.3"]
    with pytest.raises(ValueError, match="one ε, not 2"): drawn.plot([0.1, 0.3])
    rows = re.findall(r'<th style="text-align: left">(\d)</th>', drawn._repr_html_())
    assert rows == ["6", "2"]                                        # upwards, as in the figure
    above, below = compare({"a": network(0), "b": network(1)}, loader).plot(0.3).figure.axes[:2]
    title = above.get_title("left").replace("\n", " ")
    assert "a and b" in title and "d from 70" in title
    assert {"area", "chance", "held out",
            "95 % (images)"} == {text.get_text() for text in above.get_legend().get_texts()}
    assert below.get_legend().get_texts()[0].get_text() == "0.3"


# The cases with which issue 14 begins: each number must come with what keeps it from misleading.


def matrices(d, n=20, seed=0, shared=5):
    "Two matrices (d, n) of normal numbers that have some columns in common, up to noise."
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, d, n))
    y[:, :shared] = x[:, :shared] + 0.3*rng.normal(size=(d, shared))
    return x, y


def compared(x, y, **how): return compare([{"a": x}, {"a": y}], **how)


def one(comparison): return comparison.area().iloc[0]


def test_few_inputs_are_told_by_what_is_held_out():
    with pytest.warns(UserWarning, match="too few different inputs.*a .few inputs"): few = one(compared(*matrices(30)))
    with warnings.catch_warnings(action="error"): many = one(compared(*matrices(2000)))
    assert few.area > many.area + 0.15 and few.held_out <= many.held_out and "few inputs" in few.note
    assert many.note == "" and few.low <= many.area <= few.high


def test_repeated_and_constant_inputs_are_told_by_the_rank():
    for x, y in ((np.tile(z, (100, 1)) for z in matrices(10, shared=0)),
                 (np.repeat(z, 100, 0) for z in matrices(10, shared=0)),
                 (np.repeat(z[:1], 100, 0) for z in matrices(10, shared=0))):
        with pytest.warns(UserWarning, match="too few different inputs"): row = one(compared(x, y))
        assert row.area > 0.999 and "dimensions" in row.note


def test_a_network_against_itself_is_one_whatever_is_dead(images):
    model = network(0)
    model[5].bias.data[:3] -= 100
    comparison = compare([model, model], [images])
    assert comparison.layer_pair("6").dead_x.sum() == 3
    assert (comparison.area().area == 1).all() and (comparison.similarity(0.01).similarity == 1).all()
    assert (comparison.area("exclude").area < 1).any() and comparison.area().note.eq("").all()


def test_dead_neurons_are_no_headline():
    x, y = matrices(500, shared=0)
    x[:, 10:] = y[:, 10:] = 0
    comparison = compared(x, y)
    assert comparison.area("include").area.item() > 0.5 > 0.05 > comparison.area().area.item()
    assert compared(x, y, dead="include").area().area.item() == comparison.area("include").area.item()


def test_noise_with_a_mean_is_at_chance_unless_it_is_centred():
    x, y = (z + 50 for z in matrices(1000, shared=0))
    for how in ({}, {"affine": True}):
        row = one(compared(x, y, **how))
        assert row.area > 0.9 and "at chance" in row.note
    assert one(compared(x, y, centre=True)).area < 0.05
    with pytest.raises(ValueError, match="choose one"): compared(x, y, affine=True, centre=True)
    constant = np.c_[x, np.full(1000, 3.0)]
    assert compared(constant, y, centre=True).layer_pair("a").dead_x.tolist()[0] == [False]*20 + [True]


def test_random_weights_match_as_much_after_a_rotation(images):
    """Chance is about inputs, and random filters see the same ones; that their match is one of spans, the rotation
    tells.
    """
    smooth = nn.functional.interpolate(images[:, :1], size=16, mode="bilinear")
    def filters(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU())
    row = compare([filters(0), filters(1)], [smooth]).area(rotate=True).iloc[0]
    assert row.area > row.chance + 0.1 and row.rotated > row.area - 0.05


def test_intervals_narrow_and_contain_the_value():
    widths = []
    for d in (100, 400, 1600):
        table = compared(*matrices(d)).similarity(np.linspace(0.05, 0.95, 10))
        assert (table.low <= table.similarity).all() and (table.similarity <= table.high).all()
        row = one(compared(*matrices(d)))
        assert row.low <= row.area <= row.high
        widths.append(row.high - row.low)
    assert widths[0] > widths[1] > widths[2]


def test_a_layer_of_257_inputs_is_no_layer_of_all():
    "Random ReLUs on digits: few inputs make them match, and what is held out, the note and a warning say so."
    pixels = load_digits().data/16
    x, y = (np.maximum(pixels @ np.random.default_rng(seed).normal(size=(64, 200)), 0) for seed in range(2))
    with pytest.warns(UserWarning, match="too few different inputs.*few inputs: d = 257"):
        few = one(compared(x[:257], y[:257]))
    with warnings.catch_warnings(action="ignore"): many = one(compared(x, y))
    assert few.area > many.area + 0.05 and few.held_out < many.area and "few inputs" in few.note


@pytest.mark.parametrize("copy", [lambda z: np.tile(z, (5, 1)), lambda z: np.repeat(z, 5, 0)])
@pytest.mark.parametrize("inputs", [8, 60])
def test_copies_of_an_input_are_no_more_inputs(copy, inputs):
    "Wherever copies stand, they share a fold: neither the held-out value nor the interval sees them twice."
    x, y = matrices(inputs, shared=0)
    with pytest.warns(UserWarning, match=f"chance is unknown: {inputs} of {5*inputs} inputs differ"):
        row = one(compared(copy(x), copy(y)))
    with warnings.catch_warnings(action="ignore"): once = one(compared(x, y))
    assert np.isnan(row.chance) and not np.isnan(once.chance)       # copies would meet different inputs
    assert f"repeated inputs ({inputs} of {5*inputs} differ), chance unknown" in row.note
    assert "chance unknown" not in once.note
    assert ("few inputs" in row.note) == ("few inputs" in once.note) == (inputs == 8)
    assert row.area == pytest.approx(once.area) and row.held_out == pytest.approx(once.held_out)
    assert row[["low", "high"]].tolist() == pytest.approx(once[["low", "high"]].tolist())
    assert once.held_out < 0.3 and row.inputs == 5*inputs


def test_copies_in_a_loader_are_seen_whatever_else_a_batch_holds():
    torch.manual_seed(0)
    images = torch.randn(20, 2, 8, 8)
    batches = [(images[k:k + 10], torch.arange(10) + 10*k) for k in (0, 5, 10, 0)]
    with warnings.catch_warnings(action="ignore"): comparison = compare([network(0), network(1)], batches)
    assert set(comparison.area().inputs) == {40}
    assert all("repeated inputs (20 of 40 differ)" in note for note in comparison.area().note)


def test_chance_and_folds_do_not_depend_on_the_order_of_inputs():
    "Sorted by class, neighbours resemble each other; chance must be that of unrelated inputs all the same."
    rng = np.random.default_rng(0)
    labels, centres, mix = np.repeat(np.arange(10), 200), 2*rng.normal(size=(10, 6)), rng.normal(size=(2, 6, 20))
    causes = centres[labels] + rng.normal(size=(2, 2000, 6))
    x, y, other = (np.maximum(seen @ m + rng.normal(size=(2000, 20)), 0)
                   for seen, m in ((causes[0], mix[0]), (causes[0], mix[1]), (rng.permutation(causes[1]), mix[1])))
    order = rng.permutation(2000)
    rows, shuffled = one(compared(x, y)), one(compared(x[order], y[order]))
    unrelated = one(compared(x, other)).area
    neighbours = one(compared(x, np.roll(y, 1, 0))).area
    assert rows.chance == pytest.approx(unrelated, abs=0.02) and shuffled.chance == pytest.approx(unrelated, abs=0.02)
    assert neighbours > unrelated + 0.1
    values = ["area", "low", "high", "held_out"]
    assert rows[values].tolist() == pytest.approx(shuffled[values].tolist())


def test_neurons_that_are_silent_in_a_fold_are_judged_elsewhere():
    x, y = matrices(400)
    x[3:, 0], y[1:, 7], x[:300, 2] = 0, 0, 0
    residuals = compared(x, y).residuals("a")
    assert residuals.distance_held_out.between(0, 1).all()
    assert np.isfinite(compared(x, y).neuron_levels().held_out).all() and one(compared(x, y)).held_out < 1


def test_intervals_of_measures_stay_where_the_measure_does():
    from subspace_match.networks.measures import RANGES
    for d in (12, 40, 400):
        with warnings.catch_warnings(action="ignore"): table = compared(*matrices(d, n=6, shared=6)).measures()
        known = table.dropna()
        ranges = np.array([RANGES[measure] for measure in known.measure])
        assert set(table.measure) <= set(RANGES) and len(known) > 10
        assert (ranges[:, 0] <= known.low).all() and (known.high <= ranges[:, 1]).all()
        assert (known.low <= known.high).all()


def test_the_mean_over_pairs_has_an_interval_of_its_own(loader):
    comparison = compare({name: network(seed) for seed, name in enumerate("abc")}, loader)
    pairs, means = comparison.area(), comparison.area(over_pairs=True).set_index("layer")
    assert means.area.tolist() == pytest.approx(pairs.groupby("layer", sort=False).area.mean().tolist())
    assert (means.pairs == 3).all() and ((means.low <= means.area) & (means.area <= means.high)).all()
    width = (pairs.high - pairs.low).groupby(pairs.layer, sort=False).mean()
    assert (means.high - means.low <= width + 1e-9).all()
    single = comparison.only("a", "b")
    assert single.area(over_pairs=True).low.tolist() == pytest.approx(single.area().low.tolist())


def test_what_changed_is_found_in_several_passes_as_in_one():
    rng = np.random.default_rng(0)
    before = {f"l{k}": rng.normal(size=(150, 30)) for k in range(3)}
    after = {layer: z + 0.1*(k + 1)*rng.normal(size=z.shape) for k, (layer, z) in enumerate(before.items())}
    once = diff(before, after)
    with pytest.warns(UserWarning, match="3 passes over the loader"): parts = diff(before, after, memory=2e7)
    pd.testing.assert_frame_equal(parts.layers, once.layers)
    pd.testing.assert_frame_equal(parts.neurons, once.neurons)
    assert parts.neurons.itself.notna().all() and parts.neurons.layer[0] == "l2"


def test_memory_for_some_layers_at_a_time_gives_the_same_numbers():
    rng = np.random.default_rng(0)
    networks = {name: {f"l{k}": rng.normal(size=(150, 30)) for k in range(3)} for name in "abcd"}
    whole, tables = compare(networks, each_pass=lambda part: pytest.fail("one pass is enough")), []
    with pytest.warns(UserWarning, match="3 passes over the loader.*gone after it") as told:
        parts = compare(networks, memory=2e7, each_pass=lambda part: tables.append(part.measures()))
    pd.testing.assert_frame_equal(pd.concat(tables, ignore_index=True), whole.measures())
    ours = [warning for warning in told if "passes" in str(warning.message)]     # importing POT may warn too
    assert {Path(warning.filename).name for warning in ours} == {"test_comparison.py"}
    pd.testing.assert_frame_equal(parts.area(), whole.area())
    with pytest.raises(ValueError, match="in several passes for want of memory"): parts.geometry("l0")
    sums, levels = _bytes([30, 30], 5, True, 0, 0, 1)
    with pytest.warns(UserWarning, match="18 passes"): blocks = compare(networks, memory=sums + levels)
    pd.testing.assert_frame_equal(blocks.area().drop(columns="chance"), whole.area().drop(columns="chance"))
    with pytest.raises(ValueError, match="layer l0, block 1 of 6 .60 neurons.*takes"):
        compare(networks, memory=sums + levels - 1)


def test_errors_call_networks_by_their_names(images):
    broken = network(1)
    broken[5].weight.data[3] = torch.nan
    cases = [(dict(networks={"mine": network(0), "yours": broken}, loader=[images]),
              "layer 6 of network 'yours', batch 0: its activations are NaN or infinite in neuron 3 of 7"),
             (dict(networks={"mine": network(0), "yours": 3}, loader=[images]), "network 'yours' is of type int"),
             (dict(networks={"mine": network(0), "yours": network(1)}, loader=[images], layers="reluu"),
              "network 'mine'"),
             (dict(networks={"mine": {"a": np.ones((5, 2))}, "yours": {"a": np.ones((6, 2))}}),
              "6 in a of network 'yours'"),
             (dict(networks=[{"a": np.ones((5, 2))}, {"a": np.ones((6, 2))}]), "6 in a of network 1"),
             (dict(networks={"mine": {"a": np.full((9, 2), 1e200)}, "yours": {"a": np.ones((9, 2))}}),
              "layer a of mine and yours: "),
             (dict(networks=[network(0), network(1)], loader=[images, images[:0]]),
              "batch 1 of the loader holds no inputs"),
             (dict(networks=[network(0), network(1)], loader=[images], folds=2.5),
              "folds are a whole number.* not 2.5"),
             (dict(networks=[network(0), network(1)], loader=[images], memory="2GB"), "memory is a number of bytes"),
             (dict(networks=[network(0), network(1)], loader=[images], n_jobs=0), "n_jobs is how many")]
    for arguments, message in cases:
        with pytest.raises((ValueError, TypeError), match=message): compare(**arguments)


def test_warnings_are_few_and_point_at_the_caller(images):
    with pytest.warns(UserWarning) as told: compare([network(0), network(1)], [images[:1]])
    assert sum("chance is unknown in 2, 6" in str(warning.message) for warning in told) == 1
    assert {Path(warning.filename).name for warning in told} == {"test_comparison.py"}
    with pytest.warns(DeprecationWarning) as told: compare([network(0), network(1)], [images], pairs="same")
    assert {Path(warning.filename).name for warning in told} == {"test_comparison.py"}


def test_layers_that_are_new_by_default_are_said_once(images, monkeypatch):
    monkeypatch.setattr("subspace_match.networks.comparison._TOLD", [])
    class Functional(nn.Sequential):
        def forward(self, images): return self[1](torch.relu(self[0](images.flatten(1))))
    networks = [Functional(nn.Linear(images[0].numel(), 8), nn.Linear(8, 3)) for _ in range(2)]
    chosen, default = compare(networks, [images], "relu"), compare(networks, [images])
    with warnings.catch_warnings(action="error", category=FutureWarning): chosen.similarity(0.3, dead="include")
    with pytest.warns(FutureWarning, match="functional activations, and what the readout reads, are layers too"):
        default.similarity(0.3)
    with warnings.catch_warnings(action="error", category=FutureWarning): default.similarity(0.3)


def test_without_folds_and_chance_there_are_no_numbers_in_their_place():
    row = one(compared(*matrices(200), folds=0, chance=False))
    assert row[["low", "high", "chance", "held_out"]].isna().all() and row.area > 0
    everything = one(compared(*matrices(200)))
    assert row.area == pytest.approx(everything.area)


def test_chance_is_that_of_unrelated_matrices():
    x, y = (abs(z) for z in matrices(2000))
    unrelated = abs(matrices(2000, seed=1, shared=0)[1])
    assert one(compared(x, y)).chance == pytest.approx(one(compared(x, unrelated)).area, abs=0.01)


def test_measures_are_those_of_the_matrices():
    from subspace_match.networks.measures import all_measures
    x, y = matrices(300)
    table = compared(x, y, inputs_kept=50).measures().set_index("measure")
    for name, value in all_measures(x.T, y.T).items(): assert table.value[name] == pytest.approx(value, abs=1e-6), name
    assert table.loc["cka", "low"] < table.loc["cka", "value"] < table.loc["cka", "high"]
    assert table.loc["cka", "chance"] < 0.1
    assert {"rsa", "knn", "cka_rbf"} <= set(table.index)
    assert table[["low", "high"]].notna().all(axis=None) and table.chance.drop("regression_held_out").notna().all()


def test_the_chance_of_measures_is_that_of_the_moved_activations():
    "Of any vectors with the same inner products, among themselves and with the constant one."
    x, y = (z + 3 for z in matrices(40))
    comparison = compared(x, y)
    joint = comparison.grams["a"]
    gram, sums = joint._chance_pair(0, 1)
    factor = np.linalg.cholesky(np.block([[gram.numpy(), sums[:, None].numpy()], [sums.numpy(), np.array(40.)]])
                                + 1e-9*np.eye(len(sums) + 1))
    z, one = factor[:-1], factor[-1]/np.linalg.norm(factor[-1])
    z = z - np.outer(z @ one, one)
    expected = np.sum((z[:x.shape[1]] @ z[x.shape[1]:].T)**2)
    expected /= np.linalg.norm(z[:x.shape[1]] @ z[:x.shape[1]].T)*np.linalg.norm(z[x.shape[1]:] @ z[x.shape[1]:].T)
    table = comparison.measures().set_index("measure")
    assert table.chance["cka"] == pytest.approx(expected, rel=1e-5)


def test_samples_that_were_drawn_have_measures_that_are_means():
    from subspace_match.networks.measures import all_measures
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 60, 4, 3, 3))
    comparison = compare([{"a": x}, {"a": y + x}], drawn=100, draws=3)
    table, joint = comparison.measures().set_index("measure"), comparison.grams["a"]
    each = [all_measures(joint.geometry(0, 1, draw), sums=joint.pair(0, 1, draw)[1])["cka"] for draw in range(3)]
    assert table.value["cka"] == pytest.approx(np.mean(each)) and np.std(each) > 0
    assert table.value["area"] == pytest.approx(comparison.area().area.item()) and table.low.isna().all()


def test_where_nothing_can_be_written_is_said_before_levels_are_found(tmp_path, monkeypatch):
    comparison = compare([{"a": z} for z in matrices(50)], lazy=True)
    monkeypatch.setattr("subspace_match.networks.comparison.find_levels", lambda *_: pytest.fail("work began"))
    (tmp_path/"file").touch()
    for write in (comparison.save, comparison.report):
        with pytest.raises(OSError, match="file is a file, not a folder"): write(tmp_path/"file/there.html")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="has room for 1e-06 GB"): comparison.save(tmp_path/"there")


def test_residuals_turn_with_the_networks():
    comparison = compared(*matrices(300))
    there, back = comparison.residuals("a"), comparison.residuals("a", 1, 0)
    x = there[there.side == "x"].reset_index(drop=True)
    np.testing.assert_allclose(x.level, back[back.side == "y"].level)
    assert x.partner[:5].tolist() == list(range(5)) and (x.correlation[:5] > 0.9).all()
    assert set(back.network_a) == {"network 1"}
    assert (there.level >= there.distance - 1e-6).all()


def test_jobs_share_the_folds_where_there_is_one_pair(monkeypatch):
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(150, 6))
    networks = {f"{k}": {"layer": shared @ rng.normal(size=(6, 8)) + rng.normal(size=(150, 8))} for k in range(2)}
    pieces, plain = [], comparison_module.only_piece
    monkeypatch.setattr(comparison_module, "only_piece", lambda g, piece: pieces.append(piece) or plain(g, piece))
    with joblib.parallel_config("threading"):
        for folds, chance, n in ((5, True, 7), (5, False, 6), (0, True, 2), (0, False, 1)):
            alone = compare(networks, folds=folds, chance=chance)
            together = compare(networks, folds=folds, chance=chance, n_jobs=3)
            pd.testing.assert_frame_equal(together.area(), alone.area())
            pair, same = (next(iter(c.layer_pairs.values())) for c in (together, alone))
            assert pair.dimensions == same.dimensions and len(pieces) == n, (pieces, folds, chance)
            assert {k: len(v) for k, v in pair.curves.items()} == {k: len(v) for k, v in same.curves.items()}
            pieces.clear()


def test_pairs_on_a_cluster_of_dask_are_those_of_one_process():
    distributed = pytest.importorskip("distributed")
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(150, 6))
    networks = {f"{k}": {"layer": shared @ rng.normal(size=(6, 8)) + rng.normal(size=(150, 8))} for k in range(10)}
    alone = compare(networks).area()
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False,
                                  dashboard_address=None) as cluster:
        with distributed.Client(cluster), joblib.parallel_config("dask"): together = compare(networks, n_jobs=-1).area()
    assert len(together) == 45
    pd.testing.assert_frame_equal(together, alone)


@pytest.mark.parametrize("how", [dict(folds=3), dict(folds=0, chance=False, centre=True), dict(drawn=60, draws=2)],
                         ids=["folds", "centred", "draws"])
def test_what_another_process_gets_is_the_pair_itself(how):
    "Without the other networks' sums, and the two in either order."
    rng = np.random.default_rng(0)
    networks = [{"a": rng.normal(size=(120, 7)), "b": rng.normal(size=(120, 3))} for _ in range(3)]
    comparison = compare(networks, layer_pairs="all", lazy=True, **how)
    reading = comparison._reading_of_means
    for pair in comparison.layer_pairs.values():
        joint, i, j = comparison._members(pair)
        for a, b in ((i, j), (j, i)):
            alone = _alone(joint, a, b)
            assert sum(alone[0].sizes) == joint.sizes[i] + joint.sizes[j] == alone[0].parts.shape[1]
            whole, part = (geometries_in_turn(*members, **reading) for members in ((joint, a, b), alone))
            for name in whole:
                for one, other in zip(whole[name], part[name], strict=True):
                    assert torch.equal(one.unit_gram, other.unit_gram) and one.n_samples == other.n_samples
                    assert one.n_x == other.n_x and torch.equal(one.norms, other.norms)
