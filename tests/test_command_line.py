"""The command line: complete runs, runs that go on, failures that are named."""
import gzip
import importlib
import inspect
import json
import os
import shutil
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from urllib.error import URLError

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image
from pretended_gpu import gpu
from processes import finished, python
from safetensors.torch import save_file
from typer.testing import CliRunner

from subspace_match import __version__, cli
from subspace_match.networks.comparison import Comparison
from subspace_match.experiments.pieces import read_table
from subspace_match.networks import training
from subspace_match.networks.models import build_model
from subspace_match.networks.files import read_json

without_gloo = pytest.mark.skipif(sys.platform == "win32",
                                  reason="PyTorch's processes need a build that finds them here")
SMALL = ["--width", "0.0625", "--epochs", "1"]
THREE = ["--width", "0.0625", "--seeds", "3"]
FIRST_TWO = ["--width", "0.0625", "--seeds", "2"]


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A folder with three trained networks, compared."
    folder = tmp_path_factory.mktemp("command-line")
    result = run("reproduce", *SMALL, *folders(folder), "--seeds", 3, "--snapshots", "0")
    assert result.exit_code == 0, result.output
    return folder


def folders(folder): return ["--root", folder/"data", "--runs", folder/"runs", "--out", folder/"results"]


def test_results_are_tidy_complete_and_described(place):
    table = pd.read_csv(place/"results/similarity.csv")
    assert len(table[["network_a", "network_b"]].drop_duplicates()) == 3 and table.layer.nunique() == 10
    assert table.similarity.between(0, 1).all() and {0.15, 0.2, 0.25, 0.3, 0.5} <= set(table.eps)
    levels = pd.read_csv(place/"results/levels.csv.gz")
    at = levels[(levels.layer == "fc1.relu") & (levels.network_a == "seed 0") & (levels.network_b == "seed 1")]
    row = table.query("layer == 'fc1.relu' and network_a == 'seed 0' and network_b == 'seed 1' and eps == 0.3").iloc[0]
    assert len(at) == row.n_x + row.n_y and abs((at.level[~at.dead] <= 0.3).mean() - row.similarity) < 1.5/len(at)
    origin = json.loads((place/"results/provenance.json").read_text())
    assert [network["seed"] for network in origin["networks"]] == [0, 1, 2] and origin["data"]["title"] == "Digits"
    assert {"versions", "device", "date", "command"} <= set(origin)


def test_what_is_finished_is_not_done_again(place, monkeypatch):
    def never(*args, **kwargs): raise AssertionError("computed again")
    monkeypatch.setattr(cli, "compare", never)
    before = (place/"results/levels.csv.gz").read_bytes()
    again = run("reproduce", *SMALL, *folders(place), "--seeds", 3, "--snapshots", "0")
    assert again.exit_code == 0, again.output
    assert "3 of 3 pairs are already compared" in again.output
    assert (place/"results/levels.csv.gz").read_bytes() == before


def test_snapshots_that_were_not_kept_are_named(place):
    again = run("train", *SMALL, *folders(place)[:4], "--seeds", 1, "--snapshots", "0,1")
    assert again.exit_code == 0
    assert "seed-0: it was trained without keeping epochs 1; delete it to train again" in again.output


def test_a_stopped_run_goes_on_with_the_missing_pair(place, tmp_path):
    lost = sorted((place/"runs/pairs").iterdir())[0]
    pair = Comparison.load(lost)
    lost.unlink()
    result = run("compare", "--width", "0.0625", "--seeds", 3, *folders(place))
    assert result.exit_code == 0 and "2 of 3 pairs are already compared" in result.output
    assert Comparison.load(lost).similarity().equals(pair.similarity())


def test_a_damaged_pair_is_named_with_what_to_do(place, tmp_path):
    damaged = sorted((place/"runs/pairs").iterdir())[0]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    result = run("compare", *THREE, *folders(place))
    damaged.write_bytes(whole)
    assert result.exit_code == 1 and f"{damaged} is damaged" in result.output
    assert "delete it and run again" in result.output


def test_results_grow_by_networks(place, tmp_path):
    out = [*folders(place)[:-1], tmp_path/"growing"]
    for seeds in ("2", "3", "3"): assert run("compare", "--width", "0.0625", "--seeds", seeds, *out).exit_code == 0
    assert (tmp_path/"growing/similarity.csv").read_bytes() == (place/"results/similarity.csv").read_bytes()


@pytest.mark.parametrize("arguments, message", [
    (["compare", "--seeds", "3", "--layers", "fc*.relu"], "layers: ['relu'] there, ['fc*.relu'] asked"),
    (["compare", "--seeds", "3", "--drawn", "100"], "drawn: None there, 100 asked; draws: 1 there, 16 asked"),
    (["compare", "--seeds", "3", "--affine"], "affine: False there, True asked"),
    (["compare", "--seeds", "3", "--title", "Figures"], "data: Digits ("),
    (["compare", "--seeds", "2"], "seed 2 is there, not asked"),
    (["reproduce", "--seeds", "3", "--epochs", "2"],
     "seed 0: recipe epochs 1 there, 2 asked; seed 1: recipe epochs"),
    (["reproduce", "--seeds", "3", "--epochs", "1", "--arch", "resnet10"],
     "seed 0: architecture vgg11 there, resnet10 asked"),
])
def test_results_of_something_else_are_not_replaced(place, tmp_path, monkeypatch, arguments, message):
    def never(*args, **kwargs): raise AssertionError("computed")
    monkeypatch.setattr(cli, "compare_pairs", never)
    monkeypatch.setattr("subspace_match.networks.training.train", never)
    before = {path: path.read_bytes() for path in (place/"results").iterdir()}
    result = run(*arguments, "--width", "0.0625", *folders(place))
    assert result.exit_code == 1 and f"{place/'results'} holds other results" in result.output, result.output
    assert message in result.output
    assert {path: path.read_bytes() for path in (place/"results").iterdir()} == before


