"""A saved comparison: the same bytes each time, and files of version 0.1 are still read."""
import json
import os
import subprocess
import sys

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from subspace_match import Comparison, compare

WRITE = """import sys, numpy as np
from subspace_match import compare
x = np.random.default_rng(0).normal(size=(60, 4))
compare([{"fc": x, "top": x}, {"fc": x[:, ::-1], "top": x}]).save(sys.argv[1])"""


def test_the_same_comparison_is_the_same_file(tmp_path, monkeypatch):
    "In this process and in one whose hashes differ."
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run([sys.executable, "-c", WRITE, tmp_path/"there"], check=True,
                   env=os.environ | {"PYTHONHASHSEED": seed})
    monkeypatch.setattr(sys, "argv", ["-c", tmp_path/"here"])
    exec(WRITE, {})
    assert (tmp_path/"there").read_bytes() == (tmp_path/"here").read_bytes()


def test_a_file_of_version_01_is_read(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 4))
    compare([{"fc": x}, {"fc": x[:, ::-1]}]).save(tmp_path/"new")
    with safe_open(tmp_path/"new", "pt") as file:
        header, tensors = json.loads(file.metadata()["comparison"]), {key: file.get_tensor(key) for key in file.keys()}
    save_file(tensors, tmp_path/"old", metadata=header)
    assert Comparison.load(tmp_path/"old").similarity().equals(Comparison.load(tmp_path/"new").similarity())
