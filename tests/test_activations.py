"""Sums over one pass."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from examples import SMALL, network, sums_together
from processes import CONTEXT, finished
from subspace_match import Geometry, compare
from subspace_match.networks import activations, layers
from subspace_match.networks.activations import joint_grams
from subspace_match.networks.layers import neuron_matrix, record
from subspace_match.theory.reference import literal_maximum_match


def test_streamed_levels_are_those_of_the_literal_algorithm_on_the_activations(images, loader):
    networks = [network(seed) for seed in range(2)]
    comparison = compare(networks, loader)
    for layer in ("2", "6"):
        x, y = (neuron_matrix(record(model, images, [layer])[layer]).T.double().numpy() for model in networks)
        for eps in (0.2, 0.4, 0.6, 0.8):
            assert comparison.maximum_match(layer, eps=eps) == literal_maximum_match(x, y, eps)


def test_each_batch_is_seen_once_and_nothing_else_is_kept(images):
    def batches():
        for start in range(0, len(images), 10):
            yield images[start : start + 10]

    grams = joint_grams([network(0), network(1)], batches())
    assert grams["2"].n_samples == 70 * 36 and grams["6"].n_samples == 70


def test_half_precision_is_added_up_in_float64(images):
    models = [network(seed).bfloat16() for seed in range(2)]
    grams = joint_grams(models, [images.bfloat16()])
    matrix = torch.cat([neuron_matrix(record(model, images.bfloat16(), ["2"])["2"]) for model in models], 1).double()
    torch.testing.assert_close(grams["2"].grams[0], matrix.T @ matrix, rtol=1e-12, atol=1e-12)


def test_infinite_activations_are_named(images):
    bad = network(1)
    bad[5].weight.data[:] = float("inf")
    with pytest.raises(ValueError, match="layer 6 of network 1, batch 0: its activations are NaN or infinite in all"):
        compare([network(0), bad], [images])


def test_a_draw_has_the_same_rows_in_all_networks_and_is_repeatable(loader):
    same = compare([network(0), network(0)], loader, layers="2", drawn=100, draws=3)
    assert (same.similarity(0.01).similarity == 1).all() and same.pair("2").d == 100
    one, two, other = (
        joint_grams([network(0), network(1)], loader, "2", drawn=100, draws=2, seed=seed)["2"].grams
        for seed in (0, 0, 1)
    )
    assert one.equal(two) and not one.equal(other) and not one[0].equal(one[1])


def test_drawing_everything_is_using_everything(loader):
    every, drawn = (
        joint_grams([network(0), network(1)], loader, drawn=drawn)["2"] for drawn in (None, 70 * 36)
    )
    torch.testing.assert_close(drawn.grams, every.grams, rtol=1e-12, atol=1e-12)
    assert drawn.n_samples == every.n_samples


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
def test_two_processes_together_equal_one(images, tmp_path):
    processes = [CONTEXT.Process(target=sums_together, args=(rank, (tmp_path / "store").as_uri(), images, tmp_path))
                 for rank in range(2)]
    for process in processes: process.start()
    assert [finished(process) for process in processes] == [0, 0]
    for drawn in (None, 100):
        alone = joint_grams(
            [network(0), network(1)],
            DataLoader(TensorDataset(images), batch_size=16),
            drawn=drawn,
            draws=2,
            inputs_kept=5,
        )
        for rank in range(2):
            together, chance, kernels = torch.load(tmp_path / f"{drawn}-{rank}.pt", weights_only=True)
            for name, joint in alone.items():
                torch.testing.assert_close(together[name][0], joint.grams, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(together[name][1], joint.sums, rtol=1e-9, atol=1e-9)
                assert together[name][2] == joint.n_samples and together[name][5] == joint.n_inputs == 70
                torch.testing.assert_close(kernels[name], list(joint.kernels.values()))
                if drawn:
                    assert chance[name] is None
                    continue
                torch.testing.assert_close(together[name][3], joint.fold_grams, rtol=1e-9, atol=1e-9)
                assert together[name][4].equal(joint.fold_samples)
                n, other = joint.sizes[0], chance[name]  # other pairs of inputs, but of the same size in the mean
                assert other.isfinite().all() and not other[n:, :n].any() and not other.equal(joint.shifted)
                torch.testing.assert_close(other[:n, n:].mean(), joint.shifted[:n, n:].mean(), rtol=0.1, atol=0.1)


def test_padding_is_left_out():
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model("bert", **SMALL)
    models = [transformers.AutoModel.from_config(settings) for _ in range(2)]
    tokens, real = torch.randint(50, (40, 9)), torch.arange(9) < torch.randint(3, 9, (40, 1))
    batches = [{"input_ids": tokens[k::2], "attention_mask": real[k::2].long()} for k in range(2)]
    layers = ["encoder.layer.?", "pooler.dense"]
    masked = compare(models, batches, layers, mask=lambda batch: batch["attention_mask"], progress=False)
    assert [pair.d for pair in masked.pairs.values()] == [int(real.sum())] * 2 + [40]
    gathered = [
        {
            layer: torch.cat(
                [record(model, batch, [layer])[layer][batch["attention_mask"].bool()] for batch in batches]
            )
            for layer in masked.layers[:2]
        }
        for model in models
    ]
    for layer, found in compare(gathered, progress=False).pairs.items():
        np.testing.assert_allclose(found.levels[0].x, masked.pairs[layer].levels[0].x, atol=1e-6)
    with pytest.warns(UserWarning, match="padding counts as samples"):
        compare(models, batches, layers, lazy=True, progress=False)
    for options, problem in (
        ({"mask": lambda batch: torch.ones(9)}, "must be of shape"),
        ({"mask": lambda batch: torch.ones(20, 5)}, "choose layers"),
        ({"mask": lambda batch: real, "samples": "flattened"}, "single samples"),
        ({"mask": lambda batch: real, "drawn": 9}, "single samples"),
    ):
        with pytest.raises(ValueError, match=problem):
            compare(models, batches, layers, progress=False, **options)


def test_d_counts_the_tokens_there_are():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.GELU())
    batches = [torch.randint(9, (6, length)) for length in (7, 3)]
    assert compare([model, copy.deepcopy(model)], batches).pair("2").d == 6 * 7 + 6 * 3
    with pytest.raises(ValueError, match="drawing samples needs 7 of every input in 2"):
        compare([model, model], batches, drawn=10)


def test_only_chosen_layers_are_kept(images, monkeypatch):
    kept = []
    original = activations.record

    def spy(*arguments, **options):
        kept.append(original(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr(activations, "record", spy)
    joint_grams([network(0), network(1)], [images, images], "6")
    assert {name for outputs in kept for name, output in outputs.items() if not output.is_meta} == {"6"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precisions_share_a_loader(loader, dtype):
    comparison = compare([network(0), network(0).to(dtype)], loader, layers="2")
    assert comparison.similarity(0.1).similarity.item() == 1


@pytest.mark.parametrize("options", [{"drop_last": True}, {"sampler": range(40)}])
def test_positions_are_drawn_from_what_the_loader_yields(images, options):
    loader = DataLoader(TensorDataset(images), batch_size=16, **options)
    assert compare([network(0), network(1)], loader, "2", drawn=100, draws=2).layer_pair("2").d == 100


def test_stored_activations_leave_the_graph_behind():
    x = torch.randn(50, 4, requires_grad=True)
    assert compare([{"a": x * 2}, {"a": x}]).geometry("a").gram.requires_grad is False


def gathered(images, layer, networks):
    "Activations (inputs, positions, neurons) of all networks side by side."
    outputs = [record(model, images, [layer])[layer] for model in networks]
    return torch.cat(
        [neuron_matrix(output).reshape(len(images), -1, output.shape[1]) for output in outputs], 2
    ).double()


@pytest.mark.parametrize("batch", [16, 23, 1])
@pytest.mark.parametrize("entries", [2**23, 500])
def test_folds_are_of_whole_inputs_whatever_the_batches(images, batch, entries, monkeypatch):
    monkeypatch.setattr(activations._take, "__defaults__", ((), None, None, entries))
    networks, folds = [network(0), network(1)], activations._keys(images, 70).remainder(3)
    assert len(folds.unique()) == 3
    for layer, joint in joint_grams(networks, images.split(batch), folds=3, progress=False).items():
        z = gathered(images, layer, networks)
        for fold in range(3):
            part = z[folds == fold].flatten(0, 1)
            torch.testing.assert_close(joint.fold_grams[fold], part.T @ part, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(joint.fold_sums[fold], part.sum(0), rtol=1e-5, atol=1e-4)
            assert joint.fold_samples[fold] == len(part)
        assert joint.n_inputs == 70 and joint.n_samples == joint.samples([0, 1, 2]) == 70 * z.shape[1]
        for centre, affine in ((False, False), (True, False), (False, True)):
            part = z[folds != 1].flatten(0, 1).T
            if centre:
                part = part - part.mean(1, keepdim=True)
            n = joint.sizes[0]
            found = joint.geometry(0, 1, folds=[0, 2], centre=centre, affine=affine)
            expected = Geometry.from_vectors(part[:n], part[n:], affine=affine)
            torch.testing.assert_close(found.gram, expected.gram, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"samples": "inputs", "pairs": "all"}, {"batch": 1}, {"batch": 69}])
def test_chance_is_the_gram_matrix_of_inputs_in_another_order(images, options, monkeypatch):
    """Inputs are told apart by one entry that only they have, and all signs are positive, so that S says who met whom;
    then it must be Σ z(a) z(b)ᵀ.
    """
    monkeypatch.setattr(activations, "_signs", torch.ones_like)
    options = dict(options)
    one_hot = torch.eye(70).reshape(70, 70, 1, 1) * torch.ones(4, 1) + 0.01 * torch.randn(70, 70, 4, 1)
    networks, batches = [nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())], one_hot.split(options.pop("batch", 16))
    (joint,) = joint_grams(networks, list(batches), progress=False, **options).values()
    met = joint.shifted[:70, 70:].argmax(1)
    assert sorted(met.tolist()) == list(range(70)) and not (met == torch.arange(70)).any()
    z = one_hot.relu().double().reshape(70, 70, 4).mT
    z = z.mean(1, keepdim=True) if "samples" in options else z
    x, y = z.flatten(0, 1).T, z[met].flatten(0, 1).T
    for centre in (False, True):
        if centre:
            x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
        found = joint.chance_geometry(0, 1, centre=centre)
        torch.testing.assert_close(found.gram, Geometry.from_vectors(x, y).gram, rtol=1e-5, atol=1e-5)
        turned = joint.chance_geometry(1, 0, centre=centre).gram
        torch.testing.assert_close(turned.roll((70, 70), (0, 1)), found.gram)


def test_chance_with_padding_keeps_every_sample_once():
    torch.manual_seed(0)
    real, x = torch.arange(9) < torch.randint(1, 10, (41, 1)), torch.randn(41, 9, 4)
    batches = [(x[k : k + 8], real[k : k + 8]) for k in range(0, 41, 8)]  # a last batch of one
    networks = [nn.Sequential(nn.Tanh()), nn.Sequential(nn.Tanh())]
    (joint,) = joint_grams(networks, batches, mask=lambda batch: batch[1], progress=False).values()
    z = x.tanh()[real].double()
    torch.testing.assert_close(joint.grams[0, :4, :4], z.T @ z)
    lengths, folds = real.sum(1), activations._keys(x, 41).remainder(5)
    for fold in range(5):
        assert joint.fold_samples[fold] == lengths[folds == fold].sum()
    unlike = joint.shifted[:4, 4:] / z.norm(dim=0)[:, None] / z.norm(dim=0)
    assert 0 < unlike.abs().max() < 0.4 and joint.grams[0, :4, 4:].equal(joint.grams[0, :4, :4])
    joint.chance_geometry(0, 1), joint.geometry(0, 1, folds=[1, 4], centre=True)


def test_what_there_is_no_chance_for(images):
    networks = [network(0), network(1)]
    with pytest.warns(UserWarning, match="chance is unknown in 6"):
        alone = joint_grams(networks, [images[:1]], "6", progress=False)["6"]
    assert alone.shifted is None
    drawn = joint_grams(networks, [images], "2", drawn=100, draws=2, progress=False)["2"]
    plain = joint_grams(networks, [images], "2", folds=0, chance=False, progress=False)["2"]
    assert plain.fold_grams is drawn.fold_grams is plain.fold_samples is drawn.shifted is plain.shifted is None
    assert joint_grams([network(0)], [images], "2", progress=False)["2"].shifted is None
    for joint in (plain, drawn, alone):
        with pytest.raises(ValueError, match="chance=True collects them"):
            joint.chance_geometry(0, 1)
    with pytest.raises(ValueError, match="no folds"):
        drawn.geometry(0, 1, folds=[0])
    with pytest.raises(ValueError, match="0 to 4, each once"):
        alone.geometry(0, 1, folds=[5])
    with pytest.raises(ValueError, match="0 to 4, each once"):
        alone.geometry(0, 1, folds=[])
    with pytest.raises(ValueError, match="choose one"):
        plain.geometry(0, 1, affine=True, centre=True)
    with pytest.raises(ValueError, match="from 2, or 0 for none, not 1"):
        joint_grams(networks, [images], folds=1)


def test_kept_inputs_have_the_inner_products_of_their_activations(images):
    networks = [network(0), network(1)]
    for layer, joint in joint_grams(networks, images.split(16), inputs_kept=7, progress=False).items():
        z = gathered(images, layer, networks)[::10]
        for k, columns in enumerate(z.split(joint.sizes, 2)):
            torch.testing.assert_close(
                joint.kernels[k, layer], columns.flatten(1) @ columns.flatten(1).T, rtol=1e-5, atol=1e-5
            )
        drawn = joint_grams(networks, images.split(16), layer, inputs_kept=7, drawn=20, draws=2, progress=False)[layer]
        for member, kernel in joint.kernels.items():
            torch.testing.assert_close(drawn.kernels[member], kernel)


def test_constant_neurons_have_no_length_left_when_centred():
    rng = np.random.default_rng(0)
    x = np.concatenate([np.full((50, 1), 3.7), 1e5 + 1e-2 * rng.normal(size=(50, 1)), rng.normal(size=(50, 2))], 1)
    joint = joint_grams([{"a": x}, {"a": rng.normal(size=(50, 3))}], progress=False)["a"]
    assert joint.geometry(0, 1, centre=True).dead_x == 2 and joint.geometry(0, 1).dead_x == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"drawn": 100, "draws": 2},
        {"folds": 0, "chance": False},
        {"samples": "inputs", "pairs": "all", "inputs_kept": 6},
    ],
)
@pytest.mark.parametrize("killed", [1, 3])
def test_a_pass_that_was_killed_goes_on(images, tmp_path, monkeypatch, options, killed):
    monkeypatch.setattr(activations, "_due", lambda written, took: True)
    networks, batches, seen = [network(0), network(1)], [(images[k : k + 16],) for k in range(0, 70, 16)], []

    def forward(model, batch):
        seen.append(len(batch[0]))
        if forward.breaks and len(seen) > 2 + 2 * killed:
            raise KeyboardInterrupt
        return model(batch[0])

    options = options | {"forward": forward, "progress": False}
    forward.breaks = False
    expected = joint_grams(networks, batches, **options)
    seen.clear()
    forward.breaks = True
    with pytest.raises(KeyboardInterrupt):
        joint_grams(networks, batches, cache=tmp_path, **options)
    forward.breaks = False
    for forwards in (2 + 2 * (5 - killed), 2):  # what was left; then nothing: shapes only
        seen.clear()
        found = joint_grams(networks, batches, cache=tmp_path, **options)
        assert len(seen) == forwards
        for layer, joint in expected.items():
            for name in ("parts", "part_sums", "fold_samples", "shifted"):
                if getattr(joint, name) is None:
                    assert getattr(found[layer], name) is None
                else:
                    torch.testing.assert_close(
                        getattr(found[layer], name), getattr(joint, name), rtol=1e-12, atol=1e-12
                    )
            assert (found[layer].n_inputs, found[layer].n_samples) == (70, joint.n_samples)
            for member, kernel in (joint.kernels or {}).items():
                torch.testing.assert_close(found[layer].kernels[member], kernel)


def test_a_cache_serves_the_same_pass_only(images, tmp_path):
    def run(networks=None, batches=None, **options):
        networks = networks or [network(0), network(1)]
        before = set(tmp_path.iterdir())
        joint_grams(networks, batches or [images], cache=tmp_path, progress=False, **options)
        return set(tmp_path.iterdir()) - before

    assert len(run()) == 1 and not run()
    for other in (
        run([network(0), network(2)]), run(batches=[images + 1]), run(layers="6"), run(folds=3), run(chance=False),
        run(drawn=100), run(inputs_kept=3), run(forward=lambda model, batch: model(batch)),
    ):  # fmt: skip
        assert len(other) == 1
    half = {"networks": [network(k).bfloat16() for k in range(2)], "batches": [images.bfloat16()]}
    assert len(run(**half)) == 1 and not run(**half)
    stored = {"networks": [{"a": torch.randn(50, 3)} for k in range(2)]}
    assert len(joint_grams(**stored, cache=tmp_path)) == 1


def test_a_damaged_cache_is_named_and_a_useless_folder_before_the_pass(images, tmp_path, monkeypatch):
    networks = [network(0), network(1)]
    joint_grams(networks, [images], cache=tmp_path / "cache", progress=False)
    (file,) = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    for damaged in (content[:-50], content[:-50] + bytes([1] * 50)):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{file.name} is damaged.*delete it"):
            joint_grams(networks, [images], cache=tmp_path / "cache", progress=False)
    with pytest.raises(OSError, match="no pass can be kept in .* is a file, not a folder"):
        joint_grams(networks, [images], cache=file)
    file.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="has room for 1e-06 GB"):
        joint_grams(networks, [images], cache=tmp_path / "cache", progress=False)


def test_names_of_version_01_warn(images):
    networks = [network(0), network(1)]
    new = joint_grams(networks, [images], "2", layer_pairs="all", drawn=100, draws=2)["all layers"]
    for function in (joint_grams, lambda *args, **options: next(activations.joint_gram_groups(*args, **options))):
        with pytest.warns(DeprecationWarning, match="pairs= is now layer_pairs=|positions= is now drawn=") as told:
            old = function(networks, [images], "2", pairs="all", positions=100, draws=2)["all layers"]
        assert len(told) == 2 and old.grams.equal(new.grams)
    with pytest.raises(ValueError, match="layer_pairs must be 'same' or 'all'"):
        joint_grams(networks, [images], layer_pairs="al")


def test_layers_that_do_not_fit_together_are_summed_in_turn(images):
    networks, loader = [network(0), network(1)], DataLoader(TensorDataset(images), batch_size=16)
    expected = joint_grams(networks, loader, progress=False)
    with pytest.warns(UserWarning, match="2 passes over the loader: the sums of 2 layers take 0.034 GB, and 0.02 GB"):
        groups = list(activations.joint_gram_groups(networks, loader, memory=2e7, progress=False))
    assert [list(group) for group in groups] == [["2"], ["6"]]
    for group in groups:
        for layer, joint in group.items():
            assert joint.parts.equal(expected[layer].parts) and joint.shifted.equal(expected[layer].shifted)
    with pytest.raises(ValueError, match="2 layers take 0.034 GB.*one group after the other"):
        joint_grams(networks, loader, memory=2e7)
    with pytest.raises(ValueError, match="2 passes are needed, and an iterator"):
        list(activations.joint_gram_groups(networks, iter([images]), memory=2e7))
    with pytest.raises(ValueError, match="layer 2 .12 neurons; folds: 5, chance: True. takes 0.017 GB, and 0.001 GB"):
        list(activations.joint_gram_groups(networks, loader, memory=1e6))


def test_what_cannot_fit_is_refused_before_it_is_allocated():
    with torch.device("meta"):
        stored = [{f"layer{k}": torch.empty(10, 4096 * 16) for k in range(4)} for network in range(2)]
    with pytest.raises(ValueError, match="layer0 .131072 neurons; folds: 5, chance: True. takes 1.9e\\+03 GB"):
        joint_grams(stored, memory=20e9)
    plan = activations.memory_plan({f"layer{k}": (4096, 4096) for k in range(32)}, memory=20e9)
    passes = plan.groupby("pass")
    assert (passes.bytes.sum() + passes.levels.max()).max() <= 20e9 and plan["pass"].is_monotonic_increasing
    assert plan.bytes[0] >= 6 * 8 * 8192**2


def test_a_model_without_weights_is_named(images):
    with torch.device("meta"):
        bare = network(0)
    with pytest.raises(ValueError, match="network 1 has no weights.*'meta'"):
        joint_grams([network(0), bare], [images])
    assert list(layers.list_layers(bare, images).neurons[:3]) == [6, 6, 6]


def test_sentences_are_the_means_of_their_real_tokens():
    torch.manual_seed(0)
    x, real = torch.randn(41, 9, 4), torch.arange(9) < torch.randint(0, 10, (41, 1))  # some hold no token at all
    networks, batches = (
        [nn.Sequential(nn.Tanh(), nn.Linear(4, 3)), nn.Sequential(nn.Tanh(), nn.Linear(4, 3))],
        x.split(8),
    )
    masks = dict(zip(map(id, batches), real.split(8)))
    options = {"mask": lambda batch: masks[id(batch)], "samples": "inputs", "layers": ["0", "1"], "progress": False}
    folds = activations._keys(x, 41).remainder(5)
    for layer, joint in joint_grams(networks, list(batches), **options).items():
        outputs = [record(model, x, [layer])[layer].double() for model in networks]
        means = torch.cat(
            [torch.stack([z[keep].mean(0) for z, keep in zip(output, real) if keep.any()]) for output in outputs], 1
        )
        torch.testing.assert_close(joint.grams[0], means.T @ means, rtol=1e-5, atol=1e-5)
        assert joint.n_samples == len(means) < joint.n_inputs == 41
        assert [int(n) for n in joint.fold_samples] == [int(real[folds == fold].any(1).sum()) for fold in range(5)]


def test_every_place_of_a_convolution_can_be_a_neuron(images):
    joint = joint_grams([network(0), network(1)], images.split(16), "2", samples="flattened", progress=False)["2"]
    z = record(network(0), images, ["2"])["2"].double().permute(0, 2, 3, 1).flatten(1)
    assert joint.sizes == (6 * 36, 6 * 36) and joint.n_samples == 70
    torch.testing.assert_close(joint.grams[0, :216, :216], z.T @ z, rtol=1e-5, atol=1e-5)


def test_a_grid_is_common_to_different_resolutions(images):
    other = nn.Sequential(nn.Conv2d(2, 5, 5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3))
    pair = {0: ["2"], 1: ["1"]}
    with pytest.raises(ValueError, match=r"try samples='inputs', or a grid=\(h, w\)"):
        joint_grams([network(0), other], [images], pair)
    (joint,) = joint_grams([network(0), other], images.split(16), pair, grid=(2, 2), progress=False).values()
    parts = [record(network(0), images, ["2"])["2"], record(other, images, ["1"])["1"]]
    z = torch.cat(
        [nn.functional.adaptive_avg_pool2d(part.double(), 2).flatten(2).mT.flatten(0, 1) for part in parts], 1
    )
    torch.testing.assert_close(joint.grams[0], z.T @ z, rtol=1e-5, atol=1e-5)
    assert joint.n_samples == 280
    whole = joint_grams([network(0), network(1)], [images.bfloat16().float()], "2", grid=(1, 1), progress=False)["2"]
    means = joint_grams([network(0), network(1)], [images.bfloat16().float()], "2", samples="inputs", progress=False)[
        "2"
    ]
    torch.testing.assert_close(whole.grams, means.grams)
    for wrong in (7, (0, 3), (2, 2, 2)):
        with pytest.raises(ValueError, match="a grid is of rows and columns"):
            joint_grams([network(0), other], [images], pair, grid=wrong)