def test_results_of_networks_trained_anew_are_not_replaced(place, tmp_path):
    origin = read_json(place/"results/provenance.json")
    origin["networks"][1]["weights_checksum"] = "another"
    (tmp_path/"results").mkdir()
    (tmp_path/"results/provenance.json").write_text(json.dumps(origin))
    result = run("compare", *THREE, *folders(place)[:-1], tmp_path/"results")
    assert result.exit_code == 1
    assert "holds other results (seed 1: weights checksum another there, " in result.output


# functions, objects, and what the command always does
LACKING = {"networks", "loader", "forward", "mask", "lazy", "cache", "ids", "progress", "each_pass"}


@pytest.mark.parametrize("command, without", [("compare_command", {"inputs_kept"}), ("reproduce", {"inputs_kept"}),
                                              ("measures_command", set()),
                                              ("diff_command", {"inputs_kept", "layer_pairs"})])
def test_every_choice_of_python_is_an_option(command, without):
    """The command line has what `compare` has, but what only a program can pass; inputs are kept for measures, and
    two versions of a network have the same layers."""
    options = set(inspect.signature(getattr(cli, command)).parameters)
    assert set(inspect.signature(cli.compare).parameters) - LACKING - without <= options
    assert command in ("measures_command", "diff_command") or "rotate" in options


def test_the_old_name_of_drawn_warns_and_a_grid_is_found_again(place, tmp_path):
    arguments = ["compare", *THREE, "--layers", "stage1.conv1.relu", "--draws", 2, "--grid", "4,4",
                 *folders(place)[:-1], tmp_path/"drawn"]
    for name in ("--positions", "--drawn"):
        result = run(*arguments, name, 50)
        assert result.exit_code == 0, result.output
        assert ("--positions is now --drawn" in result.stderr) == (name == "--positions")
    assert "3 of 3 pairs are already compared" in result.output
    assert read_json(tmp_path/"drawn/provenance.json")["settings"]["drawn"] == 50


def test_choices_reach_the_comparison(place, tmp_path):
    out = [*folders(place)[:-1], tmp_path/"chosen"]
    few = ["--layers", "fc2.relu", *THREE]
    result = run("compare", *few, "--centre", "--dead", "include", "--folds", 3, "--no-chance", "--rotate", "--n-jobs",
                 1, "--samples", "inputs", "--memory", 1, *out)
    assert result.exit_code == 0, result.output
    areas, means = (pd.read_csv(tmp_path/"chosen"/name) for name in ("area.csv", "area-over-pairs.csv"))
    assert len(areas) == 3 and len(means) == 1 and areas.chance.isna().all() and areas.rotated.between(0, 1).all()
    settings = read_json(tmp_path/"chosen/provenance.json")["settings"]
    assert (settings["centre"], settings["dead"], settings["folds"], settings["rotate"]) == (True, "include", 3, True)
    other = run("compare", *few, *out)
    assert other.exit_code == 1 and "centre: True there, False asked" in other.output
    assert not (place/"runs/passes").exists()


def test_a_pass_that_was_stopped_is_found_again_by_the_command(place, tmp_path, monkeypatch):
    def stopped(*args, **options): raise KeyboardInterrupt
    monkeypatch.setattr(cli, "_save_pair", stopped)
    arguments = ["compare", *THREE, "--layers", "fc1.relu", *folders(place)[:-1], tmp_path/"again"]
    run(*arguments)
    passes = list((place/"runs/passes").iterdir())
    assert len(passes) == 1 and passes[0].suffix == ".safetensors"
    monkeypatch.undo()
    assert run(*arguments).exit_code == 0 and not (place/"runs/passes").exists()


def test_measures_are_written_with_their_origin(place, tmp_path):
    out = [*folders(place)[:-2], "--out", tmp_path/"measures.csv"]
    for _ in range(2):
        result = run("measures", *THREE, "--layers", "fc2.relu", "--inputs-kept", 20, *out)
        assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path/"measures.csv")
    assert len(table[["network_a", "network_b"]].drop_duplicates()) == 3
    assert {"area", "cka", "rsa"} <= set(table.measure)
    assert read_json(tmp_path/"measures.json")["settings"]["inputs_kept"] == 20
    other = run("measures", *THREE, "--layers", "fc1.relu", *out)
    assert other.exit_code == 1 and "holds other results" in other.output


def test_measures_of_several_passes_are_those_of_one(place, tmp_path):
    tables = []
    for memory, passes in ((1, ""), (0.02, "2 passes over the loader")):
        out = tmp_path/f"{memory}.csv"
        result = run("measures", *FIRST_TWO, "--layers", "fc*.relu", "--memory", memory, *folders(place)[:-2], "--out",
                     out)
        assert result.exit_code == 0 and passes in result.stderr, result.output
        tables.append(pd.read_csv(out))
    assert list(tables[0].layer.unique()) == ["fc1.relu", "fc2.relu"]
    pd.testing.assert_frame_equal(*tables)
    result = run("compare", *FIRST_TWO, "--layers", "fc*.relu", "--rotate", "--memory", memory, *folders(place)[:-1],
                 tmp_path/"rotated")
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path/"rotated/area.csv").rotated.between(0, 1).all()


def test_a_full_disk_is_one_line(place, tmp_path, monkeypatch):
    def full(*args): raise OSError(28, "No space left on device", "similarity.csv")
    monkeypatch.setattr(cli, "write_results", full)
    result = run("compare", *THREE, *folders(place)[:-1], tmp_path/"full")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "No space left on device: 'similarity.csv'" in result.stderr


