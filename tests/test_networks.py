"""Activations and comparisons: what a user's networks may do to them."""
import copy
import warnings

import matplotlib
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import timm
import torchvision
import transformers
from torch import nn
from torch.utils.data import (
    BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler,
)

from subspace_match.networks import activations
from subspace_match.networks.activations import joint_grams, list_layers, neuron_matrix, record
from subspace_match.networks.comparison import Comparison, compare
from subspace_match.networks.figures import plot_depth, plot_eps, plot_heatmap
from subspace_match.theory.reference import maximum_match as literal_maximum_match

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


def test_streamed_levels_are_those_of_the_literal_algorithm_on_the_activations(images, loader):
    networks = [network(seed) for seed in range(2)]
    comparison = compare(networks, loader)
    for layer in ("2", "6"):
        x, y = (neuron_matrix(record(model, images, [layer])[layer]).T.double().numpy() for model in networks)
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


def _interrupted(images):
    yield images
    raise KeyboardInterrupt


@pytest.mark.parametrize("fails", [False, True, KeyboardInterrupt])
def test_hooks_and_modes_are_restored(images, fails):
    model = network(0).train()
    model[1].eval()
    if fails is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt): compare([model, network(1)], _interrupted(images))
    elif fails:
        with pytest.raises(RuntimeError) as error: compare([model, network(1)], [images[:, :1]])
        assert "network 0 on batch 0" in error.value.__notes__[0]
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


def swin(): return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5)
def convnext(): return torchvision.models.ConvNeXt([torchvision.models.convnext.CNBlockConfig(8, 12, 1), torchvision.models.convnext.CNBlockConfig(12, None, 1)], num_classes=5)
def vit(): return torchvision.models.VisionTransformer(32, 8, 1, 2, 12, 20, num_classes=5)


@pytest.mark.parametrize("build, neurons", [
    (swin, {"features.0.0": 8, "features.1.0.mlp.1": 32, "features.1.0": 8, "features.2": 16, "permute": 16}),
    (convnext, {"features.1.0.block.2": 8, "features.1.0.block.4": 32, "features.1.0": 8, "features.2.0": 8, "features.3.0": 12}),
    (vit, {"conv_proj": 12, "encoder.layers.encoder_layer_0.self_attention": 12, "encoder.layers.encoder_layer_0.mlp.1": 20, "encoder": 12}),
])
def test_channels_are_neurons_wherever_they_stand(build, neurons):
    images = torch.randn(2, 3, *[32 if build is vit else 64]*2)      # never as many places as channels
    table = list_layers(build(), images).set_index("layer")
    assert {layer: table.neurons[layer] for layer in neurons} == neurons
    assert (table["shape"].map(np.prod) == 2*table.neurons*table.samples).all()
    comparison = compare([build(), build()], [images], lazy=True, progress=False)
    assert comparison.layers == [layer for layer in table.index if table.type[layer] == "GELU"]
    assert all(pair.n_x == table.neurons[pair.layer] and pair.d == 2*table.samples[pair.layer] for pair in comparison.pairs.values())


SMALL = {"vocab_size": 50, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
TRANSFORMERS = {"bert": SMALL, "llama": SMALL | {"dtype": "bfloat16"}, "vit": SMALL | {"image_size": 16, "patch_size": 4},
                "gpt2": {"vocab_size": 50, "n_embd": 12, "n_inner": 20, "n_layer": 2, "n_head": 2}, "t5": {"vocab_size": 50, "d_model": 12, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_heads": 2}}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_hugging_face_models_take_their_dicts(kind):
    def build(seed):
        torch.manual_seed(seed)
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **TRANSFORMERS[kind]))

    tokens = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(0))
    inputs = {"vit": {"pixel_values": torch.randn(40, 3, 16, 16)}, "t5": {"input_ids": tokens, "decoder_input_ids": tokens[:, :7]}}.get(kind, {"input_ids": tokens})
    batches = [transformers.BatchEncoding({name: part[k::2] for name, part in inputs.items()}) for k in range(2)]
    comparison = compare([build(0), build(1)], batches, progress=False)
    hidden = [pair for pair in comparison.pairs.values() if pair.n_x == 20]
    assert [pair.d for pair in hidden] == {"t5": [360, 360, 280, 280], "vit": [680, 680]}.get(kind, [360, 360])
    assert all(0 < levels.similarity(0.95) <= 1 for pair in hidden for levels in pair.levels)


