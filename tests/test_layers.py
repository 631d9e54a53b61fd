"""Which layers a network has, and what is recorded of them."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn
from torch.nn import functional as F

from examples import SMALL, Twice, network
from subspace_match import compare, list_layers
from subspace_match.networks import layers
from subspace_match.networks.layers import record


def test_a_shared_relu_is_recorded_at_each_call():
    model, x = Twice(), torch.randn(8, 4)
    outputs = record(model, x)
    with torch.no_grad():
        inner = model.a(x).relu()
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
        with pytest.raises(KeyboardInterrupt):
            compare([model, network(1)], _interrupted(images))
    elif fails:
        with pytest.raises(RuntimeError) as error:
            compare([model, network(1)], [images[:, :1]])
        assert "network 0 on batch 0" in error.value.__notes__[0]
    else:
        compare([model, network(1)], [images])
    assert model.training and not model[1].training and model[2].training
    assert not any(module._forward_hooks for module in model.modules())


def test_batch_norm_statistics_are_untouched(loader):
    model = network(0).train()
    before = model[1].running_mean.clone()
    compare([model, network(1)], loader)
    assert model[1].running_mean.equal(before)


def swin():
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=5)


def convnext():
    return torchvision.models.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(8, 12, 1), torchvision.models.convnext.CNBlockConfig(12, None, 1)],
        num_classes=5,
    )


def vit():
    return torchvision.models.VisionTransformer(32, 8, 1, 2, 12, 20, num_classes=5)


@pytest.mark.parametrize(
    "build, neurons",
    [
        (swin, {"features.0.0": 8, "features.1.0.mlp.1": 32, "features.1.0": 8, "features.2": 16, "permute": 16}),
        (
            convnext,
            {
                "features.1.0.block.2": 8,
                "features.1.0.block.4": 32,
                "features.1.0": 8,
                "features.2.0": 8,
                "features.3.0": 12,
            },
        ),
        (
            vit,
            {
                "conv_proj": 12,
                "encoder.layers.encoder_layer_0.self_attention": 12,
                "encoder.layers.encoder_layer_0.mlp.1": 20,
                "encoder": 12,
            },
        ),
    ],
)
def test_channels_are_neurons_wherever_they_stand(build, neurons):
    images = torch.randn(2, 3, *[32 if build is vit else 64] * 2)  # never as many places as channels
    table = list_layers(build(), images).set_index("layer")
    assert {layer: table.neurons[layer] for layer in neurons} == neurons
    assert (table["shape"].map(np.prod) == 2 * table.neurons * table.samples).all()
    comparison = compare([build(), build()], [images], lazy=True, progress=False)
    assert comparison.layers == [layer for layer in table.index if table.type[layer] in ("GELU", "input")]
    assert all(
        pair.n_x == table.neurons[pair.layer] and pair.d == 2 * table.samples[pair.layer]
        for pair in comparison.pairs.values()
    )


TRANSFORMERS = {
    "bert": SMALL,
    "llama": SMALL | {"dtype": "bfloat16"},
    "vit": SMALL | {"image_size": 16, "patch_size": 4},
    "gpt2": {"vocab_size": 50, "n_embd": 12, "n_inner": 20, "n_layer": 2, "n_head": 2},
    "t5": {"vocab_size": 50, "d_model": 12, "d_kv": 6, "d_ff": 20, "num_layers": 2, "num_heads": 2},
}


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_hugging_face_models_take_their_dicts(kind):
    def build(seed):
        torch.manual_seed(seed)
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **TRANSFORMERS[kind]))

    tokens = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(0))
    inputs = {
        "vit": {"pixel_values": torch.randn(40, 3, 16, 16)},
        "t5": {"input_ids": tokens, "decoder_input_ids": tokens[:, :7]},
    }.get(kind, {"input_ids": tokens})
    batches = [transformers.BatchEncoding({name: part[k::2] for name, part in inputs.items()}) for k in range(2)]
    comparison = compare([build(0), build(1)], batches, progress=False)
    hidden = [pair for pair in comparison.pairs.values() if pair.n_x == 20]
    assert [pair.d for pair in hidden] == {"t5": [360, 360, 280, 280], "vit": [680, 680]}.get(kind, [360, 360])
    assert all(0 < levels.similarity(0.95) <= 1 for pair in hidden for levels in pair.levels)


@pytest.mark.filterwarnings("ignore:fewer than two samples")
@pytest.mark.parametrize(
    "name, options, d",
    [
        ("resnet10t", {}, [16 * 16, 16 * 16, 16 * 16, 8 * 8]),
        ("convnext_atto", {}, [8 * 8, 8 * 8, 4 * 4]),
        ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2}, [17, 17]),
        # mixes tokens, then channels; the smallest with a name has layers of 2048 neurons, which take minutes
        ("MlpMixer", {"img_size": 64, "patch_size": 32, "num_blocks": 2, "embed_dim": 64}, [64, 4, 64]),
    ],
)
def test_timm_models(name, options, d):
    images = torch.randn(2, 3, *[options.get("img_size", 32)] * 2)
    make = timm.models.MlpMixer if name == "MlpMixer" else partial(timm.create_model, name)
    comparison = compare([make(**options) for _ in range(2)], [images], lazy=True, progress=False)
    pairs = islice(comparison.layer_pairs.values(), len(d))   # the others are not compared
    assert [pair.d for pair in pairs] == [2 * samples for samples in d]


def test_neurons_of_a_one_dimensional_convolution():
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.ReLU())
    assert list(list_layers(model, torch.randn(3, 2, 9)).neurons) == [5, 5, 5]
    told = list_layers(model, torch.randn(3, 2, 9), neuron_axis={"relu": -1}).iloc[2]
    assert (told.axis, told.neurons, told.samples) == (2, 7, 5)
    assert compare([model, model], [torch.randn(30, 2, 9)], neuron_axis=-1).pair("2").n_x == 7
    with pytest.raises(ValueError, match="axis 5 of an activation"):
        compare([model, model], [torch.randn(30, 2, 9)], neuron_axis=5)


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
    assert list(list_layers(Outputs(), x)["shape"]) == [(6, 3, 4), (6, 3, 5), (3, 6, 5)] and list(
        list_layers(Outputs(), x).samples
    ) == [3, 3, 3]
    comparison = compare([Outputs(), Outputs()], [x], layers=["lstm", "head"])
    assert comparison.pair("lstm").d == comparison.pair("head").d == 18
    with pytest.raises(ValueError, match=r"should count the 6 inputs of a batch, but its shape is \(3, 6, 5\)"):
        compare([Outputs(), Outputs()], [x], "head", samples="inputs")
    with pytest.raises(ValueError, match="6 inputs, but its length is 3 in head of network 0"):
        compare([Outputs(), Outputs()], [x], "head", mask=lambda batch: torch.ones(6, 3))


class Sequences(nn.Module):
    "The same function of (input, token, feature), whatever its module wants."

    def __init__(self, kind, batch_first):
        super().__init__()
        self.tokens_first = not batch_first
        layer = nn.TransformerEncoderLayer(4, 2, 7, batch_first=batch_first)
        self.inner = {
            "lstm": lambda: nn.LSTM(4, 5, batch_first=batch_first),
            "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=batch_first),
            "layer": lambda: layer,
            "encoder": lambda: nn.TransformerEncoder(layer, 2),
        }[kind]()

    def forward(self, x):
        x = x.transpose(0, 1) if self.tokens_first else x
        return self.inner(x, x, x) if isinstance(self.inner, nn.MultiheadAttention) else self.inner(x)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("kind", ["lstm", "attention", "layer", "encoder"])
@pytest.mark.parametrize("tokens", [6, 9])  # as many as inputs, where shapes can't tell
def test_inputs_come_first_whatever_a_module_wants(kind, tokens):
    one, other = Sequences(kind, True), Sequences(kind, False)
    other.load_state_dict(one.state_dict())
    batches = [torch.randn(6, tokens, 4) for _ in range(9)]
    layers = list(list_layers(one, batches[0]).layer)
    for options in (
        {},
        {"mask": lambda batch: torch.arange(tokens) < torch.arange(6)[:, None] + 1},
        {"samples": "inputs"},
        {"positions": 50, "draws": 2},
    ):
        comparison = compare([one, other], batches, layers, **options)
        assert comparison.layers == layers and (comparison.similarity(0.01).similarity == 1).all()
    for first, second in zip(record(one, batches[0]).values(), record(other, batches[0]).values()):
        torch.testing.assert_close(first, second)


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 7, batch_first=True), 2)

    def forward(self, x, real):
        return self.encoder(x, src_key_padding_mask=~real)


def test_an_encoder_with_a_padding_mask():
    "Its fused path would leave padding out of the outputs, which then have no shape; it is closed for the pass only."
    x, real = torch.randn(40, 9, 4), torch.arange(9) < torch.randint(3, 9, (40, 1))
    networks = [Padded(), Padded()]
    comparison = compare(
        networks,
        [(x, real)],
        ["encoder.layers.?", "*.linear1"],
        forward=lambda model, batch: model(*batch),
        mask=lambda batch: batch[1],
    )
    assert len(comparison.layers) == 4 and {pair.d for pair in comparison.pairs.values()} == {int(real.sum())}
    for fused in (False, True):
        torch.backends.mha.set_fastpath_enabled(fused)
        with pytest.raises(TypeError):
            record(networks[0], x)
        assert torch.backends.mha.get_fastpath_enabled() == fused


def test_a_parallel_model_is_its_module(images):
    assert compare([nn.DataParallel(network(0)), network(1)], [images]).layers == ["2", "6"]


@pytest.mark.parametrize(
    "batch, n",
    [
        (lambda x: ([*x], [{}] * 6), 6),
        (lambda x: [[x, x], torch.zeros(6)], 6),
        (lambda x: {"epoch": 3, "image": x}, 6),
        (lambda x: {"name": "train", "image": x}, 6),
        (lambda x: list("abcdef"), 6),
        (lambda x: (tuple("abcdef"), 3), 6),
        (lambda x: ({"image": x}, torch.zeros(6)), 6),
        (lambda x: x.numpy(), 6),
    ],
)
def test_the_inputs_of_a_batch_are_counted(images, batch, n):
    assert layers._size(batch(images[:6])) == n


def test_no_activation_function_to_take(images):
    with pytest.raises(ValueError, match="no activation function runs.*of the types Flatten, Linear"):
        compare([nn.Sequential(nn.Flatten(), nn.Linear(128, 3))] * 2, [images])


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_network_of_one_module(images):
    assert compare([nn.Linear(8, 3), nn.Linear(8, 3)], [images], layers="output").pair("output").n_x == 3
    assert compare([nn.ReLU(), nn.ReLU()], [images]).layers == ["output"]
    for compiled in (torch.jit.script, lambda model: torch.jit.trace(model, images)):
        with pytest.raises(TypeError, match="TorchScript"):
            compare([compiled(network(0).eval()), network(1)], [images])


@pytest.mark.parametrize(
    "function",
    [
        nn.Sigmoid,
        nn.Hardtanh,
        nn.RReLU,
        nn.Softsign,
        nn.LogSigmoid,
        nn.Hardsigmoid,
        nn.Tanhshrink,
        nn.PReLU,
        lambda: nn.Threshold(0.1, 0),
    ],
)
def test_every_activation_function_is_taken(function, images):
    assert list(compare([nn.Sequential(nn.Conv2d(2, 3, 3), function())] * 2, [images], lazy=True).layers) == ["1"]


class Residual(nn.Module):
    "A residual network in small, with modules for its activation functions or without."

    def __init__(self, functional):
        super().__init__()
        self.conv, self.norm, self.more, self.fc = (
            nn.Conv2d(2, 6, 3),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 6, 1),
            nn.Linear(6, 3),
        )
        self.act = F.relu if functional else nn.ReLU(inplace=True)
        self.inner = Inner(functional)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        return self.fc(self.act(self.inner(self.more(x)) + x).mean((2, 3)))


class Inner(nn.Module):
    def __init__(self, functional):
        super().__init__()
        self.act = None if functional else nn.SiLU()

    def forward(self, x):
        return F.silu(x, inplace=True) if self.act is None else self.act(x)


def test_functions_are_layers_as_modules_are(images):
    torch.manual_seed(0)
    plain, functional = Residual(False), Residual(True)
    functional.load_state_dict(plain.state_dict())
    names = ["relu (function)", "inner.silu (function)", "relu (function):2", "fc (input)"]
    assert compare([functional, functional], [images], lazy=True).layers == names
    both = compare({"modules": plain, "functions": functional}, images.split(30))
    assert both.layers == [
        "act | relu (function)",
        "inner.act | inner.silu (function)",
        "act:2 | relu (function):2",
        "fc (input)",
    ]
    assert (both.similarity(0.01).similarity == 1).all()
    chosen = compare([functional, functional], [images], layers=["relu", "*silu*", nn.SiLU], lazy=True).layers
    assert chosen == names[:3]
    seen = record(functional, images)
    assert (seen["norm"] < 0).any() and seen["relu (function)"].equal(seen["norm"].relu())
    assert seen["fc (input)"].equal(seen["relu (function):2"].mean((2, 3)))
    axes = list_layers(functional, images).set_index("layer")
    assert list(axes.neurons[names]) == [6] * 4 and list(axes.samples[names]) == [36, 36, 36, 1]


@pytest.mark.parametrize(
    "call", [torch.relu, torch.relu_, torch.Tensor.relu, F.gelu, torch.sigmoid, F.leaky_relu, F.hardtanh, torch.tanh]
)
def test_whatever_way_a_function_is_called(call):
    class Calls(nn.Module):
        def forward(self, x):
            return call(x * 1)

    x = torch.randn(9, 4)
    name, outputs = call.__name__.rstrip("_"), record(nn.Sequential(nn.Linear(4, 4), Calls()), x)
    assert list(outputs) == ["0", f"1.{name} (function)", "1"]
    assert outputs["1"].equal(outputs[f"1.{name} (function)"])


def test_nothing_stays_behind_of_a_readout_that_is_none(images):
    class Between(nn.Module):
        "The last linear layer's output is not what the network returns."

        def __init__(self):
            super().__init__()
            self.relu, self.fc = nn.ReLU(), nn.Linear(2, 3)

        def forward(self, x):
            return self.fc(self.relu(x).mean((2, 3))).exp()

    assert list(record(Between(), images)) == ["relu", "fc"]
    assert list(record(nn.Sequential(nn.Flatten(), nn.Linear(128, 3)), images)) == ["0", "1"]  # it reads the image
    assert [name for name in record(network(0), images) if "input" in name] == []  # it reads a ReLU
