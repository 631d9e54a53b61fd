"""Settings for all tests: figures without a screen, no time limits, and in CI the same random instances every time."""
import os

os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
from hypothesis import settings
from torch.utils.data import DataLoader, TensorDataset

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="module")
def images():
    return torch.randn(70, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def loader(images):
    return DataLoader(TensorDataset(images, torch.arange(len(images))), batch_size=16)