def test_padding_is_left_out():
    torch.manual_seed(0)
    settings = transformers.AutoConfig.for_model("bert", **SMALL)
    models = [transformers.AutoModel.from_config(settings) for _ in range(2)]
    tokens, real = torch.randint(50, (40, 9)), torch.arange(9) < torch.randint(3, 9, (40, 1))
    batches = [{"input_ids": tokens[k::2], "attention_mask": real[k::2].long()} for k in range(2)]
    layers = ["encoder.layer.?", "pooler.dense"]
    masked = compare(models, batches, layers, mask=lambda batch: batch["attention_mask"], progress=False)
    assert [pair.d for pair in masked.pairs.values()] == [int(real.sum())]*2 + [40]
    gathered = [{layer: torch.cat([record(model, batch, [layer])[layer][batch["attention_mask"].bool()] for batch in batches]) for layer in masked.layers[:2]} for model in models]
    for layer, found in compare(gathered, progress=False).pairs.items():
        np.testing.assert_allclose(found.levels[0].x, masked.pairs[layer].levels[0].x, atol=1e-6)
    with pytest.warns(UserWarning, match="padding counts as samples"): compare(models, batches, layers, lazy=True, progress=False)
    for options, problem in (({"mask": lambda batch: torch.ones(9)}, "must be of shape"), ({"mask": lambda batch: torch.ones(20, 5)}, "choose layers"),
                             ({"mask": lambda batch: real, "samples": "inputs"}, "single samples"), ({"mask": lambda batch: real, "positions": 9}, "single samples")):
        with pytest.raises(ValueError, match=problem): compare(models, batches, layers, progress=False, **options)


@pytest.mark.filterwarnings("ignore:fewer than two samples")
@pytest.mark.parametrize("name, options, d", [
    ("resnet10t", {}, [16*16, 16*16, 16*16, 8*8]), ("convnext_atto", {}, [8*8, 8*8, 4*4]),
    ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}, [17, 17]),
    ("mixer_s32_224", {"img_size": 64}, [512, 4, 512]),                          # mixes tokens, then channels
])
def test_timm_models(name, options, d):
    images = torch.randn(2, 3, *[options.get("img_size", 32)]*2)
    comparison = compare([timm.create_model(name, **options) for _ in range(2)], [images], lazy=True, progress=False)
    assert [pair.d for pair in comparison.pairs.values()][:len(d)] == [2*samples for samples in d]


def test_neurons_of_a_one_dimensional_convolution():
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU())
    assert list(list_layers(model, torch.randn(3, 2, 9)).neurons) == [5, 5, 5]
    told = list_layers(model, torch.randn(3, 2, 9), neuron_axis={"relu": -1}).iloc[2]
    assert (told.axis, told.neurons, told.samples) == (2, 7, 5)
    assert compare([model, model], [torch.randn(30, 2, 9)], neuron_axis=-1).pair("2").n_x == 7
    with pytest.raises(ValueError, match="axis 5 of an activation"): compare([model, model], [torch.randn(30, 2, 9)], neuron_axis=5)


class Outputs(nn.Module):
    "Layers whose output is no single tensor; tokens come first, which the last one doesn't tell."
    def __init__(self):
        super().__init__()
        self.attention, self.lstm, self.head = nn.MultiheadAttention(4, 2), nn.LSTM(4, 5), nn.Linear(5, 5)

    def forward(self, x):
        x = x.transpose(0, 1)
        return {"logits": self.head(self.lstm(self.attention(x, x, x)[0])[0])}


