"""Imports point one way, and two matrices need no torchvision."""
import subprocess
import sys


def test_no_torchvision():
    modules = ", ".join(f"subspace_match{module}" for module in ("", ".simple", ".reference", ".counterexamples", ".comparison", ".cli"))
    subprocess.run([sys.executable, "-c", f"import {modules}, sys; assert 'torchvision' not in sys.modules"], check=True)


def test_public_names():
    import subspace_match
    assert all(hasattr(subspace_match, name) for name in subspace_match.__all__)
    assert {"Match", "is_match", "relative_distance", "Geometry", "maximum_match", "match_levels", "minimal_match",
            "minimal_matches", "all_minimal_matches", "simple_matches", "sample_simple_matches", "pair_matches", "compare",
            "Comparison"} <= set(subspace_match.__all__)