@pytest.mark.parametrize("command", ["compare", "measures", "reproduce", "simple"])
@pytest.mark.parametrize("reason", [28, 30])
def test_a_useless_place_is_said_before_the_work(place, tmp_path, monkeypatch, command, reason):
    "Errors 28 and 30: no space left on device, read-only file system."
    def useless(dir): raise OSError(reason, os.strerror(reason))
    monkeypatch.setattr("tempfile.TemporaryFile", useless)
    monkeypatch.setenv("COLUMNS", "300")
    out = tmp_path/("out" if command in ("compare", "reproduce") else "out.csv")
    result = run(command, *folders(place)[:-1], out)
    assert result.exit_code == 2 and f"can't be written: {os.strerror(reason)}" in result.stderr, result.output


def test_training_wants_room_before_its_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 2**20}))
    monkeypatch.setattr("subspace_match.networks.training._train_epoch", lambda *_: pytest.fail("work began"))
    result = run("train", "--width", 0.25, "--epochs", 1, "--seeds", 1, *folders(tmp_path)[:4])
    assert result.exit_code == 1 and "OSError" in result.output and "has room for 0.001 GB" in result.output


def test_networks_are_trained_as_the_authors_script_does(tmp_path):
    result = run("reproduce", *SMALL, *folders(tmp_path)[:4], "--seeds", 2, "--learning-rate", 0.01, "--no-batch-norm",
                 "--initialisation", "authors", "--out", tmp_path/"results")
    assert result.exit_code == 0, result.output
    folder = tmp_path/"runs/digits-vgg11-width0.0625-no-batch-norm-authors/seed-1"
    about, compared = read_json(folder/"weights.json"), read_json(tmp_path/"results/provenance.json")["networks"]
    assert (about["batch_norm"], about["initialisation"]) == (False, "authors")
    for network in (training.load_network(folder)[0], training.untrained_network(compared[1])):
        assert not any("norm" in name for name in network.state_dict())
    assert [network["batch_norm"] for network in compared] == [False, False]
    assert run("train", *SMALL, *folders(tmp_path)[:4], "--seeds", 1, "--arch", "resnet10",
               "--no-batch-norm").output.count("only a VGG can do without batch norm") == 1
    assert cli.chosen_recipe(None, "vgg16", None, None, True, "cpu", batch_norm=False).learning_rate == 0.05


def test_published_weights_that_cannot_be_had_are_named(place, monkeypatch):
    def offline(*args, **kwargs): raise URLError("no network")
    monkeypatch.setattr("torchvision.models.get_model", offline)
    result = run("compare", "resnet18:IMAGENET1K_V1", "resnet18:IMAGENET1K_V1", *folders(place))
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "resnet18:IMAGENET1K_V1 cannot be downloaded" in result.stderr


def test_a_failed_pair_is_named_and_the_others_go_on(place, monkeypatch, tmp_path):
    save = Comparison.save
    def fails_once(self, path, grams=True):
        if {pair.network_b
            for pair in self.pairs.values()} == {"seed 2"} and {pair.network_a
                                                                for pair in self.pairs.values()} == {"seed 0"}:
            raise OSError("disk full")
        return save(self, path, grams)
    monkeypatch.setattr(Comparison, "save", fails_once)
    result = run("compare", "--width", "0.0625", "--seeds", 3, "--affine", *folders(place)[:-1], tmp_path/"affine")
    assert result.exit_code == 1 and "failed: seed 0, seed 2: OSError: disk full" in result.output
    assert len(pd.read_csv(tmp_path/"affine/similarity.csv")[["network_a", "network_b"]].drop_duplicates()) == 2


def test_snapshots_and_folders_are_compared(place, tmp_path):
    runs = place/"runs/digits-vgg11-width0.0625"
    result = run("compare", runs/"seed-0", f"{runs/'seed-0'}@0", *folders(place)[:-1], tmp_path/"own")
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(tmp_path/"own/similarity.csv").network_b) == {"seed 0 epoch 0"}


def test_commands_find_the_same_on_a_gpu(place, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "pretended GPU")
    networks = [path.parent for path in sorted(place.glob("runs/*/seed-*/weights.json"))][:2]
    for device in ("cpu", "cuda"):
        shared, out = ["--root", place/"data", "--device", device], tmp_path/device
        few = ["--layers", "stage2.*.relu", "--layers", "fc2.relu"]
        with gpu():
            results = [run("compare", *networks, *shared, *few, "--runs", out/"runs", "--out", out),
                       run("dynamics", *networks, *shared, *few, "--out", out/"dynamics.csv"),
                       run("simple", *networks, *shared, "--layers", "fc2.relu", "--rounds", 1, "--out",
                           out/"simple.csv"),
                       run("visualize", *networks, *shared, "--matches", out/"simple.csv", "--n", 1, "--out",
                           out/"look.csv")]
        assert [result.exit_code for result in results] == [0, 0, 0, 0], [result.output for result in results]
    for name in ("similarity.csv", "dynamics.csv", "look.csv", "simple.csv"):
        on_cpu, on_gpu = (read_table(tmp_path/device/name) for device in ("cpu", "cuda"))
        if name == "similarity.csv":   # a neuron whose level is that of a row may fall on its other side, in one fold
            off = (on_cpu.held_out - on_gpu.held_out).abs()
            assert (off > 1e-9).mean() < 0.02 and off.max() < 0.02
            on_gpu["held_out"] = on_cpu.held_out
        pd.testing.assert_frame_equal(on_cpu, on_gpu)
    assert "pretended GPU" in (tmp_path/"cuda/provenance.json").read_text() and len(on_gpu) > 0


@pytest.fixture(scope="module")
def sizes(place):
    "The CSV of simple matches of two networks in the first layer and in the last one."
    path = place/"simple/sizes.csv"
    result = run("simple", *FIRST_TWO, "--layers", "stage1.*.relu", "--layers", "fc2.relu", "--rounds", 1,
                 *folders(place)[:-1], path)
    assert result.exit_code == 0, result.output
    return path