def test_the_first_tensor_of_an_output_and_inputs_on_another_axis():
    x = torch.randn(6, 3, 4)
    assert list(list_layers(Outputs(), x)["shape"]) == [(6, 3, 4), (6, 3, 5), (3, 6, 5)] and list(list_layers(Outputs(), x).samples) == [3, 3, 3]
    comparison = compare([Outputs(), Outputs()], [x], layers=["lstm", "head"])
    assert comparison.pair("lstm").d == comparison.pair("head").d == 18
    with pytest.raises(ValueError, match=r"should count the 6 inputs of a batch, but its shape is \(3, 6, 5\)"): compare([Outputs(), Outputs()], [x], "head", samples="inputs")
    with pytest.raises(ValueError, match="6 inputs, but its length is 3 in head of network 0"): compare([Outputs(), Outputs()], [x], "head", mask=lambda batch: torch.ones(6, 3))


class Sequences(nn.Module):
    "The same function of (input, token, feature), whatever its module wants."
    def __init__(self, kind, batch_first):
        super().__init__()
        self.tokens_first = not batch_first
        layer = nn.TransformerEncoderLayer(4, 2, 7, batch_first=batch_first)
        self.inner = {"lstm": lambda: nn.LSTM(4, 5, batch_first=batch_first), "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=batch_first),
                      "layer": lambda: layer, "encoder": lambda: nn.TransformerEncoder(layer, 2)}[kind]()

    def forward(self, x):
        x = x.transpose(0, 1) if self.tokens_first else x
        return self.inner(x, x, x) if isinstance(self.inner, nn.MultiheadAttention) else self.inner(x)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("kind", ["lstm", "attention", "layer", "encoder"])
@pytest.mark.parametrize("tokens", [6, 9])          # as many as inputs, where shapes can't tell
def test_inputs_come_first_whatever_a_module_wants(kind, tokens):
    one, other = Sequences(kind, True), Sequences(kind, False)
    other.load_state_dict(one.state_dict())
    batches = [torch.randn(6, tokens, 4) for _ in range(9)]
    layers = list(list_layers(one, batches[0]).layer)
    for options in ({}, {"mask": lambda batch: torch.arange(tokens) < torch.arange(6)[:, None] + 1}, {"samples": "inputs"}, {"positions": 50, "draws": 2}):
        comparison = compare([one, other], batches, layers, **options)
        assert comparison.layers == layers and (comparison.similarity(0.01).similarity == 1).all()
    for first, second in zip(record(one, batches[0]).values(), record(other, batches[0]).values()): torch.testing.assert_close(first, second)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 7, batch_first=True), 2)

    def forward(self, x, real): return self.encoder(x, src_key_padding_mask=~real)


def test_an_encoder_with_a_padding_mask():
    "Its fused path would leave padding out of the outputs, which then have no shape; it is closed for the pass only."
    x, real = torch.randn(40, 9, 4), torch.arange(9) < torch.randint(3, 9, (40, 1))
    networks = [Padded(), Padded()]
    comparison = compare(networks, [(x, real)], ["encoder.layers.?", "*.linear1"], forward=lambda model, batch: model(*batch), mask=lambda batch: batch[1])
    assert len(comparison.layers) == 4 and {pair.d for pair in comparison.pairs.values()} == {int(real.sum())}
    for fused in (False, True):
        torch.backends.mha.set_fastpath_enabled(fused)
        with pytest.raises(TypeError): record(networks[0], x)
        assert torch.backends.mha.get_fastpath_enabled() == fused


def test_d_counts_the_tokens_there_are():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.GELU())
    batches = [torch.randint(9, (6, length)) for length in (7, 3)]
    assert compare([model, copy.deepcopy(model)], batches).pair("2").d == 6*7 + 6*3
    with pytest.raises(ValueError, match="drawing positions needs 7 samples of every input in 2"): compare([model, model], batches, positions=10)


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


def test_a_parallel_model_is_its_module(images):
    assert compare([nn.DataParallel(network(0)), network(1)], [images]).layers == ["2", "6"]


class Stream(IterableDataset):
    "A data set without a length."
    def __iter__(self): return iter(torch.randn(30, 2, 8, 8))


def test_loaders_without_length(images):
    assert compare([network(0), network(1)], DataLoader(Stream(), batch_size=10)).pair("6").d == 30
    assert compare([network(0), network(1)], iter(images.split(35))).pair("6").d == 70
    assert compare([network(0), network(1)], [iter(images.split(35)), iter(images.split(35))]).pair("6").d == 70


