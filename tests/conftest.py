"""Settings for all tests: figures without a screen, no time limits, and in CI the same random instances every time."""
import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import shapes
import torch
from hypothesis import settings
from torch.utils.data import DataLoader, TensorDataset

shapes.install()
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(config, items):
    "Where tests run in several processes, those of a file that share a fixture go to one, so that it is made once."
    if not config.pluginmanager.hasplugin("xdist"): return
    for item in items:
        shared = any(found[-1].scope == "module" for found in item._fixtureinfo.name2fixturedefs.values())
        if shared: item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture
def images():
    return torch.randn(70, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loader(images):
    return DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=16)
