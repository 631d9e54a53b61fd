"""Writes measures_oracle.json: what published implementations say of a few made-up pairs of layers.

    python tests/measures_oracle.py RESI GULP NETREP PLATONIC PARTIAL

The arguments are checkouts, from github.com, of mklabunde/resi, sgstepaniants/GULP, ahwillia/netrep,
minyoungg/platonic-rep and NeuroML-Lab/partial-metric. Their code is run where it lies; none of it is part of this
repository.
"""
import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import torch

SEEDS = range(4)


def pair(seed, n_x=10, n_y=7):
    "Two layers (neurons, inputs) that share four directions, with means."
    rng = np.random.default_rng(seed)
    hidden, normal = rng.normal(size=(4, 200)), lambda n, k: rng.normal(size=(n, k))
    return tuple(normal(n, 4)@hidden + normal(n, 200) + normal(n, 1) for n in (n_x, n_y))


def load(path, name):
    "A module from its file alone; packages that it merely imports beside what is used are replaced by empty ones."
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content, __path__=[])


def unit(z): return z/np.linalg.norm(z, axis=-1, keepdims=True)


def main(resi, gulp, netrep, platonic, partial):
    for name in ("repsim", "repsim.measures"): stand_in(name)
    stand_in("einops", rearrange=None), stand_in("loguru", logger=None)
    load(resi/"repsim/measures/utils.py", "repsim.measures.utils")
    cka, cca, procrustes, regression, match, rsa = (
        load(resi/f"repsim/measures/{name}.py", f"repsim.measures.{name}")
        for name in ("cka", "cca", "procrustes", "linear_regression", "correlation_match", "rsa"))
    distances = load(gulp/"distance_functions.py", "gulp")
    sys.path.insert(0, str(netrep))
    from netrep.metrics import LinearMetric
    stand_in("torchaudio"), stand_in("torchaudio.functional")
    alignment = load(platonic/"metrics.py", "platonic").AlignmentMetrics
    cosine = lambda x, y: torch.as_tensor(unit(np.asarray(x))@unit(np.asarray(y)).T)
    stand_in("torchmetrics")
    stand_in("torchmetrics.functional", pairwise_cosine_similarity=cosine, pairwise_euclidean_distance=None)
    sys.path.insert(0, str(partial))
    from src.metrics.alignment.partial_wasserstein import UnbalancedSoftMatch
    from src.metrics.alignment.soft_match import SoftMatch

    values = []
    for seed in SEEDS:
        x, y = (z.T for z in pair(seed))                                      # they want inputs first
        centred = [z - z.mean(0) for z in (x, y)]
        scaled = [z.T*len(z)**0.5/np.linalg.norm(z) for z in centred]
        both = lambda measure: (measure(x, y) + measure(y, x))/2
        square = [z - z.mean(1, keepdims=True) for z in pair(seed, 10, 10)]   # unequal: codes disagree
        half = UnbalancedSoftMatch(mass_reg=0.5)
        half.fit(x, y)
        t = [torch.tensor(z) for z in (x, y)]
        values.append({
            "cka": cka.centered_kernel_alignment(x, y, "nd"),
            "svcca_0.9": np.mean(cca.get_cca_similarity(*(strongest(z, 0.9) for z in centred), epsilon=1e-12,
                                                        verbose=False)["cca_coef1"]),
            "mean_cca": np.mean(distances.cca_decomp(*scaled)[1]),
            "pwcca_of_equal_sizes": 1 - np.mean([
                distances.pwcca_dist(a, rho, variates) for a, b in (square, square[::-1])
                for _, rho, _, variates, _ in [distances.cca_decomp(a, b)]]),
            "procrustes": 1 - procrustes.orthogonal_procrustes_centered_and_normalized(x, y, "nd")**2/2,
            "shape_angle": LinearMetric(alpha=1).fit_score(x, y),
            "regression": both(lambda a, b: regression.linear_reg(a, b, "nd")),
            "gulp": distances.predictor_dist(*scaled, lmbda=0.01)**0.5,
            "hard_matching": match.hard_correlation_match(x, y, "nd"),
            "soft_matching": SoftMatch().fit_score(x, y),
            "partial_soft_matching": (half.score(x, y, use_kfold=False) - 0.5)/0.5,
            "cka_debiased_of_kernels": alignment.unbiased_cka(*t),
            "rsa": rsa.representational_similarity_analysis(x, y, "nd", inner="euclidean"),
            "knn": alignment.mutual_knn(*(torch.tensor(unit(z)) for z in (x, y)), topk=10),      # in float32
        })
    commit = lambda folder: subprocess.check_output(["git", "-C", folder, "rev-parse", "HEAD"], text=True).strip()
    folders = {"mklabunde/resi": resi, "sgstepaniants/GULP": gulp, "ahwillia/netrep": netrep,
               "minyoungg/platonic-rep": platonic, "NeuroML-Lab/partial-metric": partial}
    versions = {name: commit(folder) for name, folder in folders.items()}
    values = [{name: float(value) for name, value in row.items()} for row in values]
    return {"commits": versions, "seeds": list(SEEDS), "values": values}


def strongest(z, share):
    "The strongest directions of the columns of `z` that hold this share of its variance, as rows."
    _, s, v = np.linalg.svd(z.T, full_matrices=False)
    k = np.searchsorted(np.cumsum(s**2)/np.sum(s**2), share) + 1
    return s[:k, None]*v[:k]


if __name__ == "__main__":
    found = main(*map(Path, sys.argv[1:6]))
    (Path(__file__).parent/"measures_oracle.json").write_text(json.dumps(found, indent=1) + "\n")