@pytest.mark.parametrize("options", [{"drop_last": True}, {"sampler": range(40)}])
def test_positions_are_drawn_from_what_the_loader_yields(images, options):
    loader = DataLoader(TensorDataset(images), batch_size=16, **options)
    assert compare([network(0), network(1)], loader, "2", positions=100, draws=2).pair("2").d == 100


@pytest.mark.parametrize("wrap", [lambda image, i: (image, 0, i), lambda image, i: {"input": image, "index": i}, lambda image, i: (image, 0, f"{i}.png")])
def test_loaders_out_of_step_are_seen_in_whatever_they_yield(images, wrap):
    inputs = [wrap(image, i) for i, image in enumerate(images)]
    loaders = DataLoader(inputs, batch_size=35), DataLoader(inputs[::-1], batch_size=35)
    def forward(model, batch): return model(batch["input"] if isinstance(batch, dict) else batch[0])
    with pytest.raises(ValueError, match="out of step in batch 0: entries"): compare([network(0), network(1)], loaders, forward=forward)
    assert compare([network(0), network(1)], [loaders[0], loaders[0]], forward=forward).pair("6").d == 70


def seeded(seed=0): return torch.Generator().manual_seed(seed)


def test_generators_in_one_state_are_one_order(images):
    def shuffled(generator): return DataLoader(images, 35, shuffle=True, generator=generator)
    networks, shared = [network(0), network(0)], seeded()
    assert (compare(networks, [shuffled(seeded()), shuffled(seeded())]).similarity(0.01).similarity == 1).all()
    used = seeded()
    next(iter(shuffled(used)))
    for generators in ((seeded(0), seeded(1)), (shared, shared), (seeded(), used)):
        with pytest.raises(ValueError, match="may be out of step"): compare(networks, [shuffled(generator) for generator in generators])


@pytest.mark.parametrize("by_chance, sampler", [
    (True, lambda: RandomSampler(range(70))), (True, lambda: SubsetRandomSampler(range(70))), (True, lambda: WeightedRandomSampler([1]*70, 70)),
    (False, lambda: RandomSampler(range(70), generator=seeded())), (False, lambda: SubsetRandomSampler(range(70), seeded())), (False, lambda: range(70)),
])
def test_an_order_by_chance_without_labels_is_refused(images, by_chance, sampler):
    networks, plain, chosen = [network(0), network(1)], DataLoader(images, 35), DataLoader(images, 35, sampler=sampler())
    if not by_chance: assert compare(networks, [chosen, DataLoader(images, 35, sampler=sampler())]).pair("6").d == 70
    else:
        name = type(chosen.sampler).__name__
        for loaders, orders in (((chosen, plain), f"{name} and the data"), ((plain, chosen), f"the data and {name}"), ((chosen, chosen), f"{name} and {name}")):
            with pytest.raises(ValueError, match=f"networks 0 and 1 may be out of step: their orders are decided by {orders}"): compare(networks, loaders)
    batches = DataLoader(images, batch_sampler=BatchSampler(sampler(), 35, False))
    if by_chance:
        with pytest.raises(ValueError, match="may be out of step"): compare(networks, [batches, batches])
    labelled = TensorDataset(images, torch.zeros(70))          # then labels tell, as far as they can
    assert compare(networks, [DataLoader(labelled, 35), DataLoader(labelled, 35, sampler=sampler())]).pair("6").d == 70


