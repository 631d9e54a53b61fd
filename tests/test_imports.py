"""Imports point one way, and two matrices need no torchvision."""
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["", ".simple", ".reference", ".counterexamples", ".comparison"])
def test_no_torchvision(module):
    code = f"import subspace_match{module}, sys; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    import subspace_match
    assert all(hasattr(subspace_match, name) for name in subspace_match.__all__)
    assert {"Match", "is_match", "relative_distance", "Geometry", "maximum_match", "match_levels", "minimal_match",
            "minimal_matches", "all_minimal_matches", "simple_matches", "sample_simple_matches", "compare",
            "Comparison"} <= set(subspace_match.__all__)