def test_simple_matches_are_listed_and_drawn(sizes):
    table, facts = read_table(sizes), pd.DataFrame(read_json(sizes.with_suffix(".json"))["pieces"]).T
    assert set(facts.eps) == {0.3, 0.5} and set(facts.layer) == {"stage1.conv1.relu", "fc2.relu"}
    assert (table["size"] == table.size_x + table.size_y).all()
    assert (table.neurons_x.fillna("").str.split().str.len() == table.size_x).all()
    assert (table.size_x <= table.piece.map(facts.maximum_x)).all() and sizes.with_suffix(".png").stat().st_size > 5000


def test_a_piece_that_is_finished_is_not_computed_again(place, sizes, monkeypatch):
    def never(*args, **kwargs): raise AssertionError("computed again")
    with monkeypatch.context() as patch:
        patch.setattr("subspace_match.experiments.pieces.compare", never)
        before = sizes.stat().st_mtime_ns
        assert run("simple", *FIRST_TWO, "--layers", "stage1.conv1.relu", "--rounds", 1, *folders(place)[:-1],
                   sizes).exit_code == 0
    other = run("simple", *FIRST_TWO, "--layers", "stage1.conv1.relu", "--rounds", 2, *folders(place)[:-1], sizes)
    assert other.exit_code == 1 and "rounds is 1 there, 2 asked" in other.output and sizes.stat().st_mtime_ns == before


def test_rounds_of_0_go_on_until_one_brings_no_new_size(place, sizes, tmp_path):
    paths = {rounds: tmp_path/f"{rounds}.csv" for rounds in (0, -1)}
    done = {rounds: run("simple", *FIRST_TWO, "--layers", "fc2.relu", "--eps", 0.5, "--rounds", rounds,
                        *folders(place)[:-1], path) for rounds, path in paths.items()}
    assert done[0].exit_code == 0, done[0].output
    assert done[-1].exit_code == 2 and not paths[-1].exists()
    (name, piece), = read_json(paths[0].with_suffix(".json"))["pieces"].items()
    found, first = (table[(table.piece == name) & table.sampled] for table in (read_table(paths[0]), read_table(sizes)))
    assert piece["rounds"] > 1 and set(first["size"]) <= set(found["size"]) and len(found) > len(first)


def test_snapshots_are_compared_along_the_training(place, tmp_path):
    result = run("dynamics", *THREE, "--every", 2, *folders(place)[:-1], tmp_path/"dynamics.csv")
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path/'dynamics.png'}" in result.output
    table = read_table(tmp_path/"dynamics.csv")
    assert table.groupby("kind").piece.nunique().to_dict() == {"same epoch": 6, "own future": 3, "untrained, other": 6}
    assert table.d.min() == 225

@pytest.mark.parametrize("command, options, callee", [
    ("simple", ["--layers", "fc2.relu", "--rounds", 2, "--eps", 0.5],
     "subspace_match.networks.comparison.sample_simple_matches"),
    ("dynamics", ["--every", 2, "--layers", "fc2.relu"], "subspace_match.networks.comparison._find_all")])
def test_jobs_share_rounds_and_layers_and_find_the_same(place, tmp_path, monkeypatch, command, options, callee):
    module, name = callee.rsplit(".", 1)
    inner, jobs = getattr(importlib.import_module(module), name), []
    def noted(*arguments, **choices):
        jobs.append(choices.get("n_jobs", arguments[-1]))
        return inner(*arguments, **choices)
    monkeypatch.setattr(callee, noted)
    for n in (1, 2):
        result = run(command, *FIRST_TWO, *options, "--n-jobs", n, *folders(place)[:-1], tmp_path/f"{n}.csv")
        assert result.exit_code == 0, result.output
    assert {1, 2} <= set(jobs) and (tmp_path/"1.csv").read_text() == (tmp_path/"2.csv").read_text()


def test_untrained_networks_are_read_with_batch_norm_where_asked(place, tmp_path):
    results = [run("dynamics", *FIRST_TWO, "--every", 2, *options, *folders(place)[:-1], tmp_path/name)
               for name, options in (("plain.csv", []), ("calibrated.csv", ["--calibrate"]))]
    assert all(result.exit_code == 0 for result in results), [result.output for result in results]
    plain, calibrated = (read_table(tmp_path/name).set_index(["piece", "layer", "eps"])
                         for name in ("plain.csv", "calibrated.csv"))
    untrained = plain[(plain.epoch_a == 0) & (plain.kind == "same epoch")].index
    trained = plain[plain.epoch_a > 0].index
    assert calibrated.dead_x[untrained].sum() < plain.dead_x[untrained].sum()
    assert calibrated.similarity[trained].equals(plain.similarity[trained])
    assert not calibrated.similarity[untrained].equals(plain.similarity[untrained])
    assert "calibrated" in read_json(tmp_path/"calibrated.json")["settings"]["untrained"]
    again = run("dynamics", *FIRST_TWO, "--every", 2, *folders(place)[:-1], tmp_path/"calibrated.csv")
    assert again.exit_code == 1 and "untrained" in again.output


