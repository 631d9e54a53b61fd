"""Experiments: results that grow by pieces survive interruption, and never mix with others; receptive fields and
exciting images are what they claim.
"""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from subspace_match.experiments.pieces import (ResultFile, chosen_matches, complete, contact_sheet, exciting_images,
                                               match_rows, neurons_in, read_table,
                                        receptive_field)
from subspace_match.theory.match import Match
from subspace_match.networks.models import build_model


def result(folder, settings=None, checksum="a"):
    return ResultFile(folder/"result.csv", settings or {"every": 1}, {"seed-0": {"weights_checksum": checksum}})


def numbers(n): return pd.DataFrame({"number": range(n)}), {"n": n}


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    calls = []

    def piece(name, interrupted):
        calls.append(name)
        if interrupted: raise KeyboardInterrupt
        return numbers(3)

    with pytest.raises(KeyboardInterrupt):
        complete(result(tmp_path), {"a": lambda: piece("a", False), "b": lambda: piece("b", True)})
    assert complete(result(tmp_path), {name: lambda name=name: piece(name, False) for name in "abc"}) == {}
    assert calls == ["a", "b", "b", "c"]
    assert result(tmp_path).table().piece.value_counts().to_dict() == {"a": 3, "b": 3, "c": 3}


def test_rows_of_an_unfinished_piece_do_not_count(tmp_path):
    result(tmp_path).add("a", *numbers(2))
    table = read_table(tmp_path/"result.csv")
    # stopped between the rows and their name
    pd.concat([table, table.assign(piece="b")]).to_csv(tmp_path/"result.csv", index=False)
    assert set(result(tmp_path).table().piece) == {"a"}
    result(tmp_path).add("b", *numbers(1))
    assert result(tmp_path).table().piece.tolist() == ["a", "a", "b"]


def test_a_failed_piece_is_named_and_the_others_are_kept(tmp_path):
    def fails(): raise RuntimeError("no luck")
    assert complete(result(tmp_path), {"a": fails, "b": lambda: numbers(1)}) == {"a": "RuntimeError: no luck"}
    assert list(result(tmp_path).pieces()) == ["b"]


def test_other_settings_or_networks_are_refused(tmp_path):
    result(tmp_path).add("a", *numbers(1))
    with pytest.raises(ValueError, match="every is 1 there, 5 asked"): result(tmp_path, {"every": 5}).pieces()
    with pytest.raises(ValueError, match="network seed-0"): result(tmp_path, checksum="b").pieces()


def test_a_damaged_origin_is_reported(tmp_path):
    result(tmp_path).add("a", *numbers(1))
    origin = tmp_path/"result.json"
    origin.write_text(origin.read_text()[:-20])
    with pytest.raises(ValueError, match="result.json is damaged"): result(tmp_path).pieces()


def test_a_result_is_a_csv(tmp_path):
    with pytest.raises(ValueError, match="a result is a .csv"): ResultFile(tmp_path/"digits-width0.125", {}, {})


def test_the_origin_says_how_it_was_made(tmp_path):
    result(tmp_path).add("a", *numbers(1))
    origin = json.loads((tmp_path/"result.json").read_text())
    assert {"settings", "networks", "pieces", "versions", "device", "date", "command"} <= origin.keys()


def test_neurons_of_small_matches():
    rows = match_rows([Match([7], []), Match([0], [1]), Match([0, 2], [3]), Match(range(12), range(12))])
    assert [neurons_in(rows, "x", most) for most in (2, 3, 20)] == [{0}, {0, 2}, {0, 2}]
    with pytest.raises(ValueError, match="at most 20"): neurons_in(rows, "x", 24)
    # the second one shares neuron 0, the first one is dead
    assert chosen_matches(rows, 5)["size"].tolist() == [2]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_exciting_images_do_not_depend_on_batches(batch_size):
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()).eval()
    nn.init.constant_(model[0].bias, 1.0)   # no dead neuron: equal activations would leave the order open
    z = model(images).detach().flatten(2)
    table = exciting_images(model, [(part, None) for part in images.split(batch_size)], "1", [2, 0])
    for neuron in (0, 2):
        rows = table[table.neuron == neuron]
        assert rows["rank"].tolist() == list(range(1, 10))
        assert rows.image.tolist() == z[:, neuron].max(1).values.argsort(descending=True)[:9].tolist()
        place = (rows.row*6 + rows.column).to_numpy()
        assert np.allclose(z[rows.image.tolist(), neuron, place.tolist()], rows.activation, atol=1e-6)


def test_receptive_fields_of_resnets_and_their_end():
    model, example = build_model("resnet10", 10, width=1/16).eval(), torch.zeros(1, 3, 32, 32)
    assert receptive_field(model, example, "stem.relu") == (3, 1, -1)
    side, stride, start = receptive_field(model, example, "stage2.block1.relu2")
    assert (side, stride) == (3 + 2 + 2 + 2 + 4, 2) and start < 0
    with pytest.raises(ValueError, match="sees the whole image"): receptive_field(model, example, "output")


def test_a_sheet_shows_the_window_that_was_seen():
    images = torch.arange(2*64, dtype=torch.uint8).reshape(2, 1, 8, 8)
    table = pd.DataFrame({"neuron": 0, "rank": [1, 2], "image": [1, 0], "row": [2, 0], "column": [3, 0]})
    sheet = contact_sheet(images, table, (3, 1, 0), gap=1)
    assert sheet.shape == (3, 3, 7)
    assert sheet[0, :, :3].equal(images[1, 0, 2:5, 3:6]) and sheet[2, :, 4:].equal(images[0, 0, :3, :3])
