"""The command line: complete runs, runs that go on, failures that are named."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from subspace_match import cli
from subspace_match.comparison import Comparison

SMALL = ["--width", "0.0625", "--epochs", "1"]


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
    assert len(at) == row.n_x + row.n_y and abs((at.level <= 0.3).mean() - row.similarity) < 1.5/len(at)
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


def test_a_stopped_run_goes_on_with_the_missing_pair(place, tmp_path):
    lost = sorted((place/"runs/pairs").iterdir())[0]
    pair = Comparison.load(lost)
    lost.unlink()
    result = run("compare", "--width", "0.0625", "--seeds", 3, *folders(place))
    assert result.exit_code == 0 and "2 of 3 pairs are already compared" in result.output
    assert Comparison.load(lost).similarity().equals(pair.similarity())


def test_a_failed_pair_is_named_and_the_others_go_on(place, monkeypatch, tmp_path):
    save = Comparison.save
    def fails_once(self, path, grams=True):
        if {pair.network_b for pair in self.pairs.values()} == {"seed 2"} and {pair.network_a for pair in self.pairs.values()} == {"seed 0"}:
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


def test_simple_matches_are_listed_and_drawn(place):
    options = ["--width", "0.0625", "--seeds", 2, "--layers", "stage1.*.relu", "--eps", "0.3", "--eps", "0.5", "--rounds", "2"]
    result = run("simple", *options, *folders(place))
    assert result.exit_code == 0, result.output
    table = pd.read_csv(place/"results/simple.csv")
    found = table.dropna(subset="size")
    assert set(table.eps) == {0.3, 0.5} and (found["size"] == found.size_x + found.size_y).all() and (found["size"] <= found.maximum_match).all()
    assert (found.neurons_x.astype(str).str.split().str.len() == found.size_x).all()


def test_figures_are_drawn_again(place):
    figure = place/"results/similarity-by-depth.png"
    figure.unlink()
    assert run("figures", place/"results").exit_code == 0 and figure.stat().st_size > 5000


@pytest.mark.parametrize("arguments, message", [
    (["compare", "nowhere", "nothing"], "holds no completely trained network"),
    (["train", "--arch", "vgg12"], "vgg11"),
    (["train", "--data", "mnist"], "unknown data set"),
    (["figures", "nowhere"], "holds no results"),
])
def test_errors_are_one_line(place, arguments, message):
    result = run(*arguments, *(folders(place)[:4] if arguments[0] != "figures" else []))
    assert result.exit_code == 1 and message in result.output and "Traceback" not in result.output


def test_usage_errors_have_exit_code_2(place):
    assert run("train", "--seeds", "many").exit_code == 2
    assert run("compare", "--layers").exit_code == 2


def test_two_processes_compare_as_one(place, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["compare", "--width", "0.0625", "--seeds", "2", "--device", "cpu", "--root", place/"data", "--runs", tmp_path/"runs", "--out", tmp_path/"results"]
    (tmp_path/"runs").mkdir()
    (tmp_path/"runs/digits-vgg11-width0.0625").symlink_to(place/"runs/digits-vgg11-width0.0625")
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([sys.executable, "-m", "subspace_match.cli", *map(str, arguments)], env=os.environ | environment | {"RANK": str(rank)},
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert "maximum matching similarity" in outputs[0] and "maximum matching similarity" not in outputs[1]
    keys = ["layer", "network_a", "network_b", "eps"]
    one, two = (pd.read_csv(Path(folder)/"results/similarity.csv").set_index(keys).similarity for folder in (place, tmp_path))
    pd.testing.assert_series_equal(two, one.loc[two.index], atol=0.02)


def test_help_explains_every_command():
    for command in ("train", "compare", "simple", "figures", "reproduce"):
        text = run(command, "--help").output
        assert "Usage" in text and command in text