def test_matches_are_looked_at(place, sizes, tmp_path):
    result = run("visualize", *FIRST_TWO, "--matches", sizes, "--n", 1, *folders(place)[:-1], tmp_path/"look.csv")
    assert result.exit_code == 0, result.output
    sheets = [piece["sheet"] for piece in read_json(tmp_path/"look.json")["pieces"].values()]
    assert "look-stage1.conv1-0.png" in sheets and all((tmp_path/sheet).exists() for sheet in sheets)
    with Image.open(tmp_path/"look.png") as picture: assert picture.width > 600
    (tmp_path/"look.png").unlink()
    assert run("figures", tmp_path/"look.csv").exit_code == 0 and (tmp_path/"look.png").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--layers", "fc1.relu"], "no simple matches in fc1.relu; layers with matches: stage1.conv1.relu, fc2.relu"),
    (["--layers", "fc7"], "no layer, function or type of module is called 'fc7'"),
    (["--seeds", "1,2"], "no simple matches in relu; layers with matches: none"),
    (["--seeds", "3"], "a match is between two networks, not 3"),
    (["--matches", "nowhere.csv"], "there is no nowhere.csv; `simple` makes it"),
])
def test_what_has_no_matches_is_named(place, sizes, tmp_path, arguments, message):
    result = run("visualize", *FIRST_TWO, "--matches", sizes, *folders(place)[:-1], tmp_path/"look.csv", *arguments)
    assert result.exit_code == 1 and message in result.output and not (tmp_path/"look.csv").exists()


@pytest.mark.parametrize("named", ["results", "results/similarity.csv"])
def test_figures_are_drawn_again(place, named):
    figure = place/"results/similarity-by-depth.png"
    figure.unlink()
    assert run("figures", place/named).exit_code == 0 and figure.stat().st_size > 5000


@pytest.mark.parametrize("beside, message",
                         [("sizes.json", "is no result of `simple`"),
                          ("provenance.json", "holds no results of `compare`"),
                                             ("else.json", "is no result of `simple`")])
def test_a_csv_of_something_else_is_named(tmp_path, beside, message):
    (tmp_path/"sizes.csv").write_text("seconds\n1\n")
    (tmp_path/beside).write_text("{}")
    result = run("figures", tmp_path/"sizes.csv")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and message in result.stderr


def test_figures_of_sizes_are_drawn_again(sizes):
    sizes.with_suffix(".png").unlink()
    assert run("figures", sizes).exit_code == 0 and sizes.with_suffix(".png").exists()


@pytest.mark.parametrize("arguments, message", [
    (["compare", "nowhere", "nothing"], "there is no nowhere"),
    (["simple", "nowhere", "nothing"], "there is no nowhere"),
    (["dynamics", "nowhere", "nothing"], "holds no completely trained network"),
    (["visualize", "nowhere", "nothing"], "there is no nowhere"),
    (["compare", "--width", "0.0625", "--seeds", "1"], "at least two networks, not 1"),
    (["simple", "--width", "0.0625", "--seeds", "1"], "between two networks, and there is 1"),
    (["train", "--paper-recipe", "--epochs", "2"], "--paper-recipe has its own epochs"),
    (["train", "--arch", "vgg12"], "vgg11"),
    (["train", "--data", "mnist"], "unknown data set"),
    (["train", "--arch", "torchvision.nosuch"], "torchvision has no model 'nosuch'"),
    (["train", "--arch", "torchvision.resnet18"], "torchvision's models take 3 channels, and the images have 1"),
    (["figures", "nowhere"], "holds no results"),
    (["figures", "nowhere.csv"], "there is no nowhere.csv"),
])
def test_errors_are_one_line(place, arguments, message):
    result = run(*arguments, *(folders(place)[:4] if arguments[0] != "figures" else []))
    assert result.exit_code == 1 and message in result.output and "Traceback" not in result.output


def test_usage_errors_have_exit_code_2(place):
    assert run("train", "--seeds", "many").exit_code == 2
    assert run("train", "--seeds", "1", "--snapshots", "last", *folders(place)[:4]).exit_code == 2
    assert run("simple", "--every", "0").exit_code == 2
    assert run("compare", "--layers").exit_code == 2


@pytest.mark.parametrize("arguments, option, message", [
    (["train", "--learning-rate", "0"], "--learning-rate", "0 is no number above 0"),
    (["train", "--learning-rate", "nan"], "--learning-rate", "nan is no number above 0"),
    (["train", "--width", "0"], "--width", "0 is no number above 0"),
    (["reproduce", "--width", "-1"], "--width", "-1 is no number above 0"),
    (["train", "--epochs", "1", "--snapshots", "0,99"], "", "epochs 99 are not reached: the training has 1"),
    (["reproduce", "--epochs", "1", "--snapshots", "2,0"], "", "epochs 2 are not reached: the training has 1"),
    (["reproduce", "--device", "gpu"], "--device", "'gpu' cannot be used"),
    (["compare", "--out", "afile"], "--out", "afile is a file, not a folder"),
    (["compare", "--out", "afile/sub"], "--out", "afile is a file, not a folder"),
    (["train", "--runs", "afile"], "--runs", "afile is a file, not a folder"),
    (["train", "--root", "afile"], "--root", "afile is a file, not a folder"),
    (["simple", "--out", "afile/sizes.csv"], "--out", "afile is a file, not a folder"),
    (["simple", "--out", "sizes"], "--out", "sizes is no .csv"),
    (["compare", "--out", ""], "--out", "the path is empty"),
    (["simple", "--out", ""], "--out", "the path is empty"),
    (["train", "--runs", ""], "--runs", "the path is empty"),
    (["train", "--root", ""], "--root", "the path is empty"),
    (["visualize", "--matches", ""], "--matches", "the path is empty"),
    (["simple", "--eps", "0.3", "--eps", "1.5"], "--eps", "ε lies in [0, 1), unlike 1.5"),
    (["simple", "--n-jobs", "0"], "--n-jobs", "0 does nothing; -1 is one a core"),
    (["dynamics", "--n-jobs", "0"], "--n-jobs", "0 does nothing; -1 is one a core"),
    (["visualize", "--eps", "nan"], "--eps", "ε lies in [0, 1), unlike nan"),
    (["reproduce", "--seeds", "1"], "--seeds", "a comparison needs at least two networks"),
])
def test_values_are_checked_before_work_begins(tmp_path, monkeypatch, arguments, option, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path/"afile").touch()
    result = run(*arguments)
    assert result.exit_code == 2 and option in result.stderr and message in result.stderr, result.output
    assert not (tmp_path/"runs").exists()


