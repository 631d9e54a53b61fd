"""Sums over one pass."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import transformers
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from examples import SMALL, network
from subspace_match import compare
from subspace_match.networks import activations
from subspace_match.networks.activations import joint_grams
from subspace_match.networks.layers import neuron_matrix, record
from subspace_match.theory.reference import maximum_match as literal_maximum_match


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
    with pytest.raises(ValueError, match="layer 6 of network 1: its activations are NaN or infinite"):
        compare([network(0), bad], [images])


def test_a_draw_has_the_same_rows_in_all_networks_and_is_repeatable(loader):
    same = compare([network(0), network(0)], loader, layers="2", positions=100, draws=3)
    assert (same.similarity(0.01).similarity == 1).all() and same.pair("2").d == 100
    one, two, other = (
        joint_grams([network(0), network(1)], loader, "2", positions=100, draws=2, seed=seed)["2"].grams
        for seed in (0, 0, 1)
    )
    assert one.equal(two) and not one.equal(other) and not one[0].equal(one[1])


def test_drawing_everything_is_using_everything(loader):
    every, drawn = (
        joint_grams([network(0), network(1)], loader, positions=positions)["2"] for positions in (None, 70 * 36)
    )
    assert drawn.grams.equal(every.grams) and drawn.n_samples == every.n_samples


def _collect(rank, store, images, folder):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for positions in (None, 100):
        grams = joint_grams(
            [network(0), network(1)], DataLoader(TensorDataset(images), batch_size=16), positions=positions, draws=2
        )
        torch.save(
            {name: (joint.grams, joint.sums, joint.n_samples) for name, joint in grams.items()},
            f"{folder}/{positions}-{rank}.pt",
        )
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")
def test_two_processes_together_equal_one(images, tmp_path):
    multiprocessing.spawn(_collect, (tmp_path / "store", images, tmp_path), nprocs=2)
    for positions in (None, 100):
        alone = joint_grams(
            [network(0), network(1)], DataLoader(TensorDataset(images), batch_size=16), positions=positions, draws=2
        )
        for rank in range(2):
            together = torch.load(tmp_path / f"{positions}-{rank}.pt", weights_only=True)
            for name, joint in alone.items():
                torch.testing.assert_close(together[name][0], joint.grams, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(together[name][1], joint.sums, rtol=1e-9, atol=1e-9)
                assert together[name][2] == joint.n_samples


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
        ({"mask": lambda batch: real, "samples": "inputs"}, "single samples"),
        ({"mask": lambda batch: real, "positions": 9}, "single samples"),
    ):
        with pytest.raises(ValueError, match=problem):
            compare(models, batches, layers, progress=False, **options)


def test_d_counts_the_tokens_there_are():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.GELU())
    batches = [torch.randint(9, (6, length)) for length in (7, 3)]
    assert compare([model, copy.deepcopy(model)], batches).pair("2").d == 6 * 7 + 6 * 3
    with pytest.raises(ValueError, match="drawing positions needs 7 samples of every input in 2"):
        compare([model, model], batches, positions=10)


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
    assert compare([network(0), network(1)], loader, "2", positions=100, draws=2).pair("2").d == 100


def test_stored_activations_leave_the_graph_behind():
    x = torch.randn(50, 4, requires_grad=True)
    assert compare([{"a": x * 2}, {"a": x}]).geometry("a").gram.requires_grad is False