def test_a_loader_of_any_kind_for_each_network(images):
    networks = {"a": network(0), "b": network(1)}
    bright = list(images.split(35))
    expected = compare(networks, [iter(bright), iter([2*batch for batch in bright])]).similarity()
    for loaders in ({"a": bright, "b": [2*batch for batch in bright]}, {"b": DataLoader(2*images, 35), "a": DataLoader(images, 35)}, {1: (2*batch for batch in bright), 0: bright},
                    [DataLoader(images, 35), [2*batch for batch in bright]]):
        np.testing.assert_allclose(compare(networks, loaders).similarity().similarity, expected.similarity)
    for loaders, problem in (([bright, bright], "a dict by network"), ([[(batch,) for batch in bright]]*2, "a dict by network"), ({"a": bright}, "1 loaders for 2"), ({"c": bright}, "loaders for c"),
                             ([iter(bright)]*2, "take turns"), ({"a": images, "b": images}, r"write \[batch\]"), ({"a": bright, "b": 3}, "int can't")):
        with pytest.raises((TypeError, ValueError), match=problem): compare(networks, loaders)
    labelled = [[batch, torch.zeros(35)] for batch in bright]
    assert compare(networks, labelled).pair("6").d == 70       # as many batches as networks, and no mistake


@pytest.mark.parametrize("batch, n", [
    (lambda x: ([*x], [{}]*6), 6), (lambda x: [[x, x], torch.zeros(6)], 6), (lambda x: {"epoch": 3, "image": x}, 6), (lambda x: {"name": "train", "image": x}, 6),
    (lambda x: list("abcdef"), 6), (lambda x: (tuple("abcdef"), 3), 6), (lambda x: ({"image": x}, torch.zeros(6)), 6), (lambda x: x.numpy(), 6),
])
def test_the_inputs_of_a_batch_are_counted(images, batch, n): assert activations._size(batch(images[:6])) == n