def test_the_version_is_told():
    result = run("--version")
    assert result.exit_code == 0 and result.output == f"subspace-match {__version__}\n"


COMMAND = "from subspace_match.cli import main; main()"


def together(folder, *arguments):
    """Give a command to two processes, as torchrun does; returns what each prints, which is left in `folder`, without
    the lines that older PyTorch has about its connections.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    outputs = [folder/f"said-{rank}" for rank in range(2)]
    processes = [python(COMMAND, *arguments, "--device", "cpu", output=outputs[rank], RANK=str(rank), **environment)
                 for rank in range(2)]
    codes = [finished(process) for process in processes]
    said = ["".join(line for line in output.read_text(encoding="utf-8").splitlines(True) if line[:6] != "[Gloo]")
            for output in outputs]
    assert codes == [0, 0], said
    return said


@without_gloo
def test_two_processes_compare_as_one(place, tmp_path):
    "Both begin without decoded images; one decodes, one writes."
    (tmp_path/"runs").mkdir()
    shutil.copytree(place/"runs/digits-vgg11-width0.0625", tmp_path/"runs/digits-vgg11-width0.0625")
    few = ["--layers", "stage2.*.relu", "--layers", "fc1.relu"]
    outputs = together(tmp_path, "compare", *FIRST_TWO, *few, *folders(tmp_path))
    assert "maximum matching similarity" in outputs[0] and not outputs[1]
    keys = ["layer", "network_a", "network_b", "eps"]
    one, two = (pd.read_csv(Path(folder)/"results/similarity.csv").set_index(keys).similarity
                for folder in (place, tmp_path))
    pd.testing.assert_series_equal(two, one.loc[two.index], atol=0.02)


@without_gloo
def test_two_processes_find_simple_matches_as_one(place, sizes, tmp_path):
    outputs = together(tmp_path, "simple", *FIRST_TWO, "--layers", "stage1.conv1.relu", "--rounds", 1,
                       *folders(place)[:-1], tmp_path/"sizes.csv")
    assert "finished: stage1.conv1.relu | seed 0 | seed 1 | 0.3" in outputs[0] and not outputs[1]
    one, two = (read_table(path).query("layer == 'stage1.conv1.relu'").groupby("eps")["size"].agg(list)
                for path in (sizes, tmp_path/"sizes.csv"))
    assert two.equals(one)


def test_help_explains_every_command():
    for command in ("train", "compare", "simple", "dynamics", "visualize", "figures", "reproduce"):
        text = run(command, "--help").output
        assert "Usage" in text and command in text


def test_too_few_images_are_refused_before_the_search(place, tmp_path):
    for every, message in [(100_000, "every = 100000 leaves 1 of 450 validation images"),
                           (100,
                            "everything matches where fc1.relu has 5 samples for 32 + 32 neurons; use more images")]:
        result = run("simple", *FIRST_TWO, "--layers", "fc1.relu", "--every", every, *folders(place)[:-1],
                     tmp_path/"few.csv")
        assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_download_is_explained(tmp_path, monkeypatch):
    def offline(*args, **kwargs): raise URLError("Name or service not known")
    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    result = run("train", "--data", "cifar10", "--root", tmp_path/"data", "--runs", tmp_path/"runs")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "CIFAR-10 cannot be downloaded" in result.stderr
    assert f"cifar-10-python.tar.gz into {tmp_path/'data'}" in result.stderr


def test_a_gpu_may_hold_the_data_and_choose_its_kernels(tmp_path, monkeypatch):
    "Images on the device lead to the same network; other kernels are asked of cuDNN, and the run says so."
    flags, places = [], []
    known, loader = torch.backends.cudnn.flags, training.training_loader
    def noted(**options): flags.append(options); return known(**options)
    def looked_at(data, *args, **kwargs):
        places.append(data.train_images.device.type); return loader(data, *args, **kwargs)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "pretended GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: False)
    monkeypatch.setattr(torch.backends.cudnn, "flags", noted)
    monkeypatch.setattr(training, "training_loader", looked_at)
    monkeypatch.setattr(torch.random, "fork_rng", lambda **options: nullcontext())
    shared = ["train", *SMALL, "--seeds", 1, "--root", tmp_path/"data", "--device", "cuda"]
    with gpu(): results = [run(*shared, "--runs", tmp_path/"host"),
                           run(*shared, "--runs", tmp_path/"gpu", "--data-on-device", "--any-kernels")]
    assert [result.exit_code for result in results] == [0, 0], [result.output for result in results]
    assert [option["deterministic"] for option in flags] == [True,
                                                             False] == [not option["benchmark"] for option in flags]
    assert places[0] == "cpu" and places[-1] == "cuda"
    host, there = (read_json(next((tmp_path/name).glob("*/seed-0/weights.json"))) for name in ("host", "gpu"))
    assert (host["deterministic"], there["deterministic"]) == (True, False)
    assert host["recipe"] == there["recipe"] and abs(host["history"][0]["loss"] - there["history"][0]["loss"]) < 0.05


def test_a_terminal_without_greek_letters_is_no_error(place, tmp_path):
    "Windows gives programs whose output goes to a file an encoding with few letters."
    compared = ["compare", *THREE, "--affine", *map(str, [*folders(place)[:-1], tmp_path/"out"])]
    code = """if True:
        import sys
        from subspace_match.cli import main
        for stream in (sys.stdout, sys.stderr): stream.reconfigure(encoding="ascii")
        for arguments in {}:
            sys.argv[1:] = arguments
            try: main()
            except SystemExit as end: assert not end.code
            print("=====")"""
    done = python(code.format([["--help"], ["compare", "--help"], compared]), output=tmp_path/"said")
    code, said = finished(done), (tmp_path/"said").read_text(encoding="ascii")
    assert code == 0, said
    assert [len(text) > 100 for text in said.split("=====\n")] == [True, True, True, False]


def test_results_end_their_lines_alike_on_every_system(place, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "linesep", "\r\n")
    result = run("compare", *FIRST_TWO, *folders(place)[:-1], tmp_path)
    written = {path.name: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
               for path in tmp_path.glob("*.[cj]s*")}
    assert result.exit_code == 0 and len(written) > 3 and not [name for name in written if b"\r\n" in written[name]]


@pytest.fixture
def makers(tmp_path, monkeypatch):
    "A module of a user's, and two files of weights for what it makes."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"mynets.py").write_text("from subspace_match.networks.models import build_model\n"
                                      "def small(): return build_model('vgg11', 10, 1, 1/16)\nnot_one = 3\n")
    save_file(build_model("vgg11", 10, 1, 1/16, seed=1).state_dict(), tmp_path/"second.safetensors")
    torch.save(build_model("vgg11", 10, 1, 1/16, seed=0).state_dict(), tmp_path/"first.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path/"pickled.pt")


def test_networks_of_others_are_compared(place, makers, tmp_path):
    result = run("compare", "mynets:small@first.pt", "mynets:small@second.safetensors", *folders(place)[:2],
                 "--runs", tmp_path/"runs", "--out", tmp_path/"results")
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path/"results/similarity.csv")
    assert set(table.network_a) == {"first"} and set(table.network_b) == {"second"} and table.layer.nunique() == 10


def test_a_network_whose_state_is_more_than_tensors_is_compared(place, tmp_path, monkeypatch):
    "As that of PyTorch's quantised layers, which keep types and tuples there."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"statenets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Layer(nn.Linear):\n    def get_extra_state(self): return torch.qint8, (1, None)\n"
        "def make(seed):\n    torch.manual_seed(seed)\n"
        "    return nn.Sequential(nn.Flatten(), Layer(1024, 9), nn.ReLU())\n"
        "def one(): return make(0)\ndef two(): return make(1)\n")
    result = run("diff", "statenets:one", "statenets:two", "--inputs", "digits")
    assert result.exit_code == 0 and "1 of 1 layer moved" in result.output, result.output


@pytest.mark.parametrize("spec, message", [
    ("first.pt", "first.pt holds weights, and no network; name a function that makes one: "
     "--model MODULE:FUNCTION, or MODULE:FUNCTION@first.pt"),
    ("mynets:nothing@first.pt", "mynets:nothing makes no network"),
    ("nowhere:small@first.pt", "nowhere:small makes no network (No module named 'nowhere')"),
    ("mynets:not_one@first.pt", "it must be a function without arguments"),
    ("mynets:small@third.pt", "there is no third.pt"),
    ("mynets:small@pickled.pt",
     "pickled.pt holds no weights that can be read without executing code (UnpicklingError: Weights only load failed); "
     "save model.state_dict()"),
    ("torchvision.models:resnet18@first.pt", "first.pt does not fit torchvision.models:resnet18: Error(s) in loading"),
])
def test_weights_without_a_network_lead_to_the_way_out(place, makers, spec, message):
    result = run("compare", spec, spec, *folders(place)[:2])
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1, result.output


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    "Two versions of a network of its user, of which one neuron differs, and 300 inputs."
    folder = tmp_path_factory.mktemp("versions")
    (folder/"ournets.py").write_text("import torch\nfrom torch import nn\n"
                                     "def small(): return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))\n"
                                     "def other(): return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), "
                                     "nn.Tanh())\n"
                                     "def batches(): return [(torch.randn(99, 6, generator=torch.manual_seed(i)),) "
                                     "for i in range(3)]\n")
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    save_file(network.state_dict(), folder/"before.safetensors")
    network[0].weight.data[3] = torch.randn(6, generator=generator)
    torch.save({"epoch": 9, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}},
               folder/"after.pt")
    return folder


def diff(folder, *arguments, model="ournets:small"):
    return run("diff", folder/"before.safetensors", folder/"after.pt", "--model", model, *arguments)


def test_a_diff_names_the_neuron_that_changed(versions, monkeypatch):
    monkeypatch.chdir(versions)
    found = diff(versions, "--inputs", "ournets:batches", "--report", versions/"out.html")
    assert found.exit_code == 0, found.output
    assert "1 of 1 layer moved. Layer 1 moved most" in found.output and (versions/"out.html").exists()
    listed = found.output.partition("neurons that moved most")[2].splitlines()
    assert listed[2].split()[:2] == ["1", "3"]


def test_a_diff_hands_every_choice_on(versions, monkeypatch):
    monkeypatch.chdir(versions)
    seen = {}
    def noted(*arguments, **options):
        seen.update(options)
        raise ValueError("noted")
    monkeypatch.setattr("subspace_match.networks.changes.diff", noted)
    found = diff(versions, "--inputs", "ournets:batches", "--samples", "inputs", "--drawn", 50, "--draws", 3,
                 "--seed", 7, "--centre", "--dead", "include", "--folds", 4, "--no-chance", "--grid", "2,3",
                 "--neuron-axis", 1, "--memory", 2, "--n-jobs", 2)
    assert "noted" in found.output
    expected = {"samples": "inputs", "drawn": 50, "draws": 3, "seed": 7, "centre": True, "affine": False,
                "dead": "include", "folds": 4, "chance": False, "grid": (2, 3), "neuron_axis": 1, "memory": 2e9,
                "n_jobs": 2}
    assert {name: seen[name] for name in expected} == expected


@pytest.mark.parametrize("area, code", [("0", 0), ("0.5", 0), ("0.999", 3)])
def test_a_pipeline_gets_an_exit_code_of_its_own(versions, monkeypatch, area, code):
    monkeypatch.chdir(versions)
    found = diff(versions, "--inputs", "ournets:batches", "--fail-below", area)
    assert found.exit_code == code and ("not surely an area of" in found.stderr) == (code == 3)


def test_too_few_inputs_do_not_pass(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("before", "after"): np.save(tmp_path/f"{name}.npy", rng.normal(size=(20, 30)))
    found = run("diff", tmp_path/"before.npy", tmp_path/"after.npy", "--fail-below", "0.9")
    assert found.exit_code == 3 and "Undecided, for want of" in found.output


@pytest.mark.parametrize("ending", ["npy", "safetensors", "h5", "zarr"])
def test_stored_activations_of_every_kind_are_compared(tmp_path, ending):
    rng = np.random.default_rng(0)
    before = rng.normal(size=(100, 6)).astype(np.float32)
    for name, noise in (("before", 0), ("after", 0.5)):
        path, array = tmp_path/f"{name}.{ending}", before + np.float32(noise)*rng.normal(size=before.shape)
        array = array.astype(np.float32)
        if ending == "npy": np.save(path, array)
        elif ending == "safetensors": save_file({"fc": torch.from_numpy(array)}, path)
        elif ending == "h5":
            with h5py.File(path, "w") as file: file["fc"] = array
        else: zarr.save_group(path, fc=array)
    found = run("diff", tmp_path/f"before.{ending}", tmp_path/f"after.{ending}")
    assert found.exit_code == 0 and "on 100 stored inputs" in found.output, found.output
    assert "1 of 1 layer moved" in found.output


def test_what_moved_for_sure_but_nobody_knows_how_far(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.normal(size=(80, 30))
    for name, noise in (("before", 0), ("after", 1)):
        np.save(tmp_path/f"{name}.npy", before + noise*rng.normal(size=before.shape))
    found = run("diff", tmp_path/"before.npy", tmp_path/"after.npy")
    assert "1 of 1 layer moved" in found.output and "few inputs" in found.output, found.output
    assert "Undecided how far, for want of (different) inputs: activations." in found.output


@pytest.mark.parametrize("arguments, message", [
    ([], "on what shall the networks be compared? --inputs takes"),
    (["--inputs", "nowhere/"], "there is no nowhere"),
    (["--inputs", "empty"], "empty holds no images"),
    (["--inputs", "ournets:small"], "it must return a loader"),
    (["--inputs", "ournets:batches", "--layers", "conv*"], "is called 'conv*'; there are 0, 1, 2"),
    (["--inputs", "digits"], "a network cannot take Digits"),
])
def test_a_diff_that_cannot_be_made_says_why(versions, place, monkeypatch, arguments, message):
    monkeypatch.chdir(versions)
    (versions/"empty").mkdir(exist_ok=True)
    found = diff(versions, *arguments, "--root", place/"data")
    assert found.exit_code == 1 and message in found.stderr and found.stderr.count("\n") == 1, found.output


def test_other_architectures_and_unreadable_files_are_named(versions, monkeypatch):
    monkeypatch.chdir(versions)
    (versions/"broken.pt").write_bytes(b"")
    torch.save(torch.nn.Linear(2, 2), versions/"whole.pt")
    for file, message in (("broken.pt", "holds no weights that can be read"), ("whole.pt", "without executing code"),
                          ("ournets:other@after.pt", "does not fit ournets:other")):
        found = run("diff", "before.safetensors", file, "--model", "ournets:small", "--inputs", "ournets:batches")
        assert found.exit_code == 1 and message in found.stderr and found.stderr.count("\n") == 1, found.output


def test_folders_of_hugging_face_read_sentences(tmp_path):
    transformers = pytest.importorskip("transformers")
    letters = "abcdefgh"
    (tmp_path/"vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters,
                                                 *(f"##{letter}" for letter in letters)]))
    config = transformers.BertConfig(vocab_size=21, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=12, max_position_embeddings=64)
    network, tokenizer = transformers.BertModel(config), transformers.BertTokenizerFast(str(tmp_path/"vocab.txt"))
    for name in ("base", "tuned"):
        network.save_pretrained(tmp_path/name)
        tokenizer.save_pretrained(tmp_path/name)
        torch.nn.init.normal_(network.encoder.layer[1].intermediate.dense.weight)
    rng = np.random.default_rng(0)
    (tmp_path/"texts.txt").write_text("\n".join("".join(rng.choice(list(letters + " "), n)) for n in range(5, 45)))
    found = run("diff", tmp_path/"base", tmp_path/"tuned", "--inputs", tmp_path/"texts.txt", "--layers",
                "encoder.layer.*.intermediate_act_fn")
    assert found.exit_code == 0 and "on 40 texts of texts.txt" in found.output, found.output
    rows = [line.split() for line in found.output.splitlines() if line.strip().startswith("encoder.layer.")]
    assert rows[0][2] == "1" and float(rows[1][2]) < 0.99
    (tmp_path/"tuned"/"model.safetensors").unlink()
    wrong = run("diff", tmp_path/"base", tmp_path/"tuned", "--inputs", tmp_path/"texts.txt")
    assert wrong.exit_code == 1 and "no .safetensors" in wrong.stderr


def test_stored_activations_are_compared_without_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("null", "b")):
        save_file({layer: torch.randn(90, 4, generator=torch.manual_seed(seed)) for layer in ("1", "2")},
                  f"{name}.safetensors")
    assert run("compare", "null.safetensors", "b.safetensors", "--out", "here").exit_code == 0
    assert not (tmp_path/"data").exists() and (tmp_path/"here/area.csv").exists()
    assert run("report", "here").exit_code == 0
    text = (tmp_path/"here/report.html").read_text()
    assert '"name":"1"' in text and '["null","b"]' in text
