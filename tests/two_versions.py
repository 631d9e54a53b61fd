"""Is the library faster than it was? An older commit and this one take turns: `python tests/two_versions.py -h`.

Each call is a process of its own, and the first calls, which import and start processes, are left out. Both find a
minimal match for every neuron of the widest layer of two trained networks, and must find the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from subspace_match.experiments.benchmark import eps_for, normalised, widest
from subspace_match.networks.data import load_data
from subspace_match.networks.files import provenance, write_json
from subspace_match.networks.training import load_network

ROOT = Path(__file__).parent.parent
SCRIPT = """
import json, sys, time
import numpy as np, torch
from subspace_match import minimal_matches
arrays, eps, threads, options = np.load(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
if __name__ == "__main__":
    torch.set_num_threads(threads)
    x, y = arrays["x"], arrays["y"]
    minimal_matches(x[:8], y[:8], 0.9, **options)
    start = time.perf_counter()
    found = minimal_matches(x, y, eps, **options)
    seconds = time.perf_counter() - start
    matches = sorted((side, int(i), match.x.tolist(), match.y.tolist()) for (side, i), match in found.items())
    print(json.dumps({"seconds": seconds, "matches": matches}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--commit", required=True, help="the older one")
    parser.add_argument("--networks", nargs=2, required=True, help="folders of two trained networks")
    parser.add_argument("--images", required=True, help="the images that they were trained on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", default="results/speed/versions.csv")
    options = parser.parse_args()
    (first, info), (second, _) = map(load_network, options.networks)
    (x, y), _ = widest([first, second], normalised(load_data("imagefolder", options.images)), 10_000)
    eps, rows, expected = eps_for(x, y, 0.6), [], None
    cores = os.cpu_count() or 1
    plain = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT)]
        older, script, arrays = Path(folder)/"older", Path(folder)/"script.py", Path(folder)/"xy.npz"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(older), options.commit], check=True)
        script.write_text(SCRIPT)
        np.savez(arrays, x=x, y=y)
        settings = [("older", older, threads, {}) for threads in (1, cores)]
        settings += [("this", ROOT, threads, {"n_jobs": threads}) for threads in (1, cores)]
        try:
            for repeat in range(options.repeats):
                for version, path, threads, extra in settings:
                    command = [sys.executable, str(script), str(arrays), str(eps), str(threads), json.dumps(extra)]
                    said = subprocess.run(command, env=plain | {"PYTHONPATH": str(path)}, check=True, text=True,
                                          stdout=subprocess.PIPE).stdout
                    found = json.loads(said)
                    expected = expected or found["matches"]
                    if found["matches"] != expected: raise AssertionError(f"{version} finds other matches")
                    rows.append({"version": version, "cores": threads, "repeat": repeat, "n": len(x), "d": x.shape[1],
                                 "eps": eps, "seconds": found["seconds"], "load": os.getloadavg()[0]})
                    print(rows[-1], flush=True)
        finally: subprocess.run([*git, "worktree", "remove", "--force", str(older)], check=True)
    path = Path(options.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False, float_format="%.4g")
    about = {"older": options.commit, "architecture": info["architecture"], "accuracy": info["validation_accuracy"]}
    write_json(path.with_suffix(".json"), {**about, **provenance("cpu")})


if __name__ == "__main__": main()