def test_files_of_activations_are_only_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    np.save(tmp_path/"x.npy", x.astype(">f4"))
    stored = np.load(tmp_path/"x.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = compare([{"a": stored}, {"a": x}, {"a": x.astype("float16")}])
    assert (comparison.similarity(0.01).similarity == 1).all()


def test_stored_arrays_are_read_in_slices():
    slices = activations._slices([{"a": np.zeros((10, 4, 5)), "b": np.zeros((10, 20))}], entries=120)
    assert slices == [range(0, 3), range(3, 6), range(6, 9), range(9, 10)]


def test_layers_that_never_fire():
    comparison = compare([{"a": np.zeros((50, 4))}, {"a": np.random.default_rng(0).normal(size=(50, 3))}])
    include, exclude = (comparison.similarity(0.3, dead=dead).iloc[0] for dead in ("include", "exclude"))
    assert (include.dead_x, include.similarity, exclude.similarity) == (4, 4/7, 0)


@pytest.mark.parametrize("networks, loader, options, problem", [
    ("one module", "batches", {}, "in a list or a dict"),
    (["a.pt", "b.pt"], "batches", {}, "network 0 is of type str"),
    ([np.zeros((3, 9)), np.zeros((3, 9))], None, {}, "maximum_match and match_levels"),
    (None, "data set", {}, "DataLoader"),
    (None, "tensor", {}, r"write \[batch\]"),
    (None, "batches", {"layers": nn.ReLU()}, "by type, name or glob"),
    (None, "batches", {"layers": {"network 7": "relu"}}, "chosen for network 7, but the networks are network 0, network 1"),
    (None, "batches", {"neuron_axis": {"rellu": 1}}, "did you mean ReLU"),
    (None, "batches", {"positions": 0}, "count from 1"),
    ([{}, {}], None, {}, "network 0 holds no layers"),
    ([{"a": np.zeros((0, 3))}]*2, None, {}, "hold no inputs"),
    ([{"a": np.zeros((9, 0))}]*2, None, {}, "layer a of network 0.*is empty"),
    ([{"a": np.zeros((9, 2), int)}]*2, None, {}, "layer a of network 0: its activations are int64"),
    ([{"a": np.zeros((9, 2), complex)}]*2, None, {}, "complex128"),
    ([{"a": np.zeros(9)}]*2, None, {}, "layer a of network 0: axis 0"),
    ({1: {"a": np.ones((9, 2))}, "0": {"a": np.ones((9, 2))}}, None, {}, "'1', not 1"),
    ([{0: np.ones((9, 2))}]*2, None, {}, r"layers of network 0 are called by strings, not \[0\]"),
    (None, "batches", {"mask": torch.ones(70, 3)}, "mask is a function of the batch, not of type Tensor"),
    ([nn.Linear(8, 3)]*2, "batches", {}, "choose layers, of the types Linear$"),
])
def test_mistakes_are_named(images, networks, loader, options, problem):
    networks = network(0) if networks == "one module" else networks or [network(0), network(1)]
    loader = {"batches": [images], "data set": TensorDataset(images), "tensor": images, None: None}[loader]
    with pytest.raises((TypeError, ValueError), match=problem): compare(networks, loader, **options)


def test_no_activation_function_to_take(images):
    with pytest.raises(ValueError, match="no activation function runs as a module.*of the types Flatten, Linear"): compare([nn.Sequential(nn.Flatten(), nn.Linear(128, 3))]*2, [images])


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_network_of_one_module(images):
    assert compare([nn.Linear(8, 3), nn.Linear(8, 3)], [images], layers="output").pair("output").n_x == 3
    assert compare([nn.ReLU(), nn.ReLU()], [images]).layers == ["output"]
    for compiled in (torch.jit.script, lambda model: torch.jit.trace(model, images)):
        with pytest.raises(TypeError, match="TorchScript"): compare([compiled(network(0).eval()), network(1)], [images])


@pytest.mark.parametrize("function", [nn.Sigmoid, nn.Hardtanh, nn.RReLU, nn.Softsign, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanhshrink, nn.PReLU, lambda: nn.Threshold(0.1, 0)])
def test_every_activation_function_is_taken(function, images):
    assert list(compare([nn.Sequential(nn.Conv2d(2, 3, 3), function())]*2, [images], lazy=True).layers) == ["1"]


def test_any_pairing_of_layers_can_be_said(images):
    networks = {"a": network(0), "b": network(0), "c": network(1)}
    crossed = compare(networks, [images], {"a": ["6", "2"], "b": ["2", "6"], "c": "relu"}, samples="inputs")
    assert [(pair.network_a, pair.network_b, pair.layer_a, pair.layer_b, pair.depth) for pair in crossed.pairs.values()] == [
        ("a", "b", "6", "2", 1), ("a", "c", "6", "2", 1), ("b", "c", "2", "2", 1), ("a", "b", "2", "6", 2), ("a", "c", "2", "6", 2), ("b", "c", "6", "6", 2)]
    straight = compare(networks, [images], samples="inputs", pairs="all")
    for layer, a, b in crossed.pairs: np.testing.assert_allclose(crossed.levels(layer, a, b).x, straight.levels(layer, a, b).x)
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
        assert each.geometry("6").gram.equal(comparison.geometry("6", 1, 2).gram) and each.geometry("6", "b", "c").n_y == 7
    for call in (lambda: comparison.between("a", "typo"), lambda: comparison.pair("6", 0, 5), lambda: comparison.levels("7"), lambda: comparison.pair("6", 2, 0)):
        with pytest.raises(KeyError, match="networks, in this order: a, b, c"): call()
    for chosen in ((), ("a",), ("a", 0)):
        with pytest.raises(ValueError, match="at least two networks"): comparison.between(*chosen)
    with pytest.raises(ValueError, match="is a folder"): Comparison.load(tmp_path)


def test_stored_activations_leave_the_graph_behind():
    x = torch.randn(50, 4, requires_grad=True)
    assert compare([{"a": x*2}, {"a": x}]).geometry("a").gram.requires_grad is False


def test_no_eps_and_names_that_differ(images):
    matplotlib.use("Agg")
    rng = np.random.default_rng(0)
    comparison = compare([{f"{name}{k}": rng.normal(size=(60, 3)) for k in range(3)} for name in "abc"])
    assert list(comparison.similarity([]).columns) == list(compare([network(0), network(1)], [images]).similarity(0.5).columns)
    with pytest.raises(ValueError, match="no ε"): comparison.plot([])
    for draw in (plot_depth, plot_eps, plot_heatmap):
        with pytest.raises(ValueError, match="no similarities"): draw(comparison.similarity([]))
    table = comparison.similarity([0.5, 0.8])
    for draw in (plot_depth, plot_heatmap): assert [text.get_text() for text in draw(table).get_xticklabels()] == [f"a{k} | b{k} | c{k}" for k in range(3)]
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
